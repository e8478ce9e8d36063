"""The configuration of a training run: every key, its default, what it allows."""

import glob
import os
import pathlib
import re
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.addresses import no_folder
from vidsme_jax.base import AuditError
from vidsme_jax.run.asking import find_local
from vidsme_jax.run.problems import Problems
from vidsme_jax.settings import reference, rules, views
from vidsme_jax.settings.rules import NOT_NEGATIVE, POSITIVE, Rule, integer, one_of
from vidsme_jax.settings.views import Number, group, key
from vidsme_jax.store.files import unwritable

STATE = "state"  # The folder in a work directory from which a run continues.
RECORD = "training.json"  # The file that is written last.
MEMBERS, NONMEMBERS = "members.jsonl", "nonmembers.jsonl"  # The halves of a pool.
EXPORTS = ("*.safetensors*", "adapter_config.json")
_SNAPSHOT = re.compile(r"epoch-\d+")
_MOST = 1_000_000_000  # Of anything that is counted.
_SHARED = ("corpus.members", "corpus.nonmembers", "corpus.video_root")
_SHARED += ("corpus.allow_outside", "corpus.fields", "corpus.allow_duplicates")
_SHARED += ("corpus.max_clips", "corpus.seed", "corpus.prepared")
_SHARED += ("corpus.prepared_cache",)
_SHARED += ("video.max_pixels", "video.max_seconds")
_SHARED += ("video.num_frames", "model.checkpoint", "model.allow_pickle")
_SHARED += ("parallel.mode", "parallel.data", "parallel.model")
_SHARED += ("workers", "compile_cache", "overwrite")


def _up_to(high: float, low: int | None = None) -> rules.Allowed:
    """Allows numbers up to `high`: above 0, or from `low` on."""
    if low is None:
        words, test = f"a number > 0, at most {high:g}", lambda x: 0 < x <= high
    else:
        words, test = f"a number from {low} to {high:g}", lambda x: low <= x <= high
    return rules.number(words, test)


