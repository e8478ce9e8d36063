"""Torch oracles: tiny random models whose weights are large enough to show errors."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.llava_hf.modeling import LlavaConfig
from vidsme_jax.models.rows import Rows, Shown, Text


def randomise(model: torch.nn.Module) -> None:
    """Scales weights up and takes norms and biases off their neutral values."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.2 * torch.randn_like(parameter))


def every_row(rows: Rows) -> Rows:
    """Keeps all rows, in place of those of a slice."""
    count = len(rows.feature)
    return rows._replace(
        kept=np.arange(count, dtype=np.int32),
        target=np.full(count, -1, np.int32),
        slice=np.zeros(count, np.int8),
        text=np.zeros(count, np.int16),
        frame=np.full(count, -1, np.int16),
        means=np.zeros((count, 2), bool),
    )


def config_of(model: Model) -> LlavaConfig:
    """Returns the hyperparameters of a model of the LLaVA families."""
    return nnx.eval_shape(lambda: model.make(nnx.Rngs(0))).config


def our_logits(loaded: LoadedModel, pixels, before, after) -> np.ndarray:
    """Returns the package's logits of all rows: text, a video, text.

    `pixels` (frames, 3, size, size) are normalised already if they are floating-point,
    else (frames, size, size, 3) as `prepare` gives them.
    """
    pixels, order = np.asarray(pixels), np.arange(len(pixels))
    text = Text(tuple(before), tuple(after))
    rows = every_row(loaded.model.lay_out(Shown(len(pixels)), text, order))
    batch = stack([[rows]], pixels[None, None], Shape.of(rows))

    @jax.jit
    def run(state, batch):
        model = nnx.merge(loaded.graphdef, state)
        if pixels.dtype == np.uint8:
            visual = model.see(batch.pixels)
        else:  # As `see` does it, behind the normalisation.
            features = model.encode_frames(batch.pixels[0, 0])
            visual = features.reshape(1, 1, -1, features.shape[-1])
            if model.config.newline == "video":
                end = model.image_newline[...][None, None, None]
                visual = jnp.concatenate([end, visual], axis=2)
        hidden, _ = model.read(visual, batch)
        return hidden[0, 0] @ model.head.T

    return np.asarray(run(loaded.state, jax.tree.map(jnp.asarray, batch)))
