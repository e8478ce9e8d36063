"""Readers are called on cases in this process: what comes of each, within limits."""

import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import limits
from generators import HONEST, REFUSED, Case

from vidsme_jax import models, report, settings
from vidsme_jax.base import AuditError, Clip, ClipError
from vidsme_jax.checkpoints import pickled
from vidsme_jax.commands.finished import run_record
from vidsme_jax.data import corpora, datasets, reading, video
from vidsme_jax.prepared import corpus
from vidsme_jax.settings import overrides, views
from vidsme_jax.store import signals

# Of one case: of the wall clock, where something hangs, and of one core, with every
# argument's type checked: a file of 10^5 failures takes six times what it takes a user.
SECONDS, CORE_SECONDS = 120.0, 15.0
GIGABYTES, ADDRESS_SPACE = 0.7, 8.0
_MOST_PROBLEMS, _MOST_CHARACTERS = 60, 25_000
FAILED = "failed"

Read = Callable[[Any], str]


def complaints(cases: Iterable[Case], read: Read) -> list[str]:
    """Returns what is wrong with how cases were read, a sentence each."""
    return [said for case in cases if (said := complaint(case, read))]


def complaint(case: Case, read: Read) -> str:
    """Returns what is wrong with how a case was read, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        given = case.build(pathlib.Path(folder))
        sys.path.insert(0, folder)  # Where a user stands, Python finds modules.
        try:
            with limits.within(SECONDS, ADDRESS_SPACE) as used:
                found = read(given)
        except AuditError as error:
            found = REFUSED
            if said := _of_problems(error.problems, case.words):
                return f"{case.name}: {said}"
        except (Exception, limits.TooLate) as error:
            return f"{case.name}: {error!r:.300}"
        finally:
            sys.path.remove(folder)
            sys.modules.pop("evilmod", None)
        if pathlib.Path(folder, "was_run").exists():
            return f"{case.name}: its code was run"
    if used.core_seconds > CORE_SECONDS and case.expected != HONEST:
        return f"{case.name}: {used.core_seconds:.1f} s of a core"
    if used.gigabytes > GIGABYTES:
        return f"{case.name}: {used.gigabytes:.2f} GB"
    if case.expected == HONEST and found != HONEST:
        return f"{case.name}: {found}"
    if case.expected == REFUSED and found == HONEST:
        return f"{case.name}: was taken"
    return ""


def _of_problems(problems: list[str], words: str) -> str:
    if not all(isinstance(problem, str) for problem in problems):
        return f"problems that are no text: {problems!r:.200}"
    if len(problems) > _MOST_PROBLEMS:
        return f"{len(problems)} problems"
    if sum(map(len, problems)) > _MOST_CHARACTERS:
        return f"{sum(map(len, problems))} characters of problems"
    if words not in "\n".join(problems):
        return f"no {words!r} in {problems!r:.300}"
    return ""


# ------------------------------------------------------------------------- readers


def manifest(path: pathlib.Path) -> str:
    """Loads a manifest; what is taken stays in its folder."""
    config = settings.default()
    config.corpus.suspects = (str(path),)
    given = views.Settings.of(config)
    items = corpora.load(given.corpus, looks=False).items
    folder = path.parent.resolve()
    for item in items:
        assert not item.clip.startswith("tfds:"), "a row names a dataset"
        assert pathlib.Path(item.clip).is_relative_to(folder)
        os.fsencode(item.clip)
    return HONEST


def clip(path: pathlib.Path) -> str:
    """Decodes two frames."""
    from decoding import decode

    try:
        decode(path, num_frames=2, limits=video.Limits(max_seconds=4.0))
    except ClipError as error:
        assert error.stage in ("open", "decode") and error.cause
        return FAILED
    return HONEST


def frame_folder(folder: pathlib.Path) -> str:
    """Finds a folder of pictures, and reads six of them."""
    config = settings.default()
    config.corpus.suspects, config.video.num_frames = (str(folder),), 6
    given = views.Settings.of(config)
    (item,) = corpora.load(given.corpus).items
    assert item.clip == str(folder.resolve())
    reading.stamp(item.clip)
    return _clips([Clip(item.clip, ())], reading.Videos(given.video), 6)


def url_map(given: tuple[pathlib.Path, str]) -> str:
    """Loads a manifest of URLs and reads their files, which lie beside it."""
    manifest, urls = given
    config = settings.default()
    config.corpus.suspects, config.corpus.urls = (str(manifest),), urls
    config.video.num_frames = 2
    chosen = views.Settings.of(config)
    items = corpora.load(chosen.corpus).items
    for item in items:
        its = pathlib.Path(item.clip)
        assert item.clip.startswith("url:") or its.is_relative_to(manifest.parent)
    return _clips(corpora.unique_clips(items), reading.Videos(chosen.video))


def checkpoint(folder: pathlib.Path) -> str:
    """Describes a checkpoint; a model of it can be loaded."""
    model = models.inspect(str(folder), dtype="float32", allow_pickle=True)
    assert model.fill is not None, "there is nothing to load"
    for path in folder.glob("*.bin"):
        size = path.stat().st_size
        for tensor in pickled.headers(path).values():
            assert 0 <= tensor.start <= size
    return HONEST


def config(flags: tuple[str, ...]) -> str:
    """Sets keys; what is wrong is listed."""
    _, given = overrides.split(["vidsme", *flags], settings.RULES)
    changed = settings.default()
    changed.model.checkpoint = "a"
    overrides.apply(changed, given, settings.RULES)
    views.Settings.of(changed)
    if problems := settings.problems(changed):
        raise AuditError(problems)
    return HONEST


def prepared(root: pathlib.Path) -> str:
    """Opens a prepared corpus and reads every clip."""
    import generators.prepared

    given = views.Settings.of(generators.prepared.config(root))
    found, reader = corpus.open_corpus(given, {generators.prepared.FRAMES})
    return _clips(corpora.unique_clips(found.items), reader)


def tfds_folder(folder: pathlib.Path) -> str:
    """Reads a TFDS dataset and its first clips."""
    from generators import tfds_folders

    datasets._opened.cache_clear()
    before = os.environ.get("TFDS_DATA_DIR")
    os.environ["TFDS_DATA_DIR"] = str(folder)
    try:
        chosen = settings.default()
        chosen.corpus.suspects, chosen.video.num_frames = (tfds_folders.SOURCE,), 2
        given = views.Settings.of(chosen)
        found = corpora.load(given.corpus)
        reader = reading.Videos(given.video, given.corpus.fields)
        return _clips(corpora.unique_clips(found.items)[:5], reader)
    finally:
        os.environ.pop("TFDS_DATA_DIR")
        if before is not None:
            os.environ["TFDS_DATA_DIR"] = before


def hub_folder(path: pathlib.Path) -> str:
    """Reads a dataset of Hugging Face and its first clips."""
    chosen = settings.default()
    chosen.corpus.suspects, chosen.video.num_frames = (f"hf:{path}",), 2
    given = views.Settings.of(chosen)
    found = corpora.load(given.corpus)
    folder = path if path.is_dir() else path.parent
    for item in found.items:
        place = reading.file_of(item.clip)
        assert place.is_relative_to(folder.resolve()), item.clip
    reader = reading.Videos(given.video, given.corpus.fields)
    return _clips(corpora.unique_clips(found.items)[:5], reader)


def _clips(clips: Iterable[Any], reader: Any, count: int = 2) -> str:
    failed = 0
    for each in clips:
        try:
            reader.read(each.key, {count})(count)
        except ClipError as error:
            assert error.stage and error.cause
            failed += 1
    return FAILED if failed else HONEST


def workdir(folder: pathlib.Path) -> str:
    """Opens what a report is made of."""
    found = signals.recorded(folder / "signals")
    about = run_record(folder)
    again = settings.restored(about["config"])
    if problems := settings.problems(again):
        raise AuditError(problems)
    store = signals.Signals(folder / "signals", found)
    list(store.read(store.finished))
    report.failures(folder)
    return HONEST


READERS: dict[str, Read] = {
    "manifests": manifest,
    "clips": clip,
    "checkpoints": checkpoint,
    "configs": config,
    "prepared": prepared,
    "tfds_folders": tfds_folder,
    "hub_folders": hub_folder,
    "workdirs": workdir,
    "frame_folders": frame_folder,
    "webps": clip,
    "url_maps": url_map,
}
