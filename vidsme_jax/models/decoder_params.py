"""Hyperparameters of the shared decoder, and the names of its tensors on disk."""

import dataclasses

from jax.typing import DTypeLike

from vidsme_jax.checkpoints import content, layouts
from vidsme_jax.checkpoints.fields import EPS_RANGE, Fields
from vidsme_jax.checkpoints.loading import Rule, dense, norm
from vidsme_jax.models import rope
from vidsme_jax.models.rope import Rope

KINDS = ("llama", "mistral", "qwen2", "qwen3")
# The defaults that all kinds share in transformers, and those of Qwen.
_SIZES = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
_QWEN = {"intermediate_size": 22016, "vocab_size": 151936}
_QWEN |= {"max_position_embeddings": 32768, "num_key_value_heads": 32}
# The defaults of Qwen2-VL and Qwen2.5-VL, and of Qwen3-VL.
_QWEN_VL = {"hidden_size": 8192, "intermediate_size": 29568, "vocab_size": 152064}
_QWEN_VL |= {"num_hidden_layers": 80, "num_attention_heads": 64}
_QWEN_VL |= {"num_key_value_heads": 8, "max_position_embeddings": 32768}
_QWEN3_VL = _QWEN | {"head_dim": 128, "max_position_embeddings": 128000}
_WINDOW = 4096  # Mistral's default.
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
    rope: Rope
    max_positions: int  # Tokens that the positions support.
    attention_bias: bool = False  # In q, k and v (Qwen2).
    qk_norm: bool = False  # Of the heads of q and k, before the rotation (Qwen3).
    tie_word_embeddings: bool
    dtype: DTypeLike

    @classmethod
    def from_text(
        cls,
        fields: Fields,
        dtype: DTypeLike,
        *,
        tied: bool,
        known: tuple[str, ...] = KINDS,
    ) -> "DecoderConfig":
        """Reads a `text_config` of any kind; absent keys take transformers' defaults.

        Args:
          fields: The `text_config`; the caller closes it.
          dtype: The type of parameters and activations.
          tied: The outer config's `tie_word_embeddings`, which wins.
          known: The `model_type`s of the family; the first is the default.
        """
        kind = fields.expect("model_type", *known)
        read = {
            "llama": cls.from_llama,
            "mistral": cls.from_mistral,
            "qwen2": cls.from_qwen2,
            "qwen3": cls.from_qwen3,
        }
        return read[kind](fields, dtype, tied=tied)

    @classmethod
    def from_llama(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool
    ) -> "DecoderConfig":
        """Reads a Llama config; see `from_text`."""
        fields.expect("attention_bias", False)
        fields.expect("mlp_bias", False)
        sizes = {"intermediate_size": 11008, "vocab_size": 32000}
        sizes |= {"max_position_embeddings": 2048}
        return cls._read(fields, dtype, sizes, tied=tied)

    @classmethod
    def from_mistral(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool
    ) -> "DecoderConfig":
        """Reads a Mistral config; see `from_text`."""
        fields.take("attention_bias", bool, False)  # The class has none.
        sizes = {"intermediate_size": 14336, "vocab_size": 32000}
        sizes |= {"max_position_embeddings": 131072, "num_key_value_heads": 8}
        config = cls._read(fields, dtype, sizes, tied=tied)
        absent = "sliding_window" not in fields.raw
        window = _WINDOW if absent else fields.take("sliding_window", int, None)
        if window is not None and window < config.max_positions:
            fields.problems.append(
                f"{fields.where}: sliding_window is {content.shown(window)}"
                f"{' (the default)' * absent}; built for null, or at least the "
                f"{config.max_positions} positions: every row sees all before it"
            )
        return config

    @classmethod
    def from_qwen2(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool, scaled: bool = True
    ) -> "DecoderConfig":
        """Reads a Qwen2 config; see `from_text`.

        Args:
          fields: The `text_config`, or the whole file of an original LLaVA checkpoint;
            the caller closes it.
          dtype: The type of parameters and activations.
          tied: The outer config's `tie_word_embeddings`, which wins.
          scaled: Whether positions may be scaled; the original LLaVA classes drop
            `rope_scaling`.
        """
        fields.take("attention_bias", bool, True)  # The class has it.
        _sees_all(fields)
        config = cls._read(fields, dtype, _QWEN, tied=tied, scaled=scaled)
        return dataclasses.replace(config, attention_bias=True)

    @classmethod
    def from_qwen3(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool
    ) -> "DecoderConfig":
        """Reads a Qwen3 config; see `from_text`."""
        fields.expect("attention_bias", False)
        _sees_all(fields)
        config = cls._read(fields, dtype, _QWEN | {"head_dim": 128}, tied=tied)
        return dataclasses.replace(config, qk_norm=True)

    @classmethod
    def from_qwen2_vl(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool
    ) -> "DecoderConfig":
        """Reads the decoder of Qwen2-VL or Qwen2.5-VL; see `from_text`."""
        fields.take("attention_bias", bool, True)  # The class has it.
        _sees_all(fields)
        config = cls._read(
            *(fields, dtype, _QWEN_VL),
            tied=tied,
            eps=1e-5,
            theta=1e6,
            sections=(16, 24, 24),
        )
        return dataclasses.replace(config, attention_bias=True)

    @classmethod
    def from_qwen3_vl(
        cls, fields: Fields, dtype: DTypeLike, *, tied: bool
    ) -> "DecoderConfig":
        """Reads the decoder of Qwen3-VL; see `from_text`."""
        fields.expect("attention_bias", False)
        _sees_all(fields)
        config = cls._read(
            *(fields, dtype, _QWEN3_VL),
            tied=tied,
            theta=5e5,
            sections=(24, 20, 20),
            interleaved=True,
        )
        return dataclasses.replace(config, qk_norm=True)

    @classmethod
    def _read(
        cls,
        fields: Fields,
        dtype: DTypeLike,
        sizes: dict[str, int],
        *,
        tied: bool,
        scaled: bool = True,
        eps: float = 1e-6,
        theta: float = 10000.0,
        sections: tuple[int, ...] = (),
        interleaved: bool | None = None,
    ) -> "DecoderConfig":
        """Reads the keys that all backbones have; the arguments are their defaults."""
        fields.expect("hidden_act", "silu")
        fields.take("tie_word_embeddings", bool, False)
        read = {key: fields.size(key, size) for key, size in (_SIZES | sizes).items()}
        hidden, heads = read["hidden_size"], read["num_attention_heads"]
        # For these two null and an absent key differ.
        of_a_head = {"num_key_value_heads": heads, "head_dim": max(1, hidden // heads)}
        for key, size in of_a_head.items():
            if key not in read or (key in fields.raw and fields.raw[key] is None):
                read[key] = fields.size(key, size)
        embeddings = read.pop("max_position_embeddings")
        half = read["head_dim"] // 2
        axes = rope.Sections(sections, half, interleaved) if sections else None
        turned = rope.read(
            fields, embeddings, scaled=scaled, theta=theta, sections=axes
        )
        config = cls(
            **read,
            rms_norm_eps=fields.number("rms_norm_eps", eps, *EPS_RANGE),
            rope=turned,
            max_positions=turned.max_positions(embeddings),
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
                f"{fields.where}: a head has the size {config.head_dim} (head_dim, or "
                f"hidden_size {hidden} / num_attention_heads {heads}); expected an "
                "even number, because rotary positions turn pairs of numbers"
            )
        return config


def _sees_all(fields: Fields) -> None:
    """Refuses Qwen configs in which a row does not see all earlier rows."""
    fields.expect("use_sliding_window", False)
    kinds = fields.take("layer_types", list, [])
    others = [kind for kind in kinds if kind != "full_attention"]
    if others:
        fields.problems.append(
            f"{fields.where}: layer_types names {content.shown(others[0])}; built "
            "for full_attention"
        )


def ignored(prefix: str, head: str, config: DecoderConfig) -> dict[str, str]:
    """Returns patterns of a decoder's unused tensors, with the reasons; see `rules`."""
    rotary = prefix + r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
    out = {rotary: "follows from the config"}
    if config.tie_word_embeddings:
        out[head + r"\.weight"] = "tied to the embeddings"
    return out


def rules(
    prefix: str, head: str, path: str, config: DecoderConfig, *, cut: bool = False
) -> list[Rule]:
    """Returns the rules that fill the parameters at `path` of a decoder.

    `prefix` and `head` are patterns of the names of the decoder's tensors and of the
    output layer. With `cut` the file may have more classes than the model.
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
    for name in ("q_norm", "k_norm") if config.qk_norm else ():
        out += norm(
            rf"{block}self_attn\.{name}", f"{layer}/self_attn/{name}", bias=False
        )
    for name in ("gate_proj", "up_proj", "down_proj"):
        out += dense(rf"{block}mlp\.{name}", f"{layer}/{name}", bias=False)
    return out
