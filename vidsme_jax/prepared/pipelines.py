"""Apache Beam pipelines, first over the clips and then over the shards.

Beam runs a pipeline on local processes or many machines, and repeats lost elements. A
pipeline returns nothing: its results are in the prepared corpus.
"""

import contextlib
import importlib
import importlib.util
import io
import shlex
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vidsme_jax.base import AuditError
from vidsme_jax.wording import nearest, printable

RUNNERS = (
    *("DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"),
    *("PortableRunner", "PrismRunner"),
)
# These runners forward options unknown to Beam to their job server.
_FORWARDING = ("FlinkRunner", "SparkRunner", "PortableRunner", "PrismRunner")
_LONGEST = 500  # Characters of an error of Beam in a message.
T = TypeVar("T")


def problems(runner: str | None, options: str | None) -> list[str]:
    """Returns the problems of the flags that can be found without Beam.

    Args:
      runner: The name of one of Beam's runners, "" or None for none.
      options: Of Beam, in shell syntax.
    """
    if not runner:
        return ["--beam_options without --runner; give both"] if options else []
    found = []
    if runner not in RUNNERS:
        known = ", ".join(RUNNERS)
        near = nearest(runner, RUNNERS)
        found.append(f"--runner={printable(runner)}: it must be one of {known}{near}")
    try:
        given = shlex.split(options or "")
    except ValueError as error:
        found.append(f"--beam_options={printable(options or '')}: {error}")
        given = []
    if any(each.split("=")[0] == "--runner" for each in given):
        found.append("--beam_options: it has --runner; give the runner by --runner")
    if importlib.util.find_spec("apache_beam") is None:
        found.append(
            "--runner: Apache Beam is not installed: pip install 'vidsme-jax[beam]', "
            "in an environment of its own, since it takes older versions of protobuf "
            "and pyarrow"
        )
    return found


class Pipelines:
    """Runs functions on many arguments through Apache Beam."""

    def __init__(self, runner: str, options: str = ""):
        """Imports Beam and parses its options.

        Raises:
          AuditError: They are invalid; quotes Beam's error.
        """
        if found := problems(runner, options):
            raise AuditError(found)
        beam: Any = importlib.import_module("apache_beam.options.pipeline_options")
        flags = [f"--runner={runner}", *shlex.split(options)]
        printed = io.StringIO()
        try:
            with contextlib.redirect_stderr(printed):
                self._options: Any = beam.PipelineOptions(flags)
                known = self._options.get_all_options()
                every = self._options.get_all_options(retain_unknown_options=True)
        except SystemExit as error:  # Raised by argparse.
            cause = printed.getvalue().strip().splitlines()[-1:] or [str(error)]
            reason = cause[0].rpartition("error: ")[2]
            raise AuditError([f"--beam_options: {printable(reason)}"]) from error
        unknown = sorted(set(every) - set(known))
        if unknown and runner not in _FORWARDING:
            raise AuditError(
                [
                    f"--beam_options: Beam has no option --{printable(name)}"
                    f"{nearest(name, list(known))}"
                    for name in unknown
                ]
            )

    def each(self, work: Callable[[T], None], given: Sequence[T]) -> None:
        """Calls a function with each of several arguments, on any machine.

        Args:
          work: Called at least once with each argument; both are pickled.
          given: The arguments.

        Raises:
          OSError: A call raised, or the pipeline failed.
        """
        if not given:
            return
        beam: Any = importlib.import_module("apache_beam")
        try:
            with beam.Pipeline(options=self._options) as pipeline:
                spread = beam.Create(list(given)) | beam.Reshuffle() | beam.Map(work)
                _ = pipeline | spread
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Beam raises many kinds, also SystemExit.
            raise OSError(f"the pipeline of Beam ended ({_cause(error)})") from error


def _cause(error: BaseException) -> str:
    """Returns the last line of an error of Beam that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in reversed(lines) if "Error" in line), "")
    text = found or (lines[-1] if lines else type(error).__name__)
    return printable(text.removeprefix("RuntimeError: "), _LONGEST)
