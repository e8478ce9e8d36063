"""LongVA, the models of the Vid-SME paper and LLaVA-Video, in their original format."""

from collections.abc import Mapping
from typing import Any

from vidsme_jax.models.interface import Family
from vidsme_jax.models.llava_qwen import processing, sizes


def _reads(raw: Mapping[str, Any]) -> bool:
    """The `model_type` of a finetuned model may be its decoder's."""
    named = raw.get("model_type") == "llava_qwen"
    return named or sizes.ARCHITECTURE in (raw.get("architectures") or ())


FAMILY = Family(
    name="llava_qwen",
    reads=_reads,
    open=processing.open_checkpoint,
    sizes=sizes.SIZES,
    chat=True,
)
