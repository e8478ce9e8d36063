"""Where the frames of a clip come from: its video, or a prepared corpus."""

import pathlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vidsme_jax.base import Frames, Item, MotionStatistics
from vidsme_jax.data import containers, corpora, video
from vidsme_jax.data.corpora import is_address


@runtime_checkable  # For type checks in tests.
class Reader(Protocol):
    """Gives the sampled frames of the clips of a corpus, on any thread."""

    def read(self, path: pathlib.Path) -> tuple[Frames, MotionStatistics | None]:
        """The frames, and the motion statistics where they are known already.

        Raises:
          ClipError: They cannot be read.
        """
        ...

    def thumbnails(
        self, path: pathlib.Path, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Frames that were read before, scaled down."""
        ...


class Videos:
    """Decodes videos where they are: files, or examples of TFDS datasets."""

    def __init__(self, config: ConfigDict):
        self._video: Any = config.video
        self._fields = config.corpus.get("tfds_fields", ())

    def read(self, path: pathlib.Path) -> tuple[Frames, None]:
        """Decodes a clip; see `Reader`."""
        how = self._video
        rate = how.get("fps", 1.0)
        source = self._source(path)
        if isinstance(source, pathlib.Path | bytes):
            return video.decode(source, how.sampling, how.num_frames, rate), None
        return source.sample(how.sampling, how.num_frames), None

    def thumbnails(
        self, path: pathlib.Path, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Decodes frames again, scaled down; see `Reader`."""
        source = self._source(path)
        if isinstance(source, pathlib.Path | bytes):
            return video.thumbnails(source, indices, height)
        return source.thumbnails(indices, height)

    def content_hash(self, path: pathlib.Path) -> str:
        """The SHA-256 by which equal videos are known, as in `Frames`.

        Raises:
          ClipError: The clip cannot be read.
        """
        source = self._source(path)
        if isinstance(source, pathlib.Path | bytes):
            return containers.content_hash(source)
        return source.content_hash()

    def _source(self, path: pathlib.Path) -> Any:
        if not is_address(str(path)):
            return path
        from vidsme_jax.data import datasets

        return datasets.fetch(str(path), self._fields)


def open_corpus(config: ConfigDict) -> tuple[tuple[Item, ...], Reader]:
    """Reads a corpus, and opens its clips, prepared or not.

    With `corpus.prepared` and no source in any role, the rows are those that were
    stored with the clips.

    Raises:
      AuditError: As `corpora.load`; or the prepared corpus is damaged, or lacks clips.
    """
    corpus: Any = config.corpus
    if not corpus.prepared:
        return corpora.load(corpus), Videos(config)
    from vidsme_jax.data import layout, prepared

    variant = layout.Variant.of(config)
    reader = prepared.Prepared(pathlib.Path(corpus.prepared).expanduser(), variant)
    items = corpora.load(corpus, reader.items)
    reader.match(corpora.unique_clips(items))
    return items, reader
