"""Draws the figures of a report, each with title, caption and description."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import groups, intervals, metrics
from vidsme_jax.evaluation.validity import CALLED
from vidsme_jax.evaluation.verdicts import p_is
from vidsme_jax.names import uncalibrated
from vidsme_jax.report import overview, plots, representatives
from vidsme_jax.report.plots import ClipCurve

OF_SUSPECTS = "growth-suspects"  # The name of their figure.
_CLASSICAL = ("perplexity", "ppl")  # By profile.


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure with its texts.

    If it could not be drawn, `figure` is None and the caption says why.

    Attributes:
      name: The stem of its files, and the prefix of its ids in a page.
      figure: For the files; also for the page, if `inline` is None.
      title: What it is.
      caption: How to read it.
      shown: What it shows, in words, for screen readers.
      of: The name of its comparison; "" for the whole corpus or a clip.
      inline: For the page, if another one.
    """

    name: str
    figure: Figure | None
    title: str
    caption: str
    shown: str = ""
    of: str = ""
    inline: Figure | None = None


def rocs(
    table: ScoreTable,
    name: str,
    slug: str,
    which: groups.Comparison,
    compared: dict[str, Any],
    headline: str,
    beside: str,
) -> list[Drawing]:
    """Draws the ROC curves of a comparison, on linear and on logarithmic axes.

    Args:
      table: The scores.
      name: The name of the comparison.
      slug: The last part of the stem of the files.
      which: The rows that are compared.
      compared: The results of the comparison.
      headline: The score that the verdict is about.
      beside: A further score; "" for none.
    """
    scores = [headline, beside] if beside else [headline]
    curves = [_curve(table, score, which, score == headline) for score in scores]
    rates = compared.get("scores", {}).get(headline, {}).get("tpr", {})
    if curves[0] is not None:
        curves[0] = dataclasses.replace(curves[0], points=_points(rates))
    if compared.get("roc"):
        value = compared["roc"]["auc"]
        fpr, tpr = (np.array(compared["roc"][key]) for key in ("fpr", "tpr"))
        blind = plots.Curve(f"all properties, no model, AUC {value:.2f}", fpr, tpr)
        curves.insert(1, blind)
    curves = [curve for curve in curves if curve is not None]
    num = intervals.num_units(table.units[which.nonmembers])
    second = f", and {beside}, which a fixed rule names" if beside else ""
    caption = (
        f"{which.description[0].upper()}{which.description[1:]}. The headline score, "
        "what a cross-fitted classifier of sources by all properties of the clips "
        f"together reaches without the model{second}. "
        "The closer to the upper left corner, the better the separation."
    )
    if any(curve.band for curve in curves):
        caption += (
            " The band is of the headline, pointwise: at each false-positive rate the "
            "95 % interval of the true-positive rate, with sources as observations "
            "and the threshold's own uncertainty counted."
        )
    zoomed = (
        "The same on logarithmic axes: what happens at small false-positive rates. "
        f"Grey: below one in {num}, the sources of non-members, nothing is known."
    )
    refused = sorted({x["reason"] for x in rates.values() if x["value"] is None})
    if len(refused) < len(rates):
        zoomed += " Diamonds: the rates of the table, with their intervals."
    zoomed += "".join(f" {text[0].upper()}{text[1:]}." for text in refused)
    linear, log = (plots.roc(curves, num, logarithmic=x) for x in (False, True))
    shown = f"ROC curves of {'; '.join(curve.label for curve in curves)}."
    stated = [
        f"at FPR {fpr} TPR {intervals.in_words(x)}"
        for fpr, x in rates.items()
        if x["value"] is not None
    ]
    low = f"{shown} The headline: {', '.join(stated) or 'no rate could be stated'}."
    return [
        Drawing(f"roc-{slug}", linear, f"ROC: {name}", caption, shown),
        Drawing(f"roc-log-{slug}", log, f"TPR at low FPR: {name}", zoomed, low),
    ]


