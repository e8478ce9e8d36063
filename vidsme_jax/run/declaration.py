"""What was declared before the results: written, kept, compared with what is asked.

`declaration.json` is written before the first signal of a run is computed. From then on
it stays, and a run or a report that asks something else is exploratory. `verdict.json`
keeps the first verdict that was reached under it.
"""

import dataclasses
import json
import pathlib
from typing import Any

import vidsme_jax
from vidsme_jax import scores
from vidsme_jax.run import sealed
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.declared import FILE, Change, Declared
from vidsme_jax.run.sealed import is_amount, is_digest, is_flag, is_text, is_time
from vidsme_jax.store import signals

VERDICT = "verdict.json"
UNIT = "source, else near-duplicates, else file"
# Declared for the reader: where they change, the headline is asked nothing else.
_BESIDE = ("k", "slices", "model")
_DECLARATION: dict[str, sealed.Test] = {
    "declared": sealed.having(
        headline=is_text,
        k=sealed.or_none(is_amount),
        comparison=is_text,
        unit=is_text,
        alpha=is_amount,
        smallest_auc=is_amount,
        fdr=is_amount,
        fprs=sealed.list_of(is_amount),
        profile=is_text,
        q_scale=is_amount,
        r_scale=is_amount,
        bounds=sealed.or_none(sealed.list_of(is_amount)),
        slices=sealed.list_of(is_text),
        response=sealed.or_none(is_text),
        model=is_text,
        reference=is_text,
        corpus=is_digest,
    ),
    "rows": sealed.is_counts,
    "version": is_text,
    "after_signals": is_flag,
    "after_report": is_flag,
    "earlier": sealed.list_of(
        sealed.having(
            digest=is_digest,
            time=sealed.or_none(is_time),
            headline=is_text,
            comparison=is_text,
            verdict=sealed.or_none(is_text),
            statement=sealed.or_none(is_text),
        )
    ),
}
_FIRST: dict[str, sealed.Test] = {
    **dict.fromkeys(("headline", "comparison", "statement"), is_text),
    "verdict": sealed.or_none(is_text),
    "declaration": is_digest,
}


def check(workdir: pathlib.Path) -> None:
    """Raises an `AuditError` if what a work directory has of this kind is damaged."""
    _read(workdir)


def declare(asked: Asked, workdir: pathlib.Path) -> None:
    """Writes the declaration of a run while it is time; later it stays as it is.

    It is time as long as the work directory has no signal and no report, and where
    signals were overwritten: results may have been seen then, so that the declaration
    names those whose place it takes. Only one process calls it, and none computes
    before it has returned.

    Raises:
      AuditError: A file is damaged.
      OSError: It cannot be written.
    """
    before, first = _read(workdir)
    if before is not None and not asked.settings.overwrite:
        now = [_declared(asked), asked.corpus.rows, False]
        if [before[key] for key in ("declared", "rows", "after_signals")] == now:
            return
        if first or signals.any_stored(workdir) or _is_reported(workdir):
            return
    _write(asked, workdir, before, first)


def opened(asked: Asked, workdir: pathlib.Path) -> Declared:
    """Returns the declaration that a result in a work directory stands under.

    Where there is none, one is written that says that signals were there before.

    Raises:
      AuditError: A file is damaged.
      OSError: It cannot be written.
    """
    record, first = _read(workdir)
    if record is None:
        record = _write(asked, workdir, None, first)
    if first and first["declaration"] != record["digest"]:
        first = None  # Of an earlier one, which the declaration names.
    return Declared(record, _changes(record, asked), first)


def reached(
    declared: Declared, workdir: pathlib.Path, verdict: str | None, statement: str
) -> Declared:
    """Keeps the first verdict under a declaration, before anybody can see it.

    Args:
      declared: What it stands under; an exploratory verdict is not kept.
      workdir: Receives it.
      verdict: Its name; None where nothing is compared.
      statement: One sentence.

    Returns:
      The same, with the first verdict that there was.

    Raises:
      OSError: It cannot be written.
    """
    if declared.changes or declared.first is not None:
        return declared
    said = declared.record["declared"]
    first = sealed.write(
        workdir / VERDICT,
        {
            "headline": said["headline"],
            "comparison": said["comparison"],
            "verdict": verdict,
            "statement": statement,
            "declaration": declared.record["digest"],
        },
    )
    return dataclasses.replace(declared, first=first)


def _read(
    workdir: pathlib.Path,
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Returns the declaration and the first verdict of a work directory."""
    record = sealed.read(workdir / FILE, _DECLARATION)
    return record, sealed.read(workdir / VERDICT, _FIRST)


def _declared(asked: Asked) -> dict[str, Any]:
    """Returns what is declared of what is asked, as JSON gives it back."""
    given, reference = asked.settings, asked.settings.reference
    score = scores.PROFILES[given.profile].score(asked.headline)
    off = f"{given.model.checkpoint} with its adapter {reference.adapter}"
    declared = {
        "headline": asked.headline,
        "k": None if score.tail == "mean" else round(100 * score.ratio, 9),
        "comparison": given.report.comparison,
        "unit": UNIT,
        "alpha": given.report.alpha,
        "smallest_auc": given.report.smallest_auc,
        "fdr": given.report.fdr,
        "fprs": given.report.fprs,
        "profile": given.profile,
        "q_scale": given.motion.q_scale,
        "r_scale": given.motion.r_scale,
        "bounds": given.motion.bounds,
        "slices": given.slices,
        "response": given.response if score.slice == "response" else None,
        "model": given.model.checkpoint,
        "reference": reference.checkpoint or (off if reference.adapter else ""),
        "corpus": asked.corpus.digest,
    }
    return json.loads(json.dumps(declared))


def _changes(record: dict[str, Any], asked: Asked) -> tuple[Change, ...]:
    """Returns what is asked otherwise than a declaration says."""
    before, now = record["declared"], _declared(asked)
    differing = [x for x in now if x not in _BESIDE and before[x] != now[x]]
    rows = Change("corpus", record["rows"], asked.corpus.rows)
    return tuple(
        rows if what == "corpus" else Change(what, before[what], now[what])
        for what in differing
    )


def _write(
    asked: Asked,
    workdir: pathlib.Path,
    before: dict[str, Any] | None,
    first: dict[str, Any] | None,
) -> dict[str, Any]:
    """Writes what is asked as the declaration; names that whose place it takes."""
    earlier = []
    if before is not None:
        its = first if first and first["declaration"] == before["digest"] else None
        last = _earlier(before["digest"], before["time"], before["declared"], its)
        earlier = [*before["earlier"], last]
    elif first is not None:  # Of a declaration that was taken away.
        earlier = [_earlier(first["declaration"], None, first, first)]
    return sealed.write(
        workdir / FILE,
        {
            "declared": _declared(asked),
            "rows": asked.corpus.rows,
            "version": vidsme_jax.__version__,
            "after_signals": signals.any_stored(workdir),
            "after_report": _is_reported(workdir),
            "earlier": earlier,
        },
    )


def _earlier(
    digest: str, time: str | None, said: dict[str, Any], first: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "digest": digest,
        "time": time,
        "headline": said["headline"],
        "comparison": said["comparison"],
        "verdict": first and first["verdict"],
        "statement": first and first["statement"],
    }


def _is_reported(workdir: pathlib.Path) -> bool:
    return any((workdir / x).exists() for x in ("metrics.json", "report.html"))
