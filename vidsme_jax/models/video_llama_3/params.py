"""Config and tensor names of VideoLLaMA3 in the format of Hugging Face's class.

Files have the names of transformers, which are those of a model in memory.
"""

from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints import layouts
from vidsme_jax.checkpoints.fields import EPS_RANGE, MAX_SIDE, Fields, by_key
from vidsme_jax.checkpoints.loading import Names, Rule, dense, norm
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.towers import grid_vit
from vidsme_jax.models.towers.grid_vit import GridVitConfig
from vidsme_jax.models.video_llama_3.modeling import VideoLlama3Config

NAME = "video_llama_3"
MERGE = 2  # Patches along a side of a visual row of a video: the processor's default.
_TOWER, _PROJECTOR = r"model\.vision_model\.", r"model\.projector\.readout\."
DECODER, HEAD = r"model\.language_model\.", "lm_head"
_IGNORED = by_key({"of images": "image_token_id"})


def read_config(
    raw: dict[str, Any], dtype: DTypeLike, problems: list[str]
) -> tuple[VideoLlama3Config, int]:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Mean and deviation of pixels are left to the processor's file.

    Args:
      raw: The file's content.
      dtype: Of parameters and activations.
      problems: Receives one sentence a key.

    Returns:
      The model's hyperparameters, and the id of the placeholder of visual rows.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", NAME)
    tied = fields.take("tie_word_embeddings", bool, False)
    token = fields.token("video_token_id", 151656)
    inner = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision = _read_tower(inner, dtype)
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    inner.expect("model_type", "qwen2")
    inner.expect("use_mrope", False)
    # Published files say it there.
    tied |= inner.take("tie_word_embeddings", bool, False)
    text = DecoderConfig.from_qwen2(inner, dtype, tied=tied)
    inner.close(decoder_params.IGNORED)
    fields.close(_IGNORED)
    config = VideoLlama3Config(vision=vision, text=text, image_mean=(), image_std=())
    return config, token


def _read_tower(fields: Fields, dtype: DTypeLike) -> GridVitConfig:
    """Reads the `vision_config`."""
    fields.expect("model_type", "video_llama_3_vision")
    fields.expect("num_channels", 3)
    grid_vit.read_rotation(fields)
    hidden = fields.size("hidden_size", 768)
    heads = fields.size("num_attention_heads", 12)
    grid_vit.check_heads(fields, hidden, heads)
    config = GridVitConfig(
        hidden_size=hidden,
        intermediate_size=fields.size("intermediate_size", 3072),
        depth=fields.size("num_hidden_layers", 12),
        num_heads=heads,
        patch_size=fields.size("patch_size", 16, MAX_SIDE),
        merge=MERGE,
        group=1,
        activation=fields.expect("hidden_act", "gelu_pytorch_tanh"),
        fused=False,
        patch_bias=True,
        eps=fields.number("layer_norm_eps", 1e-6, *EPS_RANGE),
        dtype=dtype,
    )
    fields.close({})
    return config


def canonical(name: str) -> str:
    """Returns a tensor's name: there is one dialect."""
    return name


def names(config: VideoLlama3Config) -> Names:
    """Returns the names of a model's tensors."""
    patches = rf"{_TOWER}embeddings\.patch_embedding\."
    path = "vision_model/patch_embedding"
    rules = [
        Rule(f"{patches}weight", f"{path}/kernel", layouts.Tiles(1)),
        Rule(f"{patches}bias", f"{path}/bias"),
    ]
    block, layer = rf"{_TOWER}encoder\.layers\.(\d+)\.", "vision_model/layers"
    for place in ("1", "2"):
        rules += norm(f"{block}layer_norm{place}", f"{layer}/norm{place}")
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        rules += dense(rf"{block}self_attn\.{name}", f"{layer}/attn/{name}")
    for name in ("fc1", "fc2"):
        rules += dense(rf"{block}mlp\.{name}", f"{layer}/{name}")
    rules += norm(rf"{_TOWER}post_layernorm", "post_layernorm")
    for place, name in (("0", "linear_1"), ("2", "linear_2")):
        rules += dense(_PROJECTOR + place, f"projector/{name}")
    rules += decoder_params.rules(DECODER, HEAD, "language_model", config.text)
    ignored = decoder_params.ignored(DECODER, HEAD, config.text)
    return Names(canonical, rules, ignored)
