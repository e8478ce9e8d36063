"""What training starts from: a checkpoint, or a `config.json` and a tokenizer."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import files
from vidsme_jax.models import preprocessing
from vidsme_jax.models.llava_next_video import params, processing
from vidsme_jax.models.llava_next_video.modeling import (
    LlavaNextVideo,
    LlavaNextVideoConfig,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint or an architecture, checked.

    Attributes:
      folder: Where its files are.
      raw: Its `config.json`.
      config: The same, read; in float32.
      prepare: Frames of any size to the model's input size.
      tokenizer: Of transformers.
      prompt: The text up to the video's end.
      prefix: Token ids before the video.
      make: Reads or draws the parameters.
    """

    folder: pathlib.Path
    raw: dict[str, Any]
    config: LlavaNextVideoConfig
    prepare: preprocessing.Preprocessing
    tokenizer: Any
    prompt: str
    prefix: tuple[int, ...]
    make: Callable[[], LlavaNextVideo]


def open_source(name: str, *, random_seed: int | None) -> Source:
    """Opens what training starts from.

    Args:
      name: A local folder or a hub id.
      random_seed: Of random parameters; None reads those of the checkpoint.

    Raises:
      AuditError: Lists every problem of config, tokenizer, preprocessing and tensors.
    """
    found: list[str] = []
    plan = None
    if random_seed is None:
        plan = models.inspect(name, dtype="float32")
        opened = files.open_checkpoint(name)
        prepare: Any = plan.prepare
    else:
        opened = files.Checkpoint(name, pathlib.Path(name).expanduser(), {}, {})
        raw = opened.json("config.json")
        if raw is None:
            raise AuditError([f"checkpoint {name}: no config.json in {opened.folder}"])
        opened = dataclasses.replace(opened, config=raw)
        size = raw.get("vision_config", {}).get("image_size", 224)
        image = opened.json("preprocessor_config.json")
        prepare = preprocessing.from_json(image, size, found)
    config = params.read_config(
        opened.config, jnp.dtype("float32"), prepare.mean, prepare.std, found
    )
    tokenizer, prompt, prefix = _tokenizer(
        opened.folder, config.video_token_index, found
    )
    if found:
        raise AuditError([f"checkpoint {name}: {problem}" for problem in found])

    def make() -> LlavaNextVideo:
        if plan is None:
            assert random_seed is not None
            return random_model(config, random_seed)
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        loaded = plan.load(lambda *_: device)
        return nnx.merge(loaded.graphdef, loaded.state)

    return Source(
        folder=opened.folder,
        raw=opened.config,
        config=config,
        prepare=prepare,
        tokenizer=tokenizer,
        prompt=prompt,
        prefix=prefix,
        make=make,
    )


def random_model(config: LlavaNextVideoConfig, seed: int) -> LlavaNextVideo:
    """Draws kernels scaled by their fan-in and embeddings of deviation 0.02."""
    rngs = nnx.Rngs(seed)
    model = LlavaNextVideo(config, rngs=rngs)
    first = jax.random.normal(rngs.params(), (config.vision.hidden_size,), jnp.float32)
    model.vision_tower.class_embedding = nnx.Param(0.02 * first)
    return model


def _tokenizer(
    folder: pathlib.Path, video_token: int, found: list[str]
) -> tuple[Any, str, tuple[int, ...]]:
    """Returns the tokenizer, the prompt up to the video's end, and the prefix."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # Any kind: it says that there is no usable tokenizer.
        cause = (str(error).strip() or "?").splitlines()[0]
        found.append(f"no usable tokenizer ({type(error).__name__}: {cause})")
        return None, "", ()
    prompt = processing.prompt_text(tokenizer, "family")
    if not prompt.startswith("USER: "):
        found.append("its prompt is ChatML; training is built for USER: ... ASSISTANT:")
    if tokenizer.eos_token_id is None:
        found.append("the tokenizer has no token that ends an answer (eos_token)")
    return (
        tokenizer,
        prompt,
        processing.prefix_ids(tokenizer, prompt, video_token, found),
    )
