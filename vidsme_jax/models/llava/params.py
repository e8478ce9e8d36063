"""What the tensors of LLaVA models are called."""

from collections.abc import Callable
from typing import NamedTuple

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.checkpoints.loading import Names, Rule, dense
from vidsme_jax.models import decoder_params
from vidsme_jax.models.frames import params
from vidsme_jax.models.llava.modeling import LlavaConfig
from vidsme_jax.models.towers import vit


class Patterns(NamedTuple):
    """Patterns of the names that a family's checkpoints give to tensors.

    Attributes:
      tower: Prefix of the vision tower.
      projector: The two linear layers.
      decoder: Prefix of the decoder.
      head: The output layer.
      newline: The learnt newline.
    """

    tower: str
    projector: tuple[str, str]
    decoder: str
    head: str
    newline: str


def names(
    config: LlavaConfig,
    patterns: Patterns,
    canonical: Callable[[str], str],
    *,
    cut: bool = False,
) -> Names:
    """Returns the names of a model's tensors.

    Args:
      config: Of the model.
      patterns: Of the canonical names.
      canonical: See `Names`.
      cut: Whether a file may have more classes than the model.
    """
    rules = _rules(config, patterns, cut)
    return Names(canonical, rules, _ignored(config, patterns))


def _rules(config: LlavaConfig, names: Patterns, cut: bool) -> list[Rule]:
    out = vit.rules(names.tower, "vision_tower", config.vision.kind)
    for layer, pattern in zip(("linear_1", "linear_2"), names.projector, strict=True):
        out += dense(pattern, f"multi_modal_projector/{layer}")
    if config.newline != "none":
        out.append(Rule(names.newline, "image_newline"))
    text = names.decoder, names.head, "language_model"
    return out + decoder_params.rules(*text, config.text, cut=cut)


def _ignored(config: LlavaConfig, names: Patterns) -> dict[str, str]:
    vision = config.vision
    # A file may hold a layer more than the config counts: SigLIP's last is cut off.
    out = vit.ignored(names.tower, config.vision_depth, vision.num_hidden_layers + 1)
    out |= decoder_params.ignored(names.decoder, names.head, config.text)
    if config.newline == "none":
        out[names.newline] = "separates rows of still images; this video has none"
    return out


def settle_tie(
    checkpoint: Checkpoint,
    config: LlavaConfig,
    patterns: Patterns,
    canonical: Callable[[str], str],
    problems: list[str],
) -> tuple[Checkpoint, LlavaConfig]:
    """Returns both as the stored tensors have it; see `frames.params.settle_tie`."""
    names = patterns.decoder, patterns.head
    return params.settle_tie(checkpoint, config, *names, canonical, problems)
