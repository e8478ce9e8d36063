"""LLaVA-NeXT-Video and LLaVA-OneVision, in the format of Hugging Face's classes.

| family | tower | pooling | decoder |
|---|---|---|---|
| LLaVA-NeXT-Video | CLIP | before the projector | Llama |
| LLaVA-OneVision | SigLIP | bilinear, behind it | Qwen2 |
"""

from vidsme_jax.models.interface import Family
from vidsme_jax.models.llava_hf import processing, sizes

NEXT_VIDEO = Family(
    name="llava_next_video",
    reads=lambda raw: raw.get("model_type") == "llava_next_video",
    open=processing.open_next_video,
    sizes=sizes.NEXT_VIDEO,
    chat=False,
)
ONEVISION = Family(
    name="llava_onevision",
    reads=lambda raw: raw.get("model_type") == "llava_onevision",
    open=processing.open_onevision,
    sizes=sizes.ONEVISION,
    chat=True,
)
