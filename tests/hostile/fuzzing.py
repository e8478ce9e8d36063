"""Fuzzes a reader with atheris, and keeps the inputs that reach new code.

    pip install -e '.[fuzz]'
    python tests/hostile/fuzzing.py pickle --seconds 600

A target is one of `targets.TARGETS`. What is kept is in `corpus/TARGET`, minimised: of
inputs that reach the same code the smallest. An input that breaks the reader is written
to `--crashes`, and the exit status is not 0.
"""

import argparse
import hashlib
import importlib
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable

HERE = pathlib.Path(__file__).parent
CORPUS = HERE / "corpus"
_LONGEST = 4096  # Bytes of an input.
_SECONDS, _MEGABYTES = 10, 2048  # That one input may take.
_BEGIN = "--begin="


def main() -> int:
    """Starts from the corpus and the generators; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--crashes", type=pathlib.Path, default=pathlib.Path("crashes"))
    parser.add_argument("--keep", action="store_true", help="Replaces the corpus.")
    given = parser.parse_args()
    import targets

    given.crashes.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / given.target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        grown, least = pathlib.Path(folder, "grown"), pathlib.Path(folder, "least")
        grown.mkdir()
        least.mkdir()
        for data in _sound(targets.TARGETS[given.target], targets.seeds(given.target)):
            (grown / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        crashes = f"-artifact_prefix={given.crashes}/"
        limits = [
            f"-max_len={_LONGEST}",
            f"-timeout={_SECONDS}",
            f"-rss_limit_mb={_MEGABYTES}",
        ]
        seconds = f"-max_total_time={given.seconds}"
        status = _fuzz(given.target, [seconds, crashes, *limits, grown, kept])
        if given.keep:
            _fuzz(given.target, ["-merge=1", crashes, *limits, least, kept, grown])
            for path in kept.iterdir():
                path.unlink()
            for path in least.iterdir():
                data = path.read_bytes()
                name = hashlib.sha256(data).hexdigest()[:16]
                (kept / name).write_bytes(data)
    return status


def _sound(target: Callable[[bytes], None], seeds: list[bytes]) -> list[bytes]:
    """Returns the seeds that break nothing; others would end libFuzzer at once."""
    found = []
    for data in seeds:
        try:
            target(data)
        except Exception as error:
            print(f"a seed breaks the reader: {error!r:.200}", file=sys.stderr)
        else:
            found.append(data)
    return found


def _fuzz(target: str, arguments: list) -> int:
    """Runs libFuzzer, which ends its process, in one of its own."""
    command = [sys.executable, __file__, _BEGIN + target, *map(str, arguments)]
    return subprocess.run(
        command, cwd=pathlib.Path.cwd(), env=_environment()
    ).returncode


def _environment() -> dict[str, str]:
    search = [os.environ.get("PYTHONPATH", ""), str(HERE), str(HERE.parents[1])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))}


_INSTRUMENTED = ("csv", "json.decoder", "pickletools", "zipfile")
_INSTRUMENTED += ("vidsme_jax.checkpoints.files", "vidsme_jax.checkpoints.pickled")
_INSTRUMENTED += ("vidsme_jax.data.sources",)


def begin(target: str) -> None:
    """Instruments the readers and hands over to libFuzzer."""
    import atheris

    with atheris.instrument_imports():
        for module in _INSTRUMENTED:
            importlib.import_module(module)
    import targets
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    # libFuzzer starts itself again by the first argument, in a shell.
    command = shlex.join([sys.executable, __file__, _BEGIN + target])
    atheris.Setup([command, *sys.argv[2:]], targets.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith(_BEGIN):
        begin(sys.argv[1].removeprefix(_BEGIN))
    sys.exit(main())
