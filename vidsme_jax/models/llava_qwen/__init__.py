"""LongVA, the models of the Vid-SME paper and LLaVA-Video, in their original format."""

from collections.abc import Mapping
from typing import Any

from vidsme_jax.models.interface import Family
from vidsme_jax.models.llava_qwen import processing, sizes


def _reads(raw: Mapping[str, Any]) -> bool:
    """Returns whether it is one; a finetuned one may have its decoder's type."""
    named, classes = raw.get("model_type"), raw.get("architectures")
    listed = isinstance(classes, list) and sizes.ARCHITECTURE in classes
    return named == "llava_qwen" or listed


FAMILY = Family(
    name="llava_qwen",
    reads=_reads,
    open=processing.open_checkpoint,
    sizes=sizes.SIZES,
    chat=True,
)
