"""Reads the positive control of an audit and compares the two, before any model."""

import dataclasses
import json
import pathlib
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.data import names
from vidsme_jax.names import uncalibrated
from vidsme_jax.settings import views
from vidsme_jax.store import received
from vidsme_jax.wording import printable

_MOST = 2**27  # Bytes of `control.json`.
_REMEDY = "make one by `vidsme finetune --control`, or leave config.report.control out"


@dataclasses.dataclass(frozen=True)
class Control:
    """A positive control that a report shows with the verdict of its audit.

    Attributes:
      folder: The folder of the control.
      record: The content of its `control.json`.
      differences: Settings that the audit has otherwise, one text each.
    """

    folder: str
    record: dict[str, Any]
    differences: tuple[str, ...]


def settings_of(given: views.Settings, headline: str) -> dict[str, Any]:
    """Returns what a control has in common with the audit that it is made for.

    Args:
      given: The settings of the audit.
      headline: A result of `scores.headline`.
    """
    return {
        "headline": headline,
        "profile": given.profile,
        "response": given.response,
        "slices": list(given.slices),
        "video.num_frames": given.video.num_frames,
        "video.sampling": given.video.sampling,
        "video.against": given.video.against,
        "motion.q_scale": given.motion.q_scale,
        "motion.r_scale": given.motion.r_scale,
        "scores": given.scores
        if isinstance(given.scores, str)
        else sorted(given.scores),
    }


def opened(given: views.Settings, headline: str) -> Control | None:
    """Reads the control of `report.control`; None if there is none.

    Args:
      given: The settings of the audit.
      headline: A result of `scores.headline`.

    Raises:
      AuditError: There is none, it is damaged, or it is of other questions than the
        audit's: another headline, profile, kind of answer or number of frames, or
        without one of its slices; lists all that differs.
    """
    if not given.report.control:
        return None
    record = read(names.configured(given.report.control))
    wrong, noted = _differences(record, settings_of(given, headline))
    if wrong:
        folder = printable(given.report.control)
        raise AuditError(
            [
                f"config.report.control: {folder} was made for another audit: "
                f"{'; '.join(wrong)}. Make it again with this configuration, or leave "
                "it out"
            ]
        )
    return Control(given.report.control, record, tuple(noted))


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the content of `control.json`.

    Raises:
      AuditError: There is none, or it is damaged.
    """
    from vidsme_jax.evaluation import control_statement  # It imports SciPy.

    path = folder / control_statement.FILE
    try:
        record = json.loads(received.content(path, _MOST))
        control_statement.statement(record)  # All that it reads is there.
        for name in (record["headline"], *record["scores"], *record["content"]):
            if not isinstance(name, str):
                raise TypeError(f"{name!r} is no text")
        if not isinstance(record["settings"], dict):
            raise TypeError(
                f"settings is {type(record['settings']).__name__}, no object"
            )
    except FileNotFoundError as error:
        raise AuditError(
            [
                f"config.report.control: {folder} has no {control_statement.FILE}; "
                f"{_REMEDY}"
            ]
        ) from error
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        cause = printable(f"{type(error).__name__}: {error}", 200)
        raise AuditError(
            [f"config.report.control: {path} cannot be read ({cause}); {_REMEDY}"]
        ) from error
    return record


def _differences(
    record: dict[str, Any], audit: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Returns what makes a control another question, and what is worth a remark."""
    its = record["settings"]
    wrong: list[str] = []
    noted: list[str] = []
    for key, value in audit.items():
        was = its.get(key)
        change = f"{key} was {_shown(was)}, and is {_shown(value)}"
        if key == "slices":
            held = record.get("slices")
            lacking = [x for x in value if not isinstance(held, list) or x not in held]
            wrong += [f"it has no rows of the {x}" for x in lacking]
        elif key == "headline":
            if uncalibrated(value) != record["headline"]:
                was = record["headline"]
                wrong.append(f"headline was {_shown(was)}, and is {_shown(value)}")
            elif value != record["headline"]:
                noted.append(f"it has no reference model, which {value} compares with")
        elif was != value:
            strict = key in ("profile", "response", "video.num_frames")
            (wrong if strict else noted).append(change)
    return wrong, noted


def _shown(value: Any) -> str:
    several: list[Any] = value
    text = ", ".join(map(str, several)) if isinstance(value, list) else str(value)
    return printable(text, 100)
