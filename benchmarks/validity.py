"""The simulations behind what the audit says: size, power and coverage of its tests.

    python benchmarks/validity.py --step verdicts --draws 400 [--jobs 2] [--only TEXT]
    python benchmarks/validity.py --table

Every step draws worlds whose truth is known, and counts what the program's own
functions make of them. Results are kept by cell in `validity.json`: a cell that has the
draws asked for is not computed again, and one that has fewer is continued, by the same
draws that it would have had at once, however many processes there are.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import json
import multiprocessing
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import _altered
import _report
import _validity_steps as steps
import _validity_tables
import numpy as np

STEPS: dict[str, tuple[Any, steps.Draw]] = {
    "altered": (_altered.cells, _altered.draw),
    "blind": (steps.blind_cells, steps.blind_draw),
    "verdicts": (steps.verdict_cells, steps.verdict_draw),
    "intervals": (steps.interval_cells, steps.interval_draw),
    "adjusted": (steps.adjusted_cells, steps.adjusted_draw),
    "suspects": (steps.suspect_cells, steps.suspect_draw),
    "power": (steps.power_cells, steps.power_draw),
}
NEEDED = {"av": "av", "cv2": "opencv-python-headless", "sklearn": "scikit-learn"}
OUT = pathlib.Path(__file__).with_name("validity.json")
_CHUNK = {"altered": 1}  # Draws of one task.


def draw(step: str, cell: str, about: dict[str, Any], number: int) -> dict[str, float]:
    """Returns one draw of a cell; its seed is of the cell's name and its number."""
    key = zlib.crc32(f"{step}/{cell}".encode())
    return STEPS[step][1](np.random.default_rng([key, number]), **about)


def _draws(
    step: str, cell: str, about: dict[str, Any], first: int, last: int
) -> list[dict[str, float]]:
    return [draw(step, cell, about, number) for number in range(first, last)]


def added(stored: dict[str, Any], draws: Iterable[dict[str, float]]) -> dict[str, Any]:
    """Returns a cell with more draws.

    Args:
      stored: `draws` and `numbers`: by name the mean and how many draws it is `of`,
        which are fewer where a draw does not have it. Empty at first.
      draws: Those that follow.
    """
    sums = {
        name: [its["mean"] * its["of"], its["of"]]
        for name, its in stored.get("numbers", {}).items()
    }
    count = stored.get("draws", 0)
    for each in draws:
        count += 1
        for name, value in each.items():
            total = sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
    numbers = {
        name: {"mean": round(total / of, 9), "of": of}
        for name, (total, of) in sums.items()
    }
    return {"draws": count, "numbers": numbers}


def run(
    step: str, draws: int, jobs: int, out: pathlib.Path, only: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Continues the cells of a step; yields each that has new draws, stored.

    Args:
      step: One of `STEPS`.
      draws: That each cell shall have.
      jobs: Processes; 1 is this one.
      out: JSON, read again before it is written.
      only: Part of the names of the cells that are computed.
    """
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=spawned) as pool:
        for cell, about in STEPS[step][0]():
            name = f"{step}/{cell}"
            done = read(out).get(name, {}).get("draws", 0)
            if done >= draws or only not in cell:
                continue
            chunk = _CHUNK.get(step, 50)
            tasks = [
                (step, cell, about, start, min(start + chunk, draws))
                for start in range(done, draws, chunk)
            ]
            many = jobs > 1
            began = time.perf_counter()
            mapped = pool.map(_task, tasks) if many else map(_task, tasks)
            for number, found in zip(range(done, draws, chunk), mapped, strict=True):
                with _locked(out):
                    stored = read(out)
                    before = stored.get(name, {})
                    if before.get("draws", 0) != number:
                        raise ValueError(f"{name} was drawn elsewhere meanwhile.")
                    spent = before.get("seconds", 0) + time.perf_counter() - began
                    began = time.perf_counter()
                    stored[name] = added(before, found) | {
                        "about": about,
                        "seconds": round(spent, 1),
                        "commit": _report.commit(),
                    }
                    _write(out, stored)
            yield name, read(out)[name]


def _task(about: tuple[Any, ...]) -> list[dict[str, float]]:
    return _draws(*about)


def read(out: pathlib.Path) -> dict[str, Any]:
    """Returns the cells that are stored."""
    return json.loads(out.read_text("utf-8")) if out.exists() else {}


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from writing: steps can be run beside each other."""
    folder = os.open(out.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(out: pathlib.Path, cells: dict[str, Any]) -> None:
    lines = [f"{json.dumps(k)}: {json.dumps(cells[k])}" for k in sorted(cells)]
    beside = out.with_suffix(".tmp")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    os.replace(beside, out)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line a cell; 2 without a package."""
    parser = argparse.ArgumentParser(description="Simulations of what is claimed.")
    parser.add_argument("--step", choices=STEPS, nargs="*", default=list(STEPS))
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="cells whose names have this")
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="of what is stored")
    args = parser.parse_args(argv)
    if args.table:
        print(_validity_tables.tables(read(args.out)))
        return 0
    if _report.lacks("validity.py", **NEEDED):
        return 2
    for step in args.step:
        for name, cell in run(step, args.draws, args.jobs, args.out, args.only):
            shown = {key: its["mean"] for key, its in cell["numbers"].items()}
            about = {"draws": cell["draws"], "seconds": cell["seconds"]}
            print(json.dumps({"name": name} | about | shown), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
