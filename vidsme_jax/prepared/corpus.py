"""Opens a corpus: its videos where they are, or prepared."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax.base import AuditError, Clip, Item
from vidsme_jax.data import corpora
from vidsme_jax.data.reading import CountsReader, Read, Reader, Videos


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
    from vidsme_jax.prepared import layout, reading

    variant = layout.Variant.of(config)
    reader = reading.Prepared(pathlib.Path(corpus.prepared).expanduser(), variant)
    items = corpora.load(corpus, reader.items)
    reader.match(corpora.unique_clips(items))
    return items, reader


def open_counts(
    config: ConfigDict, clips: Sequence[Clip], counts: Collection[int]
) -> CountsReader:
    """Opens the clips of a corpus for several numbers of frames, prepared or not.

    Raises:
      AuditError: A prepared corpus lacks a number of frames; lists every one.
    """
    given: Any = config
    if not given.corpus.prepared:
        return Videos(config)
    from vidsme_jax.prepared import layout, reading

    root, problems = pathlib.Path(given.corpus.prepared).expanduser(), []
    readers: dict[int, Any] = {}
    if 1 in counts and given.video.sampling == "midpoint":
        problems.append(
            "corpus.prepared has no single frames, which the sampling midpoint takes "
            "from the middle: leave 1 out of config.studies.frames, or set "
            "config.corpus.prepared to ''"
        )
    for count in sorted({max(count, 2) for count in counts}):
        its: Any = config.copy_and_resolve_references()
        its.video.num_frames = count
        try:
            readers[count] = reading.Prepared(root, layout.Variant.of(its))
            readers[count].match(clips)
        except AuditError as error:
            problems += [
                f"{problem}; {count} frames: --config.video.num_frames={count}"
                for problem in error.problems
            ]
    if problems:
        raise AuditError(problems)
    return _Several(readers)


class _Several:
    """A prepared corpus of several numbers of frames."""

    def __init__(self, readers: Mapping[int, Reader]):
        self._readers = readers

    def read_counts(
        self, path: pathlib.Path, counts: Collection[int]
    ) -> Callable[[int], Read]:
        """Reads the clip at its lowest count; see `CountsReader`."""
        lowest = max(min(counts), 2)
        first = self._readers[lowest].read(path)

        def of(count: int) -> Read:
            many = max(count, 2)
            frames, known = first if many == lowest else self._readers[many].read(path)
            if count == 1:  # It is the first, but for midpoint.
                one = frames.pixels[:1], frames.indices[:1]
                frames = dataclasses.replace(frames, pixels=one[0], indices=one[1])
            return frames, known

        return of
