"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pairs of frames of any size, three axes."""

import functools

from vidsme_jax.models.interface import Family
from vidsme_jax.models.qwen_vl import params, processing, sizes


def _family(kind: str) -> Family:
    return Family(
        name=kind,
        reads=lambda raw: raw.get("model_type") == kind,
        open=functools.partial(processing.open_checkpoint, kind),
        sizes=sizes.SIZES[kind],
        chat=True,
        special=(processing.START, processing.END),
    )


QWEN2, QWEN2_5, QWEN3 = map(_family, (params.QWEN2, params.QWEN2_5, params.QWEN3))
