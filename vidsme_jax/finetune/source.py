"""What training starts from: a checkpoint, or a `config.json` and a tokenizer."""

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
_TYPES = ("dtype", "torch_dtype")  # Replaced when the model is written.


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint or an architecture, checked.

    Attributes:
      name: As asked for.
      checkpoint: Its files, without tensors if parameters are random.
      model: What it describes, in the type of the products.
      is_random: Whether its parameters are drawn.
      fingerprint: Of all that the model comes from; of one that is drawn, of its
        config and its preprocessing.
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
    allow_pickle: bool = False,
    texts: Sequence[str] = (),
    seed: int = 0,
) -> Source:
    """Opens what training starts from.

    Args:
      name: As for `models.inspect`; the weights of a "random:NAME" are drawn, in a
        size that learns.
      dtype: Of the products.
      is_random: Whether parameters are drawn, not read.
      allow_pickle: Whether pickled weights may be read.
      texts: That the tokenizer of a "random:NAME" is trained on.
      seed: Of what is drawn.

    Raises:
      AuditError: Lists every problem of config, tokenizer, preprocessing and tensors.
    """
    drawn = name.startswith(random.SCHEME)
    if is_random or drawn:
        folder = _written(name, texts, seed) if drawn else _found(name)
        config = files.read_config(name, folder)
        opened = files.Checkpoint(name, (folder,), config, {})
    else:
        opened = models.open_checkpoint(name, allow_pickle=allow_pickle)
    model = models.describe(opened, dtype=dtype, allow_pickle=allow_pickle)
    fingerprint = model.fingerprint or _fingerprint(opened)
    return Source(name, opened, model, is_random or drawn, fingerprint)


def _fingerprint(checkpoint: files.Checkpoint) -> str:
    """Returns a SHA-256 of config and preprocessing, without what only names a type."""
    kept = [_typeless(checkpoint.config), *map(checkpoint.json, _PREPROCESSING)]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _typeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _typeless(x) for k, x in value.items() if k not in _TYPES}
    return [_typeless(x) for x in value] if isinstance(value, list) else value


def _found(name: str) -> pathlib.Path:
    """Returns the folder of an architecture, which may be one of the hub."""
    return files.find(name, files.SMALL_FILES)


def _written(name: str, texts: Sequence[str], seed: int) -> pathlib.Path:
    """Writes a "random:NAME" with a tokenizer of its own to a temporary folder."""
    target = pathlib.Path(tempfile.mkdtemp(prefix="vidsme-finetune-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    words.write(target, name.removeprefix(random.SCHEME), texts, seed)
    return target
