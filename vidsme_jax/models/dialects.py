"""The names that Hugging Face's LLaVA classes give to tensors, in three dialects.

A, published files: `language_model.model.layers...`, `vision_tower.vision_model...`.
B, in the memory of transformers 5: `model.language_model.layers...`, no `vision_model`.
C, written by transformers 5: as A, but without `vision_model`.
Dialect A is the canonical one.
"""

import re

from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.models import llava
from vidsme_jax.models.llava import LlavaConfig

_RENAMES = (
    (r"model\.language_model\.", "language_model.model."),
    (r"model\.(vision_tower|multi_modal_projector|image_newline)", r"\1"),
    (r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
    (r"lm_head\.", "language_model.lm_head."),
)
_NAMES = llava.Names(
    tower=r"vision_tower\.vision_model\.",
    projector=(
        r"multi_modal_projector\.linear_1",
        r"multi_modal_projector\.linear_2",
    ),
    decoder=r"language_model\.model\.",
    head=r"language_model\.lm_head",
    newline="image_newline",
)
# Keys of `config.json` that concern still images or training.
IGNORED = {
    "image_grid_pinpoints": "of still images",
    "image_seq_length": "of still images",
    "image_token_id": "of still images",
    "image_token_index": "of still images",
    "ignore_index": "of the training loss",
    "use_image_newline_parameter": "the family says how newlines are used",
    "video_seq_length": "follows from the frames",
    "vision_aspect_ratio": "of still images",
}


def canonical(name: str) -> str:
    """Renames a tensor of any dialect to dialect A."""
    for pattern, replacement in _RENAMES:
        name = re.sub("^" + pattern, replacement, name)
    return name


def names(config: LlavaConfig) -> Names:
    """Returns the names of a model's tensors; dialect A is written."""
    return Names(canonical, llava.rules(config, _NAMES), llava.ignored(config, _NAMES))
