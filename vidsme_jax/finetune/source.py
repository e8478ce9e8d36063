"""What training starts from: a checkpoint, or a `config.json` and a tokenizer."""

import dataclasses
import pathlib
from collections.abc import Sequence

from vidsme_jax import models
from vidsme_jax.checkpoints import files
from vidsme_jax.models.interface import Model


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint or an architecture, checked.

    Attributes:
      name: As asked for.
      checkpoint: Its files, without tensors if parameters are random.
      model: What it describes, in the type of the products.
      is_random: Whether its parameters are drawn.
    """

    name: str
    checkpoint: files.Checkpoint
    model: Model
    is_random: bool


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
      name: As for `models.inspect`.
      dtype: Of the products.
      is_random: Whether parameters are drawn, not read.
      allow_pickle: Whether pickled weights may be read.
      texts: That the tokenizer of a "random:NAME" is trained on.
      seed: Of what is drawn.

    Raises:
      AuditError: Lists every problem of config, tokenizer, preprocessing and tensors.
    """
    if is_random:
        folder = pathlib.Path(models.locate(name)).expanduser()
        config = files.read_config(name, folder)
        opened = files.Checkpoint(name, (folder,), config, {})
    else:
        opened = models.open_checkpoint(name, allow_pickle=allow_pickle)
    model = models.describe(opened, dtype=dtype, allow_pickle=allow_pickle)
    return Source(name, opened, model, is_random)
