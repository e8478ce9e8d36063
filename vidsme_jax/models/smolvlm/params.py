"""Config and tensor names of SmolVLM2, whose files have the names of transformers."""

from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints.fields import Fields, by_key
from vidsme_jax.checkpoints.loading import Names, Rule, dense, norm
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.smolvlm.modeling import SmolVlmConfig
from vidsme_jax.models.towers import vit
from vidsme_jax.models.towers.vit import VitConfig

NAME = "smolvlm"
_TOWER, DECODER, HEAD = r"model\.vision_model\.", r"model\.text_model\.", "lm_head"
_CONNECTOR = r"model\.connector\.modality_projection\.proj"
_IGNORED = by_key(
    {
        "of the text config, which says it": "vocab_size",
        "of the tokenizer": "_pad_token_id",
        "of training": "use_reentrant_checkpointing",
        "of another library": "transformers.js_config",
    }
)
_OF_TOWER = by_key(
    {
        "of the processor, whose file says it": "size max_image_size",
        "of training": "use_base_siglip",
        "a tower has no output layer": "tie_word_embeddings",
    }
)
_OF_DECODER = decoder_params.IGNORED | by_key(
    {
        "the decoder is Llama's": "is_llama_config",
        "of training": "neftune_noise_alpha",
        "of the resampler, which is not there": "perceiver_config",
        "scale_factor says it": "pixel_shuffle_factor",
        "of an implementation of attention": "_flash_attn_2_enabled",
        "of another library": "transformers.js_config",
    }
)
# The defaults of the tower's class that are not SigLIP's.
_TOWER_DEFAULTS = {"hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}


def read_config(
    raw: dict[str, Any], dtype: DTypeLike, problems: list[str]
) -> tuple[SmolVlmConfig, int]:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Mean and deviation of pixels are those of the published processors.

    Args:
      raw: The file's content.
      dtype: Of parameters and activations.
      problems: Receives one sentence a key.

    Returns:
      The model's hyperparameters, and the id of the placeholder of visual rows.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", NAME)
    factor = fields.size("scale_factor", 2)
    tied = fields.take("tie_word_embeddings", bool, False)
    token = fields.token("image_token_id", 128257)
    vision = _read_tower(fields.take("vision_config", dict) or {}, dtype, problems)
    text = _read_decoder(fields.take("text_config", dict) or {}, dtype, tied, problems)
    if vision.grid % factor:
        problems.append(
            f"config.json: scale_factor is {factor}, which does not divide the "
            f"{vision.grid} patches along a side of a frame (image_size "
            f"{vision.image_size} over patch_size {vision.patch_size})"
        )
    fields.close(_IGNORED)
    half = (0.5, 0.5, 0.5)
    config = SmolVlmConfig(
        vision=vision, text=text, block=factor, image_mean=half, image_std=half
    )
    return config, token


def _read_tower(
    raw: dict[str, Any], dtype: DTypeLike, problems: list[str]
) -> VitConfig:
    """Reads the `vision_config`: SigLIP's keys, with the defaults of another class."""
    Fields(raw, "vision_config", problems).expect("model_type", "smolvlm_vision")
    known = {key: value for key, value in raw.items() if key not in _OF_TOWER}
    known |= {"model_type": "siglip_vision_model"}
    fields = Fields(_TOWER_DEFAULTS | known, "vision_config", problems)
    return vit.read_config(fields, "siglip", dtype)


def _read_decoder(
    raw: dict[str, Any], dtype: DTypeLike, tied: bool, problems: list[str]
) -> DecoderConfig:
    """Reads the `text_config`; of its own tie transformers takes no notice."""
    fields = Fields(raw, "text_config", problems)
    for key in ("qk_layer_norms", "rope_interleaved", "use_resampler"):
        fields.expect(key, False)
    text = DecoderConfig.from_text(fields, dtype, tied=tied, known=("llama",))
    fields.close(_OF_DECODER)
    return text


def canonical(name: str) -> str:
    """Returns a tensor's name: there is one dialect."""
    return name


def names(config: SmolVlmConfig) -> Names:
    """Returns the names of a model's tensors."""
    rules: list[Rule] = vit.rules(_TOWER, "vision_model", "siglip")
    rules += norm(rf"{_TOWER}post_layernorm", "post_layernorm")
    rules += dense(_CONNECTOR, "connector", bias=False)
    rules += decoder_params.rules(DECODER, HEAD, "language_model", config.text)
    own = {_TOWER + r"embeddings\.position_ids": "0, 1, 2, ..."}
    ignored = decoder_params.ignored(DECODER, HEAD, config.text)
    return Names(canonical, rules, own | ignored)
