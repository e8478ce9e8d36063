"""Reads prepared corpora, without the videos and their decoder.

Axes: `frames`, the sampled ones; `height`, `width`, of the upright picture.
"""

import collections
import contextlib
import pathlib
import weakref
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from vidsme_jax.base import (
    ROLES,
    AuditError,
    Clip,
    ClipError,
    Frames,
    Item,
    MotionStatistics,
)
from vidsme_jax.data import features, segments
from vidsme_jax.data.reading import ABSENT, Stamp, Videos, stamp
from vidsme_jax.data.sources import some
from vidsme_jax.prepared import copies, dataset, layout
from vidsme_jax.prepared.copies import Copies
from vidsme_jax.prepared.layout import Entry, Place, Row, Shard, Variant
from vidsme_jax.settings import views
from vidsme_jax.store import lock
from vidsme_jax.store.buckets import Bucket


class PreparedClips:
    """A prepared corpus, open for reading; thread-safe.

    Attributes:
      folder: The version on this machine.
      source: TFDS's data source of the prepared clips, in the order of their hashes.
    """

    def __init__(
        self,
        root: Place,
        variant: Variant,
        fields: Sequence[str] = (),
        cache: pathlib.Path | None = None,
    ):
        """Opens the newest version and verifies it.

        Records in a bucket are verified per shard, when the first clip of a shard is
        read.

        Args:
          root: The folder or bucket given to `vidsme prepare`.
          variant: The variant to read.
          fields: `corpus.fields`, to compare rows of datasets.
          cache: The folder of copies from a bucket; needed for one.

        Raises:
          AuditError: It is missing or damaged; lists every damaged shard.
          OSError: The bucket cannot be read.
        """
        self._videos = Videos(views.read(views.Video, None), fields)
        self._copies: Copies | None = None
        if isinstance(root, Bucket):
            assert cache is not None
            place = variant.folder(root)
            self._copies = opened = self._open_copies(place, variant, cache)
            self.folder, self._shards = opened.folder, opened.num_shards
            self._where, self._parent = opened.version.url, place.url
        else:
            self.folder = self._open_newest(root, variant)
            parent = variant.folder(root)
            self._shards = layout.check_settings(parent, variant)
            self._where, self._parent = str(self.folder), str(parent)
        self._positions: dict[str, int] = {}  # By digest.
        self._failed: dict[str, ClipError] = {}
        self._rows: list[Row] = []
        # Digest and stamp by key, of all rows.
        self._known: dict[str, tuple[str, Stamp]] = {}
        self._keys = collections.defaultdict(set)  # By the name in the manifest.
        self._digests: dict[str, str] = {}  # By key, of the matched clips.
        try:  # Before TFDS opens the folder.
            features.features_of(self.folder)
        except (OSError, ValueError) as error:
            problem = f"{self._where}: {error}; {layout.REMEDY} it again"
            raise AuditError([problem]) from error
        problems, lengths = [], []
        for number in range(self._shards):
            shard = Shard(self.folder, number, self._shards)
            try:
                entries = shard.indexed()[0] if self._copies else shard.read()
            except ValueError as error:
                problems.append(
                    f"{self._where}: {error}; {layout.REMEDY} its clips again"
                )
                continue
            for entry in entries:
                self._take(entry)
            lengths.append(sum(not entry.stage for entry in entries))
        if problems:
            raise AuditError(problems)
        if dataset.counts(self.folder) != lengths:
            damage = f"{self._where}: dataset_info.json does not match its files"
            raise AuditError([f"{damage}; {layout.REMEDY} it again"])
        opened_by_tfds: Any = tfds.builder_from_directory(self.folder)
        self.source = opened_by_tfds.as_data_source(layout.SPLIT)

    def _open_newest(self, root: pathlib.Path, variant: Variant) -> pathlib.Path:
        """Returns the newest version, locked against deletion for its lifetime."""
        folder, replaced = layout.newest(root, variant), None
        while folder != replaced:
            try:
                weakref.finalize(self, lock.held(folder / layout.INFO).close)
                break
            except OSError:  # Replaced meanwhile, or damaged.
                replaced, folder = folder, layout.newest(root, variant)
        return folder

    def _open_copies(
        self, place: Bucket, variant: Variant, cache: pathlib.Path
    ) -> Copies:
        """Returns local copies of the newest version, locked against deletion.

        A run that prepares more clips may still delete it from the bucket.
        """
        number, _ = copies.newest(place)
        if number is None:
            raise AuditError([copies.not_found(place)])
        home = copies.folder_of(cache, place)
        home.mkdir(parents=True, exist_ok=True)
        copies.copy(place, copies.SETTINGS, home / copies.SETTINGS)
        shards = layout.check_settings(home, variant, place.url)
        name = f"1.{number}.0"
        opened = Copies(place.folder(name), home / name, shards)
        with contextlib.suppress(OSError):  # Damaged, which the caller reports.
            weakref.finalize(self, lock.held(opened.folder / layout.INFO).close)
        copies.delete_others(opened.folder)
        return opened

    def _take(self, entry: Entry) -> None:
        """Indexes an entry of a shard."""
        if entry.stage:
            self._failed[entry.digest] = ClipError(entry.stage, entry.cause)
        else:
            self._positions[entry.digest] = len(self._positions)
        self._rows += entry.rows
        for _, before, item in entry.rows:
            self._known[item.clip] = entry.digest, before
            self._keys[item.video].add(item.clip)

    def items(self) -> list[Item]:
        """Returns the rows of the manifests at the time of preparation."""
        order = sorted(
            self._rows, key=lambda r: (ROLES.index(r.item.role), r.place, r.item.id)
        )
        return [row.item for row in order]

    def match(self, clips: Sequence[Clip]) -> None:
        """Finds the clips to be read; their files need not exist.

        A clip is identified by its key or, if the corpus was moved, by its name in the
        manifest. An existing file must be unchanged.

        Raises:
          AuditError: Some are missing; lists them, with the remedy.
        """
        missing = []
        for clip in clips:
            digest = self._digest(clip)
            if digest is None:
                missing.append(clip.items[0].video)
            else:
                self._digests[clip.key] = digest
        if missing:
            found = (
                f"{len(missing)} of {len(clips)} clips of the corpus are not in "
                f"{self._parent}, or have changed since: {some(missing)}"
            )
            raise AuditError([f"{found}; {layout.REMEDY} them"])

    def _digest(self, clip: Clip) -> str | None:
        found = self._known.get(clip.key)
        if found is None:
            # Both names contain the seconds of a segment, which must be equal.
            segment = segments.divided(clip.key)[1]
            named = {
                key
                for item in clip.items
                for key in self._keys.get(item.video, ())
                if segments.divided(key)[1] == segment
            }
            file = segments.divided(clip.key)[0]
            likeness = {
                key: _common_end(file, segments.divided(key)[0]) for key in named
            }
            most = max(likeness.values(), default=0)
            best = sorted(key for key in named if likeness[key] == most)
            if len({self._known[key][0] for key in best}) != 1:
                return None  # Unknown, or ambiguous.
            found = self._known[best[0]]
        return found[0] if self._unchanged(clip.key, *found) else None

    def _unchanged(self, key: str, digest: str, before: Stamp) -> bool:
        now = stamp(key)
        if now in (ABSENT, before):
            return True
        if now[0] != before[0]:
            return False
        try:
            return layout.digest_of(self._videos.content_hash(key), key) == digest
        except ClipError:
            return False

    def content_hash(self, key: str) -> str:
        """Returns the SHA-256 of the file of a clip that `match` found.

        Raises:
          ClipError: As `read`, for a segment, whose hash is stored with its frames, and
            for a clip that could not be prepared.
        """
        digest = self._digests[key]
        if segments.divided(key)[1] is None and digest not in self._failed:
            return digest
        return self.read(key)[0].content_hash

    def digests(self) -> dict[str, str]:
        """Returns the content hash of each whole file that `match` found."""
        return {
            name: digest
            for key, digest in self._digests.items()
            if (name := segments.divided(key)[0]) == key
        }

    def read(self, key: str) -> tuple[Frames, MotionStatistics]:
        """Reads the frames and statistics of a clip that `match` found.

        Raises:
          ClipError: That of its preparation; or "open", if its record is damaged.
        """
        digest = self._digests[key]
        if digest in self._failed:
            failed = self._failed[digest]
            raise ClipError(failed.stage, failed.cause)
        if self._copies is not None:
            self._fetch(self._copies, layout.shard_of(digest, self._shards))
        try:
            frames, motion = dataset.decode(self.source[self._positions[digest]])
        except Exception as error:  # Of array_record, TFDS or the picture's decoder.
            raise ClipError("open", self._damaged(digest)) from error
        if layout.digest_of(frames.content_hash, key) != digest:
            raise ClipError("open", self._damaged(digest))
        return frames, motion

    def _fetch(self, opened: Copies, number: int) -> None:
        """Ensures that the records of a shard are on this machine."""
        try:
            opened.fetch(number)
        except FileNotFoundError as error:
            cause = (
                f"{error.filename} no longer exists: clips were prepared again while "
                "it was read, which deletes the version before; run the same command "
                "again"
            )
            raise ClipError("open", cause) from error
        except ValueError as error:
            cause = f"{error}; delete {self._records(number)}, and {layout.REMEDY}"
            raise ClipError("open", f"{cause} its clips again") from error
        except OSError as error:
            cause = f"{error.filename}: {error.strerror}"
            raise ClipError("open", f"{cause}; run the same command again") from error

    def _records(self, number: int) -> str:
        return f"{self._where}/{Shard(self.folder, number, self._shards).records.name}"

    def _damaged(self, digest: str) -> str:
        records = self._records(layout.shard_of(digest, self._shards))
        damage = f"the record of the clip is damaged; delete {records}"
        return f"{damage}, and {layout.REMEDY} its clips again"


def _common_end(one: str, other: str) -> int:
    """Returns the number of equal components at the end of two paths."""
    pairs = zip(one.split("/")[::-1], other.split("/")[::-1], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(other))
