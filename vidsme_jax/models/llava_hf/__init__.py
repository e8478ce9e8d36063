"""LLaVA-NeXT-Video and LLaVA-OneVision, in the format of Hugging Face's classes.

| family | tower | pooling | decoder |
|---|---|---|---|
| LLaVA-NeXT-Video | CLIP | before the projector | Llama |
| LLaVA-OneVision | SigLIP | bilinear, behind it | Qwen2 |
"""

import functools
from collections.abc import Mapping
from typing import Any

from vidsme_jax.models.interface import Family
from vidsme_jax.models.llava_hf import params, processing, sizes


def _family(kind: params.Kind, sizes: Mapping[str, Any], *, chat: bool) -> Family:
    return Family(
        name=kind.name,
        reads=lambda raw: raw.get("model_type") == kind.name,
        open=functools.partial(processing.open_checkpoint, kind),
        sizes=sizes,
        chat=chat,
    )


NEXT_VIDEO = _family(params.NEXT_VIDEO, sizes.NEXT_VIDEO, chat=False)
ONEVISION = _family(params.ONEVISION, sizes.ONEVISION, chat=True)
