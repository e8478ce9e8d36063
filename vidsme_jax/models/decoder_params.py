"""Hyperparameters of the shared decoder, and the names of its tensors on disk."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints import content, layouts
from vidsme_jax.checkpoints.fields import EPS_RANGE, Fields
from vidsme_jax.checkpoints.loading import Rule, dense, norm

# The defaults that Llama and Qwen2 share in transformers.
_SIZES = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
# Far beyond any published model.
_THETA_RANGE, _FACTOR_RANGE = (1e-3, 1e15), (1e-3, 1e6)
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
          scaled: Whether positions may be scaled; the original LLaVA classes drop
            `rope_scaling`.
        """
        fields.expect("use_sliding_window", False)
        kinds = fields.take("layer_types", list, [])
        others = [kind for kind in kinds if kind != "full_attention"]
        if others:
            fields.problems.append(
                f"{fields.where}: layer_types names {content.shown(others[0])}; built "
                "for full_attention"
            )
        sizes = {"intermediate_size": 22016, "vocab_size": 151936}
        sizes |= {"max_position_embeddings": 32768}
        rope = _rope(fields, scaled=scaled)
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
            head_dim=fields.size("head_dim", max(1, hidden // heads)),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6, *EPS_RANGE),
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
        if config.head_dim % 2:
            fields.problems.append(
                f"{fields.where}: a head has {config.head_dim} sizes (head_dim, or "
                f"hidden_size {hidden} over num_attention_heads {heads}); expected an "
                "even number, for positions turn pairs of them"
            )
        return config


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


def _rope(fields: Fields, *, scaled: bool = True) -> tuple[float, float]:
    """Returns (theta, linear factor) from either spelling of the rope settings.

    Before transformers 5 they were `rope_theta` and `rope_scaling`, since then both
    are in `rope_parameters`, whose `rope_theta` wins.
    """
    theta = fields.number("rope_theta", 10000.0, *_THETA_RANGE)
    scaling = fields.take("rope_scaling", dict, None) or {}
    parameters = fields.take("rope_parameters", dict, None) or {}
    if not scaled and "rope_theta" not in scaling:
        scaling = {}
    if scaling and parameters and _kind(scaling) != _kind(parameters):
        fields.problems.append(
            f"{fields.where}: rope_scaling {content.shown(scaling)} and "
            f"rope_parameters {content.shown(parameters)} contradict each other: keep "
            "one of the two"
        )
    where = "rope_parameters" if parameters else "rope_scaling"
    inner = Fields(parameters or scaling, f"{fields.where}.{where}", fields.problems)
    built = ("default", "linear") if scaled else ("default",)
    inner.expect("type", None, *built)
    inner.expect("partial_rotary_factor", 1.0, None)
    kind = inner.expect("rope_type", inner.raw.get("type") or "default", *built)
    linear = kind == "linear"
    factor = inner.number("factor", 1.0, *_FACTOR_RANGE) if linear else 1.0
    theta = inner.number("rope_theta", theta, *_THETA_RANGE)
    inner.close({} if linear else {"factor": "no scaling"})
    return theta, factor


def _kind(rope: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the type of a scaling, and its factor."""
    return rope.get("rope_type", rope.get("type")) or "default", rope.get("factor")
