"""What is fuzzed: each takes bytes, and raises nothing that is not a bug.

They run without atheris too, over the corpora that were kept.
"""

import contextlib
import inspect
import pathlib
import tempfile
import types
from collections.abc import Callable

from generators import pickles

_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_LONGEST = 200_000  # Characters of all problems of one input.


def pickle(data: bytes) -> None:
    """A description of tensors, or a whole archive of torch."""
    from vidsme_jax.checkpoints import pickled

    content = data if data.startswith(b"PK") else pickles.archive(data)
    before = _state(pickled)
    with _file("weights.bin", content) as path:
        try:
            found = pickled.headers(path)
        except (ValueError, OSError):
            found = {}
        for tensor in found.values():
            value = pickled.read(path, tensor)
            if value.size:
                value[(0,) * value.ndim], value[(-1,) * value.ndim]
    assert _state(pickled) == before, "the reader itself was changed"


def _state(module: types.ModuleType) -> list[tuple]:
    """What a description might set on the functions of its reader."""
    found = filter(inspect.isfunction, vars(module).values())
    return [(f.__name__, f.__defaults__, dict(f.__dict__)) for f in found]


def safetensors(data: bytes) -> None:
    """A file of weights."""
    from vidsme_jax.checkpoints import files

    with _file("model.safetensors", data) as path:
        problems: list[str] = []
        found = files.open_file(path, False, problems)
        for info in found.values():
            assert all(isinstance(side, int) and side >= 0 for side in info.shape)
    assert sum(map(len, problems)) < _LONGEST


def manifest(data: bytes) -> None:
    """The number of a format in the first byte, and a manifest of it."""
    from vidsme_jax.base import AuditError
    from vidsme_jax.data import sources

    suffix = _SUFFIXES[data[0] % len(_SUFFIXES)] if data else _SUFFIXES[0]
    with _file(f"m{suffix}", data[1:]) as path:
        try:
            problems = sources.read(str(path), None, ()).problems
        except AuditError as error:
            problems = error.problems
    assert all(isinstance(problem, str) for problem in problems)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "pickle": pickle,
    "safetensors": safetensors,
    "manifest": manifest,
}


@contextlib.contextmanager
def _file(name: str, data: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, name)
        path.write_bytes(data)
        yield path


def seeds(target: str) -> list[bytes]:
    """Returns small inputs of the generators, from which fuzzing starts."""
    if target == "pickle":
        found = [data for _, data in pickles.descriptions()]
        found.append(pickles.archive(found[0]))
    elif target == "safetensors":
        from generators import checkpoints

        found = list(checkpoints.headers().values())
    else:
        found = [*_manifests()]
    return [data for data in found if len(data) < 4096]


def _manifests():
    from generators import manifests

    with tempfile.TemporaryDirectory() as folder:
        for case in manifests.cases(random=0):
            if case.name.startswith(("honest", "json:", "jsonl:", "csv:", "parquet:")):
                path = case.build(pathlib.Path(folder))
                yield bytes([_SUFFIXES.index(path.suffix)]) + path.read_bytes()
