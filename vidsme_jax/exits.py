"""Exit statuses of the commands, and the message that each of them ends with.

0 done; 2 nothing was computed, or the run stopped; 3 done, with failures; 4 done, and a
limit of `config.gate` was exceeded; 130 interrupted.
"""

import os
import pathlib
import re
from typing import Any

from vidsme_jax import terminal
from vidsme_jax.addresses import is_url
from vidsme_jax.base import AuditError
from vidsme_jax.wording import counted, printable

OK, WRONG, FAILURES, EXCEEDED, INTERRUPTED = 0, 2, 3, 4, 130
_LONGEST = 10_000  # Characters of one problem.
_MOST = 200  # Problems that are shown.
# A problem that counts for several: "and 4 more ...", perhaps after the file's name.
_MORE = re.compile(r"(?:^|: )and (\d{1,9}) more\b")


def ended(*, failures: bool, gate: dict[str, Any] | None) -> int:
    """Returns the exit status after a report was made; the gate comes first.

    Args:
      failures: Whether rows have no scores.
      gate: Of `metrics.json`.
    """
    if gate is not None and not gate["passed"]:
        return EXCEEDED
    return FAILURES if failures else OK


def stopped(cause: str, workdir: str | pathlib.Path) -> int:
    """Prints that a run stopped and nothing is lost, and returns the exit status."""
    where = printable(str(workdir))
    kept = f"results so far are in {where}; fix the cause and run the same command to "
    kept += "continue"
    if not is_url(str(workdir)) and not os.path.exists(workdir):
        kept = f"nothing was computed; take a folder that can be made, not {where}"
    terminal.show_error(f"the run stopped: {printable(cause, _LONGEST)}; {kept}")
    return WRONG


def interrupted(workdir: str | pathlib.Path) -> int:
    """Prints that a run was interrupted, and returns the exit status."""
    terminal.show_error(
        f"interrupted: what was scored is in {printable(str(workdir))}; the same "
        "command continues"
    )
    return INTERRUPTED


def refused(error: AuditError) -> int:
    """Prints why there is no result, and returns the exit status."""
    return wrong(error.problems, scored=error.scored)


def wrong(problems: list[str], *, scored: bool = False) -> int:
    """Prints why nothing was computed, and returns the exit status.

    Args:
      problems: All of them.
      scored: Whether clips may have been scored: there is no report then.
    """
    lines = [f"  - {printable(problem, _LONGEST)}" for problem in problems[:_MOST]]
    if len(problems) > _MOST:
        lines.append(f"  - and {sum(map(_amount, problems[_MOST:]))} more")
    head = "no report was made" if scored else "nothing was computed"
    count = counted(sum(map(_amount, problems)), "problem")
    terminal.show_error("\n".join([f"{head}, {count}:", *lines]))
    return WRONG


def _amount(problem: str) -> int:
    """Returns how many problems a line counts for."""
    more = _MORE.search(problem)
    return int(more[1]) if more else 1


def os_cause(error: OSError) -> str:
    """Returns which file an error is of, and what it is."""
    named = error.filename is not None and error.strerror
    return f"{error.filename}: {error.strerror}" if named else str(error)
