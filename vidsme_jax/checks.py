"""Before a run: its configuration against the world, and what is in its folder."""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import (
    __version__,
    hosts,
    models,
    parallel,
    scores,
    settings,
    shards,
)
from vidsme_jax.base import AuditError, Clip, Item
from vidsme_jax.data import corpora
from vidsme_jax.data.reading import Reader, open_corpus
from vidsme_jax.models.interface import ModelPlan
from vidsme_jax.motion import backends

# Of config.video: they change signals; the limits do not.
_SAMPLING = ("num_frames", "sampling", "fps", "against")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """A configuration that has been checked against the world."""

    config: ConfigDict
    items: tuple[Item, ...]
    clips: tuple[Clip, ...]
    reader: Reader
    plan: ModelPlan
    devices: parallel.Devices
    scores: tuple[str, ...]
    headline: str


def check(config: ConfigDict) -> Setup:
    """Checks config, corpus, checkpoint and devices; tells all problems at once."""
    problems = settings.problems(config)
    faulty = {problem.split()[0].rstrip(":") for problem in problems}
    model: Any = config.get("model", {})
    parts: dict[str, Any] = {}
    for name, keys, make in (
        ("corpus", "corpus.", lambda: open_corpus(config)),
        (
            "plan",
            "model.",
            lambda: models.inspect(
                model.checkpoint,
                dtype=model.dtype,
                prompt=model.prompt,
                allow_pickle=model.allow_pickle,
            ),
        ),
        ("scores", "", lambda: scores.resolve(config.scores, config.profile)),
        ("headline", "", lambda: scores.headline(config.headline, config.profile)),
        (
            "devices",
            "parallel.",
            lambda: parallel.make_devices(
                **config.parallel,
                parameters=getattr(parts.get("plan"), "parameters", 0),
            ),
        ),
    ):
        keys = (f"config.{keys}",) if keys else ("config.scores", "config.profile")
        if any(key.startswith(keys) for key in faulty):
            continue  # It would stumble over what is told already.
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
    if "plan" in parts and config.video.num_frames > parts["plan"].max_frames:
        problems.append(
            f"config.video.num_frames is {config.video.num_frames}; the model's "
            f"positions hold {parts['plan'].max_frames} frames"
        )
    if problems:
        raise AuditError(problems)
    if parts["headline"] not in parts["scores"]:
        parts["scores"] = (parts["headline"], *parts["scores"])
    return Setup(config=config, items=items, clips=clips, reader=reader, **parts)


def open_shards(setup: Setup, workdir: pathlib.Path) -> tuple[shards.Shards, bool]:
    """Opens the signals of a work directory; a run that would mix them is refused.

    Also tells whether the head's second pass runs: a score needs it, or the signals
    that are there already have it.
    """
    config, folder = setup.config, workdir / "signals"
    if config.overwrite and hosts.index() == 0:
        shards.clear(workdir)
    second = scores.needs_second_pass(setup.scores, config.profile)
    second = second or shards.recorded(folder).get("second_pass", False)
    depends = {
        "model": setup.plan.fingerprint,
        "model.dtype": config.model.dtype,
        "model.prompt": setup.plan.prompt.text,
        "motion.flow": backends.resolve(
            config.motion.flow, setup.devices.mesh.devices.flat
        ),
        "second_pass": second,
        "slices": config.slices,
        "version": __version__,
        **{f"video.{key}": config.video[key] for key in _SAMPLING},
    }
    if config.corpus.prepared and config.corpus.jpeg_quality:
        depends["corpus.jpeg_quality"] = config.corpus.jpeg_quality
    return shards.Shards(folder, depends, hosts.index(), hosts.count()), second
