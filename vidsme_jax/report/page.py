"""The page a person reads: one HTML file that needs nothing else."""

import base64
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from vidsme_jax.base import Failure, printable
from vidsme_jax.evaluation import intervals
from vidsme_jax.report.figures import Drawing

CLAIM = (
    "This report ranks videos: it says how well scores order members above "
    "non-members on this corpus. No score of one video proves that it was, or was not, "
    "in the training data. One score, the headline, was declared before the results "
    "were seen; all others are exploratory, and the best of many is too good by "
    "selection. The figures hold for these videos, this model and these settings."
)
_MAX_ROWS = 200  # Of suspects, failures and warnings; the files have all.
_MAX_COMPARISONS = 20
_MAX_CELL = 300  # Characters of a name or a cause.
_MAX_TEXT = 2000


def render(
    found: dict[str, Any],
    *,
    figures: list[tuple[Drawing, bytes]],
    run: dict[str, Any],
    failures: list[Failure],
    descriptions: dict[str, str],
) -> str:
    """Fills the template; every string is escaped, and none is shown without end.

    Args:
      found: The content of `metrics.json`.
      figures: With their PNGs, in the order of the page.
      run: Settings, versions and fingerprints.
      failures: One per item that has no scores.
      descriptions: One line for each score.
    """
    names, blind = _largest(found["comparisons"]), found["blind_baseline"]
    boxes = [*(blind["comparisons"][name] for name in names), blind["suspects"]]
    return template("template.html").render(
        found=found,
        names=names,
        boxes=[box for box in boxes if box is not None],
        figures=figures,
        run=run,
        failures=failures,
        descriptions=descriptions,
        limit=_MAX_ROWS,
    )


def template(name: str) -> jinja2.Template:
    """One of the templates beside this module; every string is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["claim"] = CLAIM
    environment.filters["base64"] = _base64
    environment.filters["estimate"] = functools.partial(intervals.in_words, digits=3)
    environment.filters["cell"] = functools.partial(printable, most=_MAX_CELL)
    environment.filters["line"] = printable
    environment.filters["refusals"] = _refusals
    environment.tests["nested"] = lambda value: isinstance(value, Mapping)
    return environment.get_template(name)


def _shown(value: Any) -> Any:
    """What is printed for a value; Jinja escapes it after that."""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return printable(value, _MAX_TEXT)
    return value


def _base64(data: bytes) -> markupsafe.Markup:
    return markupsafe.Markup(base64.b64encode(data).decode())


def _refusals(scores: dict[str, Any]) -> list[str]:
    """Returns why rates were refused, each reason once."""
    rates = [tpr for result in scores.values() for tpr in result["tpr"].values()]
    reasons = {tpr.get("reason", "") for tpr in rates}
    return sorted(reason for reason in reasons if reason.startswith("refused"))


def _largest(comparisons: dict[str, Any]) -> list[str]:
    """Names of the comparisons with the most non-members, in their own order."""
    counts = {n: c["counts"]["nonmembers"]["videos"] for n, c in comparisons.items()}
    kept = set(sorted(counts, key=lambda name: -counts[name])[:_MAX_COMPARISONS])
    return [name for name in comparisons if name in kept]
