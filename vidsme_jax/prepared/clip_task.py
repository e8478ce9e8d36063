"""Preparing a clip in a process that knows nothing but what it is sent."""

import dataclasses
import functools
import pathlib
import socket
import tempfile

from vidsme_jax.addresses import is_url
from vidsme_jax.base import ClipError
from vidsme_jax.data import loader
from vidsme_jax.data.reading import ABSENT, Reader, Stamp, stamp
from vidsme_jax.motion import statistics
from vidsme_jax.prepared import copies, dataset, layout
from vidsme_jax.prepared.layout import Place, Shard, Variant
from vidsme_jax.prepared.staging import Staging
from vidsme_jax.store.buckets import Bucket

_INDEXES = 256  # Of shards, that are kept in memory.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTask:
    """Decodes, measures and stages clips; it can be sent to another process.

    A clip that cannot be prepared is staged as a failure and raises nothing.

    Attributes:
      reader: Of the videos.
      variant: How they are prepared.
      staging: Where they go.
      folder: Of the variant.
      homes: See `Writer`.
    """

    reader: Reader
    variant: Variant
    staging: Staging
    folder: Place
    homes: tuple[str, ...]

    def __call__(self, given: tuple[str, Stamp]) -> None:
        """Stages one clip.

        Args:
          given: Its key, and the stamp of its file where the run was started.

        Raises:
          OSError: It cannot be stored.
        """
        _limit_threads()
        key, its_stamp = given
        content = ""
        try:
            _check_seen(key, its_stamp)
            content = self.reader.content_hash(key)
        except Exception as raised:
            self.staging.fail(key, its_stamp, content, loader.failure(raised))
            return
        digest = layout.digest_of(content, key)
        if self._is_prepared(digest):
            self.staging.same(key, its_stamp, digest)
            return
        try:
            count = self.variant.num_frames
            frames, _ = self.reader.read(key, {count})(count)
            motion = statistics.measure(frames.pixels)
            example = dataset.encode(frames, motion, self.variant)
        except Exception as raised:
            self.staging.fail(key, its_stamp, content, loader.failure(raised))
            return
        self.staging.add(key, its_stamp, example)

    def _is_prepared(self, digest: str) -> bool:
        """Returns whether a clip of this content is prepared."""
        count = len(self.homes)
        number = layout.shard_of(digest, count)
        home = self.homes[number]
        return home != "" and digest in _digests_of(
            str(layout.subfolder(self.folder, home)), number, count
        )


def _check_seen(key: str, before: Stamp) -> None:
    """Raises a `ClipError` if this machine does not see a file that is there."""
    if before != ABSENT and stamp(key) == ABSENT:
        cause = (
            f"no such file on {socket.gethostname()}, which was to decode it: {key}; "
            "every worker needs the videos under the same path"
        )
        raise ClipError("process", cause)


@functools.lru_cache(_INDEXES)
def _digests_of(version: str, number: int, count: int) -> frozenset[str]:
    """Returns the digests of the clips that a shard holds.

    Raises:
      OSError: Its index cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="vidsme-") as work:
        folder = pathlib.Path(work)
        shard = Shard(folder, number, count)
        if is_url(version):
            copies.copy(Bucket(version), shard.index.name, shard.index)
        else:
            shard = Shard(pathlib.Path(version), number, count)
        try:
            entries, _ = shard.indexed()
        except ValueError as error:
            raise OSError(f"{version}: {error}") from error
    return frozenset(entry.digest for entry in entries if not entry.stage)


@functools.cache
def _limit_threads() -> None:
    """OpenCV's own threads would only compete with other clips."""
    import cv2

    cv2.setNumThreads(1)
