"""Renders the HTML page of a report: one self-contained file."""

import base64
import dataclasses
import functools
import hashlib
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from vidsme_jax.base import Failure
from vidsme_jax.evaluation import intervals, suspects
from vidsme_jax.evaluation.verdicts import p_is, p_words
from vidsme_jax.report import header, representatives
from vidsme_jax.report.cards import Card
from vidsme_jax.report.drawings import OF_SUSPECTS, Drawing
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
    "used, a verdict is “supported” in at most 5 % of audits, if the reference model "
    "has seen neither set and ranks by their other differences as strongly as the "
    "audited one; without a reference model, “ranks above no placebo” is reached as "
    "often as the sets differ in what was not measured, up to always."
)
RATES_OF_SUSPECTS = (
    "Rates of error, if suspects that were not used and {calibration} are alike: a set "
    "without any used video is found in at most {alpha:g} % of audits, and of the "
    "suspects listed at most {fdr:g} % are expected to rank so high by chance."
)
_MAX_BYTES = 5_000_000  # Of a page.
_MAX_PICTURES = 2_000_000  # Bytes of all pictures of a page.
_MAX_DEPTH = 6  # Of nested settings.
_CLIP = re.compile(r"clip-(\d+)-")  # Names of the figures of clips.

Shown = list[tuple[Drawing, bytes]]  # Figures with their SVGs; b"": none.


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that a page shows of anything; the files have everything.

    Attributes:
      rows: Rows of a table, such as those of suspects, failures and warnings.
      comparisons: Comparisons; the largest are shown.
      cell: Characters of a name or a cause.
      text: Characters of any other text.
    """

    rows: int = 200
    comparisons: int = 20
    cell: int = 300
    text: int = 2000

    def halved(self) -> "Limits":
        """Returns half of these limits, for a page that is too large."""
        halves = {k: max(1, v // 2) for k, v in dataclasses.asdict(self).items()}
        return Limits(**halves | {"cell": max(40, self.cell // 2)})


def render(
    found: dict[str, Any],
    workdir: pathlib.Path,
    *,
    figures: Shown,
    cards: Sequence[Card] = (),
    run: dict[str, Any],
    failures: list[Failure],
    descriptions: dict[str, str],
) -> str:
    """Returns the page of an audit; every string is escaped and of bounded length.

    Args:
      found: The content of `metrics.json`.
      workdir: The work directory of the audit.
      figures: In the order of the page.
      cards: Of the clips whose figures are among these, in their order.
      run: Settings, versions and fingerprints.
      failures: One per item without scores.
      descriptions: One line for each score.
    """
    beside = found["beside"]
    declared = [found["headline"], *([beside["score"]] if beside else [])]
    compared = found["comparisons"]

    def values(limits: Limits) -> dict[str, Any]:
        names = _largest(compared, limits.comparisons)
        boxes = [compared[name] for name in names]
        tested = found["suspects"]
        if tested["exchangeable"]:
            others = suspects.CALLED[tested["calibration"]["role"]]
            box = {name: tested[name] for name in ("apart", "left_out")}
            box |= {"blind": tested["exchangeable"]}
            boxes.append(box | {"description": f"suspects and {others}"})
        larger = found["larger_is_member"]
        scores = {name: compared[name]["scores"] for name in names}
        return {
            "names": names,
            "boxes": boxes,
            "stated": {name: _stated(results) for name, results in scores.items()},
            "score_families": {
                name: representatives.of_scores(results, larger, declared)
                for name, results in scores.items()
            },
            "warned": [
                (video, "; ".join(texts))
                for video, texts in list(found["warnings"].items())[: limits.rows]
            ],
        }

    number = run.get("config", {}).get("report.num_permutations")
    shown = embedded(figures)
    main, by_clip = Shown(), dict[int, tuple[Drawing, bytes]]()
    for drawing, svg in shown:
        of_clip = _CLIP.match(drawing.name)
        if of_clip and cards:
            by_clip[int(of_clip[1])] = drawing, svg
        elif drawing.name != OF_SUSPECTS:
            main.append((drawing, svg))
    return fill(
        "page.html",
        values,
        permutations=number,
        smallest_p=number and 1 / (number + 1),
        found=found,
        facts=header.facts(found, run),
        not_looked_at=header.not_looked_at(found, run, failures),
        plain=header.plain(found),
        workdir=shlex.quote(str(workdir)),
        figures=_by_comparison(main),
        of_suspects=[each for each in shown if each[0].name == OF_SUSPECTS],
        cards=[(card, *by_clip.get(k, (None, b""))) for k, card in enumerate(cards)],
        groups=_groups(found["suspects"]),
        left_out=[_left_out(each) for each in found["left_out"]],
        run=run,
        failures=failures,
        descriptions=descriptions,
        rates_of_error=_rates_of_error(found),
    )


def _stated(scores: dict[str, Any]) -> list[str]:
    """Returns the false-positive rates at which any score has a TPR.

    A column of refusals alone would repeat the sentence below the table.
    """
    rates = [rate for result in scores.values() for rate in result["tpr"]]
    return [
        rate
        for rate in dict.fromkeys(rates)
        if any(
            not x["tpr"][rate].get("reason", "").startswith("refused")
            for x in scores.values()
        )
    ]


def _by_comparison(figures: Shown) -> list[tuple[str, Shown, bool]]:
    """Returns the figures of each comparison, and whether they are folded.

    The first comparison and the whole corpus are open; the others follow, folded.
    """
    found: dict[str, Shown] = {}
    for drawing, svg in figures:
        found.setdefault(drawing.of, []).append((drawing, svg))
    whole = found.pop("", [])
    first, *others = [*found.items()] or [("", [])]
    shown = [first, ("The whole corpus", whole)]
    return [
        (name, group, folded)
        for groups, folded in ((shown, False), (others, True))
        for name, group in groups
        if group
    ]


def _groups(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Returns the rows of the table of groups of suspects."""
    return [
        (x["group"], x["videos"], x["sources"], *map(_p, (x["p"], x["adjusted_p"])))
        for x in (found["set"] or {}).get("groups", ())
    ]


