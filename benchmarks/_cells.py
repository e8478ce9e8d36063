"""One cell of the controlled benchmark: a model is trained, and its clips are scored.

A cell is a pool of clips, a way of training and a seed. The seed decides which half of
the pool's sources is trained on; the model after 1, 3 and 10 epochs, and at the end, is
scored as an audit scores it. What is kept of a cell is a table of scores a snapshot.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import _report
import numpy as np
import pyarrow.parquet as pq

from vidsme_jax import scores, settings
from vidsme_jax.base import Item, ScoreTable
from vidsme_jax.finetune import options, training
from vidsme_jax.run import checks, processes, scoring
from vidsme_jax.run.stopping import Stop
from vidsme_jax.scores import tables
from vidsme_jax.store.signals import Signals

SNAPSHOTS = (1, 3, 10)
END = "end"  # The last snapshot: memorised, or the last epoch.
SLICES = ("video", "instruction", "response")


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the models of a pool are trained.

    Attributes:
      num_frames: Of every clip.
      batch_size: Of a step.
      epochs: At most, by method.
      rates: The learning rate, by method.
      target: A member loss in nats a token at which answers count as memorised.
      rank: Of low-rank updates.
      dtype: Of the files.
    """

    num_frames: int
    batch_size: int
    epochs: dict[str, int]
    rates: dict[str, float]
    target: float
    rank: int
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Pool:
    """Clips of which halves are trained on.

    Attributes:
      name: Of the pool.
      folder: Has `pool.jsonl` and, where there is one, `shifted.jsonl`.
      base: The checkpoint that training begins from.
      setting: How it is trained.
    """

    name: str
    folder: pathlib.Path
    base: pathlib.Path
    setting: Setting

    @property
    def prepared(self) -> pathlib.Path:
        """Where the decoded clips are."""
        return self.folder / "prepared"

    @property
    def shifted(self) -> pathlib.Path | None:
        """The manifest of non-members of another distribution."""
        path = self.folder / "shifted.jsonl"
        return path if path.is_file() else None


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is trained.

    Attributes:
      pool: Name of the pool.
      method: "full", "lora" or "projector".
      seed: Of the split, of low-rank updates, and of the order.
      more: Whether greedy answers and shuffled frames are scored too.
    """

    pool: str
    method: str
    seed: int
    more: bool = False

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.pool}-{self.method}-{self.seed:02d}"


def audit_config(
    pool: Pool, checkpoint: pathlib.Path, *, shifted: bool = True, **changes: Any
) -> Any:
    """Returns the configuration of an audit of one model on the whole pool.

    Args:
      pool: Of the clips.
      checkpoint: The model.
      shifted: Whether clips of another distribution are scored too, where there are.
      **changes: Of the configuration.
    """
    config: Any = settings.default()
    config.corpus.suspects = (str(pool.folder / "pool.jsonl"),)
    if shifted and pool.shifted:
        config.corpus.suspects += (str(pool.shifted),)
    config.corpus.prepared = str(pool.prepared)
    config.video.num_frames = pool.setting.num_frames
    config.model.checkpoint = str(checkpoint)
    config.model.dtype = "float32"
    config.slices, config.headline = SLICES, "response_loss"
    config.scores = "all"
    config.parallel.data, config.batch_size = 1, 16
    config.motion.flow, config.workers = "opencv", 1
    config.update_from_flattened_dict(changes)
    return config


def scored(config: Any, workdir: pathlib.Path) -> tuple[checks.Setup, Signals]:
    """Scores what is missing in a folder; returns the set-up and its signals."""
    setup = checks.check(config)
    with processes.together(workdir) as team:
        found = scoring.score(
            checks.open_runs(setup, team),
            setup.samples,
            setup.reader,
            setup.devices,
            team=team,
            stop=Stop(),
        )
    if found.failures:
        raise RuntimeError(f"{len(found.failures)} failures: {found.failures[0]}")
    return setup, found.runs[0].store


def table(
    setup: checks.Setup,
    store: Signals,
    items: Sequence[Item],
    reference: Signals | None,
    response: str = "given",
) -> ScoreTable:
    """Returns every score of some items, with a reference the calibrated ones too."""
    given = setup.settings
    names = scores.resolve("all", "exact", given.slices, reference is not None)
    found, _ = tables.score_table(
        *(items, store, names, "exact", given.motion),
        slices=given.slices,
        response=response,
        reference=reference,
    )
    return found


def train_config(pool: Pool, cell: Cell) -> Any:
    """Returns the configuration of a cell's training."""
    own, config = pool.setting, options.default()
    c: Any = config
    c.corpus.members = (str(pool.folder / "pool.jsonl"),)
    c.corpus.prepared = str(pool.prepared)
    c.video.num_frames = own.num_frames
    c.model.checkpoint, c.model.dtype = str(pool.base), own.dtype
    c.parallel.data, c.workers = 1, 1
    c.train.method, c.train.seed = cell.method, cell.seed
    c.train.rank, c.train.alpha = own.rank, 2.0 * own.rank
    c.train.member_share = 0.5
    c.train.batch_size = own.batch_size
    c.train.epochs = own.epochs[cell.method]
    c.train.snapshots = tuple(x for x in SNAPSHOTS if x < c.train.epochs)
    c.train.target_loss = own.target
    c.train.learning_rate = own.rates[cell.method]
    c.train.warmup_steps = 20
    c.train.checkpoint_every = 0
    return config


