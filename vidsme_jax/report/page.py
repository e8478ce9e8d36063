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
from vidsme_jax.report import words
from vidsme_jax.report.figures import Drawing

_MAX_ROWS = 200  # Of suspects, failures and warnings; the files have all.
_MAX_COMPARISONS = 20
_MAX_CELL = 300  # Characters of a name or a cause.
_MAX_TEXT = 2000


def render(
    found: dict[str, Any],
    *,
    drawings: list[Drawing],
    pictures: dict[str, bytes],
    run: dict[str, Any],
    failures: list[Failure],
    descriptions: dict[str, str],
) -> str:
    """Fills the template; every string is escaped, and none is shown without end.

    Args:
      found: The content of `metrics.json`.
      drawings: In the order of the page.
      pictures: PNGs, by the drawings' names.
      run: Settings, versions and fingerprints.
      failures: One per item that has no scores.
      descriptions: One line for each score.
    """
    names = _largest(found["comparisons"])
    return template("template.html").render(
        found=found,
        comparisons=_comparisons(found, names, descriptions),
        num_comparisons=len(found["comparisons"]),
        boxes=_boxes(found["blind_baseline"], names),
        figures=embedded(drawings, pictures),
        run=run,
        failures=failures[:_MAX_ROWS],
        num_failures=len(failures),
        warnings=list(found["warnings"].items())[:_MAX_ROWS],
        limit=_MAX_ROWS,
        claim=words.CLAIM,
        by_chance=words.BY_CHANCE,
        glossary=words.GLOSSARY,
    )


def embedded(
    drawings: list[Drawing], pictures: dict[str, bytes]
) -> list[dict[str, Any]]:
    """Makes figures, with their PNGs in them, for a template."""
    return [
        {
            "title": drawing.title,
            "caption": drawing.caption,
            "data": markupsafe.Markup(
                base64.b64encode(pictures[drawing.name]).decode()
            ),
            "wide": not drawing.name.startswith("roc"),
        }
        for drawing in drawings
    ]


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
    environment.filters["estimate"] = functools.partial(intervals.in_words, digits=3)
    environment.filters["cell"] = functools.partial(printable, most=_MAX_CELL)
    environment.tests["nested"] = lambda value: isinstance(value, Mapping)
    return environment.get_template(name)


def _shown(value: Any) -> Any:
    """What is printed for a value; Jinja escapes it after that."""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return printable(value, _MAX_TEXT)
    return value


def _largest(comparisons: dict[str, Any]) -> list[str]:
    """Names of the comparisons with the most non-members, in their own order."""
    counts = {n: c["counts"]["nonmembers"]["videos"] for n, c in comparisons.items()}
    kept = set(sorted(counts, key=lambda name: -counts[name])[:_MAX_COMPARISONS])
    return [name for name in comparisons if name in kept]


def _boxes(blind: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """Makes an entry a comparison: what motion and brightness alone separate."""
    results = {name: blind["comparisons"][name] for name in names}
    if blind["suspects"] is not None:
        results["suspects"] = blind["suspects"]
    marks = {
        True: ("shift", "Shift found"),
        False: ("clear", "No shift found"),
        None: ("untested", "Not tested"),
    }
    return [
        {
            "kind": marks[result["separates"]][0],
            "mark": marks[result["separates"]][1],
            "description": result["description"],
            "statement": result["statement"],
            "duplicates": result.get("duplicates", {}).get("statement", ""),
            "details": [
                f"{result[key]['name']}: AUC {intervals.in_words(result[key])}"
                + (f" ({direction})" if direction else "")
                for key in ("cross_fitted", "motion", "brightness")
                if result[key] is not None
                for direction in [result[key].get("direction", "")]
            ],
        }
        for result in results.values()
    ]


def _comparisons(
    found: dict[str, Any], names: list[str], descriptions: dict[str, str]
) -> list[dict[str, Any]]:
    """One entry a comparison: the headline's row, then all scores'."""
    headline = found["headline"]
    entries = []
    for name in names:
        comparison = found["comparisons"][name]
        blind = found["blind_baseline"]["comparisons"][name]
        scores = comparison["scores"]
        ordered = {headline: scores[headline]} | scores
        entries.append(
            {
                "name": name,
                "counts": comparison["counts"],
                "description": comparison["description"],
                "headline": scores[headline],
                "blind": blind["evidence"],
                "difference": blind.get("headline_minus_blind"),
                "verdict": blind["verdicts"][headline],
                "rates": list(scores[headline]["tpr"]),
                "refusals": sorted(
                    {
                        tpr["reason"]
                        for result in scores.values()
                        for tpr in result["tpr"].values()
                        if tpr.get("reason", "").startswith("refused")
                    }
                ),
                "scores": [
                    {
                        "name": score,
                        "result": result,
                        "description": descriptions.get(score, ""),
                    }
                    for score, result in ordered.items()
                ],
            }
        )
    return entries
