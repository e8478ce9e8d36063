"""Writes what is asked before the results exist, and compares it with later requests.

`declaration.json` is written before the first signal of a run is computed. From then on
it stays, and a run or a report that asks something else is exploratory. `verdict.json`
keeps the first verdict of the work directory, what was asked for it and of which rows
it was; it is never replaced.
"""

import dataclasses
import json
import pathlib
from typing import Any

import vidsme_jax
from vidsme_jax import scores
from vidsme_jax.base import AuditError, ScoreTable
from vidsme_jax.run import declaration_text as words
from vidsme_jax.run import result_rows, sealed
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.declaration_text import FILE, Change, Declared
from vidsme_jax.run.sealed import is_amount, is_digest, is_flag, is_text, is_time
from vidsme_jax.store import signals

VERDICT = "verdict.json"
UNIT = "source, else near-duplicates, else file"
# Declared for the reader; a change of these does not change the headline's question.
_BESIDE = ("k", "slices", "model")
# A change of these gives scores other names, and is no change of the scores.
_NAMING = ("profile", "reference")
_DECLARED: sealed.Test = sealed.having(
    headline=is_text,
    k=sealed.or_none(is_amount),
    comparison=is_text,
    unit=is_text,
    alpha=is_amount,
    smallest_auc=is_amount,
    fdr=is_amount,
    fprs=sealed.list_of(is_amount),
    num_permutations=is_amount,
    profile=is_text,
    scores=sealed.list_of(is_text),
    q_scale=is_amount,
    r_scale=is_amount,
    bounds=sealed.or_none(sealed.list_of(is_amount)),
    slices=sealed.list_of(is_text),
    response=sealed.or_none(is_text),
    model=is_text,
    reference=is_text,
    allow_duplicates=is_flag,
    corpus=is_digest,
)
_DECLARATION: dict[str, sealed.Test] = {
    "declared": _DECLARED,
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
    "declared": _DECLARED,
    "listed": sealed.is_counts,
    "rows": result_rows.are_rows,
}


def check(workdir: pathlib.Path) -> None:
    """Raises an `AuditError` if what a work directory has of this kind is damaged."""
    _read(workdir)


def declare(asked: Asked, workdir: pathlib.Path) -> None:
    """Writes the declaration of a run while it is time; later it stays as it is.

    It is time as long as the work directory has no signal and no report, and where
    signals were overwritten: results may have been seen then, so that the declaration
    lists those that it replaces. Only one process calls it, and none computes before it
    has returned.

    Raises:
      AuditError: A file is damaged.
      OSError: It cannot be written.
    """
    before, first = _read(workdir)
    if before is not None and not asked.settings.overwrite:
        now = [_declared(asked), asked.corpus.rows, False]
        if [before[key] for key in ("declared", "rows", "after_signals")] == now:
            return
        check_share(asked, workdir)
        if first or signals.any_stored(workdir) or _is_reported(workdir):
            return
    try:
        _write(asked, workdir, before, first)
    except FileExistsError:  # Another share has, meanwhile.
        check_share(asked, workdir)


def check_share(asked: Asked, workdir: pathlib.Path) -> None:
    """Raises an `AuditError` if a share asks something else than was declared.

    Other shares would be of other clips, or their scores would be judged otherwise.
    """
    record = _read(workdir)[0]
    if not asked.settings.share or record is None:
        return
    before, now = record["declared"], _declared(asked)
    rows = {"corpus": (record["rows"], asked.corpus.rows)}
    changes = [
        Change(key, *rows.get(key, (before[key], now[key])))
        for key in now
        if before[key] != now[key]
    ]
    if changes:
        raise AuditError(
            [
                f"{workdir}: declared by another share: {change}; all shares need the "
                "same corpus and configuration, or another --workdir"
                for change in changes
            ]
        )


def opened(asked: Asked, workdir: pathlib.Path, table: ScoreTable) -> Declared:
    """Returns the declaration that a result in a work directory is under.

    Where there is none, one is written that says that signals were there before.

    Args:
      asked: What is asked.
      workdir: The folder of the run.
      table: The scores that the result is of.

    Raises:
      AuditError: A file is damaged.
      OSError: It cannot be written.
    """
    record, first = _read(workdir)
    if record is None:
        record = _write(asked, workdir, None, first)
    return _compared(record, first, asked, table)


def foreseen(asked: Asked, workdir: pathlib.Path) -> list[str]:
    """Returns what a work directory holds of declarations, and what asking this means.

    Returns:
      Sentences; none where nothing was declared.

    Raises:
      AuditError: A file is damaged.
    """
    record, first = _read(workdir)
    if record is None:
        return []
    changes = _changes(record["declared"], record["rows"], asked)
    if first is not None and first["declaration"] != record["digest"]:
        changes += _changes(first["declared"], first["listed"], asked)
    return [words.statement(record, tuple(_distinct(changes)), first)]


