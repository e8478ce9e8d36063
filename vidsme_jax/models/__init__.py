"""Model families, and the functions that check and load checkpoints.

`inspect` checks everything that can be checked on the host; the model that it returns
loads the tensors.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import jax

from vidsme_jax.arguments import flag, folder_or_name, one_of, require
from vidsme_jax.checkpoints import content, files, loading, opening, quantised, refused
from vidsme_jax.models import (
    internvl,
    llava_hf,
    llava_qwen,
    perception_lm,
    prompts,
    qwen_vl,
    random,
    smolvlm,
    video_llama_3,
)
from vidsme_jax.models.interface import Family, LoadedModel, Model, Options
from vidsme_jax.wording import nearest

DTYPES = ("bfloat16", "float16", "float32")
FAMILIES: tuple[Family, ...] = (
    llava_qwen.FAMILY,
    llava_hf.NEXT_VIDEO,
    llava_hf.ONEVISION,
    llava_hf.VIDEO_LLAVA,
    smolvlm.FAMILY,
    internvl.FAMILY,
    perception_lm.FAMILY,
    qwen_vl.QWEN2,
    qwen_vl.QWEN2_5,
    qwen_vl.QWEN3,
    video_llama_3.FAMILY,
)


def inspect(
    checkpoint: str | os.PathLike[str],
    *,
    dtype: str,
    prompt: str = "family",
    allow_pickle: bool = False,
    adapter: bool = True,
) -> Model:
    """Checks a checkpoint on the host, from the headers of its tensors.

    No tensors are read but two copies of one weight, for comparison: see
    `checkpoints.ties`.

    Args:
      checkpoint: A local folder, a hub id, or "random:NAME" (see `random.sizes`).
      dtype: "bfloat16", "float16" or "float32".
      prompt: "family", a key of `prompts.SYSTEM`, or a text with one `<video>`.
      allow_pickle: Whether pickled weights may be read (see `checkpoints.pickled`).
      adapter: Whether low-rank updates are merged (see `opening.open_checkpoint`).

    Raises:
      AuditError: Lists every problem of config, tokenizer, preprocessing and tensors.
    """
    checkpoint = folder_or_name("checkpoint", checkpoint)
    one_of("dtype", dtype, DTYPES)
    require(
        isinstance(prompt, str),
        f"prompt is {prompt!r}; it must be family, mcq, caption or a text",
    )
    flag("adapter", adapter)
    flag("allow_pickle", allow_pickle)
    opened = open_checkpoint(checkpoint, allow_pickle=allow_pickle, adapter=adapter)
    return describe(opened, dtype=dtype, prompt=prompt, allow_pickle=allow_pickle)


def open_checkpoint(
    name: str, *, allow_pickle: bool = False, adapter: bool = True
) -> files.Checkpoint:
    """Opens a checkpoint; see `inspect` for the arguments."""
    return opening.open_checkpoint(
        locate(name), allow_pickle=allow_pickle, adapter=adapter, refuse=_unread
    )


def locate(name: str) -> str:
    """Returns the folder of a "random:NAME", and other names unchanged."""
    if not name.startswith(random.SCHEME):
        return name
    return str(random.folder(name.removeprefix(random.SCHEME)))


def describe(
    checkpoint: files.Checkpoint,
    *,
    dtype: str,
    prompt: str = "family",
    allow_pickle: bool = False,
) -> Model:
    """Checks an opened checkpoint; see `inspect`.

    Without tensors the model cannot be loaded.
    """
    family, problems = family_of(checkpoint), []
    if problem := quantised.config_problem(checkpoint.config):
        raise checkpoint.error(problem)
    tokenizer = prompts.read_tokenizer(checkpoint, problems)
    options = Options(dtype, tokenizer, prompt, allow_pickle)
    model, checkpoint = family.open(checkpoint, options, problems)
    if problems:
        raise checkpoint.error(*problems)
    checkpoint = checkpoint.merged(model.names)
    if not checkpoint.tensors:
        return model
    fillings = loading.plan_loading(checkpoint, model.abstract()[1], model.names)
    fill = functools.partial(loading.load, fillings, checkpoint_name=checkpoint.name)
    return dataclasses.replace(model, fill=fill, fingerprint=checkpoint.fingerprint())


def load(
    checkpoint: str | os.PathLike[str],
    *,
    dtype: str = "bfloat16",
    prompt: str = "family",
    allow_pickle: bool = False,
) -> LoadedModel:
    """Loads a checkpoint onto the first device; see `inspect` for the arguments."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    model = inspect(checkpoint, dtype=dtype, prompt=prompt, allow_pickle=allow_pickle)
    return model.load(lambda *_: device)


def family_of(checkpoint: files.Checkpoint) -> Family:
    """Returns the family that a checkpoint belongs to.

    Raises:
      AuditError: It belongs to none of `FAMILIES`.
    """
    for family in FAMILIES:
        if family.reads(checkpoint.config):
            return family
    raise checkpoint.error(_unread(checkpoint.config))


def _unread(config: Mapping[str, Any]) -> str:
    """Returns why no family reads a checkpoint with this config; "" if one does."""
    if any(family.reads(config) for family in FAMILIES):
        return ""
    known = [family.name for family in FAMILIES]
    if why := refused.reason(config):
        return f"{why}; known: {', '.join(known)}"
    named = config.get("model_type")
    return (
        f"unknown family (model_type {content.shown(named)}, architectures "
        f"{content.shown(config.get('architectures'))}); known: {', '.join(known)}"
        f"{nearest(str(named), known)}"
    )
