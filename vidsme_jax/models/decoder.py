"""The pre-norm causal decoder shared by the Llama, Yi, Mistral and Qwen backbones.

Axes: `batch`, `tokens`, `heads`, `kv_heads`, `head_dim`, `embed`.

Touvron et al., 2023. https://arxiv.org/abs/2302.13971
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

from vidsme_jax import parallel
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention
from vidsme_jax.models.batches import Batch
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.rope import Tables, apply_rope, rope_tables
from vidsme_jax.models.text_attention import attention_of_texts

Heads = Float[Array, "batch tokens _ head_dim"]  # Queries, keys or values.


class TextRows(NamedTuple):
    """The text rows that follow each trunk, and what they see.

    Attributes:
      segment: See `batches.Texts`.
      shared: Rows of each trunk that its texts see.
    """

    segment: Int[Array, "texts text"]
    shared: Int[Array, " trunks"]


class Visual(NamedTuple):
    """Features of a tower that go into several layers of the decoder [1].

    Attributes:
      rows: The embeddings of the video's rows.
      deep: Added to these rows after the first layers, one array a layer.

    [1] Meng et al., 2024. DeepStack. https://arxiv.org/abs/2406.04334
    """

    rows: Float[Array, "clips views visual embed"]
    deep: tuple[Float[Array, "clips views visual embed"], ...] = ()


class Attention(nnx.Module):
    """Causal grouped-query attention with rotary positions.

    The rows of a trunk may be followed by those of texts, one after the other, which
    see rows of the trunk and earlier rows of their own text.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        q_size, kv_size = (
            n * c.head_dim for n in (c.num_attention_heads, c.num_key_value_heads)
        )
        kind: dict[str, Any] = dict(dtype=c.dtype, rngs=rngs)
        bias = c.attention_bias
        self.q_proj = layers.linear(c.hidden_size, q_size, bias=bias, **kind)
        self.k_proj = layers.linear(c.hidden_size, kv_size, bias=bias, **kind)
        self.v_proj = layers.linear(c.hidden_size, kv_size, bias=bias, **kind)
        self.o_proj = layers.linear(q_size, c.hidden_size, bias=False, **kind)
        if c.qk_norm:
            size, eps = c.head_dim, c.rms_norm_eps
            self.q_norm = layers.RmsNorm(size, eps=eps, dtype=c.dtype)
            self.k_norm = layers.RmsNorm(size, eps=eps, dtype=c.dtype)

    def __call__(
        self,
        x: Float[Array, "batch tokens embed"],
        cos: Tables,
        sin: Tables,
        texts: TextRows | None = None,
    ) -> Float[Array, "batch tokens embed"]:
        q, k, v = self.project(x, cos, sin)
        return self.finish(self.attend(q, k, v, texts))

    def project(
        self,
        x: Float[Array, "batch tokens embed"],
        cos: Tables,
        sin: Tables,
    ) -> tuple[Heads, Heads, Heads]:
        """Returns queries and keys, rotated by their positions, and values."""
        q, k, v = (
            part.reshape(*x.shape[:2], -1, self.config.head_dim)
            for part in layers.project((self.q_proj, self.k_proj, self.v_proj), x)
        )
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return apply_rope(q, cos, sin), apply_rope(k, cos, sin), v

    def attend(self, q: Heads, k: Heads, v: Heads, texts: TextRows | None) -> Heads:
        """Returns the outputs of the heads; see `Attention`."""
        if texts is None:
            return attention(q, k, v, causal=True)
        heads = q, k, v
        rows = q.shape[1] - texts.segment.size // len(texts.shared)
        q, k, v = (part[:, :rows] for part in heads)
        shape = *texts.segment.shape, -1, self.config.head_dim
        own_q, own_k, own_v = (part[:, rows:].reshape(shape) for part in heads)
        asked = attention_of_texts(
            own_q, own_k, own_v, texts.segment, k, v, texts.shared
        )
        asked = asked.reshape(len(q), -1, *asked.shape[2:])
        return jnp.concatenate([attention(q, k, v, causal=True), asked], axis=1)

    def finish(self, out: Heads) -> Float[Array, "batch tokens embed"]:
        """Projects the outputs of the heads to the decoder's size."""
        return self.o_proj(out.reshape(*out.shape[:2], -1))


