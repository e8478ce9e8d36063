"""The task of preparing one clip, which can be sent to another process."""

import dataclasses
import functools
import pathlib
import socket
import tempfile
from typing import Any

from vidsme_jax.addresses import is_url
from vidsme_jax.base import ClipError
from vidsme_jax.data import loader
from vidsme_jax.data.reading import ABSENT, Reader, Stamp, stamp
from vidsme_jax.motion import statistics
from vidsme_jax.prepared import copies, dataset, layout
from vidsme_jax.prepared.layout import Place, Shard, Variant
from vidsme_jax.prepared.staging import Staging
from vidsme_jax.store.buckets import Bucket

_INDEXES = 256  # Cached indexes of shards.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTask:
    """Decodes, measures and stages a clip; it can be pickled.

    A clip that cannot be prepared is staged as a failure.

    Attributes:
      reader: Of the videos.
      variant: How they are prepared.
      staging: Receives the clips.
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
          given: Its key, and the stamp of its file on the machine of the run.

        Raises:
          OSError: It cannot be stored.
        """
        _limit_threads()
        key, before = given
        content = ""
        try:
            _check_seen(key, before)
            content = self.reader.content_hash(key)
        except Exception as raised:
            self.staging.fail(key, before, content, loader.failure(raised))
            return
        digest = layout.digest_of(content, key)
        if self._is_prepared(digest):
            self.staging.same(key, before, digest)
            return
        try:
            example = example_of(self.reader, key, self.variant)
        except Exception as raised:
            self.staging.fail(key, before, content, loader.failure(raised))
            return
        self.staging.add(key, before, example)

    def _is_prepared(self, digest: str) -> bool:
        """Returns whether a clip with this digest is prepared."""
        count = len(self.homes)
        number = layout.shard_of(digest, count)
        home = self.homes[number]
        return home != "" and digest in _digests_of(
            str(layout.subfolder(self.folder, home)), number, count
        )


def example_of(reader: Reader, key: str, variant: Variant) -> dict[str, Any]:
    """Decodes and measures a clip; returns its example for `dataset.features`.

    Raises:
      ClipError: It cannot be decoded.
    """
    frames, _ = reader.read(key, {variant.num_frames})(variant.num_frames)
    return dataset.encode(frames, statistics.measure(frames.pixels), variant)


def _check_seen(key: str, before: Stamp) -> None:
    """Raises a `ClipError` if a file of the run's machine is missing on this one."""
    if before != ABSENT and stamp(key) == ABSENT:
        cause = (
            f"no such file on the worker {socket.gethostname()}: {key}; "
            "every worker needs the videos under the same path"
        )
        raise ClipError("process", cause)


@functools.lru_cache(_INDEXES)
def _digests_of(version: str, number: int, count: int) -> frozenset[str]:
    """Returns the digests of the clips in a shard.

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
    """Limits OpenCV to one thread, since workers prepare clips in parallel."""
    import cv2

    cv2.setNumThreads(1)
