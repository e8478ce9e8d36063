"""InternVL3 and 3.5: InternViT, a pixel shuffle, and a Qwen2, a Qwen3 or a Llama."""

from vidsme_jax.models.interface import Family
from vidsme_jax.models.internvl import params, processing, sizes

FAMILY = Family(
    name=params.NAME,
    reads=lambda raw: raw.get("model_type") == params.NAME,
    open=processing.open_checkpoint,
    sizes=sizes.SIZES,
    chat=True,
    special=(processing.START, processing.END, processing.CONTEXT),
)
