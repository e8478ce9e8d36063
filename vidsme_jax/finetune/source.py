"""Opens the model that training starts from: a checkpoint, or only its config."""

import atexit
import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from vidsme_jax import models
from vidsme_jax.checkpoints import files
from vidsme_jax.finetune import words
from vidsme_jax.models import random
from vidsme_jax.models.interface import Model

_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
_PREPROCESSING += ("video_preprocessor_config.json",)
_TYPES = ("dtype", "torch_dtype")  # The model is written with its own.


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint or an architecture, checked.

    Attributes:
      name: Of the configuration.
      checkpoint: Its files, without tensors if parameters are drawn.
      model: The model that it describes, in the type of the products.
      is_random: Whether its parameters are drawn.
      fingerprint: Of all of its files; if parameters are drawn, of config and
        preprocessing.
    """

    name: str
    checkpoint: files.Checkpoint
    model: Model
    is_random: bool
    fingerprint: str


def open_source(
    name: str,
    *,
    dtype: str,
    is_random: bool,
    allow_pickle: bool,
    texts: Sequence[str],
    seed: int,
) -> Source:
    """Opens the checkpoint or architecture that training starts from.

    Args:
      name: As for `models.inspect`; the weights of a "random:NAME" are drawn, in a
        size that learns.
      dtype: Of the products.
      is_random: Whether parameters are drawn, not read.
      allow_pickle: Whether pickled weights may be read.
      texts: The tokenizer of a "random:NAME" is trained on them.
      seed: Of the weights of a "random:NAME".

    Raises:
      AuditError: Lists every problem of config, tokenizer, preprocessing and tensors.
    """
    drawn = name.startswith(random.SCHEME)
    if is_random or drawn:
        if drawn:
            folder = _written(name, texts, seed)
        else:
            folder = files.find(name, files.SMALL_FILES)
        config = files.read_config(name, folder)
        opened = files.Checkpoint(name, (folder,), config, {})
    else:
        opened = models.open_checkpoint(name, allow_pickle=allow_pickle)
    model = models.describe(opened, dtype=dtype, allow_pickle=allow_pickle)
    fingerprint = model.fingerprint or _fingerprint(opened)
    return Source(name, opened, model, is_random or drawn, fingerprint)


def _fingerprint(checkpoint: files.Checkpoint) -> str:
    """Returns a SHA-256 of config and preprocessing, without keys of dtypes."""
    parts = [_typeless(checkpoint.config), *map(checkpoint.json, _PREPROCESSING)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _typeless(value: Any) -> Any:
    """Returns JSON without keys of dtypes."""
    if isinstance(value, dict):
        return {k: _typeless(x) for k, x in value.items() if k not in _TYPES}
    return [_typeless(x) for x in value] if isinstance(value, list) else value


def _written(name: str, texts: Sequence[str], seed: int) -> pathlib.Path:
    """Writes a "random:NAME" to a temporary folder, its tokenizer trained on texts."""
    target = pathlib.Path(tempfile.mkdtemp(prefix="vidsme-finetune-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    words.write(target, name.removeprefix(random.SCHEME), texts, seed)
    return target
