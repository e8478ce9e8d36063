"""Adapters that change the embedding, the output layer or both of a tied model.

PEFT and LLaVA's loader load a tensor with the plain name of one of them into the weight
that both share. Copies of modules that were trained in full, and low-rank updates,
change the module that they name; the other keeps its values.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from vidsme_jax.checkpoints.adapter_config import AdapterConfig
from vidsme_jax.checkpoints.factors import Factors
from vidsme_jax.checkpoints.tensors import TensorInfo

EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, TensorInfo]


def grown(tensors: Tensors, parts: Factors) -> int | None:
    """Returns the adapter's number of tokens; None if it is that of the base.

    Args:
      tensors: Of the base.
      parts: Of the adapter.
    """
    copy, base = (_ending(found, EMBEDDING) for found in (parts.copies, tensors))
    if copy is None or base is None:
        return None
    rows, before = (t.shape[0] for t in (parts.copies[copy], tensors[base]))
    return rows if rows != before else None


def share(
    raw: dict[str, Any],
    tensors: Tensors,
    full: Tensors,
    parts: Factors,
    config: AdapterConfig,
) -> tuple[Tensors, Tensors, Factors]:
    """Replaces a shared weight of the base by plain copies of it.

    Args:
      raw: The `config.json`.
      tensors: Of the base.
      full: Of `non_lora_trainables.bin`.
      parts: Of the adapter.
      config: Of the adapter.

    Returns:
      The base's tensors, and `full` and `parts` without the copies that were used.
    """
    inner = raw.get("text_config")
    tied = raw.get("tie_word_embeddings") or (
        isinstance(inner, dict) and inner.get("tie_word_embeddings")
    )
    plain = {n: t for n, t in parts.copies.items() if not config.saves(n)}
    new = [
        {
            name: found[name]
            for end in (EMBEDDING, HEAD)
            if (name := _ending(found, end))
        }
        for found in (full, plain)
    ]
    names = [name for end in (EMBEDDING, HEAD) if (name := _ending(tensors, end))]
    # Two copies that differ are not shared: see `ties`.
    if not tied or not any(new) or not names:
        return tensors, full, parts
    if len(names) > 1 and not tensors[names[0]].equals(tensors[names[1]]):
        return tensors, full, parts
    for found in filter(None, new):  # The output layer is loaded last.
        kept = {names[0]: list(found.values())[-1]}
        tensors = {n: t for n, t in tensors.items() if n not in names} | kept
    copies = {n: t for n, t in parts.copies.items() if n not in new[1]}
    full = {n: t for n, t in full.items() if n not in new[0]}
    return tensors, full, dataclasses.replace(parts, copies=copies)


def untied(
    raw: dict[str, Any], tensors: Tensors, parts: Factors, rows: int | None
) -> tuple[dict[str, Any], Tensors]:
    """Returns config and tensors of a model, untied if an adapter changes a weight.

    Args:
      raw: The `config.json`.
      tensors: Of the base.
      parts: Of the adapter.
      rows: From `grown`.
    """
    changed = {f"{module}.weight" for module in parts.low_rank} | set(parts.copies)
    embedding = _ending(tensors, EMBEDDING)
    changes: dict[str, Any] = {"vocab_size": rows} if rows else {}
    touched = _ending(changed, EMBEDDING) or _ending(changed, HEAD)
    if touched and embedding is None:  # The base stores only the output layer.
        embedding, head = _ending(changed, EMBEDDING), _ending(tensors, HEAD)
        if embedding is not None and head is not None:
            tensors = tensors | {embedding: tensors[head]}
    inner = raw.get("text_config")
    if touched and embedding is not None:
        if _ending(tensors, HEAD) is None:
            tensors = tensors | {HEAD: tensors[embedding]}
        changes["tie_word_embeddings"] = False
        raw = raw | {"tie_word_embeddings": False}
    if isinstance(inner, dict):
        return raw | {"text_config": inner | changes}, tensors
    return raw | changes, tensors


def _ending(names: Iterable[str], end: str) -> str | None:
    """Returns the first name whose last parts are `end`."""
    return next((name for name in names if f".{name}".endswith(f".{end}")), None)
