"""The pre-norm causal decoder shared by the Llama, Yi and Qwen2 backbones.

Axes: `batch`, `tokens`, `heads`, `kv_heads`, `head_dim`, `embed`.

Touvron et al., 2023. https://arxiv.org/abs/2302.13971
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from vidsme_jax import parallel
from vidsme_jax.checkpoints import layouts
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.loading import Rule, dense, norm
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention
from vidsme_jax.models.batches import Batch, Texts
from vidsme_jax.models.text_attention import attention_of_texts

Tables = Float[Array, "batch tokens head_dim"]  # Cosines, or sines.
Heads = Float[Array, "batch tokens _ head_dim"]  # Queries, keys or values.
# The defaults that Llama and Qwen2 share in transformers.
_SIZES = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
IGNORED = {
    "factor": "early revisions kept it outside rope_scaling, where nothing reads it",
    "type": "early revisions kept it outside rope_scaling, where nothing reads it",
    "sliding_window": "use_sliding_window is off",
    "max_window_layers": "use_sliding_window is off",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Hyperparameters of one decoder; names follow the published `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_factor: float  # Positions are divided by it ("linear" scaling).
    max_positions: int  # Tokens that the positions are meant for.
    attention_bias: bool  # Of q, k and v: True for Qwen2, False for Llama and Yi.
    tie_word_embeddings: bool
    dtype: DTypeLike

    @classmethod
    def from_llama(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool
    ) -> "DecoderConfig":
        """Reads a Llama `text_config`; absent keys take transformers' defaults.

        Args:
          fields: The `text_config`; the caller closes it.
          dtype: Of parameters and activations.
          tied: The outer config's `tie_word_embeddings`, which wins.
        """
        fields.expect("model_type", "llama")
        fields.expect("attention_bias", False)
        fields.expect("mlp_bias", False)
        sizes = {"intermediate_size": 11008, "vocab_size": 32000}
        sizes |= {"max_position_embeddings": 2048}
        return cls._read(fields, dtype, sizes, _rope(fields), bias=False, tied=tied)

    @classmethod
    def from_qwen2(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool, scaled: bool = True
    ) -> "DecoderConfig":
        """Reads a Qwen2 config; absent keys take transformers' defaults.

        Args:
          fields: The `text_config`, or the whole file of an original LLaVA checkpoint;
            the caller closes it.
          dtype: Of parameters and activations.
          tied: The outer config's `tie_word_embeddings`, which wins.
          scaled: Whether `rope_scaling` counts; the original LLaVA classes drop it.
        """
        fields.expect("use_sliding_window", False)
        kinds = fields.take("layer_types", list, [])
        if set(kinds) - {"full_attention"}:
            fields.problems.append(
                f"{fields.where}: layer_types names {sorted(set(kinds))}; built for "
                "full_attention"
            )
        sizes = {"intermediate_size": 22016, "vocab_size": 151936}
        sizes |= {"max_position_embeddings": 32768}
        rope = _rope(fields) if scaled else (_theta(fields), 1.0)
        return cls._read(fields, dtype, sizes, rope, bias=True, tied=tied)

    @classmethod
    def _read(
        cls, fields: Fields, dtype, sizes: dict[str, int], rope, *, bias, tied
    ) -> "DecoderConfig":
        """Reads what every backbone has; `sizes` are the defaults."""
        fields.expect("hidden_act", "silu")
        fields.take("tie_word_embeddings", bool, False)
        read = {key: fields.size(key, size) for key, size in (_SIZES | sizes).items()}
        hidden, heads = read["hidden_size"], read["num_attention_heads"]
        theta, factor = rope
        positions = read.pop("max_position_embeddings")
        config = cls(
            **read,
            num_key_value_heads=fields.size("num_key_value_heads", heads),
            head_dim=fields.size("head_dim", hidden // heads),
            rms_norm_eps=float(fields.take("rms_norm_eps", float, 1e-6)),
            rope_theta=theta,
            rope_factor=factor,
            max_positions=int(positions * factor),
            attention_bias=bias,
            tie_word_embeddings=tied,
            dtype=dtype,
        )
        if config.num_attention_heads % config.num_key_value_heads:
            fields.problems.append(
                f"{fields.where}: num_attention_heads {heads} is not a multiple of "
                f"num_key_value_heads {config.num_key_value_heads}"
            )
        return config


def rope_tables(
    positions: Int[Array, "batch tokens"], config: DecoderConfig
) -> tuple[Tables, Tables]:
    """Returns cosines and sines in float32, the half-split layout of transformers [1].

    [1] Su et al., 2021. RoFormer. https://arxiv.org/abs/2104.09864
    """
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents * config.rope_factor)
    angles = positions.astype(jnp.float32)[..., None] * frequencies[None, None]
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(
    x: Float[Array, "batch tokens heads head_dim"],
    cos: Tables,
    sin: Tables,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Rotates `x` by its positions."""
    x1, x2 = jnp.split(x, 2, axis=-1)
    rotated = jnp.concatenate([-x2, x1], axis=-1)
    cos, sin = (t.astype(x.dtype)[:, :, None] for t in (cos, sin))
    return x * cos + rotated * sin


