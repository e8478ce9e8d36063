"""LLaVA models for videos, in the format of Hugging Face's classes.

The way of a checkpoint through this folder, which every family's folder has alike:
`__init__` says by `config.json` which family reads it; `processing` reads config,
preprocessing and prompt, and describes the model; `params` has the keys of the config
and the names of the tensors, `tensors` the rules that fill parameters with them;
`modeling` is the module, which turns frames into rows; `sizes` has tiny and published
configurations.

| family | tower | pooling | decoder |
|---|---|---|---|
| LLaVA-NeXT-Video | CLIP | before the projector | Llama, Mistral |
| LLaVA-OneVision | SigLIP | bilinear, after it | Qwen2 |
| Video-LLaVA | CLIP, one for videos of two | none | Llama |
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
VIDEO_LLAVA = _family(params.VIDEO_LLAVA, sizes.VIDEO_LLAVA, chat=False)
