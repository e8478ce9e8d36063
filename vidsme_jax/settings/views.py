"""The configuration as typed records: a stage is given the part that it reads."""

import dataclasses
import typing
from typing import Any, TypeVar

from ml_collections import ConfigDict

from vidsme_jax.settings.rules import RULES

T = TypeVar("T")
Number = int | float


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Of `corpus.*`: where the clips come from."""

    members: tuple[str, ...]
    nonmembers: tuple[str, ...]
    suspects: tuple[str, ...]
    calibration: tuple[str, ...]
    video_root: str
    allow_outside: bool
    max_clips: int | None
    seed: int
    prepared: str
    jpeg_quality: int
    tfds_fields: tuple[str, ...]


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
    """Of `video.*`: which frames are decoded."""

    num_frames: int
    sampling: str
    fps: Number
    against: str
    max_pixels: int
    max_seconds: Number


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Motion:
    """Of `motion.*`: optical flow, and how motion and light become q and r."""

    flow: str
    q_scale: Number
    r_scale: Number
    bounds: tuple[Number, Number, Number, Number] | None


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Of `model.*`: which model, and how it is prompted."""

    checkpoint: str
    dtype: str
    prompt: str
    allow_pickle: bool


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """Of `parallel.*`: how devices are arranged."""

    mode: str
    data: int
    model: int


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Of `report.*`: rates, intervals and lists of suspects."""

    fprs: tuple[Number, ...]
    num_bootstrap: int
    fdr: Number


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Studies:
    """Of `studies.*`: the values that a study goes through."""

    frames: tuple[int, ...]
    k: tuple[Number, ...]
    q_scales: tuple[Number, ...]
    r_scales: tuple[Number, ...]
    orders: tuple[tuple[Number, Number], ...]
    against: tuple[str, ...]


@typing.no_type_check  # What is wrong in a configuration is taken as it is.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole configuration; `RULES` explains each key."""

    corpus: Corpus
    video: Video
    motion: Motion
    model: Checkpoint
    parallel: Parallel
    report: Report
    studies: Studies
    profile: str
    scores: str
    headline: str
    batch_size: int
    workers: int
    compile_cache: str
    study: str
    overwrite: bool

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Reads a configuration; what `problems` finds wrong is taken as it is."""
        return _read(cls, config, "")


def view(kind: type[T], config: ConfigDict) -> T:
    """Returns one group of a configuration; keys that it lacks take their defaults.

    Args:
      kind: One of this module's records but `Settings`.
      config: A whole configuration, also one of another program with the same keys.
    """
    name = _GROUPS[kind]
    return _read(kind, config.get(name, ConfigDict()), f"{name}.")


def _read(kind: type[T], given: ConfigDict, prefix: str) -> T:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name, inner = field.name, typing.cast(Any, field.type)
        if inner in _GROUPS:
            values[name] = _read(inner, given.get(name, ConfigDict()), f"{name}.")
        elif name in given:
            values[name] = given[name]
        else:
            default = RULES[prefix + name][0]
            values[name] = None if isinstance(default, type) else default
    return kind(**values)


_GROUPS: dict[Any, str] = {
    Corpus: "corpus",
    Video: "video",
    Motion: "motion",
    Checkpoint: "model",
    Parallel: "parallel",
    Report: "report",
    Studies: "studies",
}
