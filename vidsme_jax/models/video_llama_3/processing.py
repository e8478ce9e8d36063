"""Checkpoints of VideoLLaMA3: config, preprocessing, and the times of frames as text.

The processor writes the time of each frame in front of its rows, with commas between
frames. As published it leaves out rows whose pixels hardly differ from those of the
frame before (`use_token_compression`): then only the natural order is scored.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import prompts, smart_resize
from vidsme_jax.models.frames import params as frames
from vidsme_jax.models.frames import processing
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.rows import Shown
from vidsme_jax.models.tokenising import Framing, markers
from vidsme_jax.models.video_llama_3 import params
from vidsme_jax.models.video_llama_3.modeling import VideoLlama3

VIDEO = "<|video_pad|>"
_TYPICAL = 7  # Tokens of text a frame: "Time", its time, digit by digit, "s:", ",".
_THRESHOLD = 0.1  # Of 255: the mean difference of normalised pixels that is kept.
_PRUNED = (
    "its processor leaves out rows that hardly differ from those of the frame before "
    "(use_token_compression): the natural order of the frames alone is scored"
)


def open_checkpoint(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of the family."""
    dtype = jnp.dtype(options.dtype)
    config, token = params.read_config(checkpoint.config, dtype, problems)
    v = config.vision
    resize, remarks = smart_resize.read(
        checkpoint,
        "video_llama_3",
        patch_size=v.patch_size,
        merge_size=v.merge,
        temporal_patch_size=v.group,
        problems=problems,
    )
    config = dataclasses.replace(config, image_mean=resize.mean, image_std=resize.std)
    checkpoint, config = frames.settle_tie(
        checkpoint,
        config,
        params.DECODER,
        params.HEAD,
        params.canonical,
        problems,
    )
    prune = functools.partial(kept, std=resize.std) if resize.compression else None
    if prune is not None:
        remarks = (*remarks, _PRUNED)
    tiling = smart_resize.tiling(resize, v.patch_size)
    video = markers(options.tokenizer, {"video_token": VIDEO})[0]

    def size(shown: Shown) -> int:
        return math.prod(tiling.known(shown.grid))

    model = processing.described(
        lambda rngs: VideoLlama3(config, rngs=rngs),
        *(config.text, options, prompts.CHATML, problems),
        rows=lambda shown: (
            sum(shown.kept) if shown.kept else shown.num_frames * size(shown)
        ),
        vision=lambda shown: shown.num_frames * config.vision_flops(size(shown)),
        tower=(v.dtype, v.head_dim),
        video_token=token,
        framing=Framing(token=video, opens=_opens, typical=_TYPICAL),
        lay_out=functools.partial(processing.lay_out, size, 0),
        views=processing.one_view,
        timed=True,
        ends=prompts.ends(checkpoint, options, prompts.CHATML, problems),
        family=params.NAME,
        remarks=(*checkpoint.remarks, *remarks),
        towers=("vision_model", "post_layernorm"),
        names=params.names(config),
        prepare=lambda pixels: tiling.cut(resize(pixels)),
        tiling=tiling,
        prune=prune,
    )
    return model, checkpoint


def kept(
    frames: UInt8[np.ndarray, "frames down across numbers"], *, std: tuple[float, ...]
) -> bytes:
    """Returns which rows the processor keeps, a byte each.

    A row is left out if its normalised pixels differ by at most 0.1 / 255 on average
    from those of the frame before; of each frame at least the first is kept.

    Args:
      frames: From `Tiling.cut`.
      std: Deviation of the three channels.

    Example:
      >>> frames = np.zeros((2, 1, 2, 12), np.uint8)
      >>> frames[1, 0, 1] = 9
      >>> list(kept(frames, std=(0.5, 0.5, 0.5)))
      [1, 1, 0, 1]
    """
    count, down, across, numbers = frames.shape
    out = np.ones((count, down * across), bool)
    for frame in range(1, count):
        pair = frames[frame - 1 : frame + 1].astype(np.int16)
        away = np.abs(pair[1] - pair[0]).reshape(down * across, -1, 3).sum(axis=1)
        out[frame] = (away / np.asarray(std)).sum(axis=1) / numbers > _THRESHOLD
        out[frame, 0] |= not out[frame].any()
    return out.tobytes()


def _opens(shown: Shown) -> list[str]:
    """Returns the text in front of each frame.

    Example:
      >>> _opens(Shown(2, (0.0, 0.5)))
      ['Time 0.0s:', ',Time 0.5s:']
    """
    times = [f"Time {second:.1f}s:" for second in shown.seconds]
    return [times[0], *(f",{time}" for time in times[1:])]