def _points(rates: dict[str, Any]) -> tuple[plots.Point, ...]:
    """Returns the TPRs that could be stated: FPR, TPR and the ends of its interval."""
    return tuple(
        (float(fpr), x["value"], x["low"], x["high"])
        for fpr, x in rates.items()
        if x["value"] is not None
    )


def aucs(
    table: ScoreTable,
    stem: str,
    title: str,
    compared: dict[str, Any],
    declared: list[str],
) -> list[Drawing]:
    """Draws the AUCs of the families of scores, and that without a model.

    Args:
      table: The scores.
      stem: Of the files.
      title: Of the figure.
      compared: The results of the comparison.
      declared: The headline, and the further score if there is one.
    """
    scores, blind = compared["scores"], compared.get("blind", {})
    every = representatives.of_scores(scores, table.larger_is_member, declared)
    known = [
        each.score for each in every if scores[each.score]["auc"]["value"] is not None
    ]
    rest = [name for name in known if name not in declared]
    rest.sort(key=lambda name: -abs(scores[name]["auc"]["value"] - 0.5))
    chosen = set(rest[: overview.MAX_BARS - len(declared)]) | set(declared)
    roles = dict(zip(declared, ("headline", "further score"), strict=False))
    shown = [
        overview.Bar(name, scores[name]["auc"], roles.get(name, ""))
        for name in known
        if name in chosen
    ]
    lines: dict[str, float] = {}
    if blind.get("auc") is not None:
        lines["without any model"] = blind["auc"]
    reference = compared.get("reference", {}).get(uncalibrated(declared[0]))
    if reference and reference["auc"]["value"] is not None:
        lines["reference model"] = reference["auc"]["value"]
    caption = (
        "One score for each family, chosen by a rule and not by its result; filled "
        "diamonds are the declared ones, all others are exploratory."
    )
    if blind.get("auc") is not None:
        caption += (
            f" Dashed: what {blind['strongest']} reaches without any model. A score "
            "that is no further right shows nothing about the model."
        )
    if len(known) > len(shown):
        caption += f" The {len(shown)} furthest from 0.5 of {len(known)} families."
    texts = [f"{x.label} {intervals.in_words(x.auc)}" for x in shown]
    texts += [f"{name} {value:.2f}" for name, value in lines.items()]
    figure = overview.bars(shown, lines)
    return [Drawing(stem, figure, title, caption, f"AUC: {'; '.join(texts)}.")]


def growth(
    stem: str, title: str, growth: dict[str, Any], headline: str
) -> list[Drawing]:
    """Draws the p-values of random subsets of the sources; see `growth.growth`."""
    curve = growth["curve"]
    points = [(min(x["members"], x["nonmembers"]), x["p"]) for x in curve]
    caption = (
        f"{growth['statement']} Of {headline}: p that members rank above non-members, "
        f"the median over random subsets; the diamond is of all sources."
    )
    what = "sources of members, and as many of non-members"
    return [_by_number(stem, title, caption, points, growth["alpha"], what)]


def suspects(title: str, found: dict[str, Any]) -> list[Drawing]:
    """Draws the p-values of random subsets of the suspects; see `suspects.suspects`."""
    points = [(x["videos"], x["p"]) for x in found["set"]["curve"]]
    others = CALLED[found["calibration"]["role"]]
    caption = (
        f"Of {found['score']}: p that suspects rank above all {others}, the median "
        "over random subsets of the suspects; the diamond is of all of them. A curve "
        "that never comes down does not show that none of them was used."
    )
    args = points, found["set"]["alpha"], "suspects"
    return [_by_number(OF_SUSPECTS, title, caption, *args)]


def _by_number(
    stem: str,
    title: str,
    caption: str,
    points: list[tuple[int, float]],
    level: float,
    what: str,
) -> Drawing:
    figure = overview.p_by_number(points, level, what)
    values = "; ".join(f"{number}: {p_is(p)}" for number, p in points)
    return Drawing(stem, figure, title, caption, f"By the number of {what}: {values}.")


def classical(table: ScoreTable, headline: str) -> str:
    """Returns the second score of a ROC figure if no further score is declared."""
    found = [s for s in _CLASSICAL if s in table.scores and s != headline]
    return found[0] if found else ""


