"""Config and tensor names of PerceptionLM, in the format of Hugging Face's class.

Files have the names of the class's own parameters: `model.vision_tower.timm_model...`,
`model.multi_modal_projector...`, `model.language_model...` and `lm_head`.
"""

from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.loading import Names, dense
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.perception_lm import tower, tower_config
from vidsme_jax.models.perception_lm.modeling import PerceptionLmConfig
from vidsme_jax.models.preprocessing import Preprocessing

DECODER, HEAD = r"model\.language_model\.", "lm_head"
VIDEO_TOKEN = 128003  # Its id by default.
_TOWER, _PROJECTOR = r"model\.vision_tower\.timm_model\.", "multi_modal_projector"
_IGNORED = {"image_token_id": "of still images"}


def read_vision(
    raw: dict[str, Any], dtype: DTypeLike, problems: list[str]
) -> tower_config.PeConfig:
    """Reads the `vision_config` of a `config.json`.

    Args:
      raw: The file's content.
      dtype: Of parameters and activations.
      problems: Receives one sentence a key.
    """
    found = raw.get("vision_config")
    fields = Fields({} if found is None else found, "vision_config", problems)
    return tower_config.read(fields, dtype)


def read_config(
    raw: dict[str, Any],
    vision: tower_config.PeConfig,
    prepare: Preprocessing,
    problems: list[str],
) -> tuple[PerceptionLmConfig, int]:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Args:
      raw: The file's content.
      vision: What `read_vision` says of it.
      prepare: The preprocessing.
      problems: Receives one sentence a key.

    Returns:
      The model's hyperparameters, and the id of the video token.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", "perception_lm")
    fields.take("vision_config", dict, {})
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    tied = inner.take("tie_word_embeddings", bool, False)
    tied = fields.take("tie_word_embeddings", bool, tied)
    text = DecoderConfig.from_text(inner, vision.dtype, tied=tied, known=("llama",))
    inner.close(decoder_params.IGNORED)
    dropped = fields.take("vision_use_cls_token", bool, True)
    if dropped != vision.class_token:
        has = "a" if vision.class_token else "no"
        problems.append(
            f"config.json: vision_use_cls_token is {dropped}, but the tower of "
            f"vision_config has {has} class token"
        )
    pooling = fields.size("projector_pooling_ratio", 1)
    if vision.grid % pooling:
        problems.append(
            f"config.json: projector_pooling_ratio is {pooling}; built for a divisor "
            f"of the tower's grid of {vision.grid} x {vision.grid} patches"
        )
    token = fields.token("video_token_id", VIDEO_TOKEN)
    fields.close(_IGNORED)
    config = PerceptionLmConfig(
        vision=vision,
        text=text,
        pooling=pooling,
        image_mean=prepare.mean,
        image_std=prepare.std,
    )
    return config, token


def canonical(name: str) -> str:
    """Returns the name: there is one dialect."""
    return name


def names(config: PerceptionLmConfig) -> Names:
    """Returns the names of a model's tensors."""
    rules = tower.rules(_TOWER, "vision_tower", config.vision)
    for layer in ("linear_1", "linear_2"):
        rules += dense(rf"model\.{_PROJECTOR}\.{layer}", f"{_PROJECTOR}/{layer}")
    rules += decoder_params.rules(DECODER, HEAD, "language_model", config.text)
    own = tower.ignored(_TOWER)
    ignored = decoder_params.ignored(DECODER, HEAD, config.text)
    return Names(canonical, rules, own | ignored)
