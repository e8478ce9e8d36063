"""Checks a configuration against corpus, checkpoint and devices; opens its runs."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import models, parallel, scores, settings
from vidsme_jax.base import AuditError, Clip, Item
from vidsme_jax.data import corpora
from vidsme_jax.data.reading import Reader
from vidsme_jax.models.interface import Model
from vidsme_jax.motion import backends
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.run import processes
from vidsme_jax.run.runs import Run, with_two
from vidsme_jax.settings import views
from vidsme_jax.store import signals


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of stored signals; needs no model."""

    settings: views.Settings
    items: tuple[Item, ...]
    clips: tuple[Clip, ...]
    reader: Reader
    scores: tuple[str, ...]
    headline: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup(Asked):
    """A checked configuration with all that computing signals takes."""

    model: Model
    devices: parallel.Devices


@processes.agreed()
def check(config: ConfigDict) -> Setup:
    """Checks config, corpus, checkpoint and devices.

    Raises:
      AuditError: Lists all problems, or another process has some.
    """
    problems, given = _Problems(config), views.Settings.of(config)
    asked = _asked(given, problems)
    model = devices = None
    if problems.none_in("config.model."):
        with problems.collected():
            model = models.inspect(**dataclasses.asdict(given.model))
    if problems.none_in("config.parallel."):
        with problems.collected():
            devices = parallel.make_devices(
                **dataclasses.asdict(given.parallel),
                num_bytes=model.num_bytes if model else 0,
                dtype=model.dtype if model else "",
            )
    if model is not None and given.video.num_frames > model.max_frames:
        problems.add(
            f"config.video.num_frames is {given.video.num_frames}; the model's "
            f"positions hold {model.max_frames} frames"
        )
    problems.close()
    fields: dict[str, Any] = asked | {"model": model, "devices": devices}
    return Setup(**fields)


def check_stored(config: ConfigDict) -> Asked:
    """Checks config and corpus.

    Raises:
      AuditError: Lists all problems.
    """
    problems = _Problems(config)
    asked = _asked(views.Settings.of(config), problems)
    problems.close()
    return Asked(**asked)


def _asked(given: views.Settings, problems: "_Problems") -> dict[str, Any]:
    """Returns the fields of `Asked`, or adds to the problems."""
    items: tuple[Item, ...] = ()
    reader: Any = None
    names: tuple[str, ...] = ()
    headline = ""
    if problems.none_in("config.corpus."):
        with problems.collected():
            items, reader = open_corpus(given, _counts(given))
    if problems.none_in("config.scores", "config.profile"):
        with problems.collected():
            names = scores.resolve(given.scores, given.profile)
        with problems.collected():
            headline = scores.headline(given.headline, given.profile)
    clips = corpora.unique_clips(items)
    if len(clips) == 1 and given.motion.bounds is None:
        problems.add(
            "the corpus has one clip, but q and r are scaled by the range over a "
            "corpus: add clips, or give config.motion.bounds = (phi_min, phi_max, "
            "b_min, b_max)"
        )
    if headline not in names:
        names = (headline, *names)
    return {
        "settings": given,
        "items": items,
        "clips": clips,
        "reader": reader,
        "scores": names,
        "headline": headline,
    }


def open_stored(asked: Asked, workdir: pathlib.Path) -> signals.Signals:
    """Opens the signals of a finished run for what is asked of them.

    Raises:
      AuditError: There are none, or they lack what a score needs.
    """
    folder = workdir / "signals"
    recorded = signals.recorded(folder)
    if not recorded:
        raise AuditError([f"{workdir}: no signals of a run are there"])
    store = signals.Signals(folder, recorded)
    if not recorded["second_pass"]:
        lacking = [
            name
            for name in asked.scores
            if scores.needs_second_pass([name], asked.settings.profile)
        ]
        if lacking:
            raise AuditError(
                [
                    f"{workdir}: the signals lack what {', '.join(lacking[:5])} need"
                    f"{' and others' if len(lacking) > 5 else ''}; take other scores, "
                    "or run the audit with them in a new --workdir"
                ]
            )
    return store


@processes.agreed()
@processes.first_alone("signals")
def open_run(
    setup: Setup,
    workdir: pathlib.Path,
    video: views.Video | None = None,
    name: str = "",
) -> Run:
    """Opens a run in a work directory; one that would mix signals is refused.

    The head's second pass runs if a score needs it, or if the signals that are there
    already have it.

    Args:
      setup: From `check`.
      workdir: Its signals are in the folder `signals`.
      video: In place of that of the settings.
      name: See `Run`.

    Raises:
      AuditError: The signals there were computed with other settings, or are damaged.
    """
    given, folder = setup.settings, workdir / "signals"
    given = dataclasses.replace(given, video=video or given.video)
    if given.overwrite and processes.index() == 0:
        signals.clear(workdir)
    second = scores.needs_second_pass(setup.scores, given.profile)
    second = second or signals.recorded(folder).get("second_pass", False)
    depends = {
        "model": setup.model.fingerprint,
        "model.dtype": given.model.dtype,
        "model.prompt": setup.model.prompt,
        "motion.flow": backends.resolve(
            given.motion.flow, setup.devices.mesh.devices.flat
        ),
        "second_pass": second,
        "video.num_frames": given.video.num_frames,
        "video.sampling": given.video.sampling,
        "video.fps": given.video.fps,
        "video.against": given.video.against,
    }
    if given.corpus.prepared and given.corpus.jpeg_quality:
        depends["corpus.jpeg_quality"] = given.corpus.jpeg_quality
    store = signals.Signals(folder, depends, processes.index(), processes.count())
    return Run(name, setup.model, given, store, second)


def _counts(given: views.Settings) -> set[int]:
    """Returns the numbers of frames that clips are read at."""
    frames = given.studies.frames if given.study == "frames" else ()
    return with_two(frames or (given.video.num_frames,))


class _Problems:
    """All problems of a configuration, in the order in which they are found."""

    def __init__(self, config: ConfigDict):
        self._found = settings.problems(config)
        self._faulty = [problem.split()[0].rstrip(":") for problem in self._found]

    def none_in(self, *keys: str) -> bool:
        """Returns whether no value is faulty of those keys that begin so.

        What takes a faulty value would only report it again.
        """
        return not any(key.startswith(keys) for key in self._faulty)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Keeps the problems that a block raises."""
        try:
            yield
        except AuditError as error:
            self._found += error.problems

    def add(self, problem: str) -> None:
        """Adds one."""
        self._found.append(problem)

    def close(self) -> None:
        """Raises what was found."""
        if self._found:
            raise AuditError(self._found)
