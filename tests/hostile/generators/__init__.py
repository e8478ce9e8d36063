"""Hostile inputs by name and seed: the same two give the same bytes.

A module a kind; each has `cases(seed)`, honest ones among them, so that a case that
failed can be made again:

    generators.named("manifests", "parquet: a column of durations", seed=0)
"""

import dataclasses
import importlib
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

KINDS = "manifests clips checkpoints configs prepared tfds_folders".split()
KINDS += ["hub_folders", "workdirs", "frame_folders", "webps", "url_maps"]
HONEST, REFUSED, EITHER = "honest", "refused", "either"


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
      name: Unique within its kind.
      build: Writes what is needed into an empty folder; returns what to pass.
      expected: `HONEST`, it must be taken; `REFUSED`, it must not be; or `EITHER`.
      words: Some that the message must have.
    """

    name: str
    build: Callable[[pathlib.Path], Any]
    expected: str = REFUSED
    words: str = ""


def named(kind: str, name: str, seed: int = 0) -> Case:
    """Returns one case of a kind."""
    made = importlib.import_module(f"generators.{kind}").cases(seed)
    return next(case for case in made if case.name == name)


def rng_of(seed: int, name: str) -> np.random.Generator:
    """Returns the source of what is random in a case."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def written(name: str, data: bytes | str) -> Callable[[pathlib.Path], pathlib.Path]:
    """Returns a `build` that writes one file and passes its path."""

    def build(folder: pathlib.Path) -> pathlib.Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
        return path

    return build


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns bytes of which a few are others, gone, doubled or cut off."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(found) + 1)), rng.integers(5)
        size = int(rng.integers(1, 40))
        if kind == 0:
            found[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            del found[at : at + size]
        elif kind == 2:
            found[at:at] = found[at : at + size]
        elif kind == 3:
            found[at : at + size] = rng.bytes(size)
        else:
            del found[at:]
    return bytes(found)
