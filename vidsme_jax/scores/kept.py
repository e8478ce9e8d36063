"""Scores that were computed before, stored with the signals.

A table of scores is made of what is kept here without reading the signals again. Rows
are known by a hash of all that their numbers depend on: the content of the parts that
hold their signals, q and r, the profile, and the code that computed them. What is not
found, or is damaged, is computed from the signals; nothing else depends on this folder.
"""

import hashlib
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from absl import logging

from vidsme_jax.base import AuditError, Fingerprint, Traits
from vidsme_jax.scores.gathered import About, Gathered, Unit
from vidsme_jax.store import chunks, facts, traits
from vidsme_jax.store.hashes import Hashes
from vidsme_jax.store.signals import Signals
from vidsme_jax.store.texts import restored, storable
from vidsme_jax.wording import counted

FOLDER = "tables"  # In a work directory.
_CLIPS, _SCORES, _HASHES = "clips", "scores", "parts.json"
_MOST = 4  # Settings whose scores are kept.
_WRONG = (OSError, ValueError, TypeError, LookupError, OverflowError, pa.ArrowException)
_ABOUT = (
    pa.field("rows", pa.int64()),
    pa.field("warnings", pa.list_(pa.string())),
    *(pa.field(name, kind) for name, kind in traits.FIELDS),
)
_OF_TEXTS = pa.field("answer", pa.string()), pa.field("length", pa.int64())
_Orders = Mapping[str, tuple[float, float]]


class Kept:
    """The folder `tables/` of a work directory.

    Attributes:
      hashes: Of the files of the work directory.
    """

    def __init__(
        self, workdir: pathlib.Path, about: dict[str, Any], *, usable: bool = True
    ):
        """Reads the hashes of the parts.

        Args:
          workdir: Has the parts.
          about: JSON-ready: `code`, which computes, and the settings of the scores, of
            which each combination has a table of its own.
          usable: Whether what is there may be taken; it is replaced otherwise.
        """
        self.hashes = Hashes(workdir)
        self._folder = workdir / FOLDER
        self._code = str(about["code"])
        its = {key: x for key, x in about.items() if key != "code"}
        of = hashlib.sha256(json.dumps(its, sort_keys=True).encode()).hexdigest()
        self._stem = f"{_SCORES}-{of[:12]}"
        self._clips: dict[str, bytes] = {}
        self._units: dict[Unit, bytes] = {}
        self._columns: tuple[str, ...] = ()
        self._new: Gathered | None = None
        self._usable = usable
        if usable and (self._folder / _HASHES).exists():
            try:
                self.hashes.read(self._folder / _HASHES)
            except _WRONG as error:
                self._ignore(error)

    def fill(
        self,
        into: Gathered,
        columns: Sequence[str],
        profile: str,
        orders: _Orders,
        store: Signals,
        reference: Signals | None,
    ) -> list[str]:
        """Adds what is kept; returns the keys of the clips that are to be computed.

        Args:
          into: Receives it.
          columns: Names of its numbers.
          profile: Of the scores, by name.
          orders: (q, r) of every clip that has signals, by key.
          store: The signals.
          reference: Those of the reference model, if there is one.

        Raises:
          AuditError: A part of the signals cannot be read.
        """
        self._columns = tuple(columns)
        own, other = self._ids(store, orders), {}
        if reference is not None:
            other = self._ids(reference, orders)
        self._clips = own
        self._units = {
            (clip, text): _digest(
                *(profile, own[clip].hex(), text),
                *(x.hex() for x in (*orders[clip], other.get(clip, b""))),
            )
            for clip, text in into.places
        }
        if self._usable:
            try:
                self._read(into)
            except _WRONG as error:
                self._ignore(error)
                into.about.clear()
                into.there[:] = False
        left = [key for key in orders if not self._is_whole(into, key)]
        for key in left:
            into.about.pop(key, None)
            for text in into.texts[key]:
                into.there[into.places[key, text]] = False
        some = len(orders) - len(left)
        if some:
            kept = counted(some, "clip")
            logging.info("%s: scores kept in %s/ are taken", kept, FOLDER)
        return left

    def take(self, found: Gathered, computed: Collection[str]) -> None:
        """Takes what is to be kept, if any of its clips were computed again."""
        self._new = found if computed else None

    def write(self) -> None:
        """Writes what was taken; if that fails, the next report computes it again."""
        try:
            if self._new is not None:
                chunks.write(self._folder, _CLIPS, self._of_clips(self._new))
                chunks.write(self._folder, self._stem, self._of_units(self._new))
                chunks.keep_latest(self._folder, _SCORES, _MOST)
            if self.hashes.changed and self._folder.exists():
                self.hashes.write(self._folder / _HASHES)
        except OSError as error:
            logging.warning("%s/: the scores are not kept (%s)", FOLDER, error)
        self._new = None

    def _ids(self, store: Signals, keys: Collection[str]) -> dict[str, bytes]:
        """Returns an identifier of the signals of each clip."""
        found: dict[str, bytes] = {}
        known: dict[int, str] = {}
        for key in keys:
            if (its := store.finished.get(key)) is None:
                continue
            for number in its.parts:
                if number not in known:
                    path = store.path(number)
                    try:
                        known[number] = self.hashes.of(path)
                    except OSError as error:
                        raise AuditError(
                            [f"{path}: cannot be read ({error})"]
                        ) from error
            video = known[its.video.part] if its.video else ""
            texts = sorted((text, known[held.part]) for text, held in its.texts.items())
            every = [known[number] for number in its.parts]
            found[key] = _digest(
                *(self._code, key, its.content_hash),
                json.dumps([store.folder.name, video, texts, every]),
            )
        return found

    def _is_whole(self, into: Gathered, key: str) -> bool:
        there = (into.there[into.places[key, text]] for text in into.texts[key])
        return key in into.about and all(there)

    def _ignore(self, error: Exception) -> None:
        cause = " ".join(str(error).split())[:200]
        logging.warning("%s/: ignored, and computed again (%s)", FOLDER, cause)
        self._usable = False

    def _read(self, into: Gathered) -> None:
        """Adds clips and units as far as they are there.

        Raises:
          ValueError: Something is damaged.
        """
        if not chunks.has(self._folder, self._stem, self._columns):
            return
        clips = {its: key for key, its in self._clips.items()}
        for table in chunks.read(self._folder, _CLIPS, _ABOUT):
            for key, about in _abouts(table, clips):
                into.about[key] = about
        places = {self._units[unit]: place for unit, place in into.places.items()}
        for table in chunks.read(
            self._folder, self._stem, (*_OF_TEXTS, *self._numbers())
        ):
            ids: list[bytes] = table.column(chunks.ID.name).to_pylist()
            rows = np.array([k for k, its in enumerate(ids) if its in places], np.int64)
            to = np.array([places[ids[k]] for k in rows], np.int64)
            for column, name in enumerate(self._columns):
                values = _numbers(table, name)
                if np.isinf(values).any():
                    raise ValueError(f"{name} is not finite")
                into.values[column, to] = values[rows]
            into.lengths[to] = _numbers(table, "length")[rows]
            answers: list[str] = table.column("answer").to_pylist()
            for row, place in zip(rows, to, strict=True):
                into.answers[place] = restored(answers[int(row)])
            into.there[to] = True

    def _numbers(self) -> list[pa.Field]:
        return [pa.field(name, pa.float64()) for name in self._columns]

    def _of_clips(self, found: Gathered) -> Iterator[pa.Table]:
        keys = list(found.about)
        for rows in chunks.places(len(keys)):
            its = [found.about[key] for key in keys[rows]]
            columns = [traits.columns_of(each.traits) for each in its]
            every = {
                "id": [self._clips[key] for key in keys[rows]],
                "rows": [each.num_rows for each in its],
                "warnings": [[storable(x) for x in each.warnings] for each in its],
                **{name: [x[name] for x in columns] for name, _ in traits.FIELDS},
            }
            yield pa.table(every, pa.schema([chunks.ID, *_ABOUT]))

    def _of_units(self, found: Gathered) -> Iterator[pa.Table]:
        there = [unit for unit, place in found.places.items() if found.there[place]]
        schema = pa.schema([chunks.ID, *_OF_TEXTS, *self._numbers()])
        for rows in chunks.places(len(there)):
            units = there[rows]
            places = [found.places[unit] for unit in units]
            every: list[Any] = [
                pa.array([self._units[unit] for unit in units], chunks.ID.type),
                pa.array([storable(found.answers[k]) for k in places], pa.string()),
                pa.array(found.lengths[places]),
                *(pa.array(values[places]) for values in found.values),
            ]
            yield pa.table(every, schema)


