"""Checks a configuration against corpus, checkpoint and devices; opens its runs."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import models, parallel, progress, scores
from vidsme_jax.models.interface import Model
from vidsme_jax.motion import backends
from vidsme_jax.run import (
    asking,
    declaration,
    other_corpus,
    power_notes,
    processes,
    references,
    shares,
    texts,
)
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.problems import Problems
from vidsme_jax.run.processes import Team
from vidsme_jax.run.runs import Run, Wanted
from vidsme_jax.settings import views
from vidsme_jax.store import received, signals
from vidsme_jax.store.answers import Answers
from vidsme_jax.store.writers import ALONE, Writer

SIGNALS, REFERENCE = asking.SIGNALS, "signals-reference"  # Folders.
_ANSWERS = "answers"
_SHOWN = 5  # Scores in a message.
_ORDERS = ("scales", "orders", "against", "natural")  # Studies of both orders.
_PRUNED = (
    "processor leaves out rows that hardly differ from those of the frame before "
    "(use_token_compression), so that of the reversed clip other rows are left"
)
_KEEP = (
    "set use_token_compression to false in the file of the checkpoint's video "
    "processor, which keeps all rows"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup(Asked):
    """A checked configuration with all that computing signals takes."""

    model: Model
    devices: parallel.Devices
    reference: Model | None = None


@processes.agreed()
def check(config: ConfigDict, asked: Asked | None = None) -> Setup:
    """Checks config, corpus, checkpoint and devices.

    Args:
      config: See `settings.RULES`.
      asked: What `asking.ask` has found of it, if that was asked before.

    Raises:
      AuditError: Lists all problems, or another process has some.
    """
    progress.stage("checking model and devices")
    problems = Problems(config)
    found = vars(asked) if asked else asking.collect(problems)
    given = problems.settings
    model = devices = reference = None
    if problems.none_in("model"):
        with problems.collected():
            model = models.inspect(**dataclasses.asdict(given.model))
    if problems.none_in("parallel"):
        with problems.collected():
            devices = parallel.make_devices(
                **dataclasses.asdict(given.parallel),
                num_bytes=model.num_bytes if model else 0,
                dtype=model.dtype if model else "",
            )
    if model is not None and _holds(problems, model, ""):
        _, wrong = texts.check_texts(
            *(found["samples"], model, given.video.num_frames, given.slices),
            response=given.response,
            room=given.response_tokens,
        )
        problems.add(*wrong)
        if problems.none_in("reference"):
            with problems.collected():
                reference = references.check(given, model, found["samples"])
    if reference is not None:
        _holds(problems, reference, "reference ")
    for whose, each in (("", model), ("reference ", reference)):
        if each is not None and each.prune is not None:
            problems.add(*one_order(found["scores"], given.profile, whose))
    if model is not None and model.prune is not None and given.study in _ORDERS:
        problems.add(
            f"config.study: {given.study} compares the two orders of the "
            f"frames, but the model's {_PRUNED}: take the study k or frames, or {_KEEP}"
        )
    if devices is not None and devices.num_processes > 1 and asking.is_greedy(given):
        problems.add(
            f"config.response is greedy, and the model spans {devices.num_processes} "
            "processes, which generate no answers together: score given answers, or "
            "set config.parallel so that the devices of one process hold the model"
        )
    problems.close()
    fields: dict[str, Any] = {"model": model, "devices": devices}
    return Setup(**found, **fields, reference=reference)


def _holds(problems: Problems, model: Model, whose: str) -> bool:
    """Returns whether a model holds the frames of a clip; adds a problem otherwise."""
    wanted = problems.settings.video.num_frames
    if not (holds := model.holds(wanted)):
        problems.add(
            f"config.video.num_frames is {wanted}; the {whose}model's positions hold "
            f"{model.max_frames} frames"
        )
    return holds


def one_order(names: Sequence[str], profile: str, whose: str = "") -> list[str]:
    """Returns what is wrong with scores of a model that has the natural order alone.

    Args:
      names: The names of the scores.
      profile: The name of their profile.
      whose: "" or "reference ".
    """
    comparing = [name for name in names if scores.compares_orders(name, profile)]
    if not comparing:
        return []
    some, more = ", ".join(comparing[:_SHOWN]), len(comparing) - _SHOWN
    return [
        f"config.scores, config.headline: {some}{f' and {more} more' * (more > 0)} "
        f"compare the two orders of the frames, but the {whose}model's {_PRUNED}: take "
        "scores of one order, such as min_k_prob_30 or response_loss, with such a "
        f"headline, or {_KEEP}"
    ]


@processes.agreed()
@processes.first_alone("signals")
def open_run(
    setup: Setup,
    workdir: pathlib.Path,
    video: views.Video | None = None,
    name: str = "",
    writer: Writer = ALONE,
) -> Run:
    """Opens a run in a work directory; one that would mix signals is refused.

    What is computed holds at least what the signals that are there hold, such as the
    numbers of the head's second pass.

    Args:
      setup: The result of `check`.
      workdir: Its signals are in the folder `signals`, generated answers in `answers`.
      video: Replaces the settings' own; None keeps it.
      name: See `Run`.
      writer: The writer of its parts.

    Raises:
      AuditError: The signals there were computed with other settings, or are damaged.
    """
    given = dataclasses.replace(setup.settings, video=video or setup.settings.video)
    if given.overwrite and processes.index() == 0:
        signals.clear(workdir)
        if writer.mirror is not None:
            writer.mirror.clear(signals.CLEARED)
    run = _opened(setup, setup.model, given, workdir / SIGNALS, writer, {}, name)
    if not asking.is_greedy(given):
        return run
    depends = _depends(setup, setup.model, given)
    for key in ("motion.flow", "video.against"):
        del depends[key]
    depends["response_tokens"] = given.response_tokens
    with received.refused(workdir / _ANSWERS):
        answers = Answers(workdir / _ANSWERS, depends, writer)
    return dataclasses.replace(run, answers=answers)


@processes.agreed()
@processes.first_alone("signals of the reference model")
def open_reference(
    setup: Setup, workdir: pathlib.Path, writer: Writer, run: Run
) -> Run:
    """Opens the run of the reference model, on the texts of an audited model's run.

    Raises:
      AuditError: The signals there were computed with other settings, or are damaged.
    """
    assert setup.reference is not None
    target = {"target": setup.model.fingerprint}
    found = _opened(
        *(setup, setup.reference, run.settings, workdir / REFERENCE, writer, target),
        "reference",
    )
    return dataclasses.replace(found, answers=run.answers, is_reference=True)


def open_runs(setup: Setup, team: Team) -> list[Run]:
    """Opens the run of an audit, and that of its reference model if there is one.

    What is asked is declared then, and no process computes before.

    Args:
      setup: The result of `check`.
      team: Whose work directory receives signals and the declaration.

    Raises:
      AuditError: The signals there were computed with other settings, or something is
        damaged.
    """
    workdir, writer = team.place.path, team.writer
    progress.stage("opening the work directory")
    with processes.agreed():
        declaration.check(workdir)  # Before signals are deleted.
        if not setup.settings.overwrite:
            shares.check_division(team.place, setup.settings.share)
        if not setup.settings.overwrite and processes.index() == 0:
            other_corpus.check(setup.items, workdir)
    if processes.index() == 0:
        power_notes.log(setup)
    runs = [open_run(setup, workdir, writer=writer)]
    if setup.reference is not None:
        runs.append(open_reference(setup, workdir, writer, runs[0]))
    with processes.agreed():
        if processes.index() == 0:
            declaration.declare(setup, workdir)
            replaces = setup.settings.overwrite
            if not team.place.settle(declaration.FILE, replaced=replaces):
                declaration.check_share(setup, workdir)
    return runs


def _opened(
    setup: Setup,
    model: Model,
    given: views.Settings,
    folder: pathlib.Path,
    writer: Writer,
    more: dict[str, Any],
    name: str,
) -> Run:
    """Opens the signals of a model."""
    depends = _depends(setup, model, given) | more
    store = received.opened(folder, depends, writer)
    wanted = Wanted.by(setup.scores, given.profile, given.slices)
    return Run(
        name=name,
        model=model,
        settings=given,
        store=store,
        wanted=wanted,
        computed=wanted.with_stored(store),
    )


def depends(setup: Setup) -> dict[str, Any]:
    """Returns what the signals of the audited model depend on."""
    return _depends(setup, setup.model, setup.settings)


def _depends(setup: Setup, model: Model, given: views.Settings) -> dict[str, Any]:
    """Returns what signals depend on, apart from slices and scores."""
    depends = {
        "model": model.fingerprint,
        "model.prompt": model.prompt,
        "motion.flow": backends.resolve(
            given.motion.flow, setup.devices.mesh.devices.flat
        ),
        **asking.depends(given),
    }
    if given.corpus.prepared and given.corpus.jpeg_quality:
        depends["corpus.jpeg_quality"] = given.corpus.jpeg_quality
    if model.prune is not None:
        depends[signals.ORDERS] = signals.NATURAL
    return depends
