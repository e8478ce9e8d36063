r"""Whether the tests notice small faults: a seeded choice of mutations, one at a time.

    python benchmarks/mutations.py [--seed 14] [--groups signals ...] [--out FILE]
    python benchmarks/mutations.py --list

Each fault (an operator, a comparison, a bound, an axis, a sign, a term that is left
out, arguments exchanged, a statement that does nothing; see `_mutants.py`) is put into
a copy of the tree, and the test files nearest to its module run until one test fails.
The test that does must pass without the fault.

FILE is a JSON list, written after each fault: its file, the line before and after, and
the test that caught it, null if all passed. What it has as caught is not run again;
with another `--out` everything is. A fault that survives needs an argument why it
changes nothing that can be seen, put into FILE by hand as `equivalent`, which is kept.
The exit status is 1 as long as one has none.

It takes an hour on two idle cores; on a busy machine run a group at a time.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import _mutants
import _running

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutations.json"
_SECONDS = 3600.0  # After which the tests of one fault are stopped: it was caught.
_SAME = ("file", "before", "after")  # Where these agree, a fault is the same.


class Group(NamedTuple):
    """Modules whose faults are chosen together.

    Attributes:
      count: How many faults.
      modules: Of `vidsme_jax`; a folder stands for all in it.
      tests: Files of `tests`, or tests of them; the nearest first.
    """

    count: int
    modules: tuple[str, ...]
    tests: tuple[str, ...]


_DOOR = (
    "asked_test.py::test_the_door_gives_what_an_audit_stores",
    "asked_test.py::test_texts_asked_together_are_as_alone",
)
GROUPS = {
    "signals": Group(
        8,
        ("run/signals.py", "run/outcomes.py", "store/signals.py", "store/rows.py"),
        ("store_test.py", "parts_test.py", "outcomes_test.py", *_DOOR),
    ),
    "streaming": Group(
        8,
        ("entropy/streaming.py", "entropy/states.py"),
        ("entropy/streaming_test.py", "entropy/targets_test.py"),
    ),
    "tables": Group(
        6,
        ("scores/tables.py",),
        ("scores_tables_test.py", "reference_test.py"),
    ),
    "attention": Group(
        7,
        ("models/attention.py", "models/text_attention.py"),
        ("models/attention_test.py", "models/text_attention_test.py"),
    ),
    "prepared": Group(6, ("prepared",), ("prepared_test.py", "prepare_test.py")),
    "adapters": Group(
        5,
        ("checkpoints/adapters.py",),
        ("checkpoints/adapters_test.py", "checkpoints/adapter_files_test.py"),
    ),
}


def chosen(name: str, seed: int) -> list[tuple[dict[str, Any], str]]:
    """Returns the record of each fault of a group, and its file with the fault."""
    group, sources = GROUPS[name], {}
    for module in group.modules:
        path = ROOT / "vidsme_jax" / module
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            sources[str(file.relative_to(ROOT))] = file.read_text()
    records = []
    for path, mutant in _mutants.pick(sources, group.count, f"{seed} {name}"):
        record = {"group": name, "file": path} | mutant._asdict()
        records.append((record, record.pop("source")))
    return records


def failing(tree: pathlib.Path, tests: tuple[str, ...]) -> str | None:
    """Runs test files until one test fails; returns its name, None if all pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "--tb=no"]
    command += ["-p", "no:cacheprovider", "-rfE", *(f"tests/{x}" for x in tests)]
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {  # What has no fault is compiled once.
        "JAX_COMPILATION_CACHE_DIR": str(tree.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    with subprocess.Popen(
        command,
        cwd=tree,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            told = process.communicate(timeout=_SECONDS)[0]
        except subprocess.TimeoutExpired:
            return "the tests did not end"
        finally:
            _running.end(process)
    if process.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", told, re.MULTILINE)
    return found[1] if found else "the tests could not start"


def known() -> list[str]:
    """Returns the paths of the files that git knows, or would."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    shown = subprocess.run(listing, check=True, capture_output=True, text=True)
    return [name for name in shown.stdout.splitlines() if (ROOT / name).is_file()]


def _copied(folder: pathlib.Path) -> pathlib.Path:
    for name in known():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


def judge(
    name: str, open_: list[tuple[dict[str, Any], str]]
) -> Iterator[dict[str, Any]]:
    """Says of one fault after another what caught it; yields each record."""
    tests = GROUPS[name].tests
    with tempfile.TemporaryDirectory() as folder:
        tree = _copied(pathlib.Path(folder, "tree"))
        sound: set[str] = set()
        for record, source in open_:
            file = tree / record["file"]
            whole = file.read_text()
            file.write_text(source)
            caught = failing(tree, tests)
            file.write_text(whole)
            if caught is not None and caught not in sound:
                alone = (caught.removeprefix("tests/"),) if "::" in caught else tests
                if failing(tree, alone):
                    raise SystemExit(f"{name}: without a fault {caught} fails, too")
                sound.add(caught)
            record["caught_by"] = caught
            yield record


def main(flags: list[str] | None = None) -> int:
    """Runs the chosen groups; returns 1 if a fault survives without an argument."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="show them, run none")
    args = parser.parse_args(flags)
    written = json.loads(args.out.read_text()) if args.out.is_file() else []
    before = {tuple(x[key] for key in _SAME): x for x in written}
    records = {name: [x for x in written if x["group"] == name] for name in GROUPS}
    for name in args.groups:
        faults = chosen(name, args.seed)
        records[name] = [record for record, _ in faults]
        for record in records[name]:
            record |= before.get(tuple(record[key] for key in _SAME), {}) | record
        if args.list:
            print("\n".join(json.dumps(record) for record in records[name]))
            continue
        again = [fault for fault in faults if not fault[0].get("caught_by")]
        for record in judge(name, again) if again else ():
            print(json.dumps(record), flush=True)
            done = [x for each in records.values() for x in each if "caught_by" in x]
            args.out.write_text(json.dumps(done, indent=2) + "\n")
    survivors = [
        record
        for name in args.groups
        for record in records[name]
        if not record.get("caught_by") and not record.get("equivalent")
    ]
    return int(bool(survivors) and not args.list)


if __name__ == "__main__":
    # The copy is deleted and its tests end, also where this one is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    sys.exit(main())
