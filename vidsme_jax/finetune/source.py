"""What training starts from: a checkpoint, or a `config.json` and a tokenizer."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vidsme_jax import models
from vidsme_jax.checkpoints import files
from vidsme_jax.models.interface import Model

_FAMILY = "llava_next_video"


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint or an architecture, checked.

    Attributes:
      checkpoint: Its files, without tensors if parameters are random.
      model: What it describes, in float32.
      seed: Of random parameters; None reads those of the checkpoint.
    """

    checkpoint: files.Checkpoint
    model: Model
    seed: int | None

    def start(self) -> tuple[nnx.GraphDef, nnx.State]:
        """Returns the module's graph and its first parameters.

        Random kernels are scaled by their fan-in; the embeddings deviate by 0.02.
        """
        if self.seed is None:
            device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            loaded = self.model.load(lambda *_: device)
            return loaded.graphdef, loaded.state
        rngs = nnx.Rngs(self.seed)
        module: Any = self.model.make(rngs)
        tower = module.vision_tower
        shape = tower.class_embedding.shape
        first = 0.02 * jax.random.normal(rngs.params(), shape, jnp.float32)
        tower.class_embedding = nnx.Param(first)
        return nnx.split(module)


def open_source(name: str, *, random_seed: int | None) -> Source:
    """Opens what training starts from.

    Args:
      name: As for `models.inspect`.
      random_seed: Of random parameters; None reads those of the checkpoint.

    Raises:
      AuditError: It is of another family; or lists every problem of config, tokenizer,
        preprocessing and tensors.
    """
    if random_seed is None:
        opened = models.open_checkpoint(name)
    else:
        folder = pathlib.Path(models.locate(name)).expanduser()
        config = files.read_config(name, folder)
        opened = files.Checkpoint(name, (folder,), config, {})
    family = models.family_of(opened).name
    if family != _FAMILY:
        raise opened.error(f"finetune is built for {_FAMILY}; this is {family}")
    model = models.describe(opened, dtype="float32")
    if "<|im_start|>" in model.prompt:
        raise opened.error(
            "its prompt is ChatML; training is built for USER: ... ASSISTANT:"
        )
    return Source(opened, model, random_seed)