def _curve(
    table: ScoreTable, score: str, which: groups.Comparison, banded: bool
) -> plots.Curve | None:
    values = metrics.oriented(table, score)
    member, nonmember = (
        x[~np.isnan(x)] for x in (values[which.members], values[which.nonmembers])
    )
    finite = np.isfinite(member).all() and np.isfinite(nonmember).all()
    if not (len(member) and len(nonmember) and finite):
        return None
    curve = metrics.roc_curve(member, nonmember, drop_intermediate=True)
    label = f"{plots.plain(score)}, AUC {metrics.auc(member, nonmember):.2f}"
    band = None
    if banded:
        first, second = (
            intervals.effective(table.units[rows][~np.isnan(values[rows])])
            for rows in (which.members, which.nonmembers)
        )
        band = _band(member, nonmember, (first, second))
    return plots.Curve(label, curve.fpr, curve.tpr, band)


def _band(
    members: Float[np.ndarray, " members"],
    nonmembers: Float[np.ndarray, " nonmembers"],
    sources: tuple[int, int],
) -> plots.Band | None:
    """Returns the 95 % interval of the TPR by FPR; None if there are too few sources.

    `sources` are the effective numbers of sources of members and of non-members.
    """
    if intervals.too_few(sources, sources):
        return None
    least = 1 / sources[1]
    rates = np.concatenate([np.geomspace(least, 0.1, 16), np.linspace(0.1, 1, 19)])
    rates = np.unique(rates[rates >= least - 1e-12])
    ends = [
        intervals.rate_at_quantile(members, nonmembers, sources, float(rate))
        for rate in rates
    ]
    low, high = np.array(ends).T
    return plots.Band(rates, low, high)


def distributions(table: ScoreTable, headline: str) -> list[Drawing]:
    """Draws histograms of the headline and of the orders, by role and group."""
    shown = plots.series(table)
    how = "Each row is scaled to its own height; the line is the median; values beyond "
    how += "the axis are counted in the outermost bars."
    sign = "larger" if table.larger_is_member else "smaller"
    orders = {"q (2: least motion)": table.q, "r (1: steady light)": table.r}
    return [
        Drawing(
            "scores",
            plots.histograms({headline: table.scores[headline]}, shown),
            f"The headline score, {headline}",
            f"By role and group; {sign} is more member-like. {how}",
        ),
        Drawing(
            "orders",
            plots.histograms(orders, shown),
            "The entropy orders q and r",
            "They are functions of the frames alone, without the model. Where members "
            f"and non-members, or suspects, differ here, they differ in content. {how}",
        ),
    ]


def clip(curve: ClipCurve, name: str, title: str) -> list[Drawing]:
    """Draws the entropies of a clip by frame; in the files, with its frames."""
    caption = (
        f"Clip {curve.id} ({plots.NAMES[curve.role]}), headline score "
        f"{curve.score:.4g}. Mean Sharma-Mittal entropy of the rows of each frame"
    )
    if curve.reversed is None:
        caption += ", of the natural order alone."
    else:
        caption += "; reversed: at the same position of the reversed clip."
    if curve.thumbnails is None:
        caption += " Its frames are not shown"
        caption += f": {curve.missing}." if curve.missing else "."
    without = plots.clip_curve(dataclasses.replace(curve, thumbnails=None))
    figure = plots.clip_curve(curve)
    ranges = [f"natural order {_range(curve.natural)}"]
    if curve.reversed is not None:
        ranges.append(f"reversed {_range(curve.reversed)}")
    shown = f"Entropy of {len(curve.frame_indices)} frames, from first to last: "
    shown += f"{'; '.join(ranges)}."
    return [Drawing(name, figure, title, caption, shown, inline=without)]


def _range(values: Float[np.ndarray, " frames"]) -> str:
    """Returns the ends and the range of a line, in words."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "unknown"
    ends = f"from {known[0]:.3g} to {known[-1]:.3g}"
    return f"{ends}, between {known.min():.3g} and {known.max():.3g}"
