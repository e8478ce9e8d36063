"""Checks a configuration against corpus, checkpoint and devices; opens its runs."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import models, parallel, scores, settings
from vidsme_jax.base import AuditError, Clip, Item, Sample
from vidsme_jax.data import corpora, samples
from vidsme_jax.data.reading import Reader
from vidsme_jax.models.interface import Model
from vidsme_jax.motion import backends
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.run import processes, references, texts
from vidsme_jax.run.runs import Run, Wanted, with_two
from vidsme_jax.settings import views
from vidsme_jax.store import signals
from vidsme_jax.store.answers import Answers

SIGNALS, REFERENCE = "signals", "signals-reference"  # Folders.
_ANSWERS = "answers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of stored signals; needs no model."""

    settings: views.Settings
    items: tuple[Item, ...]
    clips: tuple[Clip, ...]
    samples: tuple[Sample, ...]
    reader: Reader
    scores: tuple[str, ...]
    headline: str

    def without(self, ids: Collection[str]) -> "Asked":
        """Returns the same of a corpus without some rows."""
        given = self.settings
        items = tuple(item for item in self.items if item.id not in ids)
        clips = corpora.unique_clips(items)
        asked = samples.samples(clips, given.slices, given.response)
        return dataclasses.replace(self, items=items, clips=clips, samples=asked)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup(Asked):
    """A checked configuration with all that computing signals takes."""

    model: Model
    devices: parallel.Devices
    reference: Model | None = None


@processes.agreed()
def check(config: ConfigDict) -> Setup:
    """Checks config, corpus, checkpoint and devices.

    Raises:
      AuditError: Lists all problems, or another process has some.
    """
    problems, given = _Problems(config), views.Settings.of(config)
    asked = _asked(given, problems)
    model = devices = reference = None
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
    if model is not None:
        for problem in _of_texts(given, model, asked):
            problems.add(problem)
    if model is not None and problems.none_in("config.reference."):
        with problems.collected():
            reference = references.check(given, model, asked["samples"])
    for whose, its in (("", model), ("reference ", reference)):
        if its is not None and given.video.num_frames > its.max_frames:
            problems.add(
                f"config.video.num_frames is {given.video.num_frames}; the {whose}"
                f"model's positions hold {its.max_frames} frames"
            )
    if devices is not None and devices.num_processes > 1 and is_greedy(given):
        problems.add(
            f"config.response is greedy, and the model spans {devices.num_processes} "
            "processes, which generate no answers together: score given answers, or "
            "set config.parallel so that the devices of one process hold the model"
        )
    problems.close()
    fields: dict[str, Any] = {"model": model, "devices": devices}
    return Setup(**asked, **fields, reference=reference)


def check_stored(config: ConfigDict) -> Asked:
    """Checks config and corpus.

    Raises:
      AuditError: Lists all problems.
    """
    problems = _Problems(config)
    asked = _asked(views.Settings.of(config), problems)
    problems.close()
    return Asked(**asked)


def is_greedy(given: views.Settings) -> bool:
    """Returns whether answers are generated."""
    return "response" in given.slices and given.response == "greedy"


def _of_texts(given: views.Settings, model: Model, asked: dict[str, Any]) -> list[str]:
    """Returns what is wrong with the texts of a corpus."""
    chosen: Any = (given.slices, given.response)
    problems = texts.answers_missing(asked["items"], *chosen)
    _, more = texts.check_texts(
        *(asked["samples"], model, given.video.num_frames, given.slices),
        response=given.response,
        room=given.response_tokens,
    )
    return problems + more