def kept(asked: Asked, workdir: pathlib.Path, table: ScoreTable) -> Declared | None:
    """Returns the same and writes nothing; None where there is no declaration."""
    record, first = _read(workdir)
    return None if record is None else _compared(record, first, asked, table)


def _compared(
    record: dict[str, Any],
    first: dict[str, Any] | None,
    asked: Asked,
    table: ScoreTable,
) -> Declared:
    """Returns a declaration with what is asked, or evaluated, otherwise."""
    rows = result_rows.rows(table, asked.headline)
    changes = _changes(record["declared"], record["rows"], asked)
    notes = _added([x["declared"] for x in (record, first) if x], asked)
    if record["declared"]["corpus"] != asked.corpus.digest:
        notes.append(words.ELSEWHERE)
    if first is not None:
        changes += _since(record, first, asked, rows)
        notes += _gained(first, rows)
    return Declared(record, tuple(_distinct(changes)), first, rows, tuple(notes))


def reached(
    declared: Declared, workdir: pathlib.Path, verdict: str | None, statement: str
) -> Declared:
    """Keeps the first verdict of a work directory, before anybody can see it.

    Args:
      declared: The declaration; an exploratory verdict is not kept, and a first
        one that is there already stays.
      workdir: Receives it.
      verdict: The name of the verdict; None where nothing is compared.
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
            "declared": said,
            "listed": declared.record["rows"],
            "rows": declared.rows,
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
        "num_permutations": given.report.num_permutations,
        "profile": given.profile,
        "scores": asked.scores,
        "q_scale": given.motion.q_scale,
        "r_scale": given.motion.r_scale,
        "bounds": given.motion.bounds,
        "slices": given.slices,
        "response": given.response if score.slice == "response" else None,
        "model": given.model.checkpoint,
        "reference": reference.checkpoint or (off if reference.adapter else ""),
        "allow_duplicates": given.corpus.allow_duplicates,
        "corpus": asked.corpus.digest,
    }
    return json.loads(json.dumps(declared))


def _changes(
    before: dict[str, Any], listed: dict[str, int], asked: Asked
) -> list[Change]:
    """Returns what differs from the declaration, of this many rows."""
    now = _declared(asked)
    found: list[Change] = []
    for what in now:
        if what == "corpus" and before[what] != now[what]:
            found.append(Change(what, listed, asked.corpus.rows))
        elif what not in _BESIDE and _differs(what, before, now):
            found.append(Change(what, before[what], now[what]))
    return found


def _differs(what: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Returns whether something was declared otherwise, apart from added scores."""
    if what == "response" and None in (before[what], now[what]):
        return False  # A headline of the video asks no answers: it is what differs.
    if what == "scores":
        same = all(before[x] == now[x] for x in _NAMING)
        return same and not set(before[what]) <= set(now[what])
    return before[what] != now[what]


def _since(
    record: dict[str, Any],
    first: dict[str, Any],
    asked: Asked,
    rows: result_rows.Rows,
) -> list[Change]:
    """Returns what is otherwise than it was when the first verdict was reached."""
    found: list[Change] = []
    under = first["declaration"]
    if under != record["digest"]:
        replaced = {x["digest"] for x in record["earlier"] if x["time"] is not None}
        if under not in replaced:
            found.append(Change("declaration", under, record["digest"]))
        found += _changes(first["declared"], first["listed"], asked)
    were, left = result_rows.lost(first["rows"], rows)
    return [*found, *([Change("rows", were, left)] if were else [])]


def _distinct(changes: list[Change]) -> list[Change]:
    """Returns each change once, as to two declarations that said the same."""
    return [x for k, x in enumerate(changes) if x not in changes[:k]]


def _added(declared: list[dict[str, Any]], asked: Asked) -> list[str]:
    """Returns the sentence about scores that were not declared, or not at first."""
    now = _declared(asked)
    known = set(now["scores"])
    for before in declared:
        if all(before[x] == now[x] for x in _NAMING):
            known &= set(before["scores"])
    new = [name for name in now["scores"] if name not in known]
    return [words.added(new)] if new else []


def _gained(first: dict[str, Any], rows: result_rows.Rows) -> list[str]:
    """Returns the sentence about rows that the first verdict was not of."""
    more = result_rows.gained(first["rows"], rows)
    return [words.more_rows(more)] if more else []


def _write(
    asked: Asked,
    workdir: pathlib.Path,
    before: dict[str, Any] | None,
    first: dict[str, Any] | None,
) -> dict[str, Any]:
    """Writes what is asked as the declaration; records the one that it replaces."""
    earlier = []
    if before is not None:
        its = first if first and first["declaration"] == before["digest"] else None
        last = _earlier(before["digest"], before["time"], before["declared"], its)
        earlier = [*before["earlier"], last]
    elif first is not None:  # Of a declaration that was taken away.
        earlier = [_earlier(first["declaration"], None, first["declared"], first)]
    return sealed.write(
        workdir / FILE,
        replaces=before is not None,
        content={
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
