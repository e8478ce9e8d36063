"""The command line: `vidsme prepare --config llava --out DIR`.

    vidsme prepare --config llava --out DIR
    vidsme prepare --members members.json --nonmembers nonmembers.json --out DIR

Decodes the clips of the corpus once; an audit with `--config.corpus.prepared=DIR` then
reads them from there. DIR may be in a bucket, gs://BUCKET/DIR or s3://BUCKET/DIR. With
--runner the clips are the elements of a pipeline of Apache Beam. Only what is missing
is prepared: the same command, again, adds clips that are new in the corpus; another
sampling or number of frames is stored alongside.

--check checks all that needs no decoding, and writes nothing.

Exit status: 0 all clips are prepared, or --check found nothing wrong; 2 nothing was
done, and one message lists every problem, or the folder can no longer be written, and
what was prepared is kept; 3 finished, with failures, which are stored too; 130
interrupted, and the same command continues.
"""

import functools
from collections.abc import Sequence
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict

from vidsme_jax import commands, exits, terminal
from vidsme_jax.addresses import is_url
from vidsme_jax.base import AuditError, Item
from vidsme_jax.data import corpora, names
from vidsme_jax.prepared import pipelines
from vidsme_jax.run import asking, rehearsal
from vidsme_jax.run.problems import Problems
from vidsme_jax.settings import views
from vidsme_jax.store import buckets, files
from vidsme_jax.wording import printable

_READ = ("corpus", "video", "workers")  # Of the configuration.


def main(argv: list[str]) -> int:
    """Prepares the corpus and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return exits.wrong([problem])
    config = flags.FLAGS.config
    root = flags.FLAGS.out or config.get("corpus", {}).get("prepared", "")
    commands.begin()
    try:
        runner, options = flags.FLAGS.runner, flags.FLAGS.beam_options
        given, root, items = checked(
            config, flags.FLAGS.out, pipelines.problems(runner, options)
        )
        beam = pipelines.Pipelines(runner, options or "") if runner else None
        if flags.FLAGS.check:
            unseen = rehearsal.DECODING, "which clips are prepared already"
            terminal.show("\n".join(rehearsal.of_rows(items, unseen)))
            return exits.OK
        from vidsme_jax.prepared import preparation

        done = preparation.run(given, root, items, beam)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.stopped(exits.os_cause(error), root)
    except KeyboardInterrupt:
        terminal.show_error(
            f"interrupted: what was prepared is in {printable(root)}; the same command "
            "continues"
        )
        return exits.INTERRUPTED
    terminal.show(done.summary())
    return exits.FAILURES if done.failures else exits.OK


def checked(
    config: ConfigDict, out: str | None, found: Sequence[str] = ()
) -> tuple[views.Settings, str, tuple[Item, ...]]:
    """Checks values and corpus; of the settings the preparation reads a part.

    Args:
      config: See `settings.RULES`.
      out: Receives the clips; None or empty takes config.corpus.prepared.
      found: Problems of other flags.

    Returns:
      The settings, the folder that receives the clips, and the rows of the corpus.

    Raises:
      AuditError: Something is wrong with that part; lists every problem.
    """
    problems = Problems(config, groups=_READ)
    given = problems.settings
    root = out or given.corpus.prepared
    items: tuple[Item, ...] = ()
    problems.add(*found)
    if is_url(root):
        problems.add(*filter(None, [buckets.problem(root)]))
    elif root:
        what = "--out" if out else "config.corpus.prepared"
        problems.add(*files.unwritable(names.configured(root), what))
    if not root and problems.none_in("corpus.prepared"):
        problems.add("--out is missing: the folder that receives the clips")
    if problems.none_in("corpus", but=("corpus.prepared", *asking.HARMLESS)):
        with problems.collected():
            items = corpora.load(given.corpus).items
    problems.close()
    return given, root, items


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    commands.define_config()
    flags.DEFINE_string(
        "out", None, "Folder that receives the clips; default: config.corpus.prepared."
    )
    flags.DEFINE_string(
        "runner",
        None,
        "Runner of Apache Beam, such as DirectRunner, FlinkRunner, SparkRunner or "
        "DataflowRunner; default: threads of this process.",
    )
    flags.DEFINE_string(
        "beam_options",
        None,
        "Options of that runner, such as '--direct_num_workers=4'.",
    )
    commands.define_short(*commands.CORPUS)
    commands.define_check()
    keys = views.KEYS.only(*_READ)
    names = "config", *commands.CORPUS, "out", "runner", "beam_options", "check"
    commands.help_wanted(__doc__, *names, keys=keys)
    commands.start(main, functools.partial(commands.parse, short=commands.CORPUS))


if __name__ == "__main__":
    run()
