"""Tiny random decoders of transformers, and ours behind a made-up tower."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import transformers
from flax import nnx
from jax import numpy as jnp

from oracles import randomise
from vidsme_jax.checkpoints import loading, opening
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder import Decoder
from vidsme_jax.models.decoder_params import DecoderConfig

SIZES = dict(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    pad_token_id=0,
)
_LLAMA3 = dict(rope_type="llama3", factor=8.0, rope_theta=100.0)
_LLAMA3 |= dict(low_freq_factor=1.0, high_freq_factor=4.0)
_LLAMA3 |= dict(original_max_position_embeddings=64)
# By name: `model_type`, and what the config says beside the sizes.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, linear": (
        "llama",
        {"rope_parameters": dict(rope_type="linear", factor=2.5, rope_theta=1e4)},
    ),
    "llama, llama3": ("llama", {"rope_parameters": _LLAMA3, "head_dim": 12}),
    "llama, dynamic": (
        "llama",
        {"rope_parameters": dict(rope_type="dynamic", factor=2.0, rope_theta=1e6)},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, its window": (
        "mistral",
        {"sliding_window": 256, "head_dim": 12, "num_key_value_heads": 1},
    ),
    "qwen2": ("qwen2", {"num_key_value_heads": 1}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3, tied": ("qwen3", {"head_dim": 6, "tie_word_embeddings": True}),
}


class Reader(nnx.Module):
    """A decoder whose tower is a table of grey levels: one visual row a frame."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.language_model = Decoder(config, rngs=rngs)

    def see(self, pixels):
        """Frames of one pixel (clips, views, frames) to their rows."""
        return jnp.asarray(levels(self.config.hidden_size))[pixels.astype(jnp.int32)]

    def read(self, visual, batch):
        """As the decoder does."""
        return self.language_model.read(visual, batch)

    @property
    def decoder(self) -> Decoder:
        """For `generation`."""
        return self.language_model

    @property
    def head(self):
        """One row a class."""
        return self.language_model.head


class Loaded(NamedTuple):
    """Our side of an oracle."""

    config: DecoderConfig
    graphdef: nnx.GraphDef
    state: nnx.State


def levels(size: int) -> np.ndarray:
    """Returns the visual row of each grey level."""
    return np.random.default_rng(5).standard_normal((256, size)).astype(np.float32)


def make_model(name: str, **changes: Any) -> torch.nn.Module:
    """Returns a model with scaled-up weights, random norms and random biases."""
    torch.manual_seed(0)
    kind, others = MODELS[name]
    config = transformers.AutoConfig.for_model(kind, **(SIZES | others | changes))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    randomise(model)
    return model


def load(model: torch.nn.Module, folder: pathlib.Path, shardings=None) -> Loaded:
    """Reads what `save_pretrained` writes."""
    model.save_pretrained(folder)
    checkpoint = opening.open_checkpoint(str(folder))
    problems: list[str] = []
    fields = Fields(checkpoint.config, "text_config", problems)
    tied = fields.take("tie_word_embeddings", bool, False)
    config = DecoderConfig.from_text(fields, "float32", tied=tied)
    fields.close(decoder_params.IGNORED)
    assert not problems, problems
    make = lambda: Reader(config, rngs=nnx.Rngs(0))
    graphdef, abstract = nnx.split(nnx.eval_shape(make))
    rules = decoder_params.rules(r"model\.", "lm_head", "language_model", config)
    names = loading.Names(lambda name: name, rules, {})
    plan = loading.plan_loading(checkpoint, abstract, names)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = shardings or (lambda *_: place)
    state = loading.load(plan, abstract, shardings, checkpoint_name="tiny")
    return Loaded(config, graphdef, state)


def logits(model: torch.nn.Module, before, frames, after) -> torch.Tensor:
    """Runs the torch model on ids, grey levels, and ids; all rows."""
    embed = model.get_input_embeddings()
    visual = torch.tensor(levels(model.config.hidden_size)[np.asarray(frames)])
    ids = (torch.tensor(x, dtype=torch.long) for x in (before, after))
    first, last = map(embed, ids)
    with torch.no_grad():
        return model(inputs_embeds=torch.cat([first, visual, last])[None]).logits[0]
