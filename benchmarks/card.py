r"""All measurements that a machine with a card is wanted for, in a fixed sequence.

    python benchmarks/card.py --out DIR [--step N ...|1..N] [--list] [--size 7b]

The most informative first: `--list` prints the steps with the seconds of each. A step
is a process or several, so that one that fails, hangs or runs out of memory costs the
others nothing; it is stopped 20 s before its limit, which is 9 minutes at the most. The
results of step N are lines of JSON in DIR/step-N-NAME.jsonl, written as they come:
first what is expected and what the card says of itself, last how the step ended, what
was found beside what was expected and the card again. Nothing of the card is ever set.

The programs of all steps are kept in one cache, so that a rerun compiles only what has
changed. `--wheels` names a folder of wheels: those of packages that the machine lacks
are unpacked to a temporary folder and put on the path. `--commit` names the commit
where the history of the repository is not at hand.

Exit status 0 if all steps ended well or lack a package without which they may be left
out, 1 if a step failed or was stopped, 2 for arguments that make no sense.
"""

import argparse
import json
import math
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, TextIO

import _clocks
import _report
import _running
from _steps import SIZES, STEPS, Expected, Step

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIMIT = 540.0  # Seconds of a step.
MARGIN = 20.0  # Seconds before a limit at which a step is stopped.
_PATIENCE = 60.0  # A step may take twice what is expected, and so much more.
_FEWEST = 10.0  # A step with less time than this is not begun.


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


def listing(steps: Sequence[Step]) -> str:
    """The steps with their expected seconds."""
    rows = ["step            seconds  of these compiling"]
    for number, step in enumerate(steps, 1):
        name = f"{number} {step.name}"
        rows.append(f"{name:14} {step.seconds:8} {step.compiling:8}   {step.what}")
    whole = sum(step.seconds for step in steps)
    return "\n".join([*rows, f"{'all':14} {whole:8}"])


def chosen(asked: Sequence[str], steps: Sequence[Step]) -> list[int]:
    """Returns the numbers of the steps that were asked for.

    Args:
      asked: Numbers, or ranges such as "1..4"; N is the last one.
      steps: All of them.

    Raises:
      ValueError: There is no such step; the message lists those that there are.
    """
    numbers: list[int] = []
    for text in asked:
        parts = [part or "-" for part in text.split("..")]
        ends = [str(len(steps)) if part == "N" else part for part in parts]
        if len(ends) > 2 or not all(re.fullmatch(r"\d+", end) for end in ends):
            raise ValueError(
                f"--step {text}: not a number nor a range\n{listing(steps)}"
            )
        first, last = int(ends[0]), int(ends[-1])
        if not 1 <= first <= last <= len(steps):
            raise ValueError(f"--step {text}: there is no such step\n{listing(steps)}")
        numbers += [n for n in range(first, last + 1) if n not in numbers]
    return numbers


