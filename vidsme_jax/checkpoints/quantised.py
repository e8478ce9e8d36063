"""Refuses quantised weights: they are packed integers or 8-bit floats with scales.

Read as plain tensors they would be other numbers than the model's.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.content import read_json
from vidsme_jax.checkpoints.tensors import TensorInfo

# Keys of a config that name a method; the last is MLX's.
KEYS = ("quantization_config", "compression_config", "quantization")
# Files of quantised checkpoints, and the tools that write them.
_FILES = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
}
_SUB_CONFIGS = ("", "text_config", "llm_config", "vision_config")
# How transformers dequantises a method's weights; it cannot for others.
_FROM_CONFIG = "load it with quantization_config={}(dequantize=True) in transformers"
_AFTER = "load it in transformers, call dequantize() on it"
_BACK = {
    "bitsandbytes": _AFTER,
    "fp8": _FROM_CONFIG.format("FineGrainedFP8Config"),
    "mxfp4": _FROM_CONFIG.format("Mxfp4Config"),
    "compressed-tensors": _FROM_CONFIG.format("CompressedTensorsConfig"),
}
# Names of tensors in quantised checkpoints only, and the methods.
_NAMES = {
    r".*\.(weight_scale_inv|activation_scale)": "fp8",
    r".*\.(qweight|qzeros|g_idx)": "gptq or awq",
    r".*\.weight\.(absmax|quant_map|nested_\w+|quant_state\..*)": "bitsandbytes",
    r".*\.(SCB|weight_format)": "bitsandbytes",
    r".*\.(weight_packed|weight_shape|weight_zero_point|weight_global_scale)": (
        "compressed-tensors"
    ),
    r".*weight_(qdata|scale_and_zero|int_data).*": "torchao",
    r".*\.weight\._(data|scale)": "quanto",
    r".*\.(weight_scale|weight_scale_2|input_scale)": "fp8",
    r".*\.weight_scales": "eetq",
    r".*\.W_q": "hqq",
    r".*\.(codes|codebooks)": "aqlm",
}
_ANY_NAME = re.compile("|".join(_NAMES))
_TYPES = re.compile(r"F4|F[68]_.*|[UI](4|8|16|32)")
_EXAMPLES = 3


def refuse(name: str, folder: pathlib.Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuses the weights of a folder if they are quantised.

    Args:
      name: Of the checkpoint.
      folder: Of the weights; its config may name the method.
      tensors: By name.

    Raises:
      AuditError: Some are quantised; names three of them, and the method if known.
    """
    found = {k: _method(k, info) for k, info in tensors.items()}
    found = {key: method for key, method in found.items() if method is not None}
    if not found:
        return
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    stated = _stated(config)
    others = [method for file, method in _FILES.items() if (folder / file).is_file()]
    methods = [stated[1]] if stated else [*others, *filter(None, found.values())]
    method = next(iter(methods), "")
    examples = list(found)[:_EXAMPLES]
    shown = ", ".join(f"{content.name(k)} {tensors[k].dtype}" for k in examples)
    rest = f" and {len(found) - _EXAMPLES} more" if len(found) > _EXAMPLES else ""
    named = f" ({method})" if method else ""
    problem = (
        f"its weights are quantised{named}: {shown}{rest}; {_remedy(method, config)}"
    )
    raise AuditError([f"checkpoint {name}: {problem}"])


def config_problem(config: Mapping[str, Any]) -> str:
    """Returns the problem of a config that names a quantisation, or "".

    Args:
      config: The `config.json`, with its sub-configs.
    """
    found = _stated(config)
    if not found:
        return ""
    where, method = found
    return (
        f"config.json: {where}: the model is quantised ({method}); "
        f"{_remedy(method, config)}; "
        f"if its weights are not quantised, remove {where}"
    )


def _remedy(method: str, config: Mapping[str, Any]) -> str:
    back = _BACK.get(method.split(",")[0])
    way = f", or {back} and save it with save_pretrained" if back else ""
    origin = config.get("_name_or_path")
    named = (
        f" ({content.shown(origin)}, by its config)"
        if origin and "/" in str(origin)
        else ""
    )
    return (
        "quantised weights are not read: give the unquantised checkpoint that it was "
        f"made from{named}{way}"
    )


def _stated(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the key of a config that names a quantisation, and the method."""
    for part in _SUB_CONFIGS:
        inner = config.get(part) if part else config
        if not isinstance(inner, Mapping):
            continue
        for key in KEYS:
            if inner.get(key):
                return f"{part}.{key}".lstrip("."), _described(inner[key])
    return None


def _described(found: Any) -> str:
    """Returns the method and the bits that a `quantization_config` names."""
    if not isinstance(found, Mapping):
        return content.shown(found)
    method = content.name(str(found.get("quant_method") or ""))
    if not method and ("load_in_4bit" in found or "load_in_8bit" in found):
        method = "bitsandbytes"
    bits = found.get("bits") or found.get("w_bit") or found.get("weight_bits")
    for size in (4, 8):
        bits = size if found.get(f"load_in_{size}bit") else bits
    block = found.get("weight_block_size")
    parts = [method or "method not named"]
    parts.append(f"{content.shown(bits)} bits" if bits else "")
    parts.append(f"blocks of {content.shown(block)}" if block else "")
    return ", ".join(part for part in parts if part)


def _method(name: str, info: TensorInfo) -> str | None:
    """Returns a quantised tensor's method, "" if unknown; None for other tensors."""
    if _ANY_NAME.fullmatch(name):
        return next(m for pattern, m in _NAMES.items() if re.fullmatch(pattern, name))
    weights = name.endswith((".weight", ".weight_packed")) and len(info.shape) > 1
    return "" if weights and _TYPES.fullmatch(info.dtype) else None
