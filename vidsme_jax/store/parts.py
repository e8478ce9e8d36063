"""Numbered Parquet files with one record of settings: what is computed once and kept.

A part is written under a temporary name, synced and linked to its own, so that it is
either whole or absent, and of two writers of one name the second is refused. Each part,
and a JSON record beside them, holds the settings that its content depends on, so that
content of other settings is refused wherever it comes from. Each also says when it was
written: parts count in that order, whatever their names.
"""

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.base import AuditError
from vidsme_jax.store import files, tables
from vidsme_jax.store.mirrors import Mirror, numbered
from vidsme_jax.store.records import Record, damaged, object_of

_SETTINGS, _WRITTEN = b"vidsme_jax.settings", b"vidsme_jax.written"  # Of a part.
_READERS = 8  # Threads that read the parts when a folder is opened.
_BUFFER = 1 << 17  # Bytes that are read at once of a part that is not on this machine.
_NAME = re.compile(
    r"part-([0-9]{6}|[1-9][0-9]{6,17})(?:-([1-9][0-9]{0,5}-of-[1-9][0-9]{0,5}))?\.parquet"
)
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


class Writer(NamedTuple):
    """Who writes parts, where others may write to the same folder at the same time.

    Attributes:
      process: The place of this process among those that work on one share together;
        all of them open the folder before one of them writes.
      processes: How many they are.
      share: "" or "I-of-N", which the names of its parts have; other shares may write
        at any time.
      mirror: Of the folder that holds the folders of parts, where it stands for one in
        an object store: every part is put there too, and those of others are read.
    """

    process: int = 0
    processes: int = 1
    share: str = ""
    mirror: Mirror | None = None

    def name(self, number: int) -> str:
        """Returns the name of a part."""
        return f"part-{number:06}{f'-{self.share}' if self.share else ''}.parquet"


ALONE = Writer()


class Parts:
    """A folder of parts; several processes may write to it, each its own names."""

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        kind: Kind,
        remember: Callable[[int, pa.Table], None],
        writer: Writer = ALONE,
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
        self._written = 0
        named = self._named()
        self._add([name for _, _, name in named])
        self._create_record(is_there=bool(before))
        own = [number for number, share, _ in named if share == writer.share]
        self._send(own)
        # Each process has numbers of its own, all above those that are there.
        self._next = max(own, default=-1) + 1 + writer.process

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes one part; its texts are stored as `texts.storable`.

        Raises:
          FileExistsError: Another process has written it.
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        name, table = (
            self._writer.name(self._next),
            tables.of_rows(rows, self._kind.schema),
        )
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
        self._names.append(name)
        self._remember(len(self._names) - 1, table)

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the parts that this writer has written."""
        its = ((name, _NAME.fullmatch(name)) for name in self._names)
        share = self._writer.share
        return tuple(name for name, x in its if x and (x[2] or "") == share)

    def read(self, place: int) -> pa.Table:
        """Reads one part.

        Raises:
          AuditError: It is damaged.
          OSError: It cannot be fetched.
        """
        name, mirror = self._names[place], self._mirror
        if mirror:
            mirror.fetch(name)
        try:
            return self._read(name)
        except ValueError as error:
            if not (mirror and mirror.forget(name)):
                raise self.damage(place, error) from error
        mirror.fetch(name)
        try:
            return self._read(name)
        except ValueError as error:
            raise self.damage(place, error) from error

    def _read(self, name: str) -> pa.Table:
        with tables.opened(self._folder / name) as file:
            return self._table(file)

    def damage(self, place: int, cause: Exception) -> AuditError:
        """Returns that a part has content that no part is written with."""
        return AuditError([damaged(self.path(place), cause, self._kind.remedy)])

    def path(self, place: int) -> pathlib.Path:
        """Returns the file of a part."""
        return self._folder / self._names[place]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Says what it means if a part that is written is there already."""
        try:
            yield
        except FileExistsError as error:
            share = self._writer.share.replace("-of-", "/")
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
            match = _NAME.fullmatch(name)
            if not match or (match[2] or "") != self._writer.share:
                continue
            if mirror.find(name):
                try:
                    mirror.create(name)  # It was put, and the answer was lost.
                except FileExistsError:
                    own = [
                        n for n, share, _ in self._named() if share == (match[2] or "")
                    ]
                    moved = self._writer.name(max(own) + 1)
                    os.replace(self._folder / name, self._folder / moved)

    def _send(self, own: list[int]) -> None:
        """Puts parts of this writer that an earlier run wrote and did not put.

        Where another run has put one of its name, which may hold other clips, it gets
        the next name.

        Args:
          own: The numbers of this writer; new ones are added.
        """
        mirror = self._mirror
        for place, name in enumerate(tuple(self._names) if mirror else ()):
            match = _NAME.fullmatch(name)
            assert mirror and match
            while (
                match[2] or ""
            ) == self._writer.share and name not in mirror.listed():
                try:
                    mirror.create(name)
                except FileExistsError:
                    own.append(max(own) + 1)
                    moved = self._writer.name(own[-1])
                    os.replace(self._folder / name, self._folder / moved)
                    mirror.find(name)
                    self._add([name])
                    self._names[place] = name = moved

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

    def _add(self, names: list[str]) -> None:
        """Remembers what parts hold, in the order of their times."""
        found, problems = [], []
        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            for name, looked in zip(names, pool.map(self._look, names), strict=True):
                if isinstance(looked, list):
                    problems += looked
                elif looked is not None:
                    found.append((looked[0], name, looked[1]))
        if problems:
            raise AuditError(problems)
        found.sort(key=lambda each: each[0])  # Those of one time stay in their order.
        for written, name, table in found:
            self._names.append(name)
            self._written = max(self._written, written)
            self._remember(len(self._names) - 1, table)

    def _named(self) -> list[tuple[int, str, str]]:
        """Returns number, share and name of each part, sorted."""
        names = {
            *os.listdir(self._folder),
            *(self._mirror.listed() if self._mirror else ()),
        }
        matches = filter(None, map(_NAME.fullmatch, names))
        found = {(int(each[1]), each[2] or "", each[0]) for each in matches}
        if self._mirror:
            for share in {self._writer.share, *(each[1] for each in found)}:
                writer = self._writer._replace(share=share)
                known = [number for number, its, _ in found if its == share]
                more = numbered(self._mirror, writer.name, known, writer.processes)
                found |= {(number, share, writer.name(number)) for number in more}
        return sorted(found)

    def _look(self, name: str) -> tuple[int, pa.Table] | list[str] | None:
        """Returns when a part was written and its remembered columns.

        Or what is wrong with it; None if a listing shows it though it was deleted.

        Raises:
          OSError: It cannot be read where it is stored.
        """
        part, mirror, pieces = self._folder / name, self._mirror, None
        if mirror and not mirror.current(name) and name in mirror.listed():
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
                return written, self._table(file, list(self._kind.remembered))
        except ValueError as error:
            if pieces and pieces.failure:
                raise pieces.failure from error
            if mirror and not pieces and mirror.forget(name):
                return self._look(name)
            return [damaged(part, error, self._kind.remedy)]


def _now() -> int:
    """Returns the time, in nanoseconds."""
    return time.time_ns()


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
