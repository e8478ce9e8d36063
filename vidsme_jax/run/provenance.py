"""Records how a run was made: settings, versions, devices, fingerprints."""

import datetime
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging

import vidsme_jax
from vidsme_jax.base import AuditError, ScoreTable
from vidsme_jax.models.interface import Model
from vidsme_jax.parallel import Devices, in_gib
from vidsme_jax.run import processes
from vidsme_jax.run.runs import Run
from vidsme_jax.run.scoring import Scored
from vidsme_jax.store.files import write_atomically

OTHER_ROWS = (
    "the rows that are evaluated are not those of the report before: files or whole "
    "rows have come, gone or changed since"
)
_MAX_CAUSES = 20
_CALLED = {"main.py": "python -m vidsme_jax.main"}
_PACKAGES = (
    *("jax", "jaxlib", "flax", "numpy", "transformers", "av"),
    "opencv-python-headless",
)


def describe(
    config: dict[str, Any],
    runs: Sequence[Run],
    devices: Devices,
    table: ScoreTable | None,
    scored: Scored | None = None,
) -> dict[str, Any]:
    """Returns nested, JSON-ready facts about a run for `config.json` and the report.

    `date` is in UTC, `command` the program's own; `corpus` is a SHA-256 over id, role
    and content hash of every scored row; `code` one over the package's source files.

    Args:
      config: The flat configuration.
      runs: The runs of the audited model, and of a reference model if any.
      devices: The devices that it ran on.
      table: The scores; None of a share, whose corpus has no digest.
      scored: How scoring ended, for what this process made of its devices and what
        the reference model could not score.
    """
    versions = {
        "vidsme_jax": vidsme_jax.__version__,
        "python": platform.python_version(),
    }
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    first, memory = devices.mesh.devices.flat[0], devices.memory()
    model = runs[0].model
    with jax.set_mesh(devices.mesh):
        kernels = model.kernels()
    about: dict[str, Any] = {
        **_when(),
        "config": config,
        "model": {
            "checkpoint": config["model.checkpoint"],
            "family": model.family,
            "prompt": model.prompt,
            "rows per frame": _rows_per_frame(model),
            "classes": model.vocab_size,
            "remarks": "; ".join(model.remarks) or "none",
        },
        "device": {
            "kind": first.device_kind,
            "platform": first.platform,
            "data x model": " x ".join(map(str, devices.mesh.devices.shape)),
            "front end": devices.mode,
            "memory": "unknown" if memory is None else in_gib(memory),
            "kernels": kernels,
        },
        "versions": versions,
        "fingerprints": {
            "model": model.fingerprint,
            "corpus": "" if table is None else corpus(table),
            "code": code(),
        },
    }
    if runs[-1].is_reference:
        about["reference"] = _reference(config, runs[-1].model, table, scored)
    used = None if scored is None else scored.utilisation
    if used is not None:
        several = {"process": f"{processes.index()} of {processes.count()}"}
        about["utilisation"] = (several if processes.count() > 1 else {}) | used.facts()
    return about


def _when() -> dict[str, str]:
    """Returns the date, in UTC, and the command that is running."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    program = pathlib.Path(sys.argv[0]).name
    program = _CALLED.get(program, program)
    return {"date": now, "command": " ".join([program, *map(_quoted, sys.argv[1:])])}


def _quoted(argument: str) -> str:
    """Returns an argument as a shell reads it, in double quotes where they do.

    Example:
      >>> print(_quoted("--config.corpus.members=('a.jsonl',)"))
      "--config.corpus.members=('a.jsonl',)"
    """
    if set(argument) & set('"$`\\!') or shlex.quote(argument) == argument:
        return shlex.quote(argument)
    return f'"{argument}"'


def _rows_per_frame(model: Model) -> int | str:
    """Returns how many rows show a frame; where sizes differ, one of a usual size."""
    if model.tiling is None:
        return model.rows_per_frame
    groups = f"{model.tiling.group} frames" if model.tiling.group > 1 else "a frame"
    return f"{model.rows_per_frame} for {groups} of 640x360 pixels"


def earlier_utilisation(path: pathlib.Path) -> dict[str, Any]:
    """Returns what a run's `config.json` says of its utilisation, {} if it does not.

    For a run that found every clip stored: what was computed was so then.
    """
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    known = isinstance(about, dict) and "utilisation" in about
    return {"utilisation": about["utilisation"]} if known else {}


def _reference(
    config: dict[str, Any],
    model: Model,
    table: ScoreTable | None,
    scored: Scored | None,
) -> dict[str, Any]:
    """Returns what is recorded of a reference model: which, and what it lacks."""
    lacking = scored.lacking if scored else []
    if table is not None:
        known = set(table.id)
        lacking = [failure for failure in lacking if failure.id in known]
    causes = [f"{f.video}: {f.stage}: {f.cause}" for f in lacking]
    return {
        "checkpoint": config["reference.checkpoint"] or config["model.checkpoint"],
        "adapter": "off" if config["reference.adapter"] else "as it is",
        "family": model.family,
        "prompt": model.prompt,
        "remarks": "; ".join(model.remarks) or "none",
        "fingerprint": model.fingerprint,
        "rows that lack it": len({f.id for f in lacking}),
        "causes": list(dict.fromkeys(causes))[:_MAX_CAUSES],
    }


def write(path: pathlib.Path, about: dict[str, Any]) -> None:
    """Writes what `describe` said of a run.

    Raises:
      OSError: It cannot be written.
    """
    text = json.dumps(about, indent=2, default=str)
    write_atomically(path, text.encode())


def check_current(path: pathlib.Path, about: dict[str, Any]) -> None:
    """Raises an `AuditError` if a `config.json` is not what was read of it before."""
    try:
        now = _text(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        now = ""
    if now != _text(about):
        problem = "another run has written it meanwhile; run the command again"
        raise AuditError([f"{path}: {problem}"])


def _text(about: dict[str, Any]) -> str:
    """Returns JSON that is equal where two records are: tuples are lists."""
    return json.dumps(about, sort_keys=True, default=str)


def updated(
    about: dict[str, Any], config: dict[str, Any], table: ScoreTable
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns what `describe` said of a run, after other questions to its signals.

    Returns:
      That, and what a reader of the report should know of it, such as that other rows
      are evaluated; logged.
    """
    before, now = about["fingerprints"], {"corpus": corpus(table), "code": code()}
    other = bool(before.get("corpus")) and before["corpus"] != now["corpus"]
    if other:
        logging.warning("%s", OTHER_ROWS)
    again = {"report made again": _when()}
    about = about | again | {"config": config, "fingerprints": before | now}
    return about, (OTHER_ROWS,) if other else ()


def corpus(table: ScoreTable) -> str:
    """Returns a digest of the rows that are scored: ids, roles and clusters."""
    rows = zip(table.id, table.role, table.cluster, strict=True)
    text = "\n".join("\0".join(row) for row in rows)
    # Ids from JSON and names of files may hold lone surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def code() -> str:
    """Returns a digest of the package's source files."""
    root = pathlib.Path(vidsme_jax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()