def _digest(*texts: str) -> bytes:
    content = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).digest()[:16]


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name)
    if column.null_count:
        raise ValueError(f"{name} has rows without a value")
    return column.to_numpy()


def _abouts(table: pa.Table, clips: Mapping[bytes, str]) -> Iterator[tuple[str, About]]:
    """Yields the clips that are looked for, with their keys.

    Raises:
      ValueError: Something is damaged.
    """
    table = table.combine_chunks()
    rows, ids = _numbers(table, "rows"), table.column(chunks.ID.name).to_pylist()
    warnings: list[list[str]] = table.column("warnings").to_pylist()
    containers: list[str | None] = table.column("container").to_pylist()
    arrays = {name: _Lists(table, name) for name in ("pixels", "hashes", "valid")}
    for row, its in enumerate(ids):
        if (key := clips.get(its)) is None:
            continue
        found = None
        if (container := containers[row]) is not None:
            pixels, hashes, valid = (each[row] for each in arrays.values())
            shape = (-1, traits.WINDOWS, 2)
            prints = Fingerprint(hashes.reshape(shape), valid.reshape(shape[:2]))
            if len(pixels) != traits.PIXELS or not np.isfinite(pixels).all():
                raise ValueError("the pixels of a clip are not described")
            if not len(prints.valid) or len(prints.hashes) != len(prints.valid):
                raise ValueError("a clip has no fingerprint")
            found = Traits(pixels, facts.container_of(container), prints)
        notes = tuple(restored(text) for text in warnings[row])
        yield key, About(int(rows[row]), notes, found)


class _Lists:
    """The lists of a column, as arrays."""

    def __init__(self, table: pa.Table, name: str):
        column = table.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0)
        if column.values.null_count:
            raise ValueError(f"{name} has places without a value")
        self._ends: np.ndarray = column.offsets.to_numpy()
        self._values: np.ndarray = column.values.to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._values[self._ends[row] : self._ends[row + 1]]