class Layer(nnx.Module):
    """Attention and a SwiGLU network, each after an RMS norm."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        eps = c.rms_norm_eps
        self.input_layernorm = layers.RmsNorm(c.hidden_size, eps=eps, dtype=c.dtype)
        self.self_attn = Attention(c, rngs=rngs)
        self.post_attention_layernorm = layers.RmsNorm(
            c.hidden_size, eps=eps, dtype=c.dtype
        )
        kind: dict[str, Any] = dict(bias=False, dtype=c.dtype, rngs=rngs)
        self.gate_proj = layers.linear(c.hidden_size, c.intermediate_size, **kind)
        self.up_proj = layers.linear(c.hidden_size, c.intermediate_size, **kind)
        self.down_proj = layers.linear(c.intermediate_size, c.hidden_size, **kind)

    def __call__(
        self,
        x: Float[Array, "batch tokens embed"],
        cos: Tables,
        sin: Tables,
        texts: TextRows | None = None,
    ) -> Float[Array, "batch tokens embed"]:
        return self.mlp(x + self.self_attn(self.input_layernorm(x), cos, sin, texts))

    def mlp(
        self, x: Float[Array, "batch tokens embed"]
    ) -> Float[Array, "batch tokens embed"]:
        """Applies the layer's second half: norm, network and the sum with its input."""
        with jax.named_scope("mlp"):
            h = self.post_attention_layernorm(x)
            return x + self.down_proj(jax.nn.silu(self.gate_proj(h)) * self.up_proj(h))


