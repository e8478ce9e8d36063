"""Checks the reference model of a configuration."""

import dataclasses
from typing import Any

from vidsme_jax import models
from vidsme_jax.base import AuditError, Sample
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Shown
from vidsme_jax.run import texts
from vidsme_jax.run.asking import has_reference
from vidsme_jax.settings import views


def check(
    given: views.Settings, model: Model, asked: tuple[Sample, ...]
) -> Model | None:
    """Returns the checked reference model, if there is one.

    Raises:
      AuditError: It is the audited model, or can score none of the texts.
    """
    chosen, of_model = given.reference, dataclasses.asdict(given.model)
    if not has_reference(given):
        return None
    named = "config.reference.adapter is off"
    changes: dict[str, Any] = {"adapter": False}
    if chosen.checkpoint:
        named = f"config.reference.checkpoint is {chosen.checkpoint}"
        changes = {"checkpoint": chosen.checkpoint, "prompt": chosen.prompt}
    try:
        found = models.inspect(**of_model | changes)
    except AuditError as error:
        raise AuditError([f"{named}: {p}" for p in error.problems]) from error
    if found.fingerprint == model.fingerprint:
        raise AuditError(
            [
                f"{named}: it has the fingerprint of config.model.checkpoint, and a "
                "model less itself is 0; give a model that has not seen the members"
            ]
        )
    every = [text for sample in asked for text in sample.texts]
    frames, slices = given.video.num_frames, given.slices
    read = texts.tokenise(every, found, Shown(frames), slices)
    if every and not read.texts:  # One that fails alone is recorded when it is scored.
        causes = next(iter(read.refused.values()))
        raise AuditError([f"{named}: it can score none of the texts: {causes[0]}"])
    return found
