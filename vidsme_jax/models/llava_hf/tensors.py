"""Names of the tensors of LLaVA models, by the patterns of a format."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.checkpoints.loading import Names, Rule, dense
from vidsme_jax.models import decoder_params
from vidsme_jax.models.frames import params
from vidsme_jax.models.llava_hf.modeling import LlavaConfig
from vidsme_jax.models.towers import vit
from vidsme_jax.models.towers.vit import VitConfig


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
    # A file may have one layer more than the config: SigLIP's last is not run.
    out = vit.ignored(names.tower, config.vision_depth, vision.num_hidden_layers + 1)
    out |= decoder_params.ignored(names.decoder, names.head, config.text)
    if config.newline == "none":
        out[names.newline] = "separates rows of still images; videos have none"
    return out


def settle_tie(
    checkpoint: Checkpoint,
    config: LlavaConfig,
    patterns: Patterns,
    canonical: Callable[[str], str],
    problems: list[str],
) -> tuple[Checkpoint, LlavaConfig]:
    """Returns both with the stored tie; see `frames.params.settle_tie`."""
    names = patterns.decoder, patterns.head
    return params.settle_tie(checkpoint, config, *names, canonical, problems)


def unused_tower(prefix: str, v: VitConfig, depth: int) -> dict[str, np.ndarray]:
    """Returns a tower's last norm and its layers after the first `depth`, for writing.

    Args:
      prefix: Of the tower's names.
      v: Of the tower.
      depth: Layers that are run.
    """
    size, wide = v.hidden_size, v.intermediate_size
    out = unused_norm(f"{prefix}post_layernorm", size)
    shapes = {f"self_attn.{n}_proj": (size, size) for n in ("q", "k", "v", "out")}
    shapes |= {"mlp.fc1": (wide, size), "mlp.fc2": (size, wide)}
    for layer in range(depth, v.num_hidden_layers):
        block = f"{prefix}encoder.layers.{layer}."
        for norm in ("layer_norm1", "layer_norm2"):
            out |= unused_norm(block + norm, size)
        for part, shape in shapes.items():
            out[f"{block}{part}.weight"] = np.zeros(shape, np.float32)
            out[f"{block}{part}.bias"] = np.zeros(shape[0], np.float32)
    return out


def unused_norm(name: str, size: int) -> dict[str, np.ndarray]:
    """Returns a norm that changes nothing but mean and deviation, for writing."""
    parts = {"weight": np.ones(size, np.float32), "bias": np.zeros(size, np.float32)}
    return {f"{name}.{part}": value for part, value in parts.items()}
