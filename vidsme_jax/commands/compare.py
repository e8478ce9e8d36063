"""The command line: `vidsme compare runs/before runs/after`.

Compares two finished audits of one corpus, such as of two checkpoints: the AUC of a
score in each, their difference with its interval, and the p-value of equal ranking of
members, paired by row, over sources. Nothing is written into the runs; --out writes the
result as JSON. A difference does not show whether either model leaks: the verdict of
each run does.

Exit status: 0 they were compared; 2 they were not, and one message says why.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from absl import flags

from vidsme_jax import commands, exits, terminal
from vidsme_jax.base import AuditError, ScoreTable
from vidsme_jax.commands.finished import run_record
from vidsme_jax.store import received, workdirs
from vidsme_jax.wording import counted, nearest, printable

_MOST = 2**30  # Bytes of a file.
_NUMBER = 1999  # Exchanges.
# Settings that make the two scores different questions.
_SAME = ("profile", "response")
# Those that may differ: notes say which do.
_NOTED = (
    *("slices", "reference.checkpoint", "reference.adapter"),
    *("video.num_frames", "video.sampling", "video.against", "model.prompt"),
    *("motion.q_scale", "motion.r_scale", "motion.bounds", "model.dtype"),
)
_TEXTS = ("id", "video", "role", "group", "content")


class Run(NamedTuple):
    """What a finished audit left.

    Attributes:
      folder: Its work directory.
      about: The content of `config.json`.
      headline: Its headline score.
      table: Of `scores.parquet`.
      failed: Ids of the rows that have no scores.
    """

    folder: str
    about: dict[str, Any]
    headline: str
    table: ScoreTable
    failed: frozenset[str]


def main(argv: list[str]) -> int:
    """Compares two runs and returns the exit status."""
    given = flags.FLAGS
    if len(argv) != 3:
        said = "give two folders of finished runs: vidsme compare RUN RUN"
        return exits.wrong([said])
    commands.begin()
    try:
        if wrong := commands.new_file(given.out, "--out"):
            raise AuditError(wrong)
        found = compare(argv[1], argv[2], given.score or "")
        if given.out:
            from vidsme_jax.report import files

            files.write_json(pathlib.Path(given.out), found)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.wrong([exits.os_cause(error)])
    terminal.show("\n".join(in_words(found)))
    return exits.OK


def compare(first: str, second: str, score: str = "") -> dict[str, Any]:
    """Compares two runs.

    Args:
      first: Work directory of a finished audit.
      second: Likewise, of the same corpus.
      score: That is compared; "": the headline, which both must have then.

    Returns:
      JSON-ready: `runs`, of each its `folder`, `model` and `fingerprint`; `score`;
      `rows`, how many are compared; `notes`; and `comparisons`, by name, as
      `paired.difference` returns them.

    Raises:
      AuditError: A folder has no finished audit, or they cannot be compared.
    """
    runs = []
    for each in (first, second):
        with workdirs.fetched(each) as folder:
            runs.append(opened(folder))
    one, other = runs
    problems = _problems(one, other, score)
    if problems:
        raise AuditError(problems)
    score = score or one.headline
    kept, notes = _paired(one, other)
    tables = [run.table for run in runs]
    from vidsme_jax.evaluation import groups, metrics, paired

    values = [
        metrics.oriented(table, score)[rows]
        for table, rows in zip(tables, kept, strict=True)
    ]
    table, rows = one.table, kept[0]
    finite = np.isfinite(values).all(axis=0)
    if lost := int((~finite).sum()):
        notes.append(f"{counted(lost, 'row')} without the score in a run are left out")
    _, units = np.unique(table.units, return_inverse=True)
    place = np.full(len(table.id), -1)
    place[rows[finite]] = np.flatnonzero(finite)
    found = {}
    for name, comparison in groups.comparisons(table).items():
        both = [x[place[x] >= 0] for x in comparison[1:]]
        if not all(map(len, both)):
            continue
        which = np.concatenate(both)
        its = [x[place[which]] for x in values]
        found[name] = paired.difference(
            its[0], its[1], units[which], len(both[0]), number=_NUMBER
        )
    if not found:
        raise AuditError(["no members and non-members are left to compare"])
    return {
        "runs": [
            {
                "folder": run.folder,
                "model": run.about.get("model", {}).get("checkpoint", ""),
                "fingerprint": run.about["fingerprints"].get("model", ""),
            }
            for run in runs
        ],
        "score": score,
        "rows": int(finite.sum()),
        "notes": [*_settings(one, other), *notes],
        "comparisons": found,
    }


def in_words(found: dict[str, Any]) -> list[str]:
    """Returns lines about what `compare` returns."""
    from vidsme_jax.evaluation import intervals
    from vidsme_jax.evaluation.verdicts import p_is

    named = (
        f"{printable(x['folder'])} ({printable(x['model'])})" for x in found["runs"]
    )
    lines = [
        f"{found['score']}, {' against '.join(named)}, "
        f"{counted(found['rows'], 'row')} paired"
    ]
    for name, its in found["comparisons"].items():
        change, p = its["difference"], its["p"]
        ends = (
            f"no interval: {change['reason'].removeprefix('no interval: ')}"
            if change["low"] is None
            else f"95 % interval [{change['low']:+.3f}, {change['high']:+.3f}]"
        )
        aucs = (intervals.in_words(its[x]) for x in ("first", "second"))
        lines.append(
            f"  {printable(name)}: AUC {', then '.join(aucs)}; difference "
            f"{change['value']:+.3f}, {ends}; {p_is(p)} (null hypothesis: both rank "
            "alike)"
        )
    lines += [f"  note: {note}" for note in found["notes"]]
    lines.append("a difference is no verdict: that of each run is in its own report")
    return lines


def opened(workdir: pathlib.Path) -> Run:
    """Reads what a finished audit left.

    Raises:
      AuditError: There is none, or a file of it is damaged.
    """
    from vidsme_jax import report

    about = run_record(workdir)
    path = workdir / "metrics.json"
    try:
        found = json.loads(received.content(path, _MOST))
        headline, sign = found["headline"], found["larger_is_member"]
        if not isinstance(headline, str) or not isinstance(sign, bool):
            raise TypeError("it is not that of an audit")
    except FileNotFoundError as error:
        why = "no audit has finished there"
        if (workdir / "study.json").exists():
            why = "it holds a study; only audits are compared"
        raise AuditError([f"{printable(str(workdir))}: {why}"]) from error
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise AuditError([f"{path}: cannot be read ({error})"]) from error
    table = _table(workdir / "scores.parquet", larger_is_member=sign)
    failed = frozenset(failure.id for failure in report.failures(workdir))
    return Run(str(workdir), about, headline, table, failed)


def _table(path: pathlib.Path, *, larger_is_member: bool) -> ScoreTable:
    """Returns the content of `scores.parquet`, as far as it is compared."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        read = parquet.read_table(
            pa.BufferReader(received.content(path, _MOST)), use_threads=False
        )
        columns = {name: read.column(name).to_numpy() for name in read.column_names}
        texts = [columns[name].astype(str) for name in _TEXTS]
        statistics = {
            name: columns[name].astype(float)
            for name in ("flow_variance", "brightness_std", "q", "r")
        }
        num_rows = columns["n_rows"]
        names = read.column_names[read.column_names.index("r") + 1 :]
        scores = {name: columns[name].astype(float) for name in names}
    except (OSError, ValueError, pa.ArrowException, KeyError, MemoryError) as error:
        raise AuditError([f"{path}: cannot be read ({error})"]) from error
    ids, videos, roles, groups, contents = texts
    rows = zip(ids.tolist(), roles.tolist(), contents.tolist(), strict=True)
    if len({*rows}) < len(ids):
        raise AuditError([f"{path}: rows have the same id, role and video"])
    return ScoreTable(
        id=ids,
        video=videos,
        role=roles,
        group=groups,
        cluster=contents,
        num_rows=num_rows,
        **statistics,
        scores=scores,
        larger_is_member=larger_is_member,
        unit=columns["unit"].astype(str) if "unit" in columns else None,
    )


