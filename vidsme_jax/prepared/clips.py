"""Prepared corpora, open for reading: no video is needed, nor its decoder.

Axes: `frames`, the sampled ones; `height`, `width`, of the upright picture.
"""

import collections
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
from vidsme_jax.prepared import dataset, layout
from vidsme_jax.prepared.layout import Entry, Row, Shard, Variant
from vidsme_jax.settings import views
from vidsme_jax.store import lock


class PreparedClips:
    """A prepared corpus, open for reading; safe to read from several threads.

    `source` is TFDS's data source of the prepared clips, in the order of their hashes.
    """

    def __init__(
        self, root: pathlib.Path, variant: Variant, fields: Sequence[str] = ()
    ):
        """Opens the newest version and verifies it.

        Args:
          root: The folder that `vidsme prepare` was given.
          variant: Which of its variants.
          fields: `corpus.fields`, by which rows of datasets are compared.

        Raises:
          AuditError: It is not there, or damaged; lists every shard that is.
        """
        parent = variant.folder(root)
        self._videos = Videos(views.read(views.Video, None), fields)
        self.folder = self._held(root, variant)
        self._shards = layout.check_settings(parent, variant)
        self._positions: dict[str, int] = {}  # By digest.
        self._failed: dict[str, ClipError] = {}
        self._rows: list[Row] = []
        # Digest and stamp by key, of all that the manifests named.
        self._known: dict[str, tuple[str, Stamp]] = {}
        self._keys = collections.defaultdict(set)  # By the name in the manifest.
        self._digests: dict[str, str] = {}  # By key, of the clips to be read.
        try:  # Before TFDS is asked.
            features.features_of(self.folder)
        except (OSError, ValueError) as error:
            problem = f"{self.folder}: {error}; {layout.REMEDY} it again"
            raise AuditError([problem]) from error
        problems, lengths = [], []
        for number in range(self._shards):
            try:
                entries = Shard(self.folder, number, self._shards).read()
            except ValueError as error:
                problems.append(
                    f"{self.folder}: {error}; {layout.REMEDY} its clips again"
                )
                continue
            for entry in entries:
                self._take(entry)
            lengths.append(sum(not entry.stage for entry in entries))
        if problems:
            raise AuditError(problems)
        if dataset.counts(self.folder) != lengths:
            damage = f"{self.folder}: dataset_info.json does not describe what is there"
            raise AuditError([f"{damage}; {layout.REMEDY} it again"])
        opened: Any = tfds.builder_from_directory(self.folder)
        self.source = opened.as_data_source(layout.SPLIT)

    def _held(self, root: pathlib.Path, variant: Variant) -> pathlib.Path:
        """Returns the newest version; nobody deletes it while this object lives."""
        folder, replaced = layout.newest(root, variant), None
        while folder != replaced:
            try:
                weakref.finalize(self, lock.held(folder / layout.INFO).close)
                break
            except OSError:  # It has just been replaced, or is damaged.
                replaced, folder = folder, layout.newest(root, variant)
        return folder

    def _take(self, entry: Entry) -> None:
        if entry.stage:
            self._failed[entry.digest] = ClipError(entry.stage, entry.cause)
        else:
            self._positions[entry.digest] = len(self._positions)
        self._rows += entry.rows
        for _, its_stamp, item in entry.rows:
            self._known[item.clip] = entry.digest, its_stamp
            self._keys[item.video].add(item.clip)

    def items(self) -> list[Item]:
        """Returns the rows of the manifests as they were when clips were prepared."""
        order = sorted(
            self._rows, key=lambda r: (ROLES.index(r.item.role), r.place, r.item.id)
        )
        return [row.item for row in order]

    def match(self, clips: Sequence[Clip]) -> None:
        """Finds the clips that will be read; their files need not be there.

        A clip is known by its key or, where the corpus has moved, by its name in the
        manifest. A file that is there must not have changed.

        Raises:
          AuditError: Some are not there; says how many, and how to prepare them.
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
                f"{self.folder.parent}, or have changed since: {some(missing)}"
            )
            raise AuditError([f"{found}; {layout.REMEDY} them"])

    def _digest(self, clip: Clip) -> str | None:
        found = self._known.get(clip.key)
        if found is None:
            # The seconds of a segment are in both, and those of another are no match.
            segment = segments.divided(clip.key)[1]
            named = {
                key
                for item in clip.items
                for key in self._keys.get(item.video, ())
                if segments.divided(key)[1] == segment
            }
            mine = segments.divided(clip.key)[0]
            likeness = {
                key: _common_end(mine, segments.divided(key)[0]) for key in named
            }
            most = max(likeness.values(), default=0)
            best = sorted(key for key in named if likeness[key] == most)
            if len({self._known[key][0] for key in best}) != 1:
                return None  # Unknown, or several of this name are equally near.
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
          ClipError: As `read`, of a segment, which is stored with its frames, or of a
            clip that could not be prepared.
        """
        digest = self._digests[key]
        if segments.divided(key)[1] is None and digest not in self._failed:
            return digest
        return self.read(key)[0].content_hash

    def digests(self) -> dict[str, str]:
        """Returns what is equal for clips that `match` found to be equal, by file."""
        return {
            name: digest
            for key, digest in self._digests.items()
            if (name := segments.divided(key)[0]) == key
        }

    def read(self, key: str) -> tuple[Frames, MotionStatistics]:
        """Reads the frames and statistics of a clip that `match` found.

        Raises:
          ClipError: As when it was prepared; or "open", if its record is damaged.
        """
        digest = self._digests[key]
        if digest in self._failed:
            failed = self._failed[digest]
            raise ClipError(failed.stage, failed.cause)
        try:
            frames, motion = dataset.decode(self.source[self._positions[digest]])
        except Exception as error:  # Of array_record, TFDS or the picture's decoder.
            raise ClipError("open", self._damaged(digest)) from error
        if layout.digest_of(frames.content_hash, key) != digest:
            raise ClipError("open", self._damaged(digest))
        return frames, motion

    def _damaged(self, digest: str) -> str:
        number = layout.shard_of(digest, self._shards)
        records = Shard(self.folder, number, self._shards).records
        damage = f"the record of the clip is damaged; delete {records}"
        return f"{damage}, and {layout.REMEDY} its clips again"


def _common_end(one: str, other: str) -> int:
    """How many parts at the end of two paths are equal."""
    pairs = zip(one.split("/")[::-1], other.split("/")[::-1], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(other))
