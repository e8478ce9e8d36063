"""VideoLLaMA3: a SigLIP of any resolution, and times of frames as text."""

from vidsme_jax.models.interface import Family
from vidsme_jax.models.video_llama_3 import params, processing, sizes

FAMILY = Family(
    name=params.NAME,
    reads=lambda raw: raw.get("model_type") == params.NAME,
    open=processing.open_checkpoint,
    sizes=sizes.SIZES,
    chat=True,
)
