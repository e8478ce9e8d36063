"""Compares what is stored of a corpus with its clips as they are now.

Signals count as long as they are of the content that a clip has now. Where a clip
cannot be read any more, or its content has changed, nothing that was stored of it
before is in a table, a bound, a metric or a report.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from vidsme_jax.base import ClipError, Failure, Item, Sample
from vidsme_jax.data.reading import ABSENT, Reader, Stamp, file_of, stamp
from vidsme_jax.run import failing
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.runs import Missing, Run
from vidsme_jax.store.signals import Finished, Signals
from vidsme_jax.wording import printable

CHANGED = "its content has changed since it was scored; run the audit again"
_REPAIRED = "changed since the last run, which found: "
_LINES = 20  # Of the log.
_NAME = 300  # Characters.
_NOT_STORED = "no signals of it are stored; run the audit again"


class Contents:
    """The clips of a corpus as they are now.

    A clip is hashed only if the stamp of its file is not the stored one, and once for
    each stamp that it has while this object lives.
    """

    def __init__(self, reader: Reader):
        """Reads nothing yet."""
        self._reader = reader
        self._known: dict[tuple[str, str, Stamp, Stamp], bool] = {}
        self._told: set[str] = set()

    def problem(self, key: str, known: Finished) -> ClipError | None:
        """Returns why what is stored of a clip does not count; None if it does."""
        about = key, known.content_hash, known.stamp, stamp(key)
        try:
            if about not in self._known:
                self._known[about] = self._reader.unchanged(*about[:3])
        except ClipError as error:
            return error
        return None if self._known[about] else ClipError("open", CHANGED)

    def missing(self, sample: Sample, run: Run) -> Missing:
        """Returns what a sample lacks in a run, of the clip as it is now."""
        known = run.store.finished.get(sample.clip.key)
        if known is not None and (error := self.problem(sample.clip.key, known)):
            if error.cause == CHANGED and known.content_hash not in self._told:
                self._told.add(known.content_hash)
                name = printable(sample.clip.key, _NAME)
                if len(self._told) <= _LINES:
                    logging.warning(
                        "%s: changed since it was scored, so scored again", name
                    )
                if len(self._told) == _LINES:
                    logging.warning("further clips have changed too")
            known = None  # Decoding it says why it cannot be read.
        return run.missing(sample, known)


def confirmed(
    runs: Sequence[Run],
    samples: Sequence[Sample],
    contents: Contents,
    failures: list[Failure],
    lacking: list[Failure],
) -> list[Run]:
    """Returns runs with the stored signals that count, and lists what is missing.

    What a clip lacks is forgotten, and so is all of a clip that has changed while the
    runs went on.

    Args:
      runs: The runs of audited models, and of a reference model.
      samples: The samples of the corpus.
      contents: The contents of its clips.
      failures: Of the audited models; rows that lack something unlisted are added.
      lacking: The same of the reference model.
    """
    kept = [run.reopened() for run in runs]
    listed = [{failure.id for failure in each} for each in (failures, lacking)]
    for run in kept:
        for sample in samples:
            key = sample.clip.key
            known = run.store.finished.get(key)
            error = None if known is None else contents.problem(key, known)
            lacks = run.missing(sample, None if error else known)
            if error:
                run.store.forget(key)
            elif lacks:
                texts = [text.key for text in lacks.texts]
                run.store.forget(key, video=lacks.video, texts=texts)
            error = error or ClipError("signals", _NOT_STORED)
            more = failing.rows(sample, error, run, lacks) if lacks else []
            new = [x for x in more if x.id not in listed[run.is_reference]]
            (lacking if run.is_reference else failures).extend(new)
    return kept


def changed(items: Iterable[Item], store: Signals, reader: Reader) -> list[Failure]:
    """Returns the rows whose clip is there, but is not what was scored.

    A file that is gone is none of them: a report needs no videos.
    """
    contents = Contents(reader)
    found: list[Failure] = []
    for item in items:
        known = store.finished.get(item.clip)
        error = None if known is None else contents.problem(item.clip, known)
        if error and (error.cause == CHANGED or stamp(item.clip) != ABSENT):
            found.append(failing.row(item, error))
    return found


def remaining(
    asked: Asked, failures: Sequence[Failure], store: Signals, folder: pathlib.Path
) -> tuple[Asked, list[Failure]]:
    """Leaves out clips that failed or changed; see `repaired` and `changed`.

    Args:
      asked: What is asked, of all rows.
      failures: The failures of the run.
      store: The signals of the run.
      folder: Its work directory.

    Returns:
      What is asked of the rows that remain, and all failures.
    """
    failures = repaired(failures, asked.items, folder)
    asked = asked.without({failure.id for failure in failures})
    failures += changed(asked.items, store, asked.reader)
    return asked.without({failure.id for failure in failures}), failures


def repaired(
    failures: Iterable[Failure], items: Iterable[Item], workdir: pathlib.Path
) -> list[Failure]:
    """Returns the failures of rows that are still there.

    Those whose file has changed since the last run get a cause that says so.

    Args:
      failures: Of that run; a row is the same by its id and the name of its video.
      items: The rows of the corpus.
      workdir: Of that run, whose `failures.jsonl` says by its time when it was.
    """
    written = workdir / "failures.jsonl"
    files = {(item.id, item.video): file_of(item.clip) for item in items}
    found: list[Failure] = []
    for failure in failures:
        if (failure.id, failure.video) not in files:
            continue
        explained = failure.cause.startswith((_REPAIRED, CHANGED, _NOT_STORED))
        if not explained and _is_newer(files[failure.id, failure.video], written):
            cause = f"{_REPAIRED}{failure.cause}; run the audit again"
            failure = dataclasses.replace(failure, cause=cause)
        found.append(failure)
    return found


def _is_newer(file: pathlib.Path, other: pathlib.Path) -> bool:
    """Returns whether a file exists and is newer than another, by time of change."""
    try:
        its, than = file.stat(), other.stat().st_mtime_ns
    except OSError:
        return False
    return max(its.st_mtime_ns, its.st_ctime_ns) > than


def not_stored(
    items: Iterable[Item], known: Iterable[str], causes: Mapping[str, str]
) -> list[Failure]:
    """Returns a failure for each row whose id is not known.

    Args:
      items: The rows.
      known: Ids.
      causes: Of clips, by key, where there is one.
    """
    ids = set(known)
    return [
        failing.row(item, ClipError("signals", causes.get(item.clip, _NOT_STORED)))
        for item in items
        if item.id not in ids
    ]