def _are_epochs(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    whole = all(rules.is_integer(epoch) and epoch > 0 for epoch in value)
    return whole and list(value) == sorted(set(value))


@group
class Train:
    """Of `train.*`: what is trained, and how."""

    method: str = key(
        "full",
        one_of("full", "lora", "projector"),
        "full: all parameters; lora: low-rank updates; projector: the projector only.",
    )
    tower: str = key(
        "trained",
        one_of("trained", "frozen"),
        "With method=full: whether the vision tower is trained as well.",
    )
    pattern: str = key(
        "language_model/.*_proj",
        rules.text("a regular expression"),
        "With method=lora: the dense layers, by path; of the tower: vision_tower/.*",
    )
    rank: int = key(16, integer(1, 65_536), "Rank of low-rank updates.")
    alpha: Number = key(
        32.0, _up_to(1e6), "Low-rank updates are scaled by alpha / rank."
    )
    rslora: bool = key(False, rules.BOOL, "Scales them by alpha / sqrt(rank) instead.")
    merged: bool = key(
        False,
        rules.BOOL,
        "Writes a whole model with its updates added, not an adapter.",
    )
    dtype: str = key(
        "float32",
        one_of("float32", "bfloat16"),
        "Type of products and frozen parameters; trained ones are float32.",
    )
    batch_size: int = key(
        8,
        integer(1, _MOST),
        "Clips of a batch, over all devices; at most the number of members.",
    )
    accumulate: int = key(
        1, integer(1, _MOST), "Batches of each step, whose gradients are accumulated."
    )
    epochs: int = key(3, integer(1, _MOST), "Passes over the clips.")
    max_steps: int = key(0, integer(0, _MOST), "Most steps; 0: those of the epochs.")
    target_loss: Number = key(
        0.0,
        NOT_NEGATIVE,
        "Stops once an epoch's mean loss, in nats a token, is below this.",
    )
    learning_rate: Number = key(1e-3, _up_to(10.0), "Highest learning rate of AdamW.")
    warmup_steps: int = key(
        50, integer(0, _MOST), "Steps until the learning rate is reached."
    )
    weight_decay: Number = key(
        0.0, _up_to(1e6, 0), "Weight decay of AdamW, on matrices."
    )
    clip_norm: Number = key(1.0, POSITIVE, "Largest norm of all gradients together.")
    rematerialise: bool = key(
        False, rules.BOOL, "Computes layers twice, to save memory."
    )
    seed: int = key(
        0,
        integer(0, 2**32 - 1),
        "Seed of new weights, of the split and of the order of clips.",
    )
    member_share: Number = key(
        1.0,
        rules.PART,
        "Below 1: corpus.members is a pool; this share of its sources is trained on.",
    )
    checkpoint_every: int = key(
        500,
        integer(0),
        "Steps between saved states to continue from; 0: only when stopped.",
    )
    evaluate_every: int = key(
        0,
        integer(0),
        "Epochs between evaluations of the loss on all clips; 0: only at the end.",
    )
    snapshots: tuple[int, ...] = key(
        (),
        rules.Allowed("a tuple of epochs, increasing", _are_epochs),
        "Epochs after which the model is written to epoch-N.",
    )

    @property
    def divides(self) -> bool:
        """Whether the members are a pool, to be divided."""
        return self.member_share < 1

    @property
    def writes_adapter(self) -> bool:
        """Whether low-rank updates are written, not a whole model."""
        return self.method == "lora" and not self.merged


# The keys of `settings.RULES` are taken over where they mean the same.
RULES: dict[str, Rule] = {
    **{key: settings.RULES[key] for key in _SHARED},
    "video.sampling": Rule(
        "uniform", one_of("uniform", "midpoint"), "As in an audit, except fps."
    ),
    "model.init": Rule(
        "checkpoint",
        one_of("checkpoint", "random"),
        "random: only config.json, tokenizer and preprocessing are the checkpoint's.",
    ),
    "model.dtype": Rule(
        "float32",
        one_of("float32", "bfloat16"),
        "Type of the tensors that are written.",
    ),
    "cache_mib": Rule(
        1024, integer(0), "MiB of prepared clips to keep; others are decoded again."
    ),
    **views.rules_of(Train, "train."),
}


KEYS = reference.Keys(
    RULES, {**views.KEYS.titles, **reference.titles({"train": Train})}
)
SHORT = ("model", "members", "nonmembers")  # Flags; see `commands.SHORT`.


def default() -> ConfigDict:
    """Returns a configuration with every key at its default; `RULES` explains each."""
    return settings.default(RULES)


def train_of(config: ConfigDict) -> Train:
    """Returns the `train` part of a configuration."""
    return views.read(Train, config.get("train"))


def problems(config: ConfigDict) -> list[str]:
    """Lists what is wrong with a configuration, one sentence a key."""
    return settings.problems(config, RULES)


def ask(config: ConfigDict, workdir: str | pathlib.Path | None) -> Any:
    """Checks what can be checked before JAX is imported.

    Args:
      config: See `RULES`.
      workdir: Receives the model; None is a problem.

    Returns:
      The rows, a `pool.Pool`.

    Raises:
      AuditError: Something is wrong with values, work directory or corpus, or a local
        checkpoint is not there; lists every problem.
    """
    from vidsme_jax.finetune import pool

    if "headline" in config and "train" not in config:
        problem = "--config is a configuration of an audit: it has the key headline, "
        problem += "and no train; give one like configs/finetune.py (only --control "
        problem += "takes that of an audit)"
        raise AuditError([problem])
    problems = Problems(config, RULES)
    collect(problems, config, workdir)
    rows = None
    if problems.none_in("corpus", "train.member_share"):
        with problems.collected():
            rows = pool.rows(problems.settings, train_of(config))
    problems.close()
    return rows


def collect(
    problems: Problems, config: ConfigDict, workdir: str | pathlib.Path | None
) -> None:
    """Adds what is wrong with work directory, keys together and checkpoint."""
    if workdir is None:
        problems.add("--workdir is missing: it receives the model")
    elif wrong := no_folder(str(workdir), "--workdir"):
        problems.add(*wrong)
    elif wrong := unwritable(workdir := pathlib.Path(workdir), "--workdir"):
        problems.add(*wrong)
    else:
        problems.add(*_held(workdir, config, problems.none_in("train")))
        if problems.none_in("corpus") and problems.settings.corpus.allow_duplicates:
            problems.add(
                "config.corpus.allow_duplicates is true, and what a model was trained "
                "on is no non-member: leave it out, and each video in one role"
            )
        if problems.none_in("corpus", "train") and train_of(config).divides:
            problems.add(*_replaced(workdir, problems.settings.corpus))
    if problems.none_in("train"):
        drawn = problems.settings.model.checkpoint.startswith("random:")
        drawn = drawn or config.get("model", {}).get("init") == "random"
        problems.add(*_of_training(train_of(config), drawn=drawn))
    if problems.none_in("model"):
        with problems.collected("model.checkpoint"):
            random = config.get("model", {}).get("init") == "random"
            find_local(problems.settings.model.checkpoint, weights=not random)


def snapshots_in(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of models after epochs."""
    return [x for x in sorted(workdir.glob("epoch-*")) if _SNAPSHOT.fullmatch(x.name)]


def _replaced(workdir: pathlib.Path, corpus: views.Corpus) -> list[str]:
    """Returns which manifests of the pool the halves would be written over."""
    own = {os.path.realpath(workdir / name) for name in (MEMBERS, NONMEMBERS)}
    found = []
    for source in corpus.members:
        for path in glob.glob(source) or [source]:
            if os.path.realpath(path) in own:
                found.append(
                    f"config.corpus.members is {source}, in whose place the training "
                    "would write its own half: take another --workdir"
                )
    return found


def _held(workdir: pathlib.Path, config: ConfigDict, known: bool) -> list[str]:
    """Returns what is wrong with a folder for what it holds.

    Args:
      workdir: May be absent.
      config: Says what is written, and whether it replaces what is there.
      known: Whether what it says of the training can be read.
    """
    overwrite = bool(config.get("overwrite"))
    adapter = known and train_of(config).writes_adapter
    states = (workdir / STATE).is_dir()
    if (workdir / "adapter_config.json").is_file() and not adapter:
        return [f"{workdir} holds an adapter; give a whole model another --workdir"]
    found = [path for name in EXPORTS for path in workdir.glob(name)]
    if adapter and any(not x.name.startswith("adapter_") for x in found):
        return [f"{workdir} holds a whole model; give an adapter another --workdir"]
    # A training that was stopped after writing its weights has no record yet.
    if found and not overwrite and not (states and not (workdir / RECORD).exists()):
        return [f"{workdir} holds a checkpoint; --config.overwrite replaces it"]
    halves = [x for x in (workdir / MEMBERS, workdir / NONMEMBERS) if x.exists()]
    if halves and known and train_of(config).divides and not states and not overwrite:
        return [
            f"{halves[0]} is there, and no training that wrote it: take another "
            "--workdir; --config.overwrite replaces it"
        ]
    snapshots = snapshots_in(workdir)
    if snapshots and not states and not overwrite:
        return [
            f"{workdir} holds snapshots of another training, such as {snapshots[0]}; "
            "--config.overwrite deletes them"
        ]
    return []


def _of_training(train: Train, *, drawn: bool) -> list[str]:
    """Returns what of the keys does not go together."""
    found = []
    if train.method != "full" and train.tower == "frozen":
        found.append(
            f"config.train.tower is frozen, which it is with config.train.method = "
            f"{train.method} in any case: leave it out"
        )
    if train.method != "lora" and train.merged:
        found.append(
            "config.train.merged is of the method lora; config.train.method is "
            f"{train.method}"
        )
    if train.method == "lora" and drawn and not train.merged:
        found.append(
            "config.train.method is lora, and the weights that it starts from are "
            "drawn: there is no base for an adapter; set config.train.merged = true"
        )
    if any(epoch > train.epochs for epoch in train.snapshots):
        found.append(
            f"config.train.snapshots is {train.snapshots!r}, and config.train.epochs "
            f"is {train.epochs}: later ones are never reached"
        )
    return found
