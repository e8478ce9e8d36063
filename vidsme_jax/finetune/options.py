"""The configuration of a training run: keys, defaults and allowed values."""

import glob
import os
import pathlib
import re

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.addresses import no_folder
from vidsme_jax.run.asking import find_local
from vidsme_jax.run.problems import Problems
from vidsme_jax.settings import reference, rules, views
from vidsme_jax.settings.rules import NOT_NEGATIVE, POSITIVE, Rule, integer, one_of
from vidsme_jax.settings.views import Number, group, key
from vidsme_jax.store.files import unwritable

STATE = "state"  # The folder in a work directory from which a run continues.
RECORD = "training.json"  # The file that is written last.
MEMBERS, NONMEMBERS = "members.jsonl", "nonmembers.jsonl"  # The sides of a pool.
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


def _up_to(high: float) -> rules.Allowed:
    """Allows numbers above 0, up to `high`."""
    return rules.number(f"a number > 0, at most {high:g}", lambda x: 0 < x <= high)


def _are_epochs(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    whole = all(rules.is_integer(epoch) and epoch > 0 for epoch in value)
    return whole and list(value) == sorted(set(value))


@group
class Train:
    """The keys `train.*`: what is trained, and how."""

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
        0.0,
        rules.number("a number from 0 to 1e+06", lambda x: 0 <= x <= 1e6),
        "Weight decay of AdamW, on matrices.",
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
        """Whether corpus.members is a pool to be divided."""
        return self.member_share < 1

    @property
    def writes_adapter(self) -> bool:
        """Whether an adapter is written, not a whole model."""
        return self.method == "lora" and not self.merged


# Keys that mean the same as in an audit are those of `settings.RULES`.
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
    """Lists the problems of a configuration, one sentence a key."""
    return settings.problems(config, RULES)


def collect(
    problems: Problems, config: ConfigDict, workdir: str | pathlib.Path | None
) -> None:
    """Adds the problems of work directory, combinations of keys, and checkpoint."""
    if workdir is None:
        problems.add("--workdir is missing: it receives the model")
    elif wrong := no_folder(str(workdir), "--workdir"):
        problems.add(*wrong)
    elif wrong := unwritable(workdir := pathlib.Path(workdir), "--workdir"):
        problems.add(*wrong)
    else:
        problems.add(*_occupied(workdir, config, problems.none_in("train")))
        if problems.none_in("corpus") and problems.settings.corpus.allow_duplicates:
            problems.add(
                "config.corpus.allow_duplicates is true, but a video that a model was "
                "trained on is no non-member: leave the key out, and give each video "
                "one role"
            )
        if problems.none_in("corpus", "train") and train_of(config).divides:
            problems.add(*_replaced(workdir, problems.settings.corpus))
    name = problems.settings.model.checkpoint
    random = config.get("model", {}).get("init") == "random"
    if problems.none_in("train"):
        drawn = random or name.startswith("random:")
        problems.add(*_conflicts(train_of(config), drawn=drawn))
    if problems.none_in("model"):
        with problems.collected("model.checkpoint"):
            find_local(name, weights=not random)


def snapshots_in(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of models after epochs."""
    return [x for x in sorted(workdir.glob("epoch-*")) if _SNAPSHOT.fullmatch(x.name)]


def _replaced(workdir: pathlib.Path, corpus: views.Corpus) -> list[str]:
    """Returns a problem for each source of the pool that a half would replace."""
    own = {os.path.realpath(workdir / name) for name in (MEMBERS, NONMEMBERS)}
    found = []
    for source in corpus.members:
        for path in glob.glob(source) or [source]:
            if os.path.realpath(path) in own:
                found.append(
                    f"config.corpus.members is {source}, which the training would "
                    "replace by its own half: take another --workdir"
                )
    return found


def _occupied(workdir: pathlib.Path, config: ConfigDict, known: bool) -> list[str]:
    """Returns the problem of a folder that holds what the training must not replace.

    Args:
      workdir: May be absent.
      config: Of the training.
      known: Whether its `train` part is valid.
    """
    overwrite = bool(config.get("overwrite"))
    adapter = known and train_of(config).writes_adapter
    states = (workdir / STATE).is_dir()
    if (workdir / "adapter_config.json").is_file() and not adapter:
        return [
            f"{workdir} holds an adapter (adapter_config.json), and the training "
            "writes a whole model: take another --workdir"
        ]
    found = [path for name in EXPORTS for path in workdir.glob(name)]
    if adapter and any(not x.name.startswith("adapter_") for x in found):
        return [
            f"{workdir} holds a whole model, and the training writes an adapter: take "
            "another --workdir"
        ]
    # A training that was stopped after writing its weights has no record yet.
    if found and not overwrite and not (states and not (workdir / RECORD).exists()):
        return [
            f"{workdir} holds a checkpoint ({found[0].name}): take another --workdir; "
            "--config.overwrite=true replaces it"
        ]
    halves = [x for x in (workdir / MEMBERS, workdir / NONMEMBERS) if x.exists()]
    if halves and known and train_of(config).divides and not states and not overwrite:
        return [
            f"{halves[0]} exists, and {workdir} holds no training that wrote it: take "
            "another --workdir; --config.overwrite=true replaces it"
        ]
    snapshots = snapshots_in(workdir)
    if snapshots and not states and not overwrite:
        return [
            f"{workdir} holds snapshots of another training, such as {snapshots[0]}; "
            "--config.overwrite=true deletes them"
        ]
    return []


def _conflicts(train: Train, *, drawn: bool) -> list[str]:
    """Returns the problems of keys that exclude one another.

    Args:
      train: Of the configuration.
      drawn: Whether training starts from random weights.
    """
    found = []
    if train.method != "full" and train.tower == "frozen":
        found.append(
            "config.train.tower is frozen, a choice of config.train.method = full "
            f"alone; the method is {train.method}: leave config.train.tower out"
        )
    if train.method != "lora" and train.merged:
        found.append(
            "config.train.merged is true, a choice of config.train.method = lora "
            f"alone; the method is {train.method}: leave config.train.merged out"
        )
    if train.method == "lora" and drawn and not train.merged:
        found.append(
            "config.train.method is lora, and training starts from random weights: "
            "there is no base for an adapter; set config.train.merged = true"
        )
    if any(epoch > train.epochs for epoch in train.snapshots):
        found.append(
            f"config.train.snapshots is {train.snapshots!r}, and config.train.epochs "
            f"is {train.epochs}: raise it, or leave out epochs above it"
        )
    return found
