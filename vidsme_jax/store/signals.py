"""Signals on disk: parts of Parquet, one row per clip and text; what is there is kept.

The rows of the video have the text "". All rows of one clip that are written together
are in one part, so that they are finished together or not at all.
"""

import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Set
from typing import Any

import pyarrow as pa

from vidsme_jax.base import SLICES, AuditError, MotionStatistics, ScoredClip
from vidsme_jax.store import rows
from vidsme_jax.store.parts import Kind, Parts
from vidsme_jax.store.rows import Finished, Held
from vidsme_jax.store.texts import restored
from vidsme_jax.store.writers import ALONE, Writer
from vidsme_jax.wording import printable

FORMAT = 3  # Raised by hand when numbers or columns change.
SECOND, BLANK = rows.SECOND, rows.BLANK  # See `Held`.
ORDERS, NATURAL = "model.orders", "natural"  # A setting: see `Signals.has_one_order`.
# Of a work directory: the folders whose parts a model has to do with.
OF_MODELS = ("signals", "signals-reference", "answers")
CLEARED = (*OF_MODELS, "tables", "figures")  # Folders that `clear` deletes.

_KIND = Kind(
    noun="signals",
    format=FORMAT,
    schema=rows.SCHEMA,
    remembered=(
        *("key", "text", "holds", "content_hash", "file_size", "file_mtime_ns"),
        *("flow_variance", "brightness_std"),
    ),
    remedy="delete it and its clips are scored again",
)