class Behind(NamedTuple):
    """The text rows behind the rows of each trunk, and what they see.

    Attributes:
      segment: See `batches.Texts`.
      shared: Rows of each trunk that its texts see.
    """

    segment: Int[Array, "texts text"]
    shared: Int[Array, " trunks"]


class Attention(nnx.Module):
    """Causal grouped-query attention with rotary positions.

    Behind the rows of a trunk there may be those of texts, one after the other, which
    see rows of the trunk and earlier rows of their own.
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

    def __call__(
        self,
        x: Float[Array, "batch tokens embed"],
        cos: Tables,
        sin: Tables,
        behind: Behind | None = None,
    ) -> Float[Array, "batch tokens embed"]:
        heads = self.project(x, cos, sin)
        if behind is None:
            return self.finish(attention(*heads, causal=True))
        rows = x.shape[1] - behind.segment.size // len(behind.shared)
        q, k, v = (part[:, :rows] for part in heads)
        shape = *behind.segment.shape, -1, self.config.head_dim
        own = (part[:, rows:].reshape(shape) for part in heads)
        asked = attention_of_texts(*own, behind.segment, k, v, behind.shared)
        asked = asked.reshape(len(x), -1, *asked.shape[2:])
        out = jnp.concatenate([attention(q, k, v, causal=True), asked], axis=1)
        return self.finish(out)

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
        return apply_rope(q, cos, sin), apply_rope(k, cos, sin), v

    def finish(self, out: Heads) -> Float[Array, "batch tokens embed"]:
        """Maps what the heads return to the decoder's size."""
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
        behind: Behind | None = None,
    ) -> Float[Array, "batch tokens embed"]:
        return self.mlp(x + self.self_attn(self.input_layernorm(x), cos, sin, behind))

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
        positions: Int[Array, "batch tokens"],
        behind: Behind | None = None,
    ) -> Float[Array, "batch tokens embed"]:
        """Returns the hidden states after the last norm; see `Attention`."""
        with jax.named_scope("decoder"):
            cos, sin = rope_tables(positions, self.config)
            hidden = layers.run_stack(self.layers, embeddings, cos, sin, behind)
            return self.norm(hidden)

    def read(
        self, visual: Float[Array, "clips views visual embed"], batch: Batch
    ) -> tuple[
        Float[Array, "clips directions kept embed"],
        Float[Array, "texts directions text_kept embed"] | None,
    ]:
        """Lays text and visual rows out, and returns the states of the kept rows.

        The texts' rows stand behind those of their trunk, so that they go through the
        same products, once for each direction.

        Args:
          visual: One view for all directions, or one for each.
          batch: Its positions have one axis.

        Returns:
          Those of the trunks, and those of the texts if there are any.
        """
        ids, source, kept, position = map(
            jnp.asarray, (batch.text, batch.source, batch.kept, batch.position)
        )
        clips, directions, rows = source.shape
        text = self.embed_tokens(ids)[:, None]
        text = jnp.broadcast_to(text, (clips, visual.shape[1], *text.shape[2:]))
        both = parallel.spread(jnp.concatenate([text, visual], axis=2), "data")
        both = jnp.broadcast_to(both, (clips, directions, *both.shape[2:]))
        x = _take(both, source).reshape(clips * directions, rows, -1)
        position, behind = position[..., 0], None
        if batch.texts is not None:
            texts = Texts(*map(jnp.asarray, batch.texts))
            own = _of_directions(self.embed_tokens(texts.token), source)
            x = jnp.concatenate([x, own.reshape(len(x), -1, x.shape[-1])], axis=1)
            own = _of_directions(texts.position[..., 0], source)
            own = own.reshape(clips, directions, -1)
            position = jnp.concatenate([position, own], axis=2)
            segment = _of_directions(texts.segment, source)
            segment = segment.reshape(-1, segment.shape[-1])
            behind = Behind(segment, jnp.repeat(jnp.asarray(batch.shared), directions))
        position = position.reshape(len(x), -1)
        # Else the compiler may carry the spread of a batch over processes into layers.
        hidden = self(parallel.spread(x, "data"), position, behind)
        hidden = parallel.spread(hidden, "data")
        hidden = hidden.reshape(clips, directions, -1, hidden.shape[-1])
        of_trunks = _take(hidden, kept)
        if batch.texts is None:
            return of_trunks, None
        places = _of_directions(texts.kept, source)
        # Rows of a text are counted from the trunk's end, whichever text it is.
        first = jnp.arange(places.shape[2], dtype=jnp.int32) * texts.token.shape[1]
        places += jnp.where(places < rows, 0, first[None, None, :, None])
        of_texts = _take(hidden, places.reshape(clips, directions, -1))
        of_texts = of_texts.reshape(*places.shape, -1).swapaxes(1, 2)
        return of_trunks, of_texts.reshape(-1, directions, *of_texts.shape[3:])

    @property
    def head(self) -> Float[Array, "vocab embed"]:
        """The output layer's weights, one row a class."""
        tied = self.config.tie_word_embeddings
        return (self.embed_tokens if tied else self.lm_head).weight[...]


