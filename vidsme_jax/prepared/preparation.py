"""Prepares a corpus: decodes, measures and stores its clips in parallel."""

import dataclasses
import functools
import pathlib
from collections.abc import Collection

from absl import logging

from vidsme_jax.base import AuditError, Clip, ClipError, Failure, Item
from vidsme_jax.data import corpora, loader
from vidsme_jax.data.reading import Videos
from vidsme_jax.prepared import layout, writing
from vidsme_jax.prepared.clip_task import ClipTask, example_of
from vidsme_jax.prepared.layout import Place, Variant
from vidsme_jax.prepared.pipelines import Pipelines
from vidsme_jax.prepared.writing import Writer
from vidsme_jax.progress import Progress
from vidsme_jax.settings import views
from vidsme_jax.store.buckets import Bucket
from vidsme_jax.wording import counted, printable

_SHOWN = 20  # Failures in the summary and in the log.
_LONGEST = 400  # Characters of a failure.
_ROUNDS = 3  # Runs of a pipeline, for clips that a listing does not show.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """The result of a run.

    Attributes:
      folder: Of the variant.
      num_clips: Clips of the corpus.
      num_new: Clips processed by this run.
      num_failed_before: Clips that failed in an earlier run.
      failures: One per row of a manifest whose clip cannot be prepared.
    """

    folder: Place
    num_clips: int
    num_new: int
    num_failed_before: int
    failures: tuple[Failure, ...]

    def summary(self) -> str:
        """Returns the result in a few lines."""
        before = self.num_clips - self.num_new - self.num_failed_before
        where = printable(str(self.folder))
        failed = self.num_failed_before
        also = f", {failed} failed before" if failed else ""
        lines = [
            f"{self.num_clips} clips, {before} prepared before{also}: {where}",
            "stored of each: its frames, and its motion as measured by OpenCV, which "
            "is measured again if config.motion.flow is jax",
        ]
        lines += [
            printable(f"{each.video}: {each.stage}: {each.cause}", _LONGEST)
            for each in self.failures[:_SHOWN]
        ]
        if self.failures:
            lines.append(f"not prepared: {counted(len(self.failures), 'row')}")
        return "\n".join(lines)


def run(
    settings: views.Settings,
    root: str | pathlib.Path,
    items: tuple[Item, ...] | None = None,
    pipelines: Pipelines | None = None,
) -> Preparation:
    """Prepares the clips of a corpus that are not prepared yet.

    Args:
      settings: Only `corpus`, `video` and `workers` are read.
      root: Receives the clips; see `layout`.
      items: The rows of the corpus; None: they are read.
      pipelines: Prepares the clips on other machines; None: on threads of this process.

    Raises:
      AuditError: Nothing could be prepared; lists every problem.
      OSError: The folder can no longer be written; states how many clips are stored,
        from which the next call continues.
    """
    place = layout.root_of(root)
    items = corpora.load(settings.corpus).items if items is None else items
    clips, variant = corpora.unique_clips(items), Variant.of(settings)
    workers = settings.workers or loader.num_cores()
    digests: dict[str, str] = {}
    try:
        with writing.opened(place, variant, len(clips)) as writer:
            found = {clip.key: writer.digest_of(clip.key) for clip in clips}
            before = {key: digest for key, digest in found.items() if digest}
            digests |= before
            todo = [clip for clip in clips if clip.key not in digests]
            logging.info("%d clips, %d processed before", len(clips), len(before))
            if pipelines is None:
                _prepare_clips(todo, writer, settings, workers, digests)
                failed = writer.finish(items, digests, workers)
            else:
                folder = variant.folder(place)
                _prepare_elsewhere(todo, writer, settings, folder, pipelines, digests)
                failed = writer.finish(items, digests, workers, pipelines.each)
    except OSError as error:
        cause = f"{place}: cannot be written ({error})"
        if pipelines is not None or isinstance(place, Bucket):
            cause = _cause(error)
        if not digests:
            raise AuditError([cause]) from error
        stored = f"{len(digests)} of {len(clips)} clips are stored"
        raise OSError(f"{cause}; {stored}") from error
    failures = [
        Failure(id=item.id, video=item.video, stage=error.stage, cause=error.cause)
        for item in items
        if (error := failed.get(digests[item.clip])) is not None
    ]
    return Preparation(
        folder=variant.folder(place),
        num_clips=len(clips),
        num_new=len(todo),
        num_failed_before=sum(digest in failed for digest in before.values()),
        failures=tuple(failures),
    )


def _prepare_clips(
    clips: list[Clip],
    writer: Writer,
    settings: views.Settings,
    workers: int,
    digests: dict[str, str],
) -> None:
    """Stages every clip or its failure, on threads; adds their digests by key."""
    if not clips:
        return
    videos = Videos(settings.video, settings.corpus.fields)
    variant = Variant.of(settings)
    prepare = functools.partial(_prepare, videos=videos, writer=writer, variant=variant)
    progress = Progress(len(clips), "preparing")
    for clip, result in loader.load_ahead(clips, prepare, workers):
        if isinstance(result, ClipError):  # It could not be stored.
            raise OSError(f"{clip.items[0].video}: {result.cause}")
        digests[clip.key], error = result
        progress.add(1, failed=int(error is not None))
        if error is not None and progress.failed <= _SHOWN:
            logging.warning("%s", printable(f"{clip.key}: {error}"))
        if error is not None and progress.failed == _SHOWN:
            logging.warning("further failures are counted and stored, but not logged")
    progress.close()


def _prepare_elsewhere(
    clips: Collection[Clip],
    writer: Writer,
    settings: views.Settings,
    folder: Place,
    pipelines: Pipelines,
    digests: dict[str, str],
) -> None:
    """Stages every clip or its failure, in a pipeline; adds their digests by key."""
    if not clips:
        return
    stage = ClipTask(
        reader=Videos(settings.video, settings.corpus.fields),
        variant=Variant.of(settings),
        staging=writer.staging,
        folder=folder,
        homes=writer.homes,
    )
    left = [clip.key for clip in clips]
    for _ in range(_ROUNDS):
        try:
            pipelines.each(stage, [(key, writer.stamp_of(key)) for key in left])
        finally:
            writer.refresh()
            staged = {key: digest for key in left if (digest := writer.staged(key))}
            digests |= staged
        left = [key for key in left if key not in staged]
        logging.info("%d of %d clips are staged", len(clips) - len(left), len(clips))
        if not left:
            return
    cause = f"{len(left)} clips were staged, but the listing does not show them"
    raise OSError(f"{cause}: {printable(left[0])}")


def _cause(error: OSError) -> str:
    """Returns the text of an error, with its file or object."""
    if error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _prepare(
    clip: Clip, *, videos: Videos, writer: Writer, variant: Variant
) -> tuple[str, ClipError | None]:
    """Decodes, measures and stages one clip; returns its digest and any failure."""
    content = ""
    try:
        content = videos.content_hash(clip.key)
        digest = layout.digest_of(content, clip.key)
        if writer.has(digest):
            return digest, None
        example = example_of(videos, clip.key, variant)
    except Exception as raised:
        error = loader.failure(raised)
        return writer.fail(clip.key, content, error), error
    return writer.add(clip.key, example), None
