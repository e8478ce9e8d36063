"""The configuration of a training run: every key, its default, what it allows."""

import pathlib

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.base import Item
from vidsme_jax.data import corpora
from vidsme_jax.run.asking import Problems, find_local
from vidsme_jax.settings.rules import NOT_NEGATIVE, POSITIVE, Rule, integer, one_of

_SHARED = ("corpus.members", "corpus.nonmembers", "corpus.video_root")
_SHARED += ("corpus.allow_outside", "corpus.fields", "corpus.allow_duplicates")
_SHARED += ("video.max_pixels", "video.max_seconds")
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


def ask(config: ConfigDict, workdir: pathlib.Path | None) -> None:
    """Checks what can be checked before JAX is imported.

    Raises:
      AuditError: Something is wrong with values, work directory or corpus, or a local
        checkpoint is not there; lists every problem.
    """
    problems = Problems(config, RULES)
    collect(problems, config, workdir)
    problems.close()


def collect(
    problems: Problems, config: ConfigDict, workdir: pathlib.Path | None
) -> tuple[Item, ...]:
    """Returns the rows of the corpus, or adds to the problems; see `ask`."""
    items: tuple[Item, ...] = ()
    found = workdir.glob("*.safetensors*") if workdir is not None else ()
    weights = {path.name for path in found}
    if workdir is None:
        problems.add("--workdir is missing: it receives the model")
    elif weights and not config.get("overwrite"):
        problems.add(f"{workdir} holds a checkpoint; --config.overwrite replaces it")
    elif weights - {"model.safetensors"}:
        problems.add(f"{workdir} holds a checkpoint in several files; give another")
    if problems.none_in("corpus"):
        with problems.collected():
            items = corpora.load(problems.settings.corpus).items
    if problems.none_in("model"):
        with problems.collected("model.checkpoint"):
            random = config.get("model", {}).get("init") == "random"
            find_local(problems.settings.model.checkpoint, weights=not random)
    return items
