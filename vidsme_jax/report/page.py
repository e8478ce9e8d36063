"""The page a person reads: one HTML file that needs nothing else."""

import base64
import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import markupsafe

from vidsme_jax.base import Failure
from vidsme_jax.evaluation import intervals, suspects
from vidsme_jax.evaluation.verdicts import p_is, p_words
from vidsme_jax.report.figures import Drawing
from vidsme_jax.report.summary import BLIND_AUC
from vidsme_jax.wording import printable

CLAIM = (
    "This report ranks videos: it says how well scores order members above "
    "non-members on this corpus. No score of one video proves that it was, or was not, "
    "in the training data. One score is the headline; all others are exploratory, and "
    "the best of many is too good by selection. The figures are estimates for videos "
    "drawn as these were, and for this model and these settings."
)
RATES_OF_ERROR = (
    "Rates of error, by simulation with 20 to 100 sources a role: where no video was "
    "used, a verdict is `supported` in at most 5 % of audits, if the reference model "
    "has seen neither set and ranks by their other differences as strongly as the "
    "audited one; without a reference model, `ranks_above_no_placebo` is reached as "
    "often as the sets differ in what was not measured, up to always."
)
RATES_OF_SUSPECTS = (
    "Rates of error, if suspects that were not used and {calibration} are alike: a set "
    "of which nothing was used is found in at most {alpha:g} % of audits, and of the "
    "suspects listed at most {fdr:g} % are expected not to have been used."
)
_MAX_BYTES = 5_000_000  # Of a page.
_MAX_PICTURES = 2_000_000  # Bytes of all pictures in it.
_MAX_DEPTH = 6  # Of nested settings.


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a page shows of many and of long things; the files have all.

    Attributes:
      rows: Of suspects, failures and warnings.
      comparisons: The largest.
      cell: Characters of a name or a cause.
      text: Characters of any other text.
    """

    rows: int = 200
    comparisons: int = 20
    cell: int = 300
    text: int = 2000

    def halved(self) -> "Limits":
        """Returns limits for a page that is still too large."""
        halves = {k: max(1, v // 2) for k, v in dataclasses.asdict(self).items()}
        return Limits(**halves | {"cell": max(40, self.cell // 2)})


def render(
    found: dict[str, Any],
    workdir: pathlib.Path,
    *,
    figures: list[tuple[Drawing, bytes]],
    run: dict[str, Any],
    failures: list[Failure],
    descriptions: dict[str, str],
) -> str:
    """Fills the template; every string is escaped, and none is shown without end.

    Args:
      found: The content of `metrics.json`.
      workdir: Of the audit.
      figures: With their PNGs, in the order of the page.
      run: Settings, versions and fingerprints.
      failures: One per item that has no scores.
      descriptions: One line for each score.
    """

    def values(limits: Limits) -> dict[str, Any]:
        names = _largest(found["comparisons"], limits.comparisons)
        boxes = [found["comparisons"][name] for name in names]
        if alike := found["suspects"]["exchangeable"]:
            against = suspects.CALLED[found["suspects"]["calibration"]["role"]]
            description = f"suspects and {against}"
            apart = found["suspects"]["apart"]
            left_out = found["suspects"]["left_out"]
            box = {"blind": alike, "apart": apart, "left_out": left_out}
            boxes.append(box | {"description": description})
        return {"names": names, "boxes": boxes}

    number = run.get("config", {}).get("report.num_permutations")
    return fill(
        "template.html",
        values,
        permutations=number,
        smallest_p=number and 1 / (number + 1),
        found=found,
        workdir=shlex.quote(str(workdir)),
        figures=embedded(figures),
        run=run,
        failures=failures,
        descriptions=descriptions,
        rates_of_error=_rates_of_error(found),
    )


def _rates_of_error(found: dict[str, Any]) -> list[str]:
    """Returns the paragraphs for what the report has: verdicts, tests of suspects."""
    verdicts = (
        compared["verdicts"][found["headline"]]["verdict"]
        for compared in found["comparisons"].values()
    )
    rates = [RATES_OF_ERROR] if any(v != "not_tested" for v in verdicts) else []
    its = found["suspects"]
    if its["set"]:
        levels = {"alpha": 100 * its["set"]["alpha"], "fdr": 100 * its["fdr"]}
        called = suspects.CALLED[its["calibration"]["role"]]
        rates.append(RATES_OF_SUSPECTS.format(calibration=called, **levels))
    return rates


def fill(name: str, values: Callable[[Limits], dict[str, Any]], **more: Any) -> str:
    """Fills one of the templates; what is too large for a page is shown in less.

    Args:
      name: Of a file beside this module.
      values: Of the template, where they depend on the limits.
      more: Other values.
    """
    limits = Limits()
    while True:
        html = template(name, limits).render(**values(limits), **more)
        smaller = limits.halved()
        size = len(html.encode("utf-8", "backslashreplace"))
        if size < _MAX_BYTES or smaller == limits:
            return html
        limits = smaller


def embedded(figures: list[tuple[Drawing, bytes]]) -> list[tuple[Drawing, bytes]]:
    """Returns figures for a page: without the pictures that would make it large."""
    left, found = _MAX_PICTURES, []
    for drawing, png in figures:
        if len(png) > left:
            caption = f"{drawing.caption} See the folder figures: it is too large here."
            drawing, png = dataclasses.replace(drawing, caption=caption), b""
        left -= len(png)
        found.append((drawing, png))
    return found


def template(name: str, limits: Limits) -> jinja2.Template:
    """One of the templates beside this module; every string is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=functools.partial(_shown, most=limits.text),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"claim": CLAIM, "limit": limits.rows, "depth": _MAX_DEPTH}
    environment.globals["blind_auc"] = BLIND_AUC
    environment.filters["base64"] = _base64
    environment.filters["estimate"] = functools.partial(intervals.in_words, digits=3)
    environment.filters["cell"] = functools.partial(printable, most=limits.cell)
    environment.filters["refusals"] = _refusals
    environment.filters["p"] = _p
    environment.filters["quoted"] = shlex.quote
    environment.filters["p_is"] = p_is
    environment.tests["nested"] = lambda value: isinstance(value, Mapping)
    return environment.get_template(name)


def _shown(value: Any, most: int) -> Any:
    """What is printed for a value; Jinja escapes it after that."""
    if isinstance(value, markupsafe.Markup | jinja2.Undefined):
        return value
    return printable(str(value), most)


def _base64(data: bytes) -> markupsafe.Markup:
    return markupsafe.Markup(base64.b64encode(data).decode())


def _p(value: float | None) -> str:
    return "not tested" if value is None else p_words(value)


def _refusals(scores: dict[str, Any]) -> list[str]:
    """Returns why rates were refused, each reason once."""
    rates = [tpr for result in scores.values() for tpr in result["tpr"].values()]
    reasons = {tpr.get("reason", "") for tpr in rates}
    return sorted(reason for reason in reasons if reason.startswith("refused"))


def _largest(comparisons: dict[str, Any], most: int) -> list[str]:
    """Names of the comparisons with the most non-members, in their own order."""
    counts = {n: c["counts"]["nonmembers"]["videos"] for n, c in comparisons.items()}
    kept = set(sorted(counts, key=lambda name: -counts[name])[:most])
    return [name for name in comparisons if name in kept]