def _of_directions(
    x: Shaped[Array, "texts ..."], source: Int[Array, "clips directions rows"]
) -> Shaped[Array, "clips directions per_clip ..."]:
    """Repeats what belongs to texts for each direction of their clip."""
    clips, directions, _ = source.shape
    own = x.reshape(clips, 1, -1, *x.shape[1:])
    return jnp.broadcast_to(own, (clips, directions, *own.shape[2:]))


def _take(
    table: Float[Array, "clips directions rows embed"],
    places: Int[Array, "clips directions taken"],
) -> Float[Array, "clips directions taken embed"]:
    """Takes rows of each direction of each clip, on the device that has the clip."""
    if not places.size:
        return jnp.zeros((*places.shape, table.shape[-1]), table.dtype)

    def take(table, places):
        one = lambda x: x[0].at[x[1]].get(mode="clip")  # noqa: E731
        both = tuple(x.reshape(-1, *x.shape[2:]) for x in (table, places))
        # Batched gathers of so many rows take XLA half a minute to compile for a TPU.
        loops = parallel.platform() == "tpu"
        out = jax.lax.map(one, both) if loops else jax.vmap(one)(both)
        return out.reshape(*places.shape, -1)

    if parallel.grid() is None:
        return take(table, places)
    clips = PartitionSpec("data")
    return parallel.by_shard(take, (clips, clips), clips)(table, places)


def rules(
    prefix: str, head: str, path: str, config: DecoderConfig, *, cut: bool = False
) -> list[Rule]:
    """Where the decoder's tensors go; `prefix` and `head` are patterns.

    With `cut` the file may have more classes than the model.
    """
    table = layouts.ROWS if cut else layouts.SAME
    block, layer = rf"{prefix}layers\.(\d+)\.", f"{path}/layers"
    out = norm(rf"{prefix}norm", f"{path}/norm", bias=False)
    out.append(
        Rule(rf"{prefix}embed_tokens\.weight", f"{path}/embed_tokens/weight", table)
    )
    if not config.tie_word_embeddings:
        out.append(Rule(rf"{head}\.weight", f"{path}/lm_head/weight", table))
    for name in ("input_layernorm", "post_attention_layernorm"):
        out += norm(block + name, f"{layer}/{name}", bias=False)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        bias = config.attention_bias and name != "o_proj"
        out += dense(
            rf"{block}self_attn\.{name}", f"{layer}/self_attn/{name}", bias=bias
        )
    for name in ("gate_proj", "up_proj", "down_proj"):
        out += dense(rf"{block}mlp\.{name}", f"{layer}/{name}", bias=False)
    return out


def _rope(fields: Fields) -> tuple[float, float]:
    """Returns (theta, linear factor) from either spelling of the rope settings."""
    theta = _theta(fields)
    scaling = fields.take("rope_scaling", dict, None)
    parameters = fields.take("rope_parameters", dict, None)
    inner = Fields(parameters or scaling or {}, f"{fields.where}.rope", fields.problems)
    inner.expect("type", None, "default", "linear")
    kind = inner.expect(
        "rope_type", inner.raw.get("type", "default"), "default", "linear"
    )
    linear = kind == "linear"
    factor = inner.take("factor", (int, float), 1.0) if linear else 1.0
    theta = inner.take("rope_theta", (int, float), theta)
    inner.close({} if linear else {"factor": "no scaling"})
    return float(theta), float(factor)


def _theta(fields: Fields) -> float:
    return float(fields.take("rope_theta", (int, float), 10000.0))
