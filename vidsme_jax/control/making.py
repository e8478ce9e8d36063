"""Makes a positive control: trains, audits and writes `control.json`."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

import vidsme_jax
from vidsme_jax import audit
from vidsme_jax.audit import AuditReport
from vidsme_jax.control.plan import AUDIT, MODEL, Plan, begin, read
from vidsme_jax.evaluation import control_statement
from vidsme_jax.finetune import training
from vidsme_jax.finetune.options import MEMBERS, NONMEMBERS
from vidsme_jax.run.stopping import Stop
from vidsme_jax.store.files import write_atomically
from vidsme_jax.wording import printable

_TRAINING = "training.json"
_FACTS = ("config", "parameters", "trained parameters", "steps", "seconds", "losses")


def run(plan: Plan, stop: Stop | None = None) -> dict[str, Any]:
    """Trains the model, audits it and writes `control.json`; resumes a stopped run.

    Args:
      plan: From `plan.make`.
      stop: Checked between steps and batches.

    Returns:
      The content of `control.json`.

    Raises:
      AuditError: `training.json` is damaged; or as of `training.run` and `audit.run`.
      RunStopped: As of `audit.run`.
      KeyboardInterrupt: `stop` was set; the same plan continues.
      OSError: The folder cannot be written; what is there is kept.
    """
    stop = stop or Stop()
    model = plan.workdir / MODEL
    begin(plan)
    if (model / _TRAINING).exists() and not plan.training.overwrite:
        logging.info("the model of the control is already trained: %s", model)
        trained = read(model / _TRAINING)
    else:
        trained = training.run(plan.training, model, stop)
    report = audit.run(plan.auditing, plan.workdir / AUDIT, stop)
    assert isinstance(report, AuditReport)  # One process audits all clips.
    text = json.dumps(_record(plan, trained, report), indent=1, allow_nan=False)
    write_atomically(plan.workdir / control_statement.FILE, f"{text}\n".encode())
    return json.loads(text)


def summary(record: dict[str, Any], workdir: pathlib.Path) -> str:
    """Returns the result in a few lines, for the end of a run.

    Args:
      record: The content of `control.json`.
      workdir: Its folder.
    """
    folder = printable(str(workdir))
    return (
        f"{record['statement']}\n"
        f"to show it with the verdict of an audit: --config.report.control={folder}\n"
        f"its own report: {printable(str(workdir / AUDIT / 'report.html'))}"
    )


def _record(plan: Plan, trained: dict[str, Any], report: AuditReport) -> dict[str, Any]:
    """Returns the content of `control.json`."""
    found = report.metrics
    results = found["comparisons"]["all"]["scores"]
    verdicts = found["comparisons"]["all"]["verdicts"]
    rows = {
        role: [
            json.loads(line)
            for line in (plan.workdir / MODEL / name).read_bytes().splitlines()
        ]
        for role, name in (("members", MEMBERS), ("nonmembers", NONMEMBERS))
    }
    losses = {role: _mean_loss(role, rows[role], trained) for role in rows}
    content = sorted(set(report.table.cluster.tolist()))
    per_epoch = math.ceil(len(rows["members"]) / plan.training.train.batch_size)
    record = {
        "statement": "",
        "memorised": control_statement.memorised(losses),
        "losses": losses,
        "headline": plan.reported[0],
        "scores": {
            name: {
                "auc": results[name]["auc"],
                "tpr": results[name]["tpr"],
                "verdict": verdicts[name]["verdict"],
            }
            for name in plan.reported
        },
        "clips": len(content),
        "sources": len({item.source or item.clip for item in plan.items}),
        "rows": {role: len(lines) for role, lines in rows.items()},
        "failures": len(report.failures),
        "settings": plan.settings,
        "slices": list(plan.auditing.slices),
        "epochs": math.ceil(trained["steps"] / per_epoch),
        "training": {key: trained[key] for key in _FACTS},
        "versions": {"vidsme_jax": vidsme_jax.__version__} | trained["versions"],
        "content": content,
    }
    return record | {"statement": control_statement.statement(record)}


def _mean_loss(
    role: str, rows: Sequence[dict[str, Any]], trained: dict[str, Any]
) -> float:
    """Returns the mean loss of a role over its rows, each with its group's loss."""
    names = [f"{role} {row.get('group', '')}".strip() for row in rows]
    return round(math.fsum(trained["losses"][name] for name in names) / len(names), 5)