class Signals:
    """The folder `signals/` of a work directory.

    Its parts are read once, when it is opened. If rows were computed again, the latest
    count; of a clip that has changed, those of the file as it was last.

    Attributes:
      folder: Of the parts.
      finished: Every clip that has signals, by key.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        writer: Writer = ALONE,
        *,
        indexed: bool = True,
    ):
        """Opens the folder; see `Parts` for arguments and errors."""
        self.folder = folder
        self.finished: dict[str, Finished] = {}
        self._settings, self._writer = settings, writer
        self._parts = Parts(
            folder, settings, _KIND, self._remember, writer, indexed=indexed
        )

    def write(
        self, clips: Iterable[ScoredClip], slices: Collection[str] = SLICES
    ) -> None:
        """Writes one part.

        Args:
          clips: With the video's rows, texts or both.
          slices: Of each text; it may have no row in one of them.

        Raises:
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        self._parts.write(row for clip in clips for row in rows.of_clip(clip, slices))

    @property
    def has_one_order(self) -> bool:
        """Whether both directions of all clips are the natural one."""
        return self._settings.get(ORDERS) == NATURAL

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the parts of its writer."""
        return self._parts.names

    def reopened(self) -> "Signals":
        """Returns the folder as it is now, with what other processes have written."""
        return (
            self
            if self._writer.processes == 1
            else Signals(self.folder, self._settings)
        )

    def holds(self, *, video: bool) -> frozenset[str]:
        """Returns all that any rows hold, of a video or of a text; see `Held`."""
        held = (
            each
            for clip in self.finished.values()
            for each in ([clip.video] if video else clip.texts.values())
        )
        return frozenset().union(*(each.holds for each in held if each))

    def keep(self, video: Set[str] | None, text: Set[str] | None) -> None:
        """Forgets rows that do not hold so much; the parts stay as they are.

        They were computed for other scores, and then a clip failed. With None no row of
        the kind is forgotten.
        """
        kept = {}
        for key, clip in self.finished.items():
            has_video = clip.video is not None and clip.video.holds >= (video or set())
            its = clip.video if has_video else None
            texts = {k: x for k, x in clip.texts.items() if x.holds >= (text or set())}
            if its or texts:
                kept[key] = clip._replace(video=its, texts=texts)
        self.finished = kept

    def forget(
        self, key: str, *, video: bool = True, texts: Collection[str] | None = None
    ) -> None:
        """Forgets rows of a clip, of which nothing may be stored; the parts stay.

        Args:
          key: Of the clip.
          video: Whether the video's rows.
          texts: Which texts' rows, by key; None: all.
        """
        known = self.finished.pop(key, None)
        if known is None:
            return
        left = {} if texts is None else known.texts
        left = {k: x for k, x in left.items() if k not in (texts or ())}
        known = known._replace(video=None if video else known.video, texts=left)
        if known.video or known.texts:
            self.finished[key] = known

    def read(self, keys: Collection[str]) -> Iterator[ScoredClip]:
        """Yields each clip of the given keys that is finished, with all its texts.

        Clips whose rows are in the same parts follow one another.

        Raises:
          AuditError: A part is damaged, or not the one that an index has.
        """
        wanted: dict[tuple[int, ...], set[str]] = {}
        for key in keys:
            if key in self.finished:
                wanted.setdefault(self.finished[key].parts, set()).add(key)
        tables: dict[int, pa.Table] = {}
        for numbers, its in sorted(wanted.items()):
            # Of most clips the rows are in the parts of the one before.
            tables = {k: tables.get(k) or self._parts.read(k) for k in numbers}
            places: dict[str, list[tuple[int, int]]] = {}  # In the order of the rows.
            for number, table in tables.items():
                for row, stored in enumerate(table.column("key").to_pylist()):
                    if (key := restored(stored)) in its:
                        places.setdefault(key, []).append((number, row))
            if lacking := its - places.keys():
                why = f"no row of {printable(min(lacking))}, which its index names"
                raise self._parts.unlike(numbers[-1], why)
            for key, found in places.items():
                its_rows = [tables[n].slice(row, 1).to_batches()[0] for n, row in found]
                try:
                    clip = rows.joined(self.finished[key], its_rows)
                except (ValueError, TypeError) as error:
                    raise self._parts.damage(found[-1][0], error) from error
                yield clip

    def path(self, number: int) -> pathlib.Path:
        """Returns the file of a part."""
        return self._parts.path(number)

    def _remember(self, number: int, table: pa.Table) -> None:
        columns = (table.column(name).to_pylist() for name in _KIND.remembered)
        for stored, text, holds, content_hash, size, changed, phi, b in zip(
            *columns, strict=True
        ):
            key, text = restored(stored), restored(text)
            before, held = self.finished.get(key), Held(number, frozenset(holds))
            video, texts = None, {}
            if before is not None and before.content_hash == content_hash:
                video, texts = before.video, before.texts
            if text == rows.VIDEO:
                video = held
            else:
                texts = texts | {text: held}
            motion = MotionStatistics(phi, b)
            self.finished[key] = Finished(
                content_hash, (size, changed), motion, video, texts
            )


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of the signals in a folder, empty if it has none.

    Raises:
      AuditError: They are damaged, or of another format.
    """
    found = _KIND.record(folder).read()
    if found and found.get("format") != FORMAT:
        raise AuditError([_KIND.other_format(found, folder)])
    return found


def differences(folder: pathlib.Path, some: dict[str, Any]) -> list[str]:
    """Returns a sentence for each of some settings that the signals there differ in.

    Raises:
      AuditError: They are damaged, or of another format.
    """
    if not (before := recorded(folder)):
        return []
    known = {key: before.get(key) for key in some}
    return _KIND.record(folder).differences(known, some, folder)


def any_stored(workdir: pathlib.Path) -> bool:
    """Returns whether a work directory holds anything that a model has computed."""
    return any(next((workdir / x).glob("part-*.parquet"), None) for x in OF_MODELS)


def clear(workdir: pathlib.Path) -> None:
    """Deletes what an earlier run left in a work directory.

    Of a folder that is a link the link goes, and what it names stays.

    Raises:
      OSError: It cannot be deleted.
    """
    for name in CLEARED:
        folder = workdir / name
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
