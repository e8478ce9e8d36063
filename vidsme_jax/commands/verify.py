"""The command line: `vidsme verify --workdir runs/llava`.

Checks that a finished run is unchanged: compares each file with `digests.json`, which
finds one changed byte; then recomputes the digest of the corpus, the scores, all
metrics and verdicts from the stored signals, without the model, and compares them with
`config.json`, `scores.parquet`, `scores.csv` and `metrics.json`. Writes nothing.

The sources are read again, as by `vidsme report`; where they are missing, only the
files are compared. --videos also hashes the videos. A digest proves that nothing was
changed only to those who have it from another place than the folder: give it by
--digest.

Exit status: 0 the run is unchanged; 2 nothing could be verified, one message says why;
3 something differs or could not be recomputed, a line each.
"""

import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from absl import flags

from vidsme_jax import commands, exits, settings, terminal
from vidsme_jax.base import AuditError, ClipError, ScoreTable
from vidsme_jax.commands.finished import run_record
from vidsme_jax.run import asking, digests
from vidsme_jax.run.asking import Asked
from vidsme_jax.store import received, workdirs
from vidsme_jax.wording import counted, printable

_SHOWN = 20  # Differences of one kind.
_MOST = 2**30  # Bytes of `metrics.json`.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9  # Processors round differently.
# Keys of `metrics.json` that depend on files that may be gone; the digest covers them.
_NOT_RECOMPUTED = ("notes", "warnings", "left_out")
_CLOSING = (
    "not verified: that the model gave these signals, and that declared members are "
    "members; config.json except its digest of the corpus, failures.jsonl, "
    "report.html, the figures, and in metrics.json notes, warnings and what was left "
    "out are verified by their digests alone"
)


class Verified(NamedTuple):
    """What was found.

    Attributes:
      same: Sentences on what is unchanged.
      differences: Sentences on what differs.
      problems: Why scores and metrics could not be recomputed, such as missing
        manifests.
    """

    same: list[str]
    differences: list[str]
    problems: Sequence[str] = ()


def main(argv: list[str]) -> int:
    """Verifies a run and returns the exit status."""
    given = flags.FLAGS
    if len(argv) > 1:
        return exits.wrong([commands.unexpected(argv[1])])
    if not given.workdir:
        return exits.wrong(["--workdir is missing: the folder of a finished run"])
    commands.begin()
    try:
        with workdirs.fetched(given.workdir) as workdir:
            found = verify(workdir, digest=given.digest or "", videos=given.videos)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.wrong([exits.os_cause(error)])
    lines = [*found.same, *(f"DIFFERS: {x}" for x in _some(found.differences))]
    lines += [*_some(list(found.problems)), _CLOSING]
    ends = "verified"
    if found.differences:
        ends = counted(len(found.differences), "difference")
    elif found.problems:
        ends = "the files are verified, and nothing was recomputed"
    terminal.show("\n".join([*lines, ends]))
    return exits.OK if ends == "verified" else exits.FAILURES


def verify(
    workdir: pathlib.Path, *, digest: str = "", videos: bool = False
) -> Verified:
    """Compares a finished run with its digest and with what its signals give.

    Args:
      workdir: Of the run; nothing in it is written.
      digest: That it must have, or its first characters, at least 8; "": any.
      videos: Whether the videos that are there are hashed.

    Raises:
      AuditError: There is no finished run, or the digest is another one.
    """
    if not workdir.is_dir():
        raise AuditError([f"{printable(str(workdir))}: no such folder"])
    record = digests.read(workdir)
    its = record["digest"]
    if digest and (len(digest) < 8 or not its.startswith(digest.lower())):
        raise AuditError(
            [
                f"{printable(str(workdir))}: its digest is {its}, not "
                f"{printable(digest, 80)}: it is another run or report than that of "
                "the digest (give at least its first 8 characters)"
            ]
        )
    differences = digests.differences(workdir, record)
    same = [f"digest {its}, of {record['time']}, lists {len(record['files'])} files"]
    if not differences:
        same.append("files: all are unchanged")
    if others := digests.others(workdir):
        same.append(f"not of the run, and not verified: {', '.join(_some(others))}")
    try:
        about = run_record(workdir)
        asked = asking.ask(settings.restored(about["config"]), model=False)
        more = _recompute(workdir, asked, about, videos=videos)
    except AuditError as error:
        problems = [f"not recomputed: {problem}" for problem in error.problems]
        return Verified(same, differences, problems)
    return Verified(same + more.same, differences + more.differences)


def _recompute(
    workdir: pathlib.Path, asked: Asked, about: dict[str, Any], *, videos: bool
) -> Verified:
    """Compares scores and metrics with those that the signals give."""
    from vidsme_jax import audit, report
    from vidsme_jax.run import declaration, provenance, stored

    failures = report.failures(workdir)
    stores = stored.open_signals(asked, workdir, indexed=False)
    asked = asked.without({failure.id for failure in failures})
    stored.check_held(asked, stores[0], workdir)
    table, warnings = stored.score_table(asked, failures, *stores)
    same, differences = [], []
    if about["fingerprints"].get("corpus") == provenance.corpus(table):
        same.append(f"corpus: {counted(len(table.id), 'row')} with the digest recorded")
    else:
        differences.append(
            "config.json: its digest of the corpus is not that of the rows that are "
            "listed and stored now: rows or contents are others"
        )
    if about["fingerprints"].get("code") != provenance.code():
        same.append("code: another version than the run's has computed what follows")
    found = _of_scores(workdir, table)
    if not found:
        shape = f"{counted(len(table.id), 'row')} of {len(table.scores)} scores"
        same.append(f"scores: {shape} are those of scores.parquet and scores.csv")
    differences += found
    declared = declaration.kept(asked, workdir, table)
    results = audit.results(asked, table, failures, warnings, about)
    now = json.loads(json.dumps(report.content(results, declared)))
    values, found = _of_metrics(workdir, now)
    if not found:
        same.append(f"metrics: {counted(values, 'value')} are those of metrics.json")
    differences += found
    if videos:
        hashed, found = _of_videos(asked, stores[0])
        if not found:
            same.append(f"videos: {counted(hashed, 'clip')} have the content scored")
        differences += found
    return Verified(same, differences)


