"""Which figures a report has, and their files."""

import dataclasses
import io
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging
from matplotlib.figure import Figure

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import groups, intervals, metrics
from vidsme_jax.report import plots
from vidsme_jax.report.plots import ClipCurve
from vidsme_jax.store.files import write_atomically
from vidsme_jax.wording import printable

# The classical score beside the headline's ROC curve where no other is declared: the
# first of these that was computed.
_CLASSICAL = ("perplexity", "ppl")
_MAX_COMPARISONS = 6  # With ROC figures of their own.
_DPI = 110
_CAUSE = 200  # Characters.
# The files of an audit's figures, and the same half written.
_OWN = re.compile(
    r"((roc|roc-log|clip)-\d+-[a-z0-9-]+|scores|orders)\.(png|pdf)(\.tmp)?"
)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure, the stem of its files and the words that go with it.

    Where it could not be drawn, `figure` is None and the caption says why.
    """

    name: str
    figure: Figure | None
    title: str
    caption: str


def draw(
    table: ScoreTable,
    judged: dict[str, Any],
    curves: list[ClipCurve],
    headline: str,
    beside: str = "",
) -> list[Drawing]:
    """Draws everything; see `report.write` for the arguments."""
    beside = beside or _classical(table, headline)
    compared = groups.comparisons(table)
    largest = sorted(compared, key=lambda name: -len(compared[name].nonmembers))
    drawings = []
    for place, name in enumerate(largest[:_MAX_COMPARISONS]):
        baseline = judged.get(name, {})
        given = table, name, place, compared[name], baseline, headline, beside
        stem = f"roc-{place}-{_slug(name)}"
        drawings += attempted(stem, f"ROC: {name}", _rocs, *given)
    drawings += attempted("scores", "The scores", _distributions, table, headline)
    for place, curve in enumerate(curves):
        stem = f"clip-{place}-{_slug(curve.label)}"
        title = f"The {curve.label} clip"
        drawings += attempted(stem, title, _clip, curve, stem, title)
    return drawings


def attempted(
    name: str, title: str, make: Callable[..., list[Drawing]], *args: Any
) -> list[Drawing]:
    """Returns what a function draws; if it fails, that this figure is left out.

    Whatever a table holds, a report without one of its figures is better than none.
    """
    try:
        return make(*args)
    except Exception as error:
        return [_left_out(name, title, error)]


def _left_out(name: str, title: str, error: Exception) -> Drawing:
    kind = type(error).__name__
    cause = printable(f"{kind}: {error}" if str(error) else kind, _CAUSE)
    logging.warning("the figure %s is left out: %s", name, cause)
    return Drawing(name, None, title, f"This figure could not be drawn: {cause}.")


def write(
    folder: pathlib.Path, drawings: list[Drawing], own: re.Pattern[str] = _OWN
) -> list[tuple[Drawing, bytes]]:
    """Writes each figure as PNG and PDF; returns the figures with their PNGs.

    The PNG of a figure that could not be drawn is empty. Files of figures that an
    earlier report had, and this one has not, are removed.

    Args:
      folder: Made if absent.
      drawings: In the order of the page.
      own: Matches the names of files that may be removed.
    """
    folder.mkdir(exist_ok=True)
    written, names = [], set()
    for drawing in drawings:
        files: dict[str, bytes] = {}
        if drawing.figure is not None:
            try:
                files = _rendered(drawing.figure)
            except Exception as error:
                drawing = _left_out(drawing.name, drawing.title, error)
        for kind, content in files.items():
            write_atomically(folder / f"{drawing.name}.{kind}", content)
            names.add(f"{drawing.name}.{kind}")
        written.append((drawing, files.get("png", b"")))
    for path in folder.iterdir():
        if own.fullmatch(path.name) and path.name not in names:
            path.unlink(missing_ok=True)
    return written


def _rendered(figure: Figure) -> dict[str, bytes]:
    """Returns the contents of the files of a figure, by their endings."""
    contents = {}
    for kind, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
        contents[kind] = buffer.getvalue()
        figure.set_layout_engine("none")  # The PDF takes it over.
    return contents


def _rocs(
    table: ScoreTable,
    name: str,
    place: int,
    which: groups.Comparison,
    baseline: dict[str, Any],
    headline: str,
    beside: str,
) -> list[Drawing]:
    shown = [headline, beside] if beside else [headline]
    curves = [_curve(table, score, which) for score in shown]
    if baseline.get("roc"):
        value = baseline["roc"]["auc"]
        fpr, tpr = (np.array(baseline["roc"][key]) for key in ("fpr", "tpr"))
        blind = plots.Curve(f"all properties, no model, AUC {value:.2f}", fpr, tpr)
        curves.insert(1, blind)
    curves = [curve for curve in curves if curve is not None]
    num = intervals.num_units(table.units[which.nonmembers])
    slug = f"{place}-{_slug(name)}"
    second = f", and {beside}, which a fixed rule names" if beside else ""
    caption = (
        f"{which.description[0].upper()}{which.description[1:]}. The headline score, "
        "what a cross-fitted classifier of sources by all properties of the clips "
        f"together reaches without the model{second}. "
        "The closer to the upper left corner, the better the separation."
    )
    zoomed = (
        "The same on logarithmic axes: what happens at small false-positive rates. "
        f"Grey: below one in {num}, the sources of non-members, nothing is known."
    )
    linear, log = (plots.roc(curves, num, logarithmic=x) for x in (False, True))
    return [
        Drawing(f"roc-{slug}", linear, f"ROC: {name}", caption),
        Drawing(f"roc-log-{slug}", log, f"ROC at small rates: {name}", zoomed),
    ]


def _classical(table: ScoreTable, headline: str) -> str:
    found = [s for s in _CLASSICAL if s in table.scores and s != headline]
    return found[0] if found else ""


def _curve(
    table: ScoreTable, score: str, which: groups.Comparison
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
    return plots.Curve(label, curve.fpr, curve.tpr)


def _distributions(table: ScoreTable, headline: str) -> list[Drawing]:
    shown = plots.series(table)
    how = "Each row has its own height; the line is the median; what lies beyond the "
    how += "axis is counted in the outermost bars."
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
            "They follow from the frames alone, without the model. Where members and "
            f"non-members differ here, the sets differ in content. {how}",
        ),
    ]


def _clip(curve: ClipCurve, name: str, title: str) -> list[Drawing]:
    caption = (
        f"Clip {curve.id} ({plots.NAMES.get(curve.role, curve.role)}), headline score "
        f"{curve.score:.4g}. Mean Sharma-Mittal entropy of the rows of each frame"
    )
    if curve.reversed is None:
        caption += ", of the natural order alone."
    else:
        caption += "; reversed: at the same position of the reversed clip."
    if curve.thumbnails is None:
        caption += " Its frames are not shown"
        caption += f": {curve.missing}." if curve.missing else "."
    return [Drawing(name, plots.clip_curve(curve), title, caption)]


def _slug(text: str) -> str:
    """A short file name; the place before it makes it unique."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "group"
