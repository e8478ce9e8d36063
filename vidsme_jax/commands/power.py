"""The command line: `vidsme power --config llava`.

Computes before a run what its numbers of clips can show: the smallest AUC that members
and non-members can detect, and the smallest share of used videos that suspects can.
Nothing is decoded and no model is read; the corpus is that of the configuration, or
plain numbers:

    vidsme power --members 100 --nonmembers 100 --per_source 5 --icc 0.5
    vidsme power --suspects 50 --calibration 200 --config.report.fdr=0.1

Level, rates and the smallest AUC of interest are those of config.report.

Exit status: 0 it was computed; 2 it was not, and one message lists every problem.
"""

import functools
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict

from vidsme_jax import commands, exits, settings, terminal
from vidsme_jax.arguments import number
from vidsme_jax.base import AuditError
from vidsme_jax.evaluation.power import ICC, Clips, Number
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.run import corpus_rows, power_notes
from vidsme_jax.run.asking import HARMLESS
from vidsme_jax.run.problems import Problems
from vidsme_jax.settings import views
from vidsme_jax.wording import printable

_READ = ("corpus", "video", "report")  # Of the configuration.
_PAIRS = (("members", "nonmembers"), ("suspects", "calibration"))
_NUMBERS = (*_PAIRS[0], *_PAIRS[1], "per_source")


def main(argv: list[str], default: ConfigDict) -> int:
    """Prints what the clips can show, and returns the exit status.

    Args:
      argv: What is left of the command line.
      default: The configuration where only numbers are given.
    """
    given = flags.FLAGS
    config = default if given.config is None else given.config
    if len(argv) > 1:
        return exits.wrong([commands.unexpected(argv[1])])
    commands.begin()
    try:
        values: dict[str, Any] = {name: given[name].value for name in _NUMBERS}
        numbers = {name: x for name, x in values.items() if x is not None}
        if given.config is None:
            found = of_numbers(config, numbers, icc=given.icc)
        elif numbers:
            problem = f"--{min(numbers)} and --config: give numbers, or a corpus"
            return exits.wrong([problem])
        else:
            found = of_corpus(config, icc=given.icc)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.wrong([exits.os_cause(error)])
    blocks = ["\n".join([printable(head), *map("  {}".format, x)]) for head, x in found]
    terminal.show("\n".join(blocks))
    return exits.OK


def of_numbers(
    config: ConfigDict, numbers: dict[str, Number], *, icc: Number = ICC
) -> list[tuple[str, list[str]]]:
    """Returns what numbers of clips can show; see `power_notes.report`.

    Args:
      config: Whose group `report` is read.
      numbers: By name: members and nonmembers, suspects and calibration, or all four;
        per_source, 1 if it is not there.
      icc: Correlation of the scores of clips of one source.

    Raises:
      AuditError: Lists every problem.

    Example:
      >>> config = settings.default()
      >>> of_numbers(config, {"suspects": 50, "calibration": 200})[0][0]
      '50 suspects against 200 calibration clips'
    """
    problems = Problems(config, groups=("report",))
    each: Number = 1  # Where it is no number of clips: the others are checked alone.
    with problems.collected():
        each = number("per_source", numbers.get("per_source", 1), 1)
    pairs: dict[str, tuple[Clips, Clips]] = {}
    for names in _PAIRS:
        there = [name for name in names if name in numbers]
        if len(there) == 1:
            (lacking,) = set(names) - set(there)
            problems.add(f"--{there[0]} without --{lacking}: a comparison needs both")
        clips = []
        for name in there:
            with problems.collected():
                clips.append(Clips.of(name, numbers[name], each))
        if len(clips) == 2:
            pairs[names[0]] = clips[0], clips[1]
    if not set(numbers) - {"per_source"}:
        problems.add(
            "give --config, or numbers: --members and --nonmembers, or --suspects and "
            "--calibration"
        )
    problems.close()
    known, asked = (pairs.get(names[0]) for names in _PAIRS)
    return power_notes.of_pairs(known, asked, problems.settings.report, icc)


def of_corpus(config: ConfigDict, *, icc: Number = ICC) -> list[tuple[str, list[str]]]:
    """Returns what the corpus of a configuration can show; see `power_notes.report`.

    Args:
      config: See `settings.RULES`.
      icc: Correlation of the scores of clips of one source.

    Raises:
      AuditError: Lists every problem with the corpus and what is asked of it.
    """
    problems = Problems(config, groups=_READ)
    given, items = problems.settings, ()
    if problems.none_in("corpus", "video", but=HARMLESS):
        with problems.collected():
            items = open_corpus(given, {given.video.num_frames})[0].items
    if items and problems.none_in("report.comparison"):
        wrong = corpus_rows.problem(given.report.comparison, items)
        problems.add(*([wrong] if wrong else []))
    problems.close()
    return power_notes.report(items, given.report, icc)


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    commands.define_config()
    flags.DEFINE_integer("members", None, "Number of members, in place of a corpus.")
    flags.DEFINE_integer("nonmembers", None, "Number of non-members.")
    flags.DEFINE_integer("suspects", None, "Number of suspects.")
    flags.DEFINE_integer("calibration", None, "Number of calibration clips.")
    flags.DEFINE_float("per_source", None, "Clips a source; default: 1.")
    flags.DEFINE_float(
        "icc", ICC, "Correlation of the scores of clips of one source, an assumption."
    )
    commands.help_wanted(
        __doc__, "config", *_NUMBERS, "icc", keys=views.KEYS.only(*_READ)
    )
    default = settings.default()
    commands.start(
        functools.partial(main, default=default),
        functools.partial(commands.parse, default=default),
    )


if __name__ == "__main__":
    run()
