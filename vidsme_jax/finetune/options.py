"""The configuration of a training run: every key, its default, what it allows."""

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.settings.rules import NOT_NEGATIVE, POSITIVE, Rule, integer, one_of

_SHARED = ("corpus.members", "corpus.nonmembers", "corpus.video_root")
_SHARED += ("corpus.allow_outside", "video.max_pixels", "video.max_seconds")
_SHARED += ("video.num_frames", "model.checkpoint", "workers", "overwrite")

# The keys of `settings.RULES` are taken over where they mean the same.
RULES: dict[str, Rule] = {
    **{key: settings.RULES[key] for key in _SHARED},
    "video.sampling": Rule(
        "uniform", one_of("uniform", "midpoint"), "As in an audit, without fps."
    ),
    "model.init": Rule(
        "checkpoint",
        one_of("checkpoint", "random"),
        "random: only config.json, tokenizer and preprocessing are the checkpoint's.",
    ),
    "model.dtype": Rule(
        "float32",
        one_of("float32", "bfloat16"),
        "Of the tensors in the file; training is in float32.",
    ),
    "train.batch_size": Rule(8, integer(1), "Clips a step."),
    "train.max_steps": Rule(1000, integer(1), "Steps, at most."),
    "train.target_loss": Rule(
        0.0, NOT_NEGATIVE, "Ends once an epoch's mean loss, in nats a token, is below."
    ),
    "train.learning_rate": Rule(1e-3, POSITIVE, "Of AdamW, at its highest."),
    "train.warmup_steps": Rule(50, integer(0), "Steps until the rate is reached."),
    "train.weight_decay": Rule(0.0, NOT_NEGATIVE, "Of AdamW."),
    "train.clip_norm": Rule(1.0, POSITIVE, "Of the gradients, all together."),
    "train.seed": Rule(0, integer(0), "Of the weights and of the order of the clips."),
    "cache_mib": Rule(
        1024, integer(0), "MiB of prepared clips to keep; the rest is decoded anew."
    ),
}


def default() -> ConfigDict:
    """Returns a configuration with every key at its default; `RULES` explains each."""
    return settings.default(RULES)


def problems(config: ConfigDict) -> list[str]:
    """Lists what is wrong with a configuration, one sentence a key."""
    return settings.problems(config, RULES)
