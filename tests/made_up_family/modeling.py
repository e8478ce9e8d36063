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
        batch = jax.tree.map(jnp.asarray, batch)
        text = self.embed.weight[...][batch.text][:, None]
        shape = (*visual.shape[:2], *text.shape[2:])
        table = jnp.concatenate([jnp.broadcast_to(text, shape), visual], axis=2)
        x = jnp.take_along_axis(table, batch.source[..., None], axis=2)
        x += self.place(batch.position)
        causal = jnp.tril(jnp.ones((x.shape[2],) * 2, bool))[None, None]
        hidden = self.attend(x, x, causal)
        kept = jnp.take_along_axis(hidden, batch.kept[..., None], axis=2)
        if batch.texts is None:
            return kept, None
        texts = batch.texts
        per_clip = len(texts.token) // len(x)
        own = self.embed.weight[...][texts.token] + self.place(texts.position)
        own = jnp.broadcast_to(own[:, None], (len(own), *x.shape[1:2], *own.shape[1:]))
        x, hidden = (jnp.repeat(y, per_clip, axis=0) for y in (x, hidden))
        size = own.shape[2]
        seen = texts.segment[:, :, None] == texts.segment[:, None]
        seen &= jnp.tril(jnp.ones((size, size), bool))[None]
        shared = jnp.repeat(batch.shared, per_clip)[:, None, None]
        shared = jnp.arange(x.shape[2])[None, None] < shared
        shared = jnp.broadcast_to(shared, (len(own), size, x.shape[2]))
        seen = jnp.concatenate([shared, seen], axis=2)[:, None]
        states = self.attend(own, jnp.concatenate([x, own], axis=2), seen)
        states = jnp.concatenate([hidden, states], axis=2)
        return kept, jnp.take_along_axis(states, texts.kept[:, None, :, None], axis=2)

    def place(self, position):
        """Returns the sum of the embeddings of a position's three axes."""
        axes = jnp.arange(3) * self.config.max_positions
        axes = axes.reshape((1,) * (position.ndim - 1) + (3,))
        return self.places.weight[...][position + axes].sum(axis=-2)

    def attend(self, x, keys, seen):
        """Returns the states of rows that see some of the keys."""
        scores = jnp.einsum("cdqe,cdke->cdqk", self.query(x), keys, precision=HIGHEST)
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
        mixed = jnp.einsum("cdqk,cdke->cdqe", weights, keys, precision=HIGHEST)
        return x + jnp.tanh(self.out(mixed))

    @property
    def head(self):
        """The output layer's weights."""
        return self.lm_head.weight[...]
