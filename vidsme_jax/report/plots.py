"""Plots: each function returns a new `Figure` and keeps no global state."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from vidsme_jax.base import ROLES, ScoreTable
from vidsme_jax.evaluation import metrics

# Okabe and Ito's palette: distinct in every common kind of colour vision.
_COLOURS = {
    "members": "#0072B2",
    "nonmembers": "#D55E00",
    "suspects": "#CC79A7",
    "calibration": "#009E73",
}
NAMES = {role: role.replace("non", "non-") for role in ROLES}
INK, PALE = "#222222", "#999999"
SIZE = 9  # Points.
TEXT: dict[str, Any] = {"fontsize": SIZE, "color": INK}
_POINT: dict[str, Any] = {"fmt": "D", "markersize": 4, "capsize": 3}
_MAX_HISTOGRAMS = 10
_MAX_VERTICES = 600
_MAX_LABEL = 28
BAND = "95 % band of the first, pointwise"
_MAX_PICTURES = 8  # Of one clip.

Point = tuple[float, float, float | None, float | None]  # FPR, TPR, its interval.


class Band(NamedTuple):
    """A pointwise confidence interval of the TPR at some false-positive rates."""

    fpr: Float[np.ndarray, " rates"]
    low: Float[np.ndarray, " rates"]
    high: Float[np.ndarray, " rates"]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A ROC curve of a figure.

    Attributes:
      label: Its name in the legend.
      fpr: Of its vertices.
      tpr: Of its vertices.
      band: Its confidence band, if there is one.
      points: Rates that the report states; an end of an interval may be None.
    """

    label: str
    fpr: Float[np.ndarray, " vertices"]
    tpr: Float[np.ndarray, " vertices"]
    band: Band | None = None
    points: tuple[Point, ...] = ()


@functools.cache
def _drawable() -> frozenset[int]:
    font = font_manager.findfont("DejaVu Sans")
    return frozenset(font_manager.get_font(font).get_charmap())