def _asked(given: views.Settings, problems: "_Problems") -> dict[str, Any]:
    """Returns the fields of `Asked`, or adds to the problems."""
    items: tuple[Item, ...] = ()
    reader: Any = None
    names: tuple[str, ...] = ()
    headline = ""
    chosen = given.slices, references.is_chosen(given)
    if problems.none_in("config.corpus."):
        with problems.collected():
            items, reader = open_corpus(given, _counts(given))
    if problems.none_in("config.scores", "config.profile", "config.slices"):
        with problems.collected():
            names = scores.resolve(given.scores, given.profile, *chosen)
        with problems.collected():
            headline = scores.headline(given.headline, given.profile, *chosen)
        if given.response == "greedy" and scores.needs_given_answers(headline):
            problems.add(
                f"config.headline is {headline}, but with config.response = greedy the "
                "target of a row is the model's most probable token: Min-K%++ then "
                "ranks memorised answers below others, and a rank is always 1. Take "
                "response_mean_renyi_1 or response_loss"
            )
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
        "samples": samples.samples(clips, given.slices, given.response),
        "reader": reader,
        "scores": names,
        "headline": headline,
    }


@processes.agreed()
@processes.first_alone("signals")
def open_run(
    setup: Setup,
    workdir: pathlib.Path,
    video: views.Video | None = None,
    name: str = "",
) -> Run:
    """Opens a run in a work directory; one that would mix signals is refused.

    What is computed holds at least what the signals that are there hold, such as the
    numbers of the head's second pass.

    Args:
      setup: From `check`.
      workdir: Its signals are in the folder `signals`, generated answers in `answers`.
      video: In place of that of the settings.
      name: See `Run`.

    Raises:
      AuditError: The signals there were computed with other settings, or are damaged.
    """
    given = dataclasses.replace(setup.settings, video=video or setup.settings.video)
    if given.overwrite and processes.index() == 0:
        signals.clear(workdir)
    run = _opened(setup, setup.model, given, workdir / SIGNALS, {}, name)
    if not is_greedy(given):
        return run
    depends = _depends(setup, setup.model, given)
    for key in ("motion.flow", "video.against"):
        del depends[key]
    depends["response_tokens"] = given.response_tokens
    place = processes.index(), processes.count()
    return dataclasses.replace(
        run, answers=Answers(workdir / _ANSWERS, depends, *place)
    )


@processes.agreed()
@processes.first_alone("signals of the reference model")
def open_reference(setup: Setup, workdir: pathlib.Path, run: Run) -> Run:
    """Opens the run of the reference model, on the texts of an audited model's run.

    Raises:
      AuditError: The signals there were computed with other settings, or are damaged.
    """
    assert setup.reference is not None
    target = {"target": setup.model.fingerprint}
    found = _opened(
        *(setup, setup.reference, run.settings, workdir / REFERENCE, target),
        "reference",
    )
    return dataclasses.replace(found, answers=run.answers, is_reference=True)


def open_runs(setup: Setup, workdir: pathlib.Path) -> list[Run]:
    """Opens the run of an audit, and that of its reference model if there is one."""
    run = open_run(setup, workdir)
    if setup.reference is None:
        return [run]
    return [run, open_reference(setup, workdir, run)]


def _opened(
    setup: Setup,
    model: Model,
    given: views.Settings,
    folder: pathlib.Path,
    more: dict[str, Any],
    name: str,
) -> Run:
    """Opens the signals of a model."""
    depends = _depends(setup, model, given) | more
    store = signals.Signals(folder, depends, processes.index(), processes.count())
    wanted = Wanted.by(setup.scores, given.profile, given.slices)
    return Run(
        name=name,
        model=model,
        settings=given,
        store=store,
        wanted=wanted,
        computed=wanted.beside(store),
    )


def _depends(setup: Setup, model: Model, given: views.Settings) -> dict[str, Any]:
    """Returns what signals depend on, but for the slices and scores."""
    depends = {
        "model": model.fingerprint,
        "model.dtype": given.model.dtype,
        "model.prompt": model.prompt,
        "motion.flow": backends.resolve(
            given.motion.flow, setup.devices.mesh.devices.flat
        ),
        "video.num_frames": given.video.num_frames,
        "video.sampling": given.video.sampling,
        "video.fps": given.video.fps,
        "video.against": given.video.against,
    }
    if given.corpus.prepared and given.corpus.jpeg_quality:
        depends["corpus.jpeg_quality"] = given.corpus.jpeg_quality
    return depends


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