def environment(args: argparse.Namespace, carried: pathlib.Path) -> dict[str, str]:
    """Returns what the processes of all steps share."""
    paths = [str(ROOT), str(carried), os.environ.get("PYTHONPATH", "")]
    shared = {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        "JAX_COMPILATION_CACHE_DIR": str(args.cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # Torch needs room, and the peak of memory is to be that of the step.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if args.commit:
        shared[_report.COMMIT] = args.commit
    return os.environ | shared


class Record:
    """The file of one step."""

    def __init__(self, file: TextIO):
        """Takes a file that is open for writing."""
        self._file = file

    def write(self, text: str) -> None:
        """Adds a line and sees to it that it is in the file."""
        self._file.write(f"{text}\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def note(self, event: str, **about: Any) -> None:
        """Adds a line of our own."""
        self.write(json.dumps({"event": event, **about}))


def perform(
    number: int, step: Step, args: argparse.Namespace, env: dict[str, str], left: float
) -> str:
    """Runs one step; returns how it ended.

    Args:
      number: Of the step.
      step: What to run.
      args: The arguments of the command.
      env: Of its processes.
      left: Seconds until the limit of the whole command.

    Returns:
      "well", "failed", "stopped", "skipped" or "not begun".
    """
    begun, title = time.monotonic(), f"step {number}, {step.name}"
    limit = min(LIMIT, _PATIENCE + 2 * step.seconds, left) - MARGIN
    expected = step.expected if args.size == "7b" else ()
    say(
        f"{title}: {step.what}; {step.seconds} s expected of a 7B model, "
        f"{step.compiling} of them to compile"
    )
    if limit < _FEWEST:
        say(f"{title}: not begun, {left:.0f} s are left")
        return "not begun"
    for one in expected:
        say(f"  expects {one}")
    stem = args.out / f"step-{number}-{step.name}"
    with stem.with_suffix(".jsonl").open("w") as file:
        record = Record(file)
        record.note(
            "begin",
            step=number,
            name=step.name,
            size=args.size,
            expects=[str(one) for one in expected],
            card=_clocks.read(),
            versions=_report.versions(),
            commit=env.get(_report.COMMIT) or _report.commit(),
            seconds=step.seconds,
            compiling=step.compiling,
        )
        commands = step.lines(args.size, str(stem))
        endings = conduct(commands, step, env, begun + limit, record)
        states = [state(ending, step) for ending in endings]
        ended = next(
            (s for s in ("stopped", "failed", "skipped") if s in states), "well"
        )
        found = compared(expected, [line for e in endings for line in e.lines])
        programs = compiled(endings)
        record.note(
            "end",
            ended=ended,
            seconds=round(time.monotonic() - begun, 1),
            statuses=[ending.status for ending in endings],
            programs=programs,
            found=found,
            errors=[list(e.errors) for e in endings if e.status != 0],
            card=_clocks.read(),
        )
    for one in found:
        shown = "nothing" if one["found"] is None else one["found"]
        mark = "" if one["fits"] or one["found"] is None else "  <- outside"
        say(f"  {one['expects']}; found {shown}{mark}")
    say(
        f"{title}: ended {ended} after {time.monotonic() - begun:.0f} s, "
        f"{programs['seconds']:.0f} of them to compile {programs['compiled']:.0f} "
        f"programs; {programs['from_cache']:.0f} were in the cache"
    )
    return ended


def conduct(
    commands: Sequence[Sequence[str]],
    step: Step,
    env: dict[str, str],
    until: float,
    record: Record,
) -> list[_running.Ending]:
    """Runs the commands of a step; each but the last may take half of the time left."""
    endings = []
    for place, (script, *flags) in enumerate(commands, 1):
        say(f"  runs {script} {' '.join(flags)}")
        left = max(until - time.monotonic(), 0.0)
        ending = _running.run(
            [sys.executable, str(ROOT / "benchmarks" / script), *flags],
            env,
            seconds=left if place == len(commands) else left / 2,
            emit=record.write,
            say=say,
        )
        how = state(ending, step)
        if how == "skipped":
            say(f"  left out: {ending.errors[-1]}")
        elif how != "well":
            say(f"  {script}: {how}, exit status {ending.status}")
        endings.append(ending)
    return endings


def compared(
    expected: Sequence[Expected], lines: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Puts what was found beside what was expected."""
    rows = []
    for one in expected:
        value = one.found(lines)
        fits = value is not None and one.fits(value)
        rows.append({"expects": str(one), "found": value, "fits": fits})
    return rows


def compiled(endings: Sequence[_running.Ending]) -> dict[str, float]:
    """Adds up what the last lines of commands say of their programs."""
    shown = [e.lines[-1].get("programs", {}) for e in endings if e.lines]
    keys = ("seconds", "from_cache", "compiled")
    return {key: round(sum(one.get(key, 0) for one in shown), 1) for key in keys}


def state(ending: _running.Ending, step: Step) -> str:
    """Says in a word how a command of a step ended."""
    if ending.status == 0:
        return "well"
    if ending.status is None:
        return "stopped"
    # It must say so: argparse and a missing script too exit with 2.
    says = ending.errors[-1] if ending.errors else ""
    named = any(re.search(rf"\b{name}\b", says) for name in step.optional)
    return "skipped" if ending.status == 2 and named else "failed"


def main(argv: Sequence[str] | None = None, steps: Sequence[Step] = STEPS) -> int:
    """Runs the steps that are asked for."""
    parser = argparse.ArgumentParser(description="All measurements on a card.")
    parser.add_argument("--step", nargs="+", default=["1..N"], help="such as 1..4 7")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results")
    parser.add_argument("--list", action="store_true", help="print the steps")
    parser.add_argument("--size", default="7b", choices=SIZES)
    parser.add_argument("--commit", nargs="?", default="", const="", help="to name")
    parser.add_argument(
        "--limit", type=float, default=float("inf"), help="seconds for all together"
    )
    parser.add_argument(
        "--cache",
        type=pathlib.Path,
        default=pathlib.Path.home() / ".cache" / "vidsme-card",
        help="folder of compiled programs",
    )
    parser.add_argument("--wheels", type=pathlib.Path, help="folder of wheels")
    args = parser.parse_args(argv)
    begun = time.monotonic()
    if args.list:
        say(listing(steps))
        return 0
    try:
        numbers = chosen(args.step, steps)
    except ValueError as error:
        print(f"card.py: {error}", file=sys.stderr)
        return 2
    if args.out is None:
        parser.error("--out is needed: the folder for the results")
    if args.wheels is not None and not args.wheels.is_dir():
        parser.error(f"--wheels {args.wheels}: no such folder")
    args.out, args.cache = args.out.resolve(), args.cache.expanduser().resolve()
    for folder in (args.out, args.cache):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"{folder}: no folder can be made there ({error.strerror})")
        if not os.access(folder, os.W_OK):
            parser.error(f"{folder}: cannot be written")
    if math.isnan(args.limit):
        parser.error("--limit is no number of seconds")
    ended: dict[int, str] = {}
    with tempfile.TemporaryDirectory(prefix="vidsme-wheels-") as carried:
        if args.wheels is not None:
            names = _running.carried(args.wheels, pathlib.Path(carried), say)
            say(f"unpacked wheels: {', '.join(names) or 'none'}")
        env = environment(args, pathlib.Path(carried))
        for number in numbers:
            left = args.limit - (time.monotonic() - begun)
            ended[number] = perform(number, steps[number - 1], args, env, left)
    say("; ".join(f"{n} {steps[n - 1].name}: {how}" for n, how in ended.items()))
    return int(not set(ended.values()) <= {"well", "skipped"})


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that a step is ended.
    sys.exit(main())