def run(pool: Pool, cell: Cell, folder: pathlib.Path) -> dict[str, Any]:
    """Trains and scores; what is there already is not computed again.

    Args:
      pool: Of the cell.
      cell: What to do.
      folder: Receives `CELL.json` and `CELL-SNAPSHOT.npz`; a folder beside them holds
        the model while it is worked on.

    Returns:
      The content of `CELL.json`; its commit is that of the training.
    """
    done = folder / f"{cell.name}.json"
    if done.is_file():
        return json.loads(done.read_text())
    work = folder / cell.name
    began = time.monotonic()
    record, commit = work / "training.json", work / "commit"
    if not record.is_file():
        # Before: scoring takes long, and another process may do it, of other files.
        work.mkdir(parents=True, exist_ok=True)
        commit.write_text(_report.commit())
        training.run(train_config(pool, cell), work)
    trained = json.loads(record.read_text())
    trained_at = commit.read_text() if commit.is_file() else "unknown"
    seconds = {"training": time.monotonic() - began}
    members = set(trained["members"])
    steps = {f"{k}": work / f"epoch-{k}" for k in SNAPSHOTS}
    steps = {k: path for k, path in steps.items() if path.is_dir()} | {END: work}
    reference = base_signals(pool, folder)
    began = time.monotonic()
    said: dict[str, dict[str, str]] = {}
    for name, checkpoint in steps.items():
        with _folder(work / "scores") as place:
            config = audit_config(pool, checkpoint)
            setup, store = scored(config, place)
            _keep(folder / f"{cell.name}-{name}.npz", setup, store, reference, members)
        if not cell.more:
            continue
        with _folder(work / "scores") as place:
            config = audit_config(pool, checkpoint, shifted=False, response="greedy")
            config.response_tokens, config.headline = 48, "response_mean_renyi_1"
            config.slices = ("response",)  # The video's rows are those of above.
            setup, store = scored(config, place)
            said[name] = _answers(place)
            file = folder / f"{cell.name}-{name}-greedy.npz"
            _keep(file, setup, store, None, members, "greedy")
        with _folder(work / "scores") as place:
            config = audit_config(pool, checkpoint, shifted=False)
            config.slices, config.video.against = ("video", "response"), "shuffled:0"
            setup, store = scored(config, place)
            file = folder / f"{cell.name}-{name}-shuffled.npz"
            _keep(file, setup, store, None, members)
    seconds["scoring"] = time.monotonic() - began
    found = dataclasses.asdict(cell) | {
        "commit": trained_at,
        "members": sorted(members),
        "steps": trained["steps"],
        "epochs": trained["steps"] / max(_per_epoch(trained, pool, cell), 1),
        "losses": trained["losses"],
        "trained parameters": trained["trained parameters"],
        "parameters": trained["parameters"],
        "memorised": trained["losses"]["members"] < 2 * pool.setting.target,
        "snapshots": list(steps),
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "answers": said,
    }
    done.write_text(json.dumps(found))
    shutil.rmtree(work)
    return found


def base_signals(pool: Pool, folder: pathlib.Path) -> Signals:
    """Returns the signals of the model before tuning, computed once."""
    return scored(audit_config(pool, pool.base), folder / f"{pool.name}-base")[1]


def _per_epoch(trained: dict[str, Any], pool: Pool, cell: Cell) -> int:
    return -(-len(trained["members"]) // pool.setting.batch_size)


@contextlib.contextmanager
def _folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder for signals, which are deleted once their scores are kept."""
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _keep(
    file: pathlib.Path,
    setup: checks.Setup,
    store: Signals,
    reference: Signals | None,
    members: set[str],
    response: str = "given",
) -> None:
    """Writes the scores of the pool, and those of shifted clips beside the members.

    q and r of the shifted comparison are scaled over its own clips, as in an audit.
    """
    arrays: dict[str, np.ndarray] = {}
    pool = [item for item in setup.items if item.group != "shifted"]
    shifted = [item for item in setup.items if item.group == "shifted"]
    parts = {"pool": pool}
    if shifted:
        parts["shifted"] = [x for x in pool if x.id in members] + shifted
    for part, items in parts.items():
        found = table(setup, store, items, reference, response)
        arrays[f"{part}/id"] = found.id.astype(str)
        arrays[f"{part}/member"] = np.isin(found.id, list(members))
        arrays[f"{part}/names"] = np.array(list(found.scores))
        arrays[f"{part}/scores"] = np.stack(list(found.scores.values())).astype("f4")
        arrays[f"{part}/motion"] = np.stack([found.flow_variance, found.brightness_std])
        arrays[f"{part}/tokens"] = np.asarray(found.num_response_rows)
    np.savez(file, **arrays)


def _answers(workdir: pathlib.Path) -> dict[str, str]:
    """Returns the greedy answer by the key of its clip."""
    found = {}
    for part in sorted((workdir / "answers").glob("part-*")):
        for row in pq.read_table(part).to_pylist():
            found[row["key"]] = row["answer"]
    return found