class Decoder(nnx.Module):
    """Token embeddings, stacked layers, last norm, and the weights of the head."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        size = c.vocab_size, c.hidden_size
        self.embed_tokens = layers.Embedding(*size, dtype=c.dtype, rngs=rngs)
        self.layers = layers.stack(
            lambda rngs: Layer(c, rngs=rngs), c.num_hidden_layers, rngs
        )
        self.norm = layers.RmsNorm(c.hidden_size, eps=c.rms_norm_eps, dtype=c.dtype)
        if not c.tie_word_embeddings:
            self.lm_head = layers.Embedding(*size, dtype=c.dtype, rngs=rngs)

    def __call__(
        self,
        embeddings: Float[Array, "batch tokens embed"],
        positions: Int[Array, "batch tokens axes"],
        texts: TextRows | None = None,
        deep: Sequence[Float[Array, "batch tokens embed"]] = (),
    ) -> Float[Array, "batch tokens embed"]:
        """Returns the hidden states after the last norm; see `Attention`.

        Args:
          embeddings: The embeddings of the rows.
          positions: The positions of the rows.
          texts: The segments of the last rows, those of texts; None: no texts.
          deep: Added to the rows after the first layers, one array a layer.
        """
        with jax.named_scope("decoder"):
            c = self.config
            cos, sin = rope_tables(positions, c.rope, c.head_dim)
            hidden = layers.run_stack(
                self.layers, embeddings, cos, sin, texts, after=deep
            )
            return self.norm(hidden)

    def read(
        self,
        visual: Float[Array, "clips views visual embed"] | Visual,
        batch: Batch,
    ) -> tuple[
        Float[Array, "clips directions kept embed"],
        Float[Array, "texts directions text_kept embed"] | None,
    ]:
        """Lays text and visual rows out, and returns the states of the kept rows.

        The texts' rows are appended to those of their trunk, so that they go through
        the same products, once for each direction.

        Args:
          visual: One view for all directions, or one for each.
          batch: Its positions have as many axes as the decoder's embedding.

        Returns:
          The states of the trunks' rows, and those of the texts' rows if there are any.
        """
        source, kept = jnp.asarray(batch.source), jnp.asarray(batch.kept)
        clips, directions, rows = source.shape
        hidden = parallel.spread(self(*self.lay_out(visual, batch)), "data")
        hidden = hidden.reshape(clips, directions, -1, hidden.shape[-1])
        of_trunks = _take(hidden, kept)
        if batch.texts is None:
            return of_trunks, None
        places = _of_directions(jnp.asarray(batch.texts.kept), source)
        # Rows of a text are counted from the trunk's end, whichever text it is.
        first = jnp.arange(places.shape[2], dtype=jnp.int32)
        first *= batch.texts.token.shape[1]
        places += jnp.where(places < rows, 0, first[None, None, :, None])
        of_texts = _take(hidden, places.reshape(clips, directions, -1))
        of_texts = of_texts.reshape(*places.shape, -1).swapaxes(1, 2)
        return of_trunks, of_texts.reshape(-1, directions, *of_texts.shape[3:])

    def lay_out(
        self,
        visual: Float[Array, "clips views visual embed"] | Visual,
        batch: Batch,
    ) -> tuple[
        Float[Array, "batch tokens embed"],
        Int[Array, "batch tokens axes"],
        TextRows | None,
        tuple[Float[Array, "batch tokens embed"], ...],
    ]:
        """Returns the rows of each direction and their positions; see `__call__`."""
        visual, deep = visual if isinstance(visual, Visual) else Visual(visual)
        ids, source, position = map(
            jnp.asarray, (batch.text, batch.source, batch.position)
        )
        clips, directions, rows = source.shape
        text = self.embed_tokens(ids)[:, None]
        text = jnp.broadcast_to(text, (clips, visual.shape[1], *text.shape[2:]))

        def laid_out(text: Array, visual: Array) -> Array:
            both = parallel.spread(jnp.concatenate([text, visual], axis=2), "data")
            both = jnp.broadcast_to(both, (clips, directions, *both.shape[2:]))
            return _take(both, source).reshape(clips * directions, rows, -1)

        x, texts = laid_out(text, visual), None
        deep = [laid_out(jnp.zeros_like(text), each) for each in deep]
        if batch.texts is not None:
            token, of_texts, segment = (
                _of_directions(jnp.asarray(column), source)
                for column in batch.texts[:3]
            )
            words = self.embed_tokens(token).reshape(len(x), -1, x.shape[-1])
            x = jnp.concatenate([x, words], axis=1)
            fill = [(0, 0), (0, words.shape[1]), (0, 0)]
            deep = [jnp.pad(each, fill) for each in deep]
            of_texts = of_texts.reshape(clips, directions, -1, of_texts.shape[-1])
            position = jnp.concatenate([position, of_texts], axis=2)
            segment = segment.reshape(-1, segment.shape[-1])
            texts = TextRows(segment, jnp.repeat(jnp.asarray(batch.shared), directions))
        # Else the compiler may carry the batch's split over processes into the layers.
        x, *deep = (parallel.spread(each, "data") for each in (x, *deep))
        position = position.reshape(len(x), -1, position.shape[-1])
        return x, position, texts, tuple(deep)

    @property
    def head(self) -> Float[Array, "vocab embed"]:
        """The output layer's weights, one row a class."""
        tied = self.config.tie_word_embeddings
        return (self.embed_tokens if tied else self.lm_head).weight[...]


def _of_directions(
    x: Shaped[Array, "texts ..."], source: Int[Array, "clips directions rows"]
) -> Shaped[Array, "clips directions per_clip ..."]:
    """Repeats a column of texts for each direction of their clip."""
    clips, directions, _ = source.shape
    by_clip = x.reshape(clips, 1, -1, *x.shape[1:])
    return jnp.broadcast_to(by_clip, (clips, directions, *by_clip.shape[2:]))


def _take(
    table: Float[Array, "clips directions rows embed"],
    places: Int[Array, "clips directions taken"],
) -> Float[Array, "clips directions taken embed"]:
    """Takes rows of each direction of each clip, on the clip's device."""
    if not places.size:
        return jnp.zeros((*places.shape, table.shape[-1]), table.dtype)

    def take(table: Array, places: Array) -> Array:
        both = (x.reshape(-1, *x.shape[2:]) for x in (table, places))
        return layers.take_rows(*both).reshape(*places.shape, -1)

    if parallel.grid() is None:
        return take(table, places)
    clips = PartitionSpec("data")
    return parallel.by_shard(take, (clips, clips), clips)(table, places)
