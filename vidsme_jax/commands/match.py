"""The command line: `vidsme match --workdir runs/llava --out matched`.

Writes two manifests of matched clips: the largest subset of a finished run's members
and non-members whose sources have similar propensity scores, by all properties that are
known without a model. An audit of them compares like with like, with fewer sources. The
properties are read from the run's stored signals; no video is decoded, no model loaded.

Exit status: 0 the manifests are written; 2 they are not, and one message says why.
"""

import json
import pathlib
import shlex
from collections.abc import Iterable
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict

from vidsme_jax import commands, exits, terminal
from vidsme_jax.addresses import no_folder
from vidsme_jax.base import AuditError, Item
from vidsme_jax.commands.finished import run_config
from vidsme_jax.run import asking, corpus_rows
from vidsme_jax.store import workdirs
from vidsme_jax.wording import counted, nearest, printable

_FIELDS = ("id", "group", "question", "answer", "source", "date")


def main(argv: list[str]) -> int:
    """Writes the manifests and returns the exit status."""
    given = flags.FLAGS
    if len(argv) > 1:
        return exits.wrong([commands.unexpected(argv[1])])
    wrong = [f"--{x} is missing" for x in ("workdir", "out") if not given[x].value]
    if wrong := wrong + no_folder(given.out, "--out"):
        return exits.wrong(wrong)
    commands.begin()
    out = pathlib.Path(given.out)
    try:
        config = run_config(given.workdir)
        with workdirs.fetched(given.workdir) as workdir:
            terminal.show(write(config, workdir, out, given.comparison))
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.wrong([exits.os_cause(error)])
    return exits.OK


def write(
    config: ConfigDict, workdir: pathlib.Path, out: pathlib.Path, comparison: str
) -> str:
    """Writes `members.jsonl` and `nonmembers.jsonl`; says what they hold.

    Args:
      config: Of the run.
      workdir: Of the run.
      out: The folder that receives them; made if absent.
      comparison: Of which: all, or a group of non-members.

    Raises:
      AuditError: There is no run, no such comparison, or nothing is alike.
      OSError: They cannot be written.
    """
    asked = asking.ask(config, model=False)
    if comparison != corpus_rows.ALL:
        if problem := corpus_rows.problem(comparison, asked.items):
            raise AuditError(
                [problem.replace("config.report.comparison", "comparison")]
            )
    from vidsme_jax import report
    from vidsme_jax.evaluation import family_tests, groups, matching, validity
    from vidsme_jax.run import stored
    from vidsme_jax.store.files import write_atomically

    failures = report.failures(workdir)
    stores = stored.open_signals(asked, workdir)
    table, _ = stored.score_table(asked, failures, *stores)
    found = groups.comparisons(table)
    if comparison not in found:
        problem = "the run has no members and non-members to compare"
        if found:
            hint = nearest(comparison, list(found))
            problem = f"the run has no comparison {printable(comparison, 100)!r}{hint}"
        raise AuditError([f"{workdir}: {problem}"])
    traits = family_tests.Traits(table)
    between = traits.between(*found[comparison][1:], whole=True)
    seed = validity.Procedure.of(asked.settings.report).seed
    kept = matching.sources_of(between, seed)
    if not kept.any():
        raise AuditError(
            [f"{workdir}: no source of members is like any of non-members"]
        )
    ids = set(table.id[between.rows[kept[between.sources.source]]].tolist())
    items = [item for item in asked.items if item.id in ids]
    out.mkdir(parents=True, exist_ok=True)
    counts, flags_ = [], []
    for role in ("members", "nonmembers"):
        its = [item for item in items if item.role == role]
        path = out / f"{role}.jsonl"
        write_atomically(path, "".join(_lines(its)).encode("utf-8", "backslashreplace"))
        counts.append(f"{counted(len(its), 'row')} of {role}")
        flags_.append(f"--config.corpus.{role}={shlex.quote(str(path))}")
    again = matching.in_words(matching.blind_auc(traits, between, kept, seed))
    pairs = counted(int(kept.sum()) // 2, "pair")
    return (
        f"{pairs} of sources, {' and '.join(counts)}, are in "
        f"{printable(str(out))}{again}. Audit them with the same --config and another "
        f"--workdir: {' '.join(flags_)} --config.corpus.allow_outside=true. "
        f"This subset was chosen after the results of {printable(str(workdir))} were "
        "seen: a verdict on it is exploratory."
    )


def _lines(items: Iterable[Item]) -> Iterable[str]:
    """Returns the rows of a manifest; of windows those of their whole, once."""
    from vidsme_jax.data import segments
    from vidsme_jax.data.sources import is_address

    lines = dict[str, None]()
    for item in items:
        file, part = segments.divided(item.clip)
        if is_address(file):
            raise AuditError([f"{file} is no file, which a manifest could name"])
        row: dict[str, Any] = {"video": file}
        row |= {name: getattr(item, name) for name in _FIELDS if getattr(item, name)}
        if part is not None and part.window is not None:
            its = item.id.removesuffix(f"#{part.window[0]}")
            row |= {"id": "" if item.id == item.video else its}
        if item.candidates:
            row["candidates"] = list(item.candidates)
        if part is not None and part.timed:
            row["start"] = part.start
            row |= {} if part.end is None else {"end": part.end}
        lines[json.dumps(row) + "\n"] = None
    return lines


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    flags.DEFINE_string("workdir", None, "Folder of a finished run.")
    flags.DEFINE_string("out", None, "The folder that receives the manifests.")
    flags.DEFINE_string(
        "comparison", corpus_rows.ALL, "Comparison: all, or a group of non-members."
    )
    commands.help_wanted(__doc__, "workdir", "out", "comparison")
    commands.start(main, commands.parse_flags)


if __name__ == "__main__":
    run()
