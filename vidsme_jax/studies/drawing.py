"""Draws the figure of a study: AUC over its grid, one panel per comparison."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vidsme_jax.report import plots
from vidsme_jax.report.figures import Drawing, attempted

# Okabe and Ito's palette, each colour with another line style.
_STYLES = (
    *(("#0072B2", "o-"), ("#D55E00", "s--"), ("#009E73", "^-.")),
    *(("#CC79A7", "D:"), ("#E69F00", "v-"), ("#56B4E9", "P--")),
)
Row = dict[str, Any]  # Of `study.json`.
Panels = list[list[Row]]  # The rows of each comparison.
Drawn = tuple[Figure, str]  # A figure and its caption.
_MAX_PANELS = 3
_MAX_LINES = len(_STYLES)
_LINE: dict[str, Any] = {"markersize": 3.5, "linewidth": 1.4, "elinewidth": 0.7}
_GUESSING: dict[str, Any] = {"color": plots.PALE, "linestyle": ":", "linewidth": 1}
_CHANCE = "Dotted: guessing, 0.5. "
_ENDS = "Bars: 95 % intervals over videos. "


def draw(found: dict[str, Any], headline: str) -> list[Drawing]:
    """Draws a study by its `study.json`; nothing if no point has an AUC."""
    names = list(found["comparisons"])[:_MAX_PANELS]
    panels = [
        [p for p in found["points"] if p["comparison"] == n and p["auc"] is not None]
        for n in names
    ]
    if not any(panels):
        return []
    title, drawn = KINDS[found["study"]]

    def make() -> list[Drawing]:
        figure, caption = drawn(names, panels, headline)
        return [Drawing("study", figure, title, caption)]

    return attempted("study", title, make)


def _lines(names: list[str], panels: Panels, along: str, of: Sequence[str]) -> Figure:
    """Draws AUC over a coordinate, `along`; a line for each value of fields `of`."""
    figure, grid = _panels(names, width=3.2, height=3.2)
    labels = {tuple(row[key] for key in of): None for rows in panels for row in rows}
    shown = dict(zip(list(labels)[:_MAX_LINES], _STYLES, strict=False))
    values = sorted({row[along] for rows in panels for row in rows})
    for axes, rows in zip(grid, panels, strict=True):
        for number, (label, (colour, style)) in enumerate(shown.items()):
            line = [row for row in rows if tuple(row[key] for key in of) == label]
            line.sort(key=lambda row: row[along])
            # Shifted, so that intervals do not hide each other.
            aside = 0.06 * (number - len(shown) / 2)
            axes.errorbar(
                [values.index(row[along]) + aside for row in line],
                [row["auc"] for row in line],
                _bars(line),
                fmt=style,
                color=colour,
                label=plots.plain(", ".join(map(str, label))),
                **_LINE,
            )
        axes.axhline(0.5, **_GUESSING)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set_xlabel("K, %" if along == "k" else along, **plots.TEXT)
    columns = min(3, max(1, len(shown)))
    plots.legend(figure, grid[0], ncols=columns, fontsize=plots.SIZE - 1)
    return figure


def _bars(rows: list[Row]) -> Float[np.ndarray, "2 rows"]:
    """Returns how far intervals reach below and above the AUC; 0 without interval."""
    ends = [
        (row["auc"] - row["auc_low"], row["auc_high"] - row["auc"])
        if row["auc_low"] is not None
        else (0.0, 0.0)
        for row in rows
    ]
    return np.maximum(np.array(ends).reshape(-1, 2).T, 0)


def _panels(names: list[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure with one panel per comparison, each of `width` x `height`."""
    size = (max(4.4, width * len(names) + 0.6), height + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(grid, names, strict=True):
        plots.bare(axes)
        axes.set_title(plots.plain(name), parse_math=False, **plots.TEXT)
    grid[0].set_ylabel("AUC", **plots.TEXT)
    return figure, list(grid)


def _frames(names: list[str], panels: Panels, headline: str) -> Drawn:
    known = list(dict.fromkeys(row["score"] for rows in panels for row in rows))
    shown = [headline, *(s for s in known if s != headline)][:_MAX_LINES]
    chosen = [[r for s in shown for r in rows if r["score"] == s] for rows in panels]
    return _lines(names, chosen, "frames", ("score",)), (
        f"The headline score and the first of the others. {_ENDS}{_CHANCE}"
        "At one frame the natural and the reversed clip are the same, so a difference "
        "of the two is 0 for every clip and its AUC 0.5."
    )


def _k(names: list[str], panels: Panels, headline: str) -> Drawn:
    return _lines(names, panels, "k", ("score",)), (
        f"At K = 0 % the single most extreme row. {_ENDS}{_CHANCE}The first families "
        "of scores; the table has all."
    )


def _natural(names: list[str], panels: Panels, headline: str) -> Drawn:
    return _lines(names, panels, "k", ("entropy", "rows")), (
        "Sharma-Mittal entropy, less = member, averaged over the K % smallest or "
        f"largest rows. {_ENDS}{_CHANCE}"
    )


def _orders(names: list[str], panels: Panels, headline: str) -> Drawn:
    adaptive = "Adaptive: q by a clip's motion, r by its brightness. "
    k, *more = {row["k"] for rows in panels for row in rows}
    if more:
        figure = _lines(names, panels, "k", ("orders",))
        return figure, f"{adaptive}{_ENDS}{_CHANCE}"
    figure = _forest(names, panels, "orders")
    return figure, f"{adaptive}K = {k:g} %. {_ENDS}{_CHANCE}"


def _against(names: list[str], panels: Panels, headline: str) -> Drawn:
    chosen = [[row for row in rows if row["score"] == headline] for rows in panels]
    return _forest(names, chosen, "against"), (
        f"The headline score, {headline}; a shuffle is one permutation for all clips "
        f"of a length. {_ENDS}{_CHANCE}"
    )


def _forest(names: list[str], panels: Panels, of: str) -> Figure:
    """Draws AUC with its interval, a line for each value of a field."""
    labels = list(dict.fromkeys(row[of] for rows in panels for row in rows))
    figure, grid = _panels(names, width=2.4, height=0.5 + 0.3 * len(labels))
    for axes, rows in zip(grid, panels, strict=True):
        axes.errorbar(
            [row["auc"] for row in rows],
            [labels.index(row[of]) for row in rows],
            xerr=_bars(rows),
            fmt="o",
            markersize=4.5,
            color="#0072B2",
        )
        axes.axvline(0.5, **_GUESSING)
        axes.set_yticks(range(len(labels)), [plots.plain(text) for text in labels])
        axes.set_xlabel("AUC", **plots.TEXT)
    grid[0].set_ylim(len(labels) - 0.5, -0.5)
    grid[0].set_ylabel("")
    return figure


def _scales(names: list[str], panels: Panels, headline: str) -> Drawn:
    """Draws a heat map for each K and comparison, on one colour scale around 0.5."""
    every = [row for rows in panels for row in rows]
    keys = ("k", "q_scale", "r_scale")
    ks, qs, rs = (sorted({row[key] for row in every}) for key in keys)
    far = max(0.05, *(abs(row["auc"] - 0.5) for row in every))
    size = (1.2 + 1.35 * len(ks), 0.9 + 1.35 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(names), len(ks), squeeze=False, sharex=True, sharey=True)
    colours: dict[str, Any] = {"cmap": "PuOr", "vmin": 0.5 - far, "vmax": 0.5 + far}
    small: dict[str, Any] = {"fontsize": plots.SIZE - 1}
    for line, name, rows in zip(grid, names, panels, strict=True):
        values = np.full((len(ks), len(qs), len(rs)), np.nan)
        for row in rows:
            at = ks.index(row["k"]), qs.index(row["q_scale"]), rs.index(row["r_scale"])
            values[at] = row["auc"]
        for axes, aucs in zip(line, values, strict=True):
            axes.imshow(aucs, origin="lower", aspect="auto", **colours)
            axes.tick_params(labelsize=plots.SIZE - 3, labelcolor=plots.INK)
            axes.set_xticks(range(len(rs)), [f"{r:g}" for r in rs])
            axes.set_yticks(range(len(qs)), [f"{q:g}" for q in qs])
        line[0].set_ylabel(f"{plots.plain(name)}\nbeta1", parse_math=False, **small)
    for axes, k in zip(grid[0], ks, strict=True):
        axes.set_title(f"K = {k:g} %", **plots.TEXT)
    for axes in grid[-1]:
        axes.set_xlabel("beta2", color=plots.INK, **small)
    bar = figure.colorbar(grid[0, 0].images[0], ax=grid, fraction=0.04)
    bar.set_label("AUC", **small)
    bar.ax.tick_params(labelsize=plots.SIZE - 2)
    return figure, (
        "The colour scale is the same in all panels and symmetric around guessing, "
        "0.5. The table has the intervals."
    )


# By study: the title, and the function that draws figure and caption.
KINDS = {
    "frames": ("AUC by number of frames", _frames),
    "k": ("AUC by the share K of rows that is averaged", _k),
    "scales": ("AUC of Vid-SME by beta1 (of q), beta2 (of r) and K", _scales),
    "orders": ("AUC of Vid-SME: (q, r) of each clip against the same for all", _orders),
    "against": ("AUC by the order that the natural one is compared with", _against),
    "natural": (
        "AUC of the natural order alone against the difference of two",
        _natural,
    ),
}
