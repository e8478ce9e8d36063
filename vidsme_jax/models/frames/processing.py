"""From the hyperparameters of a model to its description: layout and cost."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from vidsme_jax.models import attention, prompts
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.frames.flops import necessary_flops
from vidsme_jax.models.frames.params import SPLIT
from vidsme_jax.models.interface import Flops, Model, Options
from vidsme_jax.models.rows import Builder, Order, Rows, Shown, Text
from vidsme_jax.models.tokenising import Framing, Tokeniser


def describe(
    make: Callable[[nnx.Rngs], nnx.Module],
    decoder: DecoderConfig,
    options: Options,
    style: prompts.Style,
    problems: list[str],
    *,
    rows_per_frame: int,
    vision_flops: int,
    tail_rows: int = 0,
    **others: Any,
) -> Model:
    """Returns the description of a model whose frames have one size.

    Args:
      make: Makes the module, a `modeling.FrameModel`.
      decoder: Its hyperparameters.
      options: Its type, which prompt, and the tokenizer.
      style: See `prompts.around_video`.
      problems: Receives what is wrong with the prompt.
      rows_per_frame: Visual rows that one frame gives.
      vision_flops: Operations of tower and projector for one frame.
      tail_rows: Visual rows after the last frame.
      **others: See `described`.
    """
    return described(
        *(make, decoder, options, style, problems),
        rows=lambda shown: shown.num_frames * rows_per_frame + tail_rows,
        vision=lambda shown: shown.num_frames * vision_flops,
        lay_out=functools.partial(lay_out, lambda _: rows_per_frame, tail_rows),
        views=one_view,
        **others,
    )


def described(
    make: Callable[[nnx.Rngs], nnx.Module],
    decoder: DecoderConfig,
    options: Options,
    style: prompts.Style,
    problems: list[str],
    *,
    rows: Callable[[Shown], int],
    vision: Callable[[Shown], int],
    tower: tuple[DTypeLike, int],
    default: str = "",
    video_token: int | None = None,
    framing: Framing = prompts.UNFRAMED,
    **others: Any,
) -> Model:
    """Returns the description of a model of tower, projector and decoder.

    Args:
      make: Makes the module.
      decoder: Its hyperparameters.
      options: Its type, which prompt, and the tokenizer.
      style: See `prompts.around_video`.
      problems: Receives what is wrong with the prompt.
      rows: Returns the visual rows of a clip.
      vision: Returns the operations of tower and projector for both directions of one.
      tower: The type of the tower's activations, and the size of a head of its
        attention.
      default: See `prompts.around_video`, and the next two.
      video_token: The id of the placeholder.
      framing: What the family writes for a video.
      **others: What does not follow from these; see `Model`.
    """
    prompt, tokenise = prompts.around_video(
        options,
        style,
        problems,
        default=default,
        video_token=video_token,
        framing=framing,
    )
    vocabulary = options.tokenizer.get_vocab() if options.tokenizer else {}
    largest = max(vocabulary.values(), default=0)
    if largest >= decoder.vocab_size:
        problems.append(
            f"tokenizer: it has a token of number {largest}, and the model "
            f"{decoder.vocab_size} embeddings: is it another model's tokenizer?"
        )
    if isinstance(tokenise, Tokeniser):
        others["decode"] = tokenise.decode

    def flops(
        clip: Shown | int,
        *,
        text: int | None = None,
        texts: Sequence[tuple[int, int]] = (),
    ) -> Flops:
        shown = Shown(clip) if isinstance(clip, int) else clip
        around = tokenise(None, shown)
        if text is None:
            text = len(around.before) + len(around.after)
        return necessary_flops(
            decoder,
            vision=vision(shown),
            video=rows(shown),
            text=text + sum(map(len, around.frames)),
            texts=texts,
        )

    return Model(
        dtype=options.dtype,
        prompt=prompt,
        max_rows=decoder.max_positions,
        vocab_size=decoder.vocab_size,
        make=make,
        split=SPLIT,
        tokenise=tokenise,
        flops=flops,
        kernels=functools.partial(_kernels, tower, (decoder.dtype, decoder.head_dim)),
        **others,
    )


def lay_out(
    rows_per_frame: Callable[[Shown], int],
    tail_rows: int,
    shown: Shown,
    prompt: Text,
    order: Order,
    texts: Sequence[Text] = (),
    slices: Sequence[str] = ("video",),
) -> Rows:
    """Returns the rows of a sample: text, frames in an order, the tail, texts.

    What stands between frames keeps its place, whichever frame stands there.

    Args:
      rows_per_frame: Returns the visual rows of each frame.
      tail_rows: Visual rows after the last.
      shown: Of the clip.
      prompt: Around the video.
      order: Of the frames.
      texts: Asked about the clip.
      slices: Whose rows are kept.
    """
    builder, size = Builder(), rows_per_frame(shown)
    kept = np.frombuffer(shown.kept or b"\1" * shown.num_frames * size, bool)
    kept, per_frame = kept.reshape(shown.num_frames, size), np.arange(size)
    builder.text(prompt.before)
    assert len(prompt.frames) in (0, shown.num_frames), "the prompt of another clip"
    for place, frame in enumerate(order.tolist()):
        own = per_frame[kept[frame]]
        builder.video(tail_rows + frame * size + own, frame)
        if prompt.frames:
            builder.text(prompt.frames[place])
    builder.video(np.arange(tail_rows), frame=-1)
    builder.after(prompt.after)
    for text in texts:
        builder.ask(text)
    return builder.build(slices)


def one_view(order: Order) -> tuple[Order, ...]:
    """Returns the natural order: `Model.views` where frames are independent."""
    return (np.arange(len(order), dtype=np.int32),)


def _kernels(*heads: tuple[DTypeLike, int]) -> dict[str, str]:
    """Returns the attention kernels of tower and decoder."""
    return {
        part: attention.kernel(np.dtype(dtype), head_dim)
        for part, (dtype, head_dim) in zip(("tower", "decoder"), heads, strict=True)
    }
