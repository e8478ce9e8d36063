"""The configuration of a training run: every key, its default, what it allows."""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.base import nearest

_SHARED = ("corpus.members", "corpus.nonmembers", "corpus.video_root")
_SHARED += ("corpus.allow_outside", "video.max_pixels", "video.max_seconds")
_SHARED += ("video.num_frames", "model.checkpoint", "workers", "overwrite")


def _integer(low: int) -> tuple[str, Callable[[Any], bool]]:
    return f"an integer >= {low}", lambda value: isinstance(value, int) and value >= low


def _one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(names)}", lambda value: value in names


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


_NUMBER = ("a number >= 0", _is_number)
_POSITIVE = ("a number > 0", lambda value: _is_number(value) and value > 0)

# As `settings.RULES`, whose keys are taken over where they mean the same.
RULES: dict[str, tuple[Any, str, Callable[[Any], bool]]] = {
    **{key: settings.RULES[key] for key in _SHARED},
    "video.sampling": ("uniform", *_one_of("uniform", "midpoint")),
    # checkpoint: starts from its weights; random: from its config.json, tokenizer and
    # preprocessing only.
    "model.init": ("checkpoint", *_one_of("checkpoint", "random")),
    # Of the tensors in the file; training is in float32.
    "model.dtype": ("float32", *_one_of("float32", "bfloat16")),
    "train.batch_size": (8, *_integer(1)),
    "train.max_steps": (1000, *_integer(1)),
    # Ends the training once an epoch's mean loss, in nats a token, is below it.
    "train.target_loss": (0.0, *_NUMBER),
    "train.learning_rate": (1e-3, *_POSITIVE),
    "train.warmup_steps": (50, *_integer(0)),
    "train.weight_decay": (0.0, *_NUMBER),
    "train.clip_norm": (1.0, *_POSITIVE),
    # Of the initial weights and of the order of the clips.
    "train.seed": (0, *_integer(0)),
    # MiB of prepared clips that are kept; the rest is decoded anew in every epoch.
    "cache_mib": (1024, *_integer(0)),
}


def default() -> ConfigDict:
    """Returns a configuration with every key at its default; `RULES` explains each."""
    tree: dict[str, Any] = {}
    for key, (value, _, _) in RULES.items():
        group, _, name = key.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[name] = value
    return ConfigDict(tree)


def problems(config: ConfigDict) -> list[str]:
    """Lists what is wrong with a configuration, one sentence a key."""
    flat = settings.flatten(config)
    found = [
        f"config.{key}: no such key{nearest(key, list(RULES))}"
        for key in flat
        if key not in RULES
    ]
    for key, (_, allowed, test) in RULES.items():
        if key not in flat:
            found.append(f"config.{key}: missing; it must be {allowed}")
        elif not test(flat[key]):
            found.append(f"config.{key} is {flat[key]!r}; it must be {allowed}")
    return found