def plain(text: str) -> str:
    """Returns a label that the font can draw on one line of 28 characters.

    Example:
      >>> plain("a\\n" + "b" * 40)
      'a\ufffdbbbbbbbbbbbbbbbbbbbbbbbbb…'
    """
    text = "".join(
        c if ord(c) in _drawable() and c.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"


def bare(axes: Axes) -> None:
    """Removes the upper and the right frame, and makes the rest pale."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(PALE)
    axes.tick_params(labelsize=SIZE - 1, color=PALE, labelcolor=INK)


def roc(curves: list[Curve], num_nonmembers: int, *, logarithmic: bool) -> Figure:
    """Draws ROC curves, at most three; the first has the thickest line.

    Args:
      curves: Vertices from (0, 0) to (1, 1).
      num_nonmembers: Sources; rates below 1 / num_nonmembers are not resolved.
      logarithmic: Whether both axes are, from half that rate up.
    """
    figure = Figure(figsize=(4.4, 5.2), layout="constrained")
    axes = figure.subplots()
    bare(axes)
    resolution = 1 / num_nonmembers
    low = resolution / 2 if logarithmic else 0.0
    styles = (("#0072B2", "-", 2.2), ("#D55E00", "--", 1.8), ("#009E73", "-.", 1.4))
    line = np.geomspace(low, 1, 50) if logarithmic else np.array([0.0, 1.0])
    axes.plot(line, line, color=PALE, linewidth=1, linestyle=":", label="chance")
    for curve, (colour, style, width) in zip(curves, styles, strict=False):
        chosen = _thinned(len(curve.fpr))
        fpr, tpr = (np.maximum(x[chosen], low) for x in (curve.fpr, curve.tpr))
        axes.plot(fpr, tpr, style, color=colour, linewidth=width, label=curve.label)
        if curve.band is not None:
            at, under, over = (np.maximum(x, low) for x in curve.band)
            shade: dict[str, Any] = {"alpha": 0.18, "linewidth": 0, "label": BAND}
            axes.fill_between(at, under, over, color=colour, **shade)
        for at, value, *ends in curve.points if logarithmic else ():
            bars = [0.0 if x is None else abs(value - x) for x in ends]
            bars[0] = min(bars[0], value - low)  # Down to the edge of the axes.
            error = np.maximum(bars, 0.0)[:, None]
            axes.errorbar(at, max(value, low), error, color=INK, **_POINT)
    if logarithmic:
        axes.axvspan(low, resolution, color="#eeeeee", zorder=0, linewidth=0)
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.set_minor_locator(NullLocator())
    axes.set(xlim=(low, 1), ylim=(low, 1.02 if not logarithmic else 1.1))
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel("false-positive rate", **TEXT)
    axes.set_ylabel("true-positive rate", **TEXT)
    legend(figure, axes, fontsize=SIZE)
    return figure


def legend(figure: Figure, axes: Axes, **style: Any) -> None:
    """Adds the legend of some axes below a figure; no name is read as a formula."""
    made = figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        frameon=False,
        handlelength=3,
        **style,
    )
    for text in made.get_texts():
        text.set_parse_math(False)


def _thinned(num_vertices: int) -> Int[np.ndarray, " drawn"]:
    """Returns the vertices to draw: all, or as many as a figure shows, dense near 0."""
    if num_vertices <= _MAX_VERTICES:
        return np.arange(num_vertices)
    return metrics.thinned(num_vertices, _MAX_VERTICES)


@dataclasses.dataclass(frozen=True)
class Series:
    """The items of one role, or one group of it, of a histogram."""

    label: str
    role: str
    rows: Bool[np.ndarray, " items"]


def series(table: ScoreTable) -> list[Series]:
    """Returns all roles, then their largest groups, at most ten in all."""
    roles = [role for role in ROLES if (table.role == role).any()]
    found = [Series(NAMES[role], role, table.role == role) for role in roles]
    inside: list[tuple[int, int, str, str]] = []
    for role in roles:
        groups = np.unique(table.group[table.role == role], return_counts=True)
        for group, count in zip(*(each.tolist() for each in groups), strict=True):
            if group:
                inside.append((-count, len(inside), role, group))
    largest = sorted(inside)[: max(0, _MAX_HISTOGRAMS - len(found))]
    for _, _, role, group in sorted(largest, key=lambda each: roles.index(each[2])):
        rows = (table.role == role) & (table.group == group)
        found.append(Series(f"{NAMES[role]}: {group}", role, rows))
    return found


def histograms(
    columns: dict[str, Float[np.ndarray, " items"]], shown: list[Series]
) -> Figure:
    """Draws small histograms: a row per series, a column per quantity, axes shared.

    The axis spans the middle 98 %; values beyond are counted in the outermost bins. A
    line marks the median.

    Args:
      columns: The quantities, by title.
      shown: The series.
    """
    figure = Figure(
        figsize=(4.8, 0.7 + 0.5 * len(shown)),
        layout=ConstrainedLayoutEngine(w_pad=0.12),
    )
    grid = figure.subplots(len(shown), len(columns), squeeze=False, sharex="col")
    for column, (title, values) in enumerate(columns.items()):
        finite = values[np.isfinite(values)]
        low, high = (
            np.percentile(finite, [1, 99]).tolist() if len(finite) else (0.0, 1.0)
        )
        if not high - low > 1e-9 * max(abs(low), abs(high)):
            low, high = low - 0.5, high + 0.5
        for axes, each in zip(grid[:, column], shown, strict=True):
            _histogram(axes, values[each.rows], low, high, each.role)
            if column == 0:
                text = f"{plain(each.label)}\n{int(each.rows.sum())} items"
                style = TEXT | {"fontsize": SIZE - 1, "ha": "right", "va": "center"}
                axes.set_ylabel(text, rotation=0, parse_math=False, **style)
        grid[-1, column].set_xlabel(plain(title), parse_math=False, **TEXT)
    return figure


def _histogram(
    axes: Axes, values: Float[np.ndarray, " items"], low: float, high: float, role: str
) -> None:
    bare(axes)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    values = values[np.isfinite(values)]
    if not len(values):
        return
    bins = int(np.clip(2 * len(values) ** (1 / 3), 12, 60))
    counts, edges = np.histogram(np.clip(values, low, high), bins, (low, high))
    axes.stairs(counts, edges, fill=True, color=_COLOURS[role], alpha=0.75)
    axes.axvline(np.clip(np.median(values), low, high), color=INK, linewidth=1.2)
    axes.set_ylim(0, 1.1 * counts.max())


def pictured(num_frames: int) -> range:
    """Returns the indices of the frames of a clip that are shown, at most 8.

    Example:
      >>> list(pictured(12))
      [0, 2, 4, 6, 8, 10]
    """
    return range(0, num_frames, -(-num_frames // _MAX_PICTURES) or 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipCurve:
    """The Sharma-Mittal entropy of one clip, frame by frame, for the report.

    Attributes:
      label: Such as "most member-like", by the headline score.
      id: Of its row.
      role: Of its row.
      score: The headline score.
      frame_indices: In the file.
      natural: Mean SME of each frame's rows, natural order.
      reversed: The same at the positions of the reversed clip; None if not scored.
      thumbnails: Small pictures of the frames at `pictured(len(frame_indices))`, if
        there are any.
      missing: Why there are no thumbnails.
    """

    label: str
    id: str
    role: str
    score: float
    frame_indices: tuple[int, ...]
    natural: Float[np.ndarray, " frames"]
    reversed: Float[np.ndarray, " frames"] | None
    thumbnails: UInt8[np.ndarray, "pictures height width 3"] | None
    missing: str = ""


def clip_curve(curve: ClipCurve) -> Figure:
    """Draws the Sharma-Mittal entropy of each direction by frame, above the frames."""
    num = len(curve.frame_indices)
    shown = pictured(num)
    pictures = curve.thumbnails is not None
    figure = Figure(figsize=(4.8, 3.5 if pictures else 2.5))
    bottom = 0.44 if pictures else 0.2
    axes = figure.add_axes((0.13, bottom, 0.65, 0.96 - bottom))
    bare(axes)
    ends: list[tuple[float, str, str]] = []
    for values, label, colour, style in (
        (curve.natural, "natural order", "#0072B2", "o-"),
        (curve.reversed, "reversed", "#D55E00", "s--"),
    ):
        if values is None:
            continue
        axes.plot(values, style, color=colour, markersize=3)
        ends.append((float(values[-1]), label, colour))
    axes.set_xlim(-0.5, num - 0.5)
    _end_labels(axes, ends)
    axes.set_xticks(shown, [str(curve.frame_indices[i]) for i in shown])
    axes.set_ylabel("entropy of the frame's rows", **TEXT)
    axes.set_xlabel("frame of the file", **TEXT)
    if curve.thumbnails is not None:
        width = 0.97 / len(shown)
        for k, i in enumerate(shown):
            box = figure.add_axes((0.015 + k * width, 0.0, 0.95 * width, 0.22))
            box.imshow(curve.thumbnails[k])
            box.set_axis_off()
            box.set_title(str(curve.frame_indices[i]), fontsize=SIZE - 1, color=INK)
    return figure


def _end_labels(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Labels lines (end, label, colour) at the right, without overlap of labels."""
    low, high = axes.get_ylim()
    gap = 0.09 * (high - low)
    ends = sorted(ends)
    heights = [end if np.isfinite(end) else low for end, _, _ in ends]
    if len(heights) > 1 and heights[1] - heights[0] < gap:
        middle = sum(heights) / 2
        heights = [middle - gap / 2, middle + gap / 2]
    for height, (_, label, colour) in zip(heights, ends, strict=True):
        at = axes.get_yaxis_transform()  # x in parts of the axes, y in the data's unit.
        text = axes.text(1.01, height, label, va="center", transform=at)
        text.set(color=colour, fontsize=SIZE)