def _problems(one: Run, other: Run, score: str) -> list[str]:
    """Returns why two runs cannot be compared."""
    found = [
        f"config.{key} is {was!r} in {printable(one.folder)} and {now!r} in "
        f"{printable(other.folder)}: their scores are other questions"
        for key, was, now in _differing(one, other, _SAME)
    ]
    if not score and one.headline != other.headline:
        found.append(
            f"the headline of {printable(one.folder)} is {one.headline}, that of "
            f"{printable(other.folder)} {other.headline}; name one by --score"
        )
    wanted = score or one.headline
    for run in (one, other):
        if wanted not in run.table.scores and (score or not found):
            hint = nearest(wanted, list(run.table.scores))
            name = printable(wanted, 100)
            found.append(f"{printable(run.folder)} has no score {name!r}{hint}")
    return found


def _paired(one: Run, other: Run) -> tuple[list[np.ndarray], list[str]]:
    """Returns the rows of each run that the other has, too, in one order, and notes.

    Raises:
      AuditError: The corpora differ, apart from rows that failed.
    """
    keys = [
        list(zip(x.id.tolist(), x.role.tolist(), x.cluster.tolist(), strict=True))
        for x in (one.table, other.table)
    ]
    places = [{key: k for k, key in enumerate(each)} for each in keys]
    notes = []
    for run, its, others in ((one, keys[0], places[1]), (other, keys[1], places[0])):
        second = other if run is one else one
        lacking = [key for key in its if key not in others]
        unexplained = [key for key in lacking if key[0] not in second.failed]
        if unexplained:
            raise AuditError(
                [
                    f"{printable(one.folder)} and {printable(other.folder)} are of "
                    f"different corpora: {len(unexplained)} of {len(its)} rows of "
                    f"{printable(run.folder)} are not in the other with the same id, "
                    f"role and video, such as {printable(unexplained[0][0], 100)}"
                ]
            )
        if lacking:
            notes.append(
                f"{counted(len(lacking), 'row')} of {printable(run.folder)} failed in "
                "the other run and are left out"
            )
    common = [key for key in keys[0] if key in places[1]]
    if not common:
        raise AuditError(["the two runs have no row in common"])
    kept = [np.array([place[key] for key in common]) for place in places]
    return kept, notes


def _differing(
    one: Run, other: Run, names: Sequence[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Yields the settings that two runs do not share, with both values."""
    for key in names:
        was, now = (run.about["config"].get(key) for run in (one, other))
        if was != now:
            yield key, was, now


def _settings(one: Run, other: Run) -> list[str]:
    """Returns notes on settings that differ apart from the model."""
    found = [
        f"config.{key} was {printable(str(was), 100)}, then "
        f"{printable(str(now), 100)}: the difference may be that of the setting"
        for key, was, now in _differing(one, other, _NOTED)
    ]
    models = [run.about["fingerprints"].get("model") for run in (one, other)]
    if models[0] == models[1]:
        found.append("both runs are of the same model, by its fingerprint")
    return found


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    flags.DEFINE_string("score", None, "Score to compare; default: the headline.")
    flags.DEFINE_string("out", None, "New file that receives the result as JSON.")
    commands.help_wanted(__doc__, "score", "out")
    commands.start(main, commands.parse_flags)


if __name__ == "__main__":
    run()