def _left_out(record: dict[str, Any]) -> tuple[str, ...]:
    """Returns the cells of a `LeftOut` record of `metrics.json`."""
    number = f"{record['count']} {record['what']}"
    return record["source"] or "all", record["role"] or "any", number, record["why"]


def _rates_of_error(found: dict[str, Any]) -> list[str]:
    """Returns the error rates of the tests that the report has, one paragraph each."""
    verdicts = (
        compared["verdicts"][found["headline"]]["verdict"]
        for compared in found["comparisons"].values()
    )
    rates = [RATES_OF_ERROR] if any(v != "not_tested" for v in verdicts) else []
    tested = found["suspects"]
    if tested["set"]:
        levels = {"alpha": 100 * tested["set"]["alpha"], "fdr": 100 * tested["fdr"]}
        called = suspects.CALLED[tested["calibration"]["role"]]
        rates.append(RATES_OF_SUSPECTS.format(calibration=called, **levels))
    return rates


def fill(name: str, values: Callable[[Limits], dict[str, Any]], **more: Any) -> str:
    """Renders a template, with smaller limits until the page is small enough.

    Args:
      name: The template, a file in this folder.
      values: Returns the values that depend on the limits.
      more: The other values.
    """
    limits = Limits()
    while True:
        page = _environment(limits).get_template(name)
        html = page.render(**values(limits), **more)
        smaller = limits.halved()
        size = len(html.encode("utf-8", "backslashreplace"))
        if size < _MAX_BYTES or smaller == limits:
            return html
        limits = smaller


def embedded(figures: Shown) -> Shown:
    """Returns figures for a page, without the SVGs beyond 2 MB in all."""
    left, found = _MAX_PICTURES, Shown()
    for drawing, svg in figures:
        if len(svg) > left:
            caption = f"{drawing.caption} See the folder figures: it is too large here."
            drawing, svg = dataclasses.replace(drawing, caption=caption), b""
        left -= len(svg)
        found.append((drawing, svg))
    return found


@functools.cache
def _environment(limits: Limits) -> jinja2.Environment:
    """Returns this folder's templates, which escape every string."""
    folder = pathlib.Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=functools.partial(_shown, most=limits.text),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cell = functools.partial(printable, most=limits.cell)
    style, script = ((folder / x).read_text() for x in ("page.css", "page.js"))
    environment.globals |= {"claim": CLAIM, "limit": limits.rows, "depth": _MAX_DEPTH}
    environment.globals["blind_auc"] = BLIND_AUC
    environment.globals |= {
        "style": markupsafe.Markup(style),
        "script": markupsafe.Markup(script),
        "policy": markupsafe.Markup(
            "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
            f"style-src {_digest(style)}; script-src {_digest(script)}"
        ),
    }
    environment.filters["base64"] = _base64
    environment.filters["svg"] = lambda data: markupsafe.Markup(data.decode())
    environment.filters["columns"] = _columns
    environment.filters["estimate"] = _estimate
    environment.filters["cell"] = lambda value: cell(str(value))
    environment.filters["refusals"] = _refusals
    environment.filters["p"] = _p
    environment.filters["quoted"] = shlex.quote
    environment.filters["p_is"] = p_is
    environment.tests["nested"] = lambda value: isinstance(value, Mapping)
    return environment


def _digest(text: str) -> str:
    """Returns the source expression that allows an inline style or script."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _estimate(result: dict[str, Any] | None, digits: int = 3) -> str:
    """Returns a value with its interval, without a line break inside."""
    return intervals.in_words(result, digits).replace(", ", ",\N{NO-BREAK SPACE}")


_WORDS: dict[Any, str] = {True: "yes", False: "no", None: "none"}


def _columns(items: Sequence[Any], *names: str) -> list[list[str]]:
    """Returns some fields of each item, as the rows of a table."""
    rows = [
        [x.get(name) if isinstance(x, Mapping) else getattr(x, name) for name in names]
        for x in items
    ]
    return [
        [_WORDS[x] if x is None or isinstance(x, bool) else str(x) for x in row]
        for row in rows
    ]


def _shown(value: Any, most: int) -> Any:
    """Returns the printable text of a value, which Jinja then escapes."""
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
    """Returns the names of the comparisons with the most non-members, in order."""
    counts = {n: c["counts"]["nonmembers"]["videos"] for n, c in comparisons.items()}
    chosen = set(sorted(counts, key=lambda name: -counts[name])[:most])
    return [name for name in comparisons if name in chosen]
