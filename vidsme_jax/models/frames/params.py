"""How a mesh splits such models, and which layers of a tower are run."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from vidsme_jax.checkpoints import content, ties
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models.frames.modeling import FrameConfig

# The tower is copied: its frames are spread over all devices instead.
SPLIT = (
    (r"language_model/.*/(q|k|v|gate|up)_proj/(kernel|bias)", (-1,)),
    (r"language_model/.*/(o|down)_proj/kernel", (-2,)),
    (r"language_model/(lm_head|embed_tokens)/weight", (-2, -1)),
)


Config = TypeVar("Config", bound=FrameConfig)


def settle_tie(
    checkpoint: Checkpoint,
    config: Config,
    decoder: str,
    head: str,
    canonical: Callable[[str], str],
    problems: list[str],
) -> tuple[Checkpoint, Config]:
    """Returns both as the stored tensors have it: see `ties.settle`.

    Args:
      checkpoint: Whose tensors are looked at.
      config: As the `config.json` has it.
      decoder: Pattern of the canonical names of the decoder.
      head: The same of the output layer.
      canonical: See `Names`.
      problems: Receives what is wrong.
    """
    checkpoint, tied = ties.settle(
        checkpoint,
        canonical,
        f"{decoder}embed_tokens.weight".replace("\\", ""),
        f"{head}.weight".replace("\\", ""),
        tied=config.text.tie_word_embeddings,
        problems=problems,
    )
    text = dataclasses.replace(config.text, tie_word_embeddings=tied)
    return checkpoint, dataclasses.replace(config, text=text)


def depth(layer: int, layers: int, key: str, problems: list[str]) -> int:
    """Returns how many layers give the features that a config selects.

    Args:
      layer: An index into (input, after layer 1, ...), often -2.
      layers: Of the tower.
      key: Where it stands, for the message.
      problems: Receives what is wrong.
    """
    found = layer if layer >= 0 else layers + 1 + layer
    if not 1 <= found <= layers:
        problems.append(
            f"config.json: {key} is {content.shown(layer)}, the tower has {layers} "
            "layers"
        )
    return min(max(found, 1), layers)
