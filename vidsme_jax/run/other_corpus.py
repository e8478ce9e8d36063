"""Refuses to replace the report of a work directory by one of other clips.

An audit in a finished work directory replaces its report. That is intended if the
corpus is the same, or has more or fewer clips; `declaration` then reports the changes.
If the two corpora share less than half of their videos, most likely another folder was
meant.

Videos are compared by their names in the manifests, since no file is read for this:
corpora whose videos have the same names are not distinguished here. Their contents are
compared once they are decoded: see `result_rows.lost`.
"""

import pathlib
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import parquet

from vidsme_jax.base import AuditError, Item
from vidsme_jax.store import received
from vidsme_jax.wording import counted, printable

_SCORES = "scores.parquet"
_MOST = 2**30  # Bytes of it.
_LEAST = 0.5  # Of the smaller corpus, what both must have.
_LONGEST = 100  # Characters of a name.


def check(items: Sequence[Item], workdir: pathlib.Path) -> None:
    """Raises an `AuditError` if a work directory holds the report of another corpus.

    It is another one if less than half of the videos of the smaller of the two are in
    both.

    Args:
      items: The rows that are asked about.
      workdir: Of the run; where no report was finished there is nothing to replace.
    """
    before = _videos(workdir)
    now = {_name(item.video) for item in items}
    shared = len(before & now)
    if not before or not now or shared >= _LEAST * min(len(before), len(now)):
        return
    example = printable(min(before), _LONGEST)
    raise AuditError(
        [
            f"{printable(str(workdir))}: holds the report of another corpus, of "
            f"{counted(len(before), 'video')} such as {example}, of which "
            f"{shared or 'none'} {'is' if shared < 2 else 'are'} among the "
            f"{len(now)} asked about now; take another --workdir, or "
            "--config.overwrite=true"
        ]
    )


def _videos(workdir: pathlib.Path) -> set[str]:
    """Returns the names of the videos that a report is of, none where there is none.

    Of a file that is damaged nothing is known: `digests` says so of a finished run.
    """
    if not (workdir / "metrics.json").exists():
        return set()
    try:
        content = pa.BufferReader(received.content(workdir / _SCORES, _MOST))
        table = parquet.read_table(content, columns=["video"], use_threads=False)
        return set(map(str, table.column("video").to_pylist()))
    except (OSError, ValueError, pa.ArrowException, KeyError, MemoryError):
        return set()


def _name(video: str) -> str:
    """Returns a name as `scores.parquet` has it."""
    return video.encode("utf-8", errors="backslashreplace").decode("utf-8")
