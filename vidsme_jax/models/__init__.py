"""Model families: from a checkpoint to a model on devices.

`inspect` checks everything that can be checked on the host; the plan it returns then
loads the tensors.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import files, loading
from vidsme_jax.models import preprocessing
from vidsme_jax.models.interface import LoadedModel, ModelPlan
from vidsme_jax.models.llava_next_video import modeling as llava_next_video
from vidsme_jax.models.llava_next_video import params as llava_next_video_params
from vidsme_jax.models.llava_next_video import processing as llava_next_video_processing
from vidsme_jax.settings import nearest


def inspect(checkpoint: str, *, dtype: str, prompt: str = "family") -> ModelPlan:
    """Checks a checkpoint on the host, without reading its tensors.

    Args:
      checkpoint: A local folder or a hub id.
      dtype: "bfloat16" or "float32".
      prompt: "family", or a name of `prompts.SYSTEM`.

    Raises:
      AuditError: Lists every problem of config, tokenizer, preprocessing and tensors.
    """
    opened = files.open_checkpoint(checkpoint)
    family = opened.config.get("model_type")
    if family not in MODELS:
        raise AuditError(
            [
                f"checkpoint {checkpoint}: unknown family (model_type {family!r}); "
                f"known: {', '.join(MODELS)}{nearest(str(family), list(MODELS))}"
            ]
        )
    return MODELS[family](opened, dtype, prompt)


def load(
    checkpoint: str, *, dtype: str = "bfloat16", prompt: str = "family"
) -> LoadedModel:
    """Loads a checkpoint onto the first device; see `inspect` for the arguments."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return inspect(checkpoint, dtype=dtype, prompt=prompt).load(lambda *_: device)


def _inspect_llava_next_video(
    checkpoint: files.Checkpoint, dtype: str, prompt: str
) -> ModelPlan:
    family, params = llava_next_video, llava_next_video_params
    problems: list[str] = []
    image_size = checkpoint.config.get("vision_config", {}).get("image_size", 224)
    prepare = preprocessing.from_json(
        _video_preprocessing(checkpoint), image_size, problems
    )
    config = params.read_config(
        checkpoint.config, jnp.dtype(dtype), prepare.mean, prepare.std, problems
    )
    prefix, text = (), ""
    tokenizer = _tokenizer(checkpoint, problems)
    if tokenizer is not None:
        text = llava_next_video_processing.prompt_text(tokenizer, prompt)
        prefix = llava_next_video_processing.prefix_ids(
            tokenizer, text, config.video_token_index, problems
        )
    _refuse(checkpoint, problems)
    make = functools.partial(family.LlavaNextVideo, config)
    return _plan(
        checkpoint,
        make,
        params.rules(config),
        params.canonical,
        params.ignored(config),
        family="llava_next_video",
        prefix=prefix,
        prompt=text,
        prepare=prepare,
        rows_per_frame=config.rows_per_frame,
        max_frames=(config.text.max_positions - len(prefix)) // config.rows_per_frame,
        dtype=dtype,
    )


def _plan(checkpoint, make, rules, canonical, ignored, **about: Any) -> ModelPlan:
    """Checks the tensors against the model and closes over how to read them."""
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    fillings = loading.plan_loading(
        checkpoint, abstract, rules, canonical=canonical, ignored=ignored
    )

    def read(shardings: loading.Shardings) -> LoadedModel:
        state = loading.load(
            fillings, abstract, shardings, checkpoint_name=checkpoint.name
        )
        return LoadedModel(plan=plan, graphdef=graphdef, state=state)

    plan = ModelPlan(fingerprint=checkpoint.fingerprint(), load=read, **about)
    return plan


def _video_preprocessing(checkpoint: files.Checkpoint) -> dict[str, Any] | None:
    """Returns the settings for video frames, wherever this version keeps them."""
    whole = checkpoint.json("processor_config.json") or {}
    for key in ("video_processor", "image_processor"):
        if isinstance(whole.get(key), dict):
            return whole[key]
    return checkpoint.json("video_preprocessor_config.json", "preprocessor_config.json")


def _tokenizer(checkpoint: files.Checkpoint, problems: list[str]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(checkpoint.folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # Any kind: it says that there is no usable tokenizer.
        cause = str(error).strip().splitlines()[0] if str(error).strip() else ""
        problems.append(f"no usable tokenizer ({type(error).__name__}: {cause})")
        return None


def _refuse(checkpoint: files.Checkpoint, problems: list[str]) -> None:
    if problems:
        raise AuditError([f"checkpoint {checkpoint.name}: {p}" for p in problems])


MODELS: dict[str, Callable[[files.Checkpoint, str, str], ModelPlan]] = {
    "llava_next_video": _inspect_llava_next_video,
}
