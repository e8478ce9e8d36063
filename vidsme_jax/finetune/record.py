"""The record of a training, `training.json`, and the identity of its state."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.finetune.examples import Clips, Example
from vidsme_jax.finetune.options import RECORD
from vidsme_jax.finetune.preparing import Prepared
from vidsme_jax.store.files import write_atomically
from vidsme_jax.wording import printable

_PACKAGES = ("vidsme-jax", "jax", "flax", "optax", "numpy", "av")
_SHOWN = 20  # Losses of groups in the summary; training.json has all.
_NAME = 60  # Characters of a group's name in the summary.
# Keys on which a training's numbers do not depend.
_NEUTRAL = ("workers", "compile_cache", "overwrite", "cache_mib", "model.dtype")
_NEUTRAL += ("corpus.prepared_cache",)
_NEUTRAL += (
    "train.checkpoint_every",
    "train.merged",
    "parallel.mode",
    "parallel.data",
    "parallel.model",
)


@dataclasses.dataclass
class Log:
    """Numbers of a training, saved with each state.

    Attributes:
      curve: The loss of every step, in nats a token.
      losses: Pairs [epoch, {role and group: loss}], in nats a token.
      seconds: Training time so far.
    """

    curve: list[float] = dataclasses.field(default_factory=list)
    losses: list[Any] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps whose loss is known."""
        return len(self.curve)


def depends(config: ConfigDict, prepared: Prepared) -> dict[str, Any]:
    """Returns what the state of a training depends on, by name; JSON-ready.

    Args:
      config: Of the training.
      prepared: From `preparing.prepare` of the same configuration.
    """
    flat = settings.flatten(config)
    form = prepared.trainee.form
    shapes = sorted((path, form.shapes[path]) for path in form.trained)
    source = prepared.trainee.source
    return {
        **{key: value for key, value in flat.items() if key not in _NEUTRAL},
        "checkpoint's fingerprint": source.fingerprint,
        "tokens of questions and answers": _tokens(prepared.members),
        "clips, questions and answers": _fingerprint(prepared.members, prepared.clips),
        "shapes of what learns": _digest(shapes),
    }


def of(
    config: ConfigDict, prepared: Prepared, log: Log, losses: dict[str, float]
) -> dict[str, Any]:
    """Returns the content of `training.json`.

    Args:
      config: Of the training.
      prepared: From `preparing.prepare` of the same configuration.
      log: Of its steps.
      losses: At the end, by role and group, in nats a token.
    """
    form, members = prepared.trainee.form, prepared.members
    sizes = {path: math.prod(shape) for path, shape in form.shapes.items()}
    return {
        "config": settings.flatten(config),
        "parameters": sum(sizes.values()),
        "trained parameters": sum(sizes[path] for path in form.trained),
        "steps": log.steps,
        "seconds": round(log.seconds, 1),
        "losses": losses,
        "losses by epoch": log.losses,
        "device": jax.devices()[0].device_kind,
        "devices": prepared.devices.mesh.size,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "data": _fingerprint(members, prepared.clips),
        "members": [row.item.id for row in members],
        "curve": [round(loss, 4) for loss in log.curve],
    }


def write(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Writes `training.json`."""
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(folder / RECORD, text.encode())


def _fingerprint(members: Sequence[Example], clips: Clips) -> str:
    """Returns a SHA-256 of id, content, question and answer of every member."""
    return _digest(
        [
            [
                row.item.id,
                clips.looked[row.item.clip].content_hash,
                row.item.question,
                list(row.item.candidates),
                row.item.answer,
            ]
            for row in members
        ]
    )


def _tokens(members: Sequence[Example]) -> str:
    """Returns a SHA-256 of every member's rows, as the model reads them."""
    digest = hashlib.sha256()
    for row in members:
        for values in row.rows:
            digest.update(f"{values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def summary(record: dict[str, Any], workdir: pathlib.Path) -> str:
    """Returns the result in a few lines.

    Args:
      record: The content of `training.json`.
      workdir: Its folder.
    """
    groups = list(record["losses"].items())
    losses = [f"{printable(name, _NAME)} {loss:.4f}" for name, loss in groups[:_SHOWN]]
    if len(groups) > _SHOWN:
        losses.append(f"and {len(groups) - _SHOWN} more in training.json")
    folder = printable(str(workdir))
    lines = [
        f"{record['steps']} steps in {record['seconds']} s; mean loss of the answers "
        f"in nats a token: {', '.join(losses)}",
        f"checkpoint: {folder}",
    ]
    manifests = [
        f"--{role}={folder}/{role}.jsonl" for role in ("members", "nonmembers")
    ]
    if all((workdir / f"{role}.jsonl").exists() for role in ("members", "nonmembers")):
        lines.append(
            f"its audit: vidsme audit --model={folder} {' '.join(manifests)} "
            "--config.corpus.allow_outside=true --config.slices=video,response "
            "--config.headline=response_min_k_plus_plus_100 --workdir DIR"
        )
    return "\n".join(lines)
