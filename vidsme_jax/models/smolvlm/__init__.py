"""SmolVLM2: SigLIP, a pixel shuffle, a Llama, and times of frames as text."""

from vidsme_jax.models.interface import Family
from vidsme_jax.models.smolvlm import params, processing, sizes

FAMILY = Family(
    name=params.NAME,
    reads=lambda raw: raw.get("model_type") == params.NAME,
    open=processing.open_checkpoint,
    sizes=sizes.SIZES,
    chat=True,
    special=(processing.FAKE, processing.GLOBAL, processing.END),
)
