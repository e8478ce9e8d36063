"""Checkpoints of Qwen-VL: config, preprocessing, positions, times of frames as text.

Positions are those of training: text after a video continues after its largest
position. transformers 5.24 continues after half of the larger side of a frame, which
agrees for Qwen3-VL alone, whose video is a pair of frames between two texts.

Qwen3-VL's processor writes the mean time of two frames in front of their rows. The
template of a conversation puts the markers of a video around the whole of it, too;
transformers took these away in training's time and leaves them since version 5. Here
they are taken away.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import pixel_budget, prompts, smart_resize
from vidsme_jax.models.frames import params as frames
from vidsme_jax.models.frames import processing
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.qwen_vl import params
from vidsme_jax.models.qwen_vl.modeling import QwenVl, QwenVlConfig
from vidsme_jax.models.rows import Builder, Order, Rows, Shown, Text
from vidsme_jax.models.tiles import Tiling
from vidsme_jax.models.tokenising import Framing, markers
from vidsme_jax.models.tokenizer_files import Tokenizer

START, END, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"
_MARKERS = {"video_token": VIDEO, "vision_start_token": START, "vision_end_token": END}
STYLE = dataclasses.replace(
    prompts.CHATML, user=f"<|im_start|>user\n{prompts.PLACEHOLDER}"
)
_SYSTEM = "You are a helpful assistant."
_TYPICAL = 10  # Tokens of text a pair of frames: its time, digit by digit, two markers.
# A position of time that no decoder has, and that an int32 holds with a frame's sides.
_LATEST = 1 << 30
_BUDGETS: dict[str, pixel_budget.Name] = {
    params.QWEN2: "qwen2",
    params.QWEN2_5: "qwen2",
    params.QWEN3: "qwen3",
}
_MARKED = (
    "the frames of a video stand between the markers of each pair alone, as in "
    "training; transformers since version 5 puts one more of each around the video"
)
_POSITIONS = (
    "text after the video has the positions of training, after the video's largest; "
    "transformers 5.24 continues after half of the larger side of a frame"
)


def open_checkpoint(
    kind: str, checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of one of the three families, named by `model_type`."""
    dtype = jnp.dtype(options.dtype)
    config, token = params.read_config(checkpoint.config, kind, dtype, problems)
    v = config.vision
    resize, remarks = smart_resize.read(
        checkpoint,
        _BUDGETS[kind],
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
    timed = kind == params.QWEN3
    remarks = (*remarks, _MARKED if timed else _POSITIONS)
    tiling = smart_resize.tiling(resize, v.patch_size, v.window)

    def pairs(shown: Shown) -> int:
        return tiling.groups(shown.num_frames)

    def size(shown: Shown) -> int:
        return math.prod(tiling.known(shown.grid))

    model = processing.described(
        lambda rngs: QwenVl(config, rngs=rngs),
        *(config.text, options, STYLE, problems),
        rows=lambda shown: pairs(shown) * size(shown),
        # Each direction has pairs of its own.
        vision=lambda shown: 2 * pairs(shown) * config.vision_flops(size(shown)),
        tower=(v.dtype, v.head_dim),
        default="" if timed else _SYSTEM,
        video_token=token,
        framing=framing(options.tokenizer, timed=timed),
        lay_out=functools.partial(lay_out, tiling, intervals(config)),
        views=lambda order: (np.arange(len(order), dtype=np.int32), order),
        timed=timed or bool(config.tokens_per_second),
        ends=prompts.ends(checkpoint, options, STYLE, problems),
        family=kind,
        remarks=(*checkpoint.remarks, *remarks),
        towers=("visual",),
        names=params.names(config, kind),
        prepare=lambda pixels: tiling.cut(resize(pixels)),
        tiling=tiling,
    )
    return model, checkpoint


def framing(tokenizer: Tokenizer | None, *, timed: bool) -> Framing:
    """Returns what the processor writes for a video, with the tokenizer's markers."""
    video, start, end = markers(tokenizer, _MARKERS)
    if not timed:
        return Framing(token=video, opens=lambda _: [start], close=end, typical=2)

    def opens(shown: Shown) -> list[str]:
        times = shown.seconds
        pairs = zip(times[::2], (*times[1::2], times[-1]), strict=False)
        return [f"<{(a + b) / 2:.1f} seconds>{start}" for a, b in pairs]

    return Framing(token=video, opens=opens, close=end, typical=_TYPICAL)


def intervals(config: QwenVlConfig) -> Callable[[Shown], float]:
    """Returns how far apart in positions of time the pairs of a clip are.

    Of Qwen2.5-VL that is a matter of seconds: those of two frames as the processor has
    them, the clip's duration over the number of its frames.
    """

    def interval(shown: Shown) -> float:
        if not config.tokens_per_second:
            return 1.0
        of_a_pair = 2 / (shown.num_frames / shown.length)
        return min(config.tokens_per_second * of_a_pair, float(_LATEST))

    return interval


def lay_out(
    tiling: Tiling,
    interval: Callable[[Shown], float],
    shown: Shown,
    prompt: Text,
    order: Order,
    texts: Sequence[Text] = (),
    slices: Sequence[str] = ("video",),
) -> Rows:
    """Returns the rows of a sample: text, pairs of frames, texts.

    The pairs are those of the view, which is in the order of the frames already.

    Args:
      tiling: Of the model.
      interval: Returns the positions of time between pairs that follow one another.
      shown: Of the clip.
      prompt: Around the video.
      order: Of the frames.
      texts: Asked about the clip.
      slices: Whose rows are kept.
    """
    pairs, grid = tiling.groups(shown.num_frames), tiling.known(shown.grid)
    size, first = grid[0] * grid[1], order[::2]
    places = np.indices(grid, np.int32).reshape(2, -1).T
    builder = Builder(axes=3)
    builder.text(prompt.before)
    if len(prompt.frames) <= 1:
        times = np.arange(pairs, dtype=np.float32) * np.float32(interval(shown))
        times = np.repeat(np.minimum(times, _LATEST).astype(np.int32), size)
        at = np.column_stack([times, np.tile(places, (pairs, 1))])
        builder.video(np.arange(pairs * size), np.repeat(first, size), at)
        builder.text(prompt.frames[0] if prompt.frames else ())
    else:
        at = np.pad(places, [(0, 0), (1, 0)])
        for pair, frame in enumerate(first.tolist()):
            builder.video(pair * size + np.arange(size), frame, at)
            builder.text(prompt.frames[pair])
    builder.after(prompt.after)
    for text in texts:
        builder.ask(text)
    return builder.build(slices)
