"""Numbered Parquet files with one record of settings: what is computed once and kept.

A part is written under a temporary name, synced and linked to its final one: it is
either whole or absent, and of two writers of one name the second is refused. Each part,
and a JSON record next to the parts, holds the settings that its content depends on, so
that content of other settings is refused wherever it comes from. Each also holds the
time of
writing: parts count in this order, whatever their names.
"""

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.base import AuditError
from vidsme_jax.store import files, indices, share_names, tables
from vidsme_jax.store.indices import Entry
from vidsme_jax.store.mirrors import numbered
from vidsme_jax.store.records import Record, damaged, object_of
from vidsme_jax.store.writers import ALONE, NAME, Writer

_SETTINGS, _WRITTEN = b"vidsme_jax.settings", b"vidsme_jax.written"  # Of a part.
_READERS = 8  # Threads that read the parts when a folder is opened.
_BUFFER = 1 << 17  # Bytes that are read at once of a part that is not on this machine.
_LATEST = 2**63  # No part is written so late, in nanoseconds.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What the parts of a folder hold.

    Attributes:
      noun: Their content in messages, such as "signals".
      format: Raised by hand when numbers or columns change; parts of another format are
        refused.
      schema: Of their columns.
      remembered: The columns that are read when a folder is opened; every row has all.
      remedy: What to do about a damaged part.
    """

    noun: str
    format: int
    schema: pa.Schema
    remembered: tuple[str, ...]
    remedy: str

    def other_format(self, before: dict[str, Any], where: pathlib.Path) -> str:
        """Returns that content with these settings is of another format."""
        return (
            f"{where}: its {self.noun} have format {before.get('format', 0)!r}, this "
            f"version reads format {self.format}; take another --workdir, or "
            "--config.overwrite=true, or make their report with the version that wrote "
            "them"
        )

    def record(self, folder: pathlib.Path) -> Record:
        """Returns the record of a folder."""
        difference = (
            f"{{where}}: its {self.noun} were computed with {{key}} = {{before!r}}, "
            "this run has {now!r}; take another --workdir, or --config.overwrite=true"
        )
        remedy = "delete it, the parts have its content too"
        return Record(folder / "run.json", difference, remedy)


class Parts:
    """A folder of parts; several processes may write to it, each under other names."""

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        kind: Kind,
        remember: Callable[[int, pa.Table], None],
        writer: Writer = ALONE,
        *,
        indexed: bool = True,
    ):
        """Opens the folder, making it if absent, and checks every part.

        Args:
          folder: Of the parts.
          settings: JSON-ready; what the content depends on.
          kind: Of the content.
          remember: Receives the place of each part in the order in which they were
            written, from 0, and its remembered columns; later those of each part that
            is written.
          writer: Who is going to write.
          indexed: Whether indices are trusted; otherwise every part is opened.

        Raises:
          AuditError: The folder holds content of other settings or another format, or
            damaged parts; names each.
          OSError: The folder cannot be made or written.
        """
        self._folder, self._kind, self._remember = folder, kind, remember
        self._settings = json.loads(json.dumps(settings | {"format": kind.format}))
        self._record, self._writer = kind.record(folder), writer
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder, f"-{writer.share}.parquet" if writer.share else "")
        self._mirror = writer.mirror and writer.mirror.within(folder.name)
        if self._mirror:
            self._mirror.look()
            self._mirror.clean()
            self._rescue()
            if self._mirror.find(self._record.path.name):
                self._mirror.fetch(self._record.path.name)
        before = self._record.read()
        if before and (problems := self._problems(before, folder)):
            raise AuditError(problems)
        self._names: list[str] = []  # Of parts, by place.
        self._times: list[int] = []  # When they were written, by place.
        self._written = 0  # The latest of these.
        columns = pa.schema([kind.schema.field(name) for name in kind.remembered])
        self._indices = indices.Indices(folder, self._settings, columns, self._mirror)
        known, named = self._indices.read() if indexed else {}, self._named()
        new = self._add([name for _, _, name in named], known)
        self._create_record(is_there=bool(before))
        # A number of a part that is gone is not used again while an index has it.
        own = self._writer.numbers([*known, *(name for _, _, name in named)])
        new |= self._send(own)
        for place, entry in new.items():
            self._indices.add(entry._replace(part=self._names[place]))
        # Each process has other numbers, all above those that are there.
        self._next = max(own, default=-1) + 1 + writer.process

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes one part; its texts are stored as `texts.storable`.

        Raises:
          FileExistsError: Another process has written it.
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        name = self._writer.name(self._next)
        table = tables.of_rows(rows, self._kind.schema)
        self._written = max(_now(), self._written + 1)
        about = {
            _SETTINGS: json.dumps(self._settings, sort_keys=True).encode(),
            _WRITTEN: str(self._written).encode(),
        }
        with self._alone():
            tables.create(self._folder / name, table.replace_schema_metadata(about))
            if self._mirror:
                self._mirror.create(name)
        self._next += self._writer.processes
        remembered = table.select(self._kind.remembered)
        entry = Entry(name, _size(self._folder / name), self._written, remembered)
        self._take(entry)
        self._indices.add(entry)
        self._indices.write(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the parts that this writer has written."""
        return tuple(filter(self._writer.wrote, self._names))

    def read(self, place: int) -> pa.Table:
        """Reads one part.

        Raises:
          AuditError: It is damaged, or not the one that an index has.
          OSError: It cannot be fetched.
        """
        name, mirror = self._names[place], self._mirror
        if mirror:
            mirror.fetch(name)
        try:
            return self._read(place)
        except ValueError as error:
            if not (mirror and mirror.forget(name)):
                raise self.damage(place, error) from error
        mirror.fetch(name)
        try:
            return self._read(place)
        except ValueError as error:
            raise self.damage(place, error) from error

    def _read(self, place: int) -> pa.Table:
        with tables.opened(self.path(place)) as file:
            table = self._table(file)
            if _time_of(file) != self._times[place]:
                raise self.unlike(place, "its time is not that of its index")
            return table

    def damage(self, place: int, cause: Exception) -> AuditError:
        """Returns that a part has content that no part is written with."""
        return AuditError([damaged(self.path(place), cause, self._kind.remedy)])

    def unlike(self, place: int, why: str) -> AuditError:
        """Returns that a part is not the one that an index has."""
        return AuditError([indices.unlike(self.path(place), why)])

    def path(self, place: int) -> pathlib.Path:
        """Returns the file of a part."""
        return self._folder / self._names[place]

    @contextlib.contextmanager
    def _alone(self) -> Generator[None, None, None]:
        """Explains the error if a part exists that is being written."""
        try:
            yield
        except FileExistsError as error:
            share = share_names.of_file(self._writer.share)
            of = f" of share {share}" if share else ""
            raise FileExistsError(
                error.errno,
                f"another process has written it: two processes write the parts{of}; "
                "stop one of them",
                error.filename,
            ) from error

    def _create_record(self, *, is_there: bool) -> None:
        """Writes the settings; another process may have done so meanwhile."""
        name, mirror = self._record.path.name, self._mirror
        try:
            if not is_there:
                self._record.create(self._settings)
            if mirror and not mirror.find(name):
                mirror.create(name)
        except FileExistsError:
            if mirror and mirror.find(name):
                mirror.drop(name)
                mirror.fetch(name)
            problems = self._problems(self._record.read(), self._folder)
            if problems:
                raise AuditError(problems) from None

    def _rescue(self) -> None:
        """Gives parts that were not put other names, where another run took theirs."""
        mirror = self._mirror
        assert mirror is not None
        for name in mirror.unsent():
            if self._writer.wrote(name) and mirror.find(name):
                try:
                    mirror.create(name)  # It was put, and the answer was lost.
                except FileExistsError:
                    own = self._writer.numbers(its for _, _, its in self._named())
                    moved = self._writer.name(max(own, default=-1) + 1)
                    os.replace(self._folder / name, self._folder / moved)

    def _send(self, own: list[int]) -> dict[int, Entry]:
        """Puts parts of this writer that an earlier run wrote and did not put.

        Where another run has put one of its name, which may hold other clips, it gets
        the next name.

        Args:
          own: The numbers of this writer; new ones are added.

        Returns:
          The parts of others, by place.
        """
        mirror, new = self._mirror, {}
        for place, name in enumerate(tuple(self._names) if mirror else ()):
            assert mirror
            while self._writer.wrote(name) and name not in mirror.listed():
                try:
                    mirror.create(name)
                except FileExistsError:
                    own.append(max(own, default=-1) + 1)
                    moved = self._writer.name(own[-1])
                    os.replace(self._folder / name, self._folder / moved)
                    mirror.find(name)
                    new |= self._add([name], {})
                    self._names[place] = name = moved
        return new

    def _problems(self, before: dict[str, Any], where: pathlib.Path) -> list[str]:
        """Returns why content with these settings is not that of this run."""
        if before.get("format") != self._kind.format:
            return [self._kind.other_format(before, where)]
        return self._record.differences(before, self._settings, where)

    def _table(
        self, file: pq.ParquetFile, columns: list[str] | None = None
    ) -> pa.Table:
        if not file.schema_arrow.equals(self._kind.schema):
            raise ValueError(f"its columns are not those of {self._kind.noun}")
        table = file.read(columns, use_threads=False)
        for name in self._kind.remembered:
            if table.column(name).null_count:
                raise ValueError(f"a row has no {name}")
        return table

    def _add(self, names: list[str], known: Mapping[str, Entry]) -> dict[int, Entry]:
        """Remembers what parts hold, in the order of their times.

        Args:
          names: Of the parts.
          known: What indices have of them.

        Returns:
          Those that no index has, by place.
        """
        found, problems, new = [], [], {}
        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            there = pool.map(lambda name: self._entry(name, known), names)
            for looked in there:
                if isinstance(looked, list):
                    problems += looked
                elif looked is not None:
                    found.append(looked)
        if problems:
            raise AuditError(problems)
        # Those of one time stay in their order.
        for entry in sorted(found, key=lambda each: each.written):
            if known.get(entry.part) is not entry:
                new[len(self._names)] = entry
            self._take(entry)
        return new

    def _take(self, entry: Entry) -> None:
        """Remembers what a part holds."""
        self._names.append(entry.part)
        self._times.append(entry.written)
        self._written = max(self._written, entry.written)
        self._remember(len(self._names) - 1, entry.table)

    def _named(self) -> list[tuple[int, str, str]]:
        """Returns number, share and name of each part, sorted."""
        names = {
            *os.listdir(self._folder),
            *(self._mirror.listed() if self._mirror else ()),
        }
        matches = filter(None, map(NAME.fullmatch, names))
        found = {(int(each[1]), each[2] or "", each[0]) for each in matches}
        if self._mirror:
            for share in {self._writer.share, *(each[1] for each in found)}:
                writer = self._writer._replace(share=share)
                known = [number for number, its, _ in found if its == share]
                more = numbered(self._mirror, writer.name, known, writer.processes)
                found |= {(number, share, writer.name(number)) for number in more}
        return sorted(found)

    def _entry(self, name: str, known: Mapping[str, Entry]) -> Entry | list[str] | None:
        """Returns what a part holds, of an index or of itself.

        Or what is wrong with it; None if a listing shows it though it was deleted.

        Raises:
          OSError: It cannot be read where it is stored.
        """
        part, mirror, pieces = self._folder / name, self._mirror, None
        elsewhere = mirror and not mirror.current(name) and mirror.listed().get(name)
        size = elsewhere.size if elsewhere else _size(part)
        if name in known and known[name].size == size:
            return known[name]
        if mirror and elsewhere:
            try:
                pieces = mirror.bucket.opened(name)
            except FileNotFoundError:
                return None
        buffered = pieces and io.BufferedReader(pieces, _BUFFER)
        try:
            with tables.opened(part, buffered) as file:
                before, written = _settings_of(file), _time_of(file)
                if problems := self._problems(before, part):
                    return problems
                table = self._table(file, list(self._kind.remembered))
                return Entry(name, size, written, table)
        except ValueError as error:
            if pieces and pieces.failure:
                raise pieces.failure from error
            if mirror and not pieces and mirror.forget(name):
                return self._entry(name, {})
            return [damaged(part, error, self._kind.remedy)]


def _now() -> int:
    """Returns the time, in nanoseconds."""
    return time.time_ns()


def _size(path: pathlib.Path) -> int:
    """Returns the bytes of a file; -1 if it cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _time_of(file: pq.ParquetFile) -> int:
    """Returns when a part was written; 0 where it does not say so."""
    written = (file.schema_arrow.metadata or {}).get(_WRITTEN, b"0")
    if not (written.isdigit() and len(written) < 20 and int(written) < _LATEST):
        raise ValueError("its time is none")
    return int(written)


def _settings_of(file: pq.ParquetFile) -> dict[str, Any]:
    written = (file.schema_arrow.metadata or {}).get(_SETTINGS, b"{}")
    try:
        return object_of(written)
    except ValueError as error:
        raise ValueError("its settings are not readable") from error
