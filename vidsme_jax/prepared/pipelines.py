"""Apache Beam: the clips, and then the shards, are the elements of a pipeline each.

Beam runs it on processes of this machine or on many machines, and repeats what is lost.
Nothing comes back by way of the pipeline: what is done is in the prepared corpus.
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
# They send options that Beam does not know itself to the server of their jobs.
_FORWARDING = ("FlinkRunner", "SparkRunner", "PortableRunner", "PrismRunner")
_LONGEST = 500  # Characters of what Beam says.
T = TypeVar("T")


def problems(runner: str | None, options: str | None) -> list[str]:
    """Returns what is wrong with the flags, as far as is seen without Beam.

    Args:
      runner: The name of one of Beam's runners, "" or None for none.
      options: Of Beam, as a shell would take them.
    """
    if not runner:
        return ["--beam_options without --runner"] if options else []
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
        found.append("--beam_options: the runner is given by --runner")
    if importlib.util.find_spec("apache_beam") is None:
        found.append(
            "--runner: Apache Beam is not installed: pip install 'vidsme-jax[beam]', "
            "in an environment of its own, since it takes older versions of protobuf "
            "and pyarrow"
        )
    return found


class Pipelines:
    """Runs functions on many arguments, each on its own, through Apache Beam."""

    def __init__(self, runner: str, options: str = ""):
        """Imports Beam and has it look at its options.

        Raises:
          AuditError: They are wrong; says why, in Beam's words where it has any.
        """
        if found := problems(runner, options):
            raise AuditError(found)
        beam: Any = importlib.import_module("apache_beam.options.pipeline_options")
        flags = [f"--runner={runner}", *shlex.split(options)]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                self._options: Any = beam.PipelineOptions(flags)
                known = self._options.get_all_options()
                every = self._options.get_all_options(retain_unknown_options=True)
        except SystemExit as error:  # Of argparse.
            cause = said.getvalue().strip().splitlines()[-1:] or [str(error)]
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
        """Calls a function with each of some arguments, on whatever machine.

        Args:
          work: Called at least once with each; it and they are pickled.
          given: The arguments.

        Raises:
          OSError: A call has raised, or the pipeline has ended otherwise.
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
        except BaseException as error:  # Beam raises all kinds, SystemExit too.
            raise OSError(f"the pipeline of Beam ended ({_cause(error)})") from error


def _cause(error: BaseException) -> str:
    """Returns the last line of what Beam says, which is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "Error" in line), "")
    text = said or (lines[-1] if lines else type(error).__name__)
    return printable(text.removeprefix("RuntimeError: "), _LONGEST)
