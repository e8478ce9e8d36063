"""Before a run: its configuration against the world, and what is in its folder."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
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
from vidsme_jax.settings import views
from vidsme_jax.store import signals

# Of config.video: they change signals; the limits do not.
_SAMPLING = ("num_frames", "sampling", "fps", "against")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of stored signals; needs no model."""

    config: ConfigDict
    items: tuple[Item, ...]
    clips: tuple[Clip, ...]
    reader: Reader
    scores: tuple[str, ...]
    headline: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup(Asked):
    """A configuration that has been checked against the world."""

    model: Model
    devices: parallel.Devices


def check(config: ConfigDict) -> Setup:
    """Checks config, corpus, checkpoint and devices; lists all problems at once."""
    model: Any = config.get("model", {})
    parts: dict[str, Any] = {}
    makers = (
        (
            "model",
            "model.",
            lambda: models.inspect(
                model.checkpoint,
                dtype=model.dtype,
                prompt=model.prompt,
                allow_pickle=model.allow_pickle,
            ),
        ),
        (
            "devices",
            "parallel.",
            lambda: parallel.make_devices(
                **config.parallel,
                num_bytes=getattr(parts.get("model"), "num_bytes", 0),
                dtype=getattr(parts.get("model"), "dtype", ""),
            ),
        ),
    )
    return Setup(**_checked(config, makers, parts))


def check_stored(config: ConfigDict) -> Asked:
    """Checks config and corpus; lists all problems at once."""
    return Asked(**_checked(config, (), {}))


def _checked(
    config: ConfigDict,
    makers: Iterable[tuple[str, str, Callable[[], Any]]],
    parts: dict[str, Any],
) -> dict[str, Any]:
    """Fills `parts` by what `makers` make, each unless one of its keys is faulty."""
    problems = settings.problems(config)
    faulty = {problem.split()[0].rstrip(":") for problem in problems}
    for name, keys, make in (
        ("corpus", "corpus.", lambda: _open_corpus(config)),
        *makers,
        ("scores", "", lambda: scores.resolve(config.scores, config.profile)),
        ("headline", "", lambda: scores.headline(config.headline, config.profile)),
    ):
        keys = (f"config.{keys}",) if keys else ("config.scores", "config.profile")
        if any(key.startswith(keys) for key in faulty):
            continue  # It would stumble over what is listed already.
        try:
            parts[name] = make()
        except AuditError as error:
            problems += error.problems
    items, reader = parts.pop("corpus", ((), None))
    clips = corpora.unique_clips(items)
    if len(clips) == 1 and config.motion.bounds is None:
        problems.append(
            "the corpus has one clip, but q and r are scaled by the range over a "
            "corpus: add clips, or give config.motion.bounds = (phi_min, phi_max, "
            "b_min, b_max)"
        )
    if "model" in parts and config.video.num_frames > parts["model"].max_frames:
        problems.append(
            f"config.video.num_frames is {config.video.num_frames}; the model's "
            f"positions hold {parts['model'].max_frames} frames"
        )
    if problems:
        raise AuditError(problems)
    if parts["headline"] not in parts["scores"]:
        parts["scores"] = (parts["headline"], *parts["scores"])
    return parts | {"config": config, "items": items, "clips": clips, "reader": reader}


def _open_corpus(config: ConfigDict) -> tuple[tuple[Item, ...], Reader]:
    its = views.Settings.of(config)
    return open_corpus(its, (its.video.num_frames,))


def open_stored(asked: Asked, workdir: pathlib.Path) -> signals.Signals:
    """Opens the signals of a finished run for what is asked of them.

    Raises:
      AuditError: There are none, or they lack what a score needs.
    """
    folder = workdir / "signals"
    recorded = signals.recorded(folder)
    if not recorded:
        raise AuditError([f"{workdir}: no signals of a run are there"])
    if not recorded["second_pass"]:
        lacking = [
            name
            for name in asked.scores
            if scores.needs_second_pass([name], asked.config.profile)
        ]
        if lacking:
            raise AuditError(
                [
                    f"{workdir}: the signals lack what {', '.join(lacking[:5])} need"
                    f"{' and others' if len(lacking) > 5 else ''}; take other scores, "
                    "or run the audit with them in a new --workdir"
                ]
            )
    return signals.Signals(folder, recorded)


def open_shards(setup: Setup, workdir: pathlib.Path) -> tuple[signals.Signals, bool]:
    """Opens the signals of a work directory; a run that would mix them is refused.

    Returns:
      The signals, and whether the head's second pass runs: a score needs it, or the
      signals that are there already have it.
    """
    config, folder = setup.config, workdir / "signals"
    if config.overwrite and processes.index() == 0:
        signals.clear(workdir)
    second = scores.needs_second_pass(setup.scores, config.profile)
    second = second or signals.recorded(folder).get("second_pass", False)
    depends = {
        "model": setup.model.fingerprint,
        "model.dtype": config.model.dtype,
        "model.prompt": setup.model.prompt,
        "motion.flow": backends.resolve(
            config.motion.flow, setup.devices.mesh.devices.flat
        ),
        "second_pass": second,
        **{f"video.{key}": config.video[key] for key in _SAMPLING},
    }
    if config.corpus.prepared and config.corpus.jpeg_quality:
        depends["corpus.jpeg_quality"] = config.corpus.jpeg_quality
    place = processes.index(), processes.count()
    return signals.Signals(folder, depends, *place), second
