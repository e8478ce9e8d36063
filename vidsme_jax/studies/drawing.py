"""The figure of a study: AUC over its grid, a panel a comparison."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vidsme_jax.report import plots
from vidsme_jax.report.figures import Drawing

# Okabe and Ito's palette, each with a line style of its own.
_STYLES = (
    *(("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^")),
    *(("#CC79A7", ":", "D"), ("#E69F00", "-", "v"), ("#56B4E9", "--", "P")),
)
_MAX_PANELS = 3
_MAX_LINES = len(_STYLES)
_CHANCE = "Dotted: guessing, 0.5. "
_ENDS = "Bars: 95 % intervals over videos. "

TITLES = {
    "frames": "AUC by number of frames",
    "k": "AUC by the share K of rows that is averaged",
    "scales": "AUC of Vid-SME by beta1 (of q), beta2 (of r) and K",
    "orders": "AUC of Vid-SME: (q, r) of each clip against the same for all",
    "against": "AUC by the order that the natural one is compared with",
    "natural": "AUC of the natural order alone against the difference of two",
}


def draw(found: dict[str, Any], headline: str) -> list[Drawing]:
    """Draws a study; nothing where it compares nothing."""
    names = list(found["comparisons"])[:_MAX_PANELS]
    panels = [
        [p for p in found["points"] if p["comparison"] == n and p["auc"] is not None]
        for n in names
    ]
    if not any(panels):
        return []
    study = found["study"]
    figure, caption = _KINDS[study](names, panels, headline)
    return [Drawing("study", figure, TITLES[study], caption)]


def _lines(
    names: list[str], panels: list[list[dict]], along: str, of: Sequence[str]
) -> Figure:
    """AUC over one coordinate, a line for each value of others."""
    figure, grid = _panels(names, width=3.2, height=3.2)
    labels = {tuple(row[key] for key in of): None for rows in panels for row in rows}
    shown = dict(zip(list(labels)[:_MAX_LINES], _STYLES, strict=False))
    values = sorted({row[along] for rows in panels for row in rows})
    for axes, rows in zip(grid, panels, strict=True):
        for number, (label, (colour, line, marker)) in enumerate(shown.items()):
            its = [row for row in rows if tuple(row[key] for key in of) == label]
            its.sort(key=lambda row: row[along])
            # Apart, so that intervals do not hide each other.
            place = [
                values.index(row[along]) + 0.06 * (number - len(shown) / 2)
                for row in its
            ]
            axes.errorbar(
                place,
                [row["auc"] for row in its],
                yerr=_bars(its),
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=3.5,
                linewidth=1.4,
                elinewidth=0.7,
                label=plots.plain(", ".join(map(str, label))),
            )
        axes.axhline(0.5, color=plots.PALE, linestyle=":", linewidth=1)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set_xlabel(
            {"k": "K, %"}.get(along, along), fontsize=plots.SIZE, color=plots.INK
        )
    _legend(figure, grid[0])
    return figure


def _bars(rows: list[dict]) -> np.ndarray:
    ends = [
        (row["auc"] - low, high - row["auc"])
        for row in rows
        for low, high in [
            (row["auc"], row["auc"])
            if row["auc_low"] is None
            else (row["auc_low"], row["auc_high"])
        ]
    ]
    return np.maximum(np.array(ends).reshape(-1, 2).T, 0)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(3, max(1, len(labels))),
        fontsize=plots.SIZE - 1,
        frameon=False,
        handlelength=3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _panels(names: list[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    size = (max(4.4, width * len(names) + 0.6), height + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(grid, names, strict=True):
        plots.bare(axes)
        axes.set_title(
            plots.plain(name), fontsize=plots.SIZE, color=plots.INK, parse_math=False
        )
    grid[0].set_ylabel("AUC", fontsize=plots.SIZE, color=plots.INK)
    return figure, list(grid)


def _frames(names, panels, headline):
    known = list(dict.fromkeys(row["score"] for rows in panels for row in rows))
    shown = [headline, *(s for s in known if s != headline)][:_MAX_LINES]
    kept = [[row for row in rows if row["score"] in shown] for rows in panels]
    kept = [sorted(rows, key=lambda r: shown.index(r["score"])) for rows in kept]
    return _lines(names, kept, "frames", ("score",)), (
        f"The headline score and the first others that were computed. {_ENDS}{_CHANCE}"
        "At one frame the natural and the reversed clip are the same, so a difference "
        "of the two is 0 for every clip and its AUC 0.5."
    )


def _k(names, panels, headline):
    return _lines(names, panels, "k", ("score",)), (
        f"At K = 0 % the single most extreme row. {_ENDS}{_CHANCE}The first families "
        "of scores that were computed; the table has all."
    )


def _natural(names, panels, headline):
    return _lines(names, panels, "k", ("entropy", "rows")), (
        "Sharma-Mittal entropy, less = member, averaged over the K % smallest or "
        f"largest rows. {_ENDS}{_CHANCE}"
    )


def _orders(names, panels, headline):
    if len({row["k"] for rows in panels for row in rows}) > 1:
        return _lines(names, panels, "k", ("orders",)), (
            f"Adaptive: q from a clip's motion, r from its light. {_ENDS}{_CHANCE}"
        )
    return _forest(names, panels, "orders"), (
        f"Adaptive: q from a clip's motion, r from its light. K = "
        f"{next(row for rows in panels for row in rows)['k']:g} %. {_ENDS}{_CHANCE}"
    )


def _against(names, panels, headline):
    kept = [[row for row in rows if row["score"] == headline] for rows in panels]
    return _forest(names, kept, "against"), (
        f"The headline score, {headline}; a shuffle is one permutation for all clips "
        f"of a length. {_ENDS}{_CHANCE}"
    )


def _forest(names: list[str], panels: list[list[dict]], of: str) -> Figure:
    """AUC with its interval, a line a value."""
    labels = list(dict.fromkeys(row[of] for rows in panels for row in rows))
    figure, grid = _panels(names, width=2.4, height=0.5 + 0.3 * len(labels))
    for axes, rows in zip(grid, panels, strict=True):
        axes.errorbar(
            [row["auc"] for row in rows],
            [labels.index(row[of]) for row in rows],
            xerr=_bars(rows),
            linestyle="none",
            marker="o",
            markersize=4.5,
            color="#0072B2",
        )
        axes.axvline(0.5, color=plots.PALE, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(labels)), [plots.plain(text) for text in labels])
        axes.set_xlabel("AUC", fontsize=plots.SIZE, color=plots.INK)
    grid[0].set_ylim(len(labels) - 0.5, -0.5)
    grid[0].set_ylabel("")
    return figure


def _scales(names, panels, headline):
    """A heat map for each K and comparison, on one scale of colours around 0.5."""
    every = [row for rows in panels for row in rows]
    ks, qs, rs = (sorted({row[key] for row in every}) for key in _SCALES)
    far = max(0.05, *(abs(row["auc"] - 0.5) for row in every))
    figure = Figure(
        figsize=(1.2 + 1.35 * len(ks), 0.9 + 1.35 * len(names)), layout="constrained"
    )
    grid = figure.subplots(len(names), len(ks), squeeze=False, sharex=True, sharey=True)
    picture = None
    for line, name, rows in zip(grid, names, panels, strict=True):
        for axes, k in zip(line, ks, strict=True):
            values = np.full((len(qs), len(rs)), np.nan)
            for row in rows:
                if row["k"] == k:
                    values[qs.index(row["q_scale"]), rs.index(row["r_scale"])] = row[
                        "auc"
                    ]
            picture = axes.imshow(
                values,
                cmap="PuOr",
                vmin=0.5 - far,
                vmax=0.5 + far,
                origin="lower",
                aspect="auto",
            )
            axes.tick_params(labelsize=plots.SIZE - 3, labelcolor=plots.INK)
            axes.set_xticks(range(len(rs)), [f"{r:g}" for r in rs])
            axes.set_yticks(range(len(qs)), [f"{q:g}" for q in qs])
        line[0].set_ylabel(
            f"{plots.plain(name)}\nbeta1", fontsize=plots.SIZE - 1, parse_math=False
        )
    for axes, k in zip(grid[0], ks, strict=True):
        axes.set_title(f"K = {k:g} %", fontsize=plots.SIZE, color=plots.INK)
    for axes in grid[-1]:
        axes.set_xlabel("beta2", fontsize=plots.SIZE - 1, color=plots.INK)
    assert picture is not None, "a grid without panels"
    bar = figure.colorbar(picture, ax=grid, fraction=0.04)
    bar.set_label("AUC", fontsize=plots.SIZE - 1)
    bar.ax.tick_params(labelsize=plots.SIZE - 2)
    return figure, (
        "Colours run over the same range on both sides of guessing, 0.5, in all "
        "panels. The table has the intervals."
    )


_SCALES = ("k", "q_scale", "r_scale")
_KINDS = {
    "frames": _frames,
    "k": _k,
    "scales": _scales,
    "orders": _orders,
    "against": _against,
    "natural": _natural,
}
