"""PerceptionLM, in the format of Hugging Face's class.

| size | tower | class token | decoder |
|---|---|---|---|
| 1B, 3B | PE-L, 23 layers | yes | Llama 3.2 |
| 8B | PE-G, 47 layers | no | Llama 3.1 |
"""

from vidsme_jax.models.interface import Family
from vidsme_jax.models.perception_lm import processing, sizes

FAMILY = Family(
    name="perception_lm",
    reads=lambda raw: raw.get("model_type") == "perception_lm",
    open=processing.open_checkpoint,
    sizes=sizes.SIZES,
    chat=False,
    special=sizes.SPECIAL,
)
