"""What a checkpoint of the made-up family describes."""

import functools
from collections.abc import Sequence

import numpy as np

from made_up_family import params
from made_up_family.modeling import Pairs, PairsConfig
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, prompts
from vidsme_jax.models.interface import Flops, Model, Options
from vidsme_jax.models.rows import Builder, Order, Rows, Shown, Text

TIME = 20  # A token in front of each pair: 20 + its place.
GRID = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]], np.int32)


def open_checkpoint(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint."""
    config = params.read_config(checkpoint.config, options.dtype, problems)
    prompt, tokenise = prompts.around_video(options, prompts.CHATML, problems)
    model = Model(
        family="pairs",
        dtype=options.dtype,
        max_rows=config.max_positions,
        vocab_size=config.vocab_size,
        remarks=(),
        prompt=prompt,
        make=functools.partial(_make, config),
        names=params.names(),
        split=(),
        prepare=preprocessing.siglip(config.image_size),
        views=lambda order: (np.arange(len(order)), order),
        lay_out=lay_out,
        tokenise=tokenise,
        flops=_flops,
        kernels=lambda: {"tower": "chunked", "decoder": "chunked"},
    )
    return model, checkpoint


def _flops(clip: Shown | int, text: int = 0, texts=()) -> Flops:
    frames = clip if isinstance(clip, int) else clip.num_frames
    return Flops(1.0 * frames, 1.0 * text, 1.0, sum(map(sum, texts), 0.0))


def lay_out(
    shown: Shown,
    prompt: Text,
    order: Order,
    texts: Sequence[Text] = (),
    slices: Sequence[str] = ("video",),
) -> Rows:
    """Returns the rows: the features are in `order` already, since the view is."""
    builder = Builder(axes=3)
    builder.text(prompt.before)
    for pair in range(-(-shown.num_frames // 2)):
        builder.text((TIME + pair,))
        builder.video(4 * pair + np.arange(4), int(order[2 * pair]), GRID)
    builder.after(prompt.after)
    for text in texts:
        builder.ask(text)
    return builder.build(slices)


def _make(config: PairsConfig, rngs) -> Pairs:
    return Pairs(config, rngs=rngs)
