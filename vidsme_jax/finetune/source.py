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
from vidsme_jax.models import preprocessing, prompts
from vidsme_jax.models.llava import Llava, LlavaConfig
from vidsme_jax.models.llava_next_video import params
from vidsme_jax.models.towers.clip import ClipVit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint or an architecture, checked.

    Attributes:
      folder: Where its files are.
      raw: Its `config.json`.
      config: The same, read; in float32.
      prepare: Frames of any size to the model's input size.
      tokenizer: Of transformers.
      video_token: The id that stands for the video.
      tokenise: See `Model.tokenise`.
      make: Reads or draws the parameters.
    """

    folder: pathlib.Path
    raw: dict[str, Any]
    config: LlavaConfig
    prepare: preprocessing.Preprocessing
    tokenizer: Any
    video_token: int
    tokenise: prompts.Tokenise
    make: Callable[[], Llava]


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
        opened = files.Checkpoint(name, (pathlib.Path(name).expanduser(),), {}, {})
        raw = opened.json("config.json")
        if raw is None:
            raise AuditError([f"checkpoint {name}: no config.json in {opened.folder}"])
        opened = dataclasses.replace(opened, config=raw)
        size = raw.get("vision_config", {}).get("image_size", 224)
        image = opened.json("preprocessor_config.json")
        prepare = preprocessing.from_json(image, size, found)
    config, video_token = params.read_config(
        opened.config, jnp.dtype("float32"), prepare.mean, prepare.std, found
    )
    tokenizer, tokenise = _tokenizer(opened, video_token, found)
    if found:
        raise AuditError([f"checkpoint {name}: {problem}" for problem in found])

    def make() -> Llava:
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
        video_token=video_token,
        tokenise=tokenise,
        make=make,
    )


def random_model(config: LlavaConfig, seed: int) -> Llava:
    """Draws kernels scaled by their fan-in and embeddings of deviation 0.02."""
    rngs = nnx.Rngs(seed)
    model = Llava(config, rngs=rngs)
    first = jax.random.normal(rngs.params(), (config.vision.hidden_size,), jnp.float32)
    assert isinstance(model.vision_tower, ClipVit)
    model.vision_tower.class_embedding = nnx.Param(0.02 * first)
    return model


def _tokenizer(
    checkpoint: files.Checkpoint, video_token: int, found: list[str]
) -> tuple[Any, prompts.Tokenise]:
    """Returns the tokenizer and the prompt up to the video's end."""
    tokenizer = models.read_tokenizer(checkpoint, found)
    if tokenizer is None:
        return None, prompts.no_text
    if "<|im_start|>" in tokenizer.get_vocab():
        found.append("its prompt is ChatML; training is built for USER: ... ASSISTANT:")
    if tokenizer.eos_token_id is None:
        found.append("the tokenizer has no token that ends an answer (eos_token)")
    style = prompts.VICUNA
    text = prompts.text_of("family", style, "", found)
    return tokenizer, prompts.around_token(
        tokenizer, text, style.turn, video_token, found
    )