def _of_scores(workdir: pathlib.Path, table: ScoreTable) -> list[str]:
    """Returns how the files of scores differ from a table."""
    import pyarrow as pa
    from pyarrow import parquet

    from vidsme_jax.report import files

    path, (wanted, texts) = workdir / "scores.parquet", files.scores_of(table)
    try:
        content = pa.BufferReader(received.content(path, _MOST))
        found = parquet.read_table(content, use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        return [f"scores.parquet: cannot be read ({printable(str(error), 200)})"]
    if found.column_names != wanted.column_names or len(found) != len(wanted):
        return [
            f"scores.parquet: it has {counted(len(found), 'row')} and "
            f"{counted(found.num_columns, 'column')}, the signals give {len(wanted)} "
            f"and {wanted.num_columns}, or the columns have other names"
        ]
    differences = []
    for name in wanted.column_names:
        its, now = found.column(name).to_pylist(), wanted.column(name).to_pylist()
        rows = [k for k, x in enumerate(its) if not _is_same(x, now[k])]
        if rows:
            k, what = rows[0], f"{counted(len(rows), 'row')} of {printable(name)}"
            differences.append(
                f"scores.parquet: {what} differ, such as row {k + 1}: "
                f"{_shown(its[k])}, recomputed {_shown(now[k])}"
            )
    try:
        text = received.content(workdir / "scores.csv", _MOST)
    except (OSError, ValueError) as error:
        text = None
        differences.append(f"scores.csv: cannot be read ({printable(str(error), 200)})")
    if text is not None and text != files.as_csv(found, texts):
        differences.append("scores.csv: it is not what scores.parquet says")
    return differences


def _of_metrics(workdir: pathlib.Path, now: dict[str, Any]) -> tuple[int, list[str]]:
    """Returns how many values were compared, and how `metrics.json` differs."""
    try:
        its = json.loads(received.content(workdir / "metrics.json", _MOST))
    except (OSError, ValueError, RecursionError) as error:
        return 0, [f"metrics.json: cannot be read ({printable(str(error), 200)})"]
    if not isinstance(its, dict):
        return 0, ["metrics.json: it holds no object"]
    for key in _NOT_RECOMPUTED:
        its.pop(key, None)
        now.pop(key, None)
    compared = list(_leaves(its, now, ""))
    found = [
        f"metrics.json: {printable(where, 200)} is {_shown(x)}, recomputed {_shown(y)}"
        for where, x, y in compared
        if not _is_same(x, y)
    ]
    return len(compared), found


def _leaves(its: Any, now: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yields the place and both values of each leaf of two JSON values."""
    if isinstance(its, dict) and isinstance(now, dict):
        for key in {**its, **now}:
            pair = its.get(key, "(missing)"), now.get(key, "(missing)")
            yield from _leaves(*pair, f"{where}.{key}".lstrip("."))
    elif isinstance(its, list) and isinstance(now, list) and len(its) == len(now):
        for k, pair in enumerate(zip(its, now, strict=True)):
            yield from _leaves(*pair, f"{where}[{k}]")
    else:
        yield where, its, now


def _of_videos(asked: Asked, store: Any) -> tuple[int, list[str]]:
    """Returns how many clips were hashed, and which are not those that were scored."""
    hashed, found = 0, []
    for clip in asked.clips:
        known = store.finished.get(clip.key)
        if known is None:
            continue
        name = printable(clip.key)
        try:
            same = asked.reader.unchanged(clip.key, known.content_hash, (-1, -1))
        except ClipError as error:
            found.append(f"{name}: not hashed ({printable(error.cause, 200)})")
            continue
        hashed += 1
        if not same:
            found.append(f"{name}: its content is not what was scored")
    return hashed, found


def _is_same(x: Any, y: Any) -> bool:
    """Returns whether two values are equal, numbers up to rounding."""
    numbers = all(
        isinstance(z, int | float) and not isinstance(z, bool) for z in (x, y)
    )
    if not numbers:
        return type(x) is type(y) and x == y
    both_nan = math.isnan(x) and math.isnan(y)
    return both_nan or math.isclose(x, y, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _shown(value: Any) -> str:
    text = f"{value:.9g}" if isinstance(value, float) else str(value)
    return printable(text, 100)


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    flags.DEFINE_string(
        "workdir", None, "Folder of a finished run; nothing is written there."
    )
    flags.DEFINE_string(
        "digest", None, "Digest that it must have, as its run printed it."
    )
    flags.DEFINE_bool(
        "videos", False, "Whether to hash the videos that are on disk, too."
    )
    commands.help_wanted(__doc__, "workdir", "digest", "videos")
    commands.start(main, commands.parse_flags)


if __name__ == "__main__":
    run()
