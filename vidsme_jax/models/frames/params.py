"""How a mesh splits such models, and which layers of a tower are run."""

import dataclasses
from collections.abc import Callable

from vidsme_jax.checkpoints import content, ties
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models.decoder_params import DecoderConfig

# The tower is copied: its frames are spread over all devices instead.
SPLIT = (
    (r"language_model/.*/(q|k|v|gate|up)_proj/(kernel|bias)", (-1,)),
    (r"language_model/.*/(o|down)_proj/kernel", (-2,)),
    (r"language_model/(lm_head|embed_tokens)/weight", (-2, -1)),
)


def settle_tie(
    checkpoint: Checkpoint,
    text: DecoderConfig,
    decoder: str,
    head: str,
    canonical: Callable[[str], str],
    problems: list[str],
) -> tuple[Checkpoint, DecoderConfig]:
    """Returns both as the stored tensors have it: see `ties.settle`.

    Args:
      checkpoint: Whose tensors are looked at.
      text: As the `config.json` has it.
      decoder: Pattern of the canonical names of the decoder.
      head: Of the output layer, likewise.
      canonical: See `Names`.
      problems: Receives what is wrong.
    """
    checkpoint, tied = ties.settle(
        checkpoint,
        canonical,
        f"{decoder}embed_tokens.weight".replace("\\", ""),
        f"{head}.weight".replace("\\", ""),
        tied=text.tie_word_embeddings,
        problems=problems,
    )
    return checkpoint, dataclasses.replace(text, tie_word_embeddings=tied)


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
