"""The forward pass: a tower of one layer over pairs of frames, a decoder of one layer.

Axes: `clips`, `views`, `directions`, `visual` rows, `rows` of the decoder, `embed`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from vidsme_jax.models import layers

HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class PairsConfig:
    """Hyperparameters."""

    hidden_size: int
    vocab_size: int
    image_size: int
    max_positions: int
    dtype: str

    @property
    def patch(self) -> int:
        """Pixels along a side of a patch; a frame has 2 x 2."""
        return self.image_size // 2


class Pairs(nnx.Module):
    """See `vidsme_jax.models.interface`."""

    def __init__(self, config: PairsConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        size, pixels = c.hidden_size, 2 * 3 * c.patch**2
        make = {"bias": False, "dtype": c.dtype, "rngs": rngs}
        table = {"dtype": c.dtype, "rngs": rngs}
        self.tower = layers.linear(pixels, size, **make)
        self.embed = layers.Embedding(c.vocab_size, size, **table)
        self.places = layers.Embedding(3 * c.max_positions, size, **table)
        self.query = layers.linear(size, size, **make)
        self.out = layers.linear(size, size, **make)
        self.lm_head = layers.Embedding(c.vocab_size, size, **table)

    def see(self, pixels):
        """Returns four rows a pair; the last frame stands twice where it is alone."""
        c = self.config
        pixels = jnp.pad(
            pixels, [(0, 0)] * 2 + [(0, pixels.shape[2] % 2)] + [(0, 0)] * 3, "edge"
        )
        clips, views, frames = pixels.shape[:3]
        p = c.patch
        cut = pixels.reshape(clips, views, frames // 2, 2, 2, p, 2, p, 3)
        cut = cut.transpose(0, 1, 2, 4, 6, 3, 5, 7, 8)
        flat = cut.reshape(clips, views, -1, 2 * p * p * 3)
        return jnp.tanh(self.tower(flat.astype(c.dtype) / 255))

    def read(self, visual, batch):
        """Returns the states of the kept rows; direction d reads view d."""
        text = self.embed.weight[...][jnp.asarray(batch.text)][:, None]
        shape = (*visual.shape[:2], *text.shape[2:])
        table = jnp.concatenate([jnp.broadcast_to(text, shape), visual], axis=2)
        source = jnp.asarray(batch.source)[..., None]
        x = jnp.take_along_axis(table, source, axis=2)
        axes = jnp.arange(3)[None, None, None] * self.config.max_positions
        x += self.places.weight[...][jnp.asarray(batch.position) + axes].sum(axis=3)
        scores = jnp.einsum("cdqe,cdke->cdqk", self.query(x), x, precision=HIGHEST)
        causal = jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None]
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
        mixed = jnp.einsum("cdqk,cdke->cdqe", weights, x, precision=HIGHEST)
        hidden = x + jnp.tanh(self.out(mixed))
        kept = jnp.asarray(batch.kept)[..., None]
        return jnp.take_along_axis(hidden, kept, axis=2)

    @property
    def head(self):
        """The output layer's weights."""
        return self.lm_head.weight[...]
