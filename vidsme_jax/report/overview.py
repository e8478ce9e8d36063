"""Plots of a whole comparison: AUC by score, and p by number of sources."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from vidsme_jax.report import plots
from vidsme_jax.report.plots import INK, PALE, SIZE, TEXT

MAX_BARS = 30


@dataclasses.dataclass(frozen=True)
class Bar:
    """The AUC of one score.

    Attributes:
      label: The name of the score.
      auc: Its `value`, `low` and `high`, the last two possibly None.
      role: Its declared role, such as "headline"; "" for an exploratory score.
    """

    label: str
    auc: dict[str, Any]
    role: str = ""


def bars(shown: Sequence[Bar], lines: Mapping[str, float]) -> Figure:
    """Draws AUCs with intervals, a line per score, and others to compare with.

    Args:
      shown: From the top; markers of scores with a role are filled.
      lines: AUCs without or of another model, by name; at most two.
    """
    figure = Figure(figsize=(4.6, 1.35 + 0.21 * len(shown)), layout="constrained")
    axes = figure.subplots()
    plots.bare(axes)
    axes.axvline(0.5, color=PALE, linewidth=1, linestyle=":", label="guessing, 0.50")
    styles = ("#D55E00", "--"), ("#009E73", "-.")
    for (name, value), (colour, style) in zip(lines.items(), styles, strict=False):
        label = f"{name}, {value:.2f}"
        axes.axvline(value, color=colour, linewidth=1.6, linestyle=style, label=label)
    for place, each in enumerate(shown):
        value, low, high = (each.auc[key] for key in ("value", "low", "high"))
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color="#0072B2", linewidth=1.6)
        face = "#0072B2" if each.role else "none"
        marker: dict[str, Any] = {"marker": "D" if each.role else "o", "mfc": face}
        axes.plot(
            [value], [place], color="#0072B2", markersize=5, clip_on=False, **marker
        )
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(*_limits(shown, lines))
    names = [_named(each) for each in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=SIZE - 1)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("AUC with its 95 % interval", **TEXT)
    plots.legend(figure, axes, fontsize=SIZE - 1, ncols=min(2, 1 + len(lines)))
    return figure


def _limits(shown: Sequence[Bar], lines: Mapping[str, float]) -> tuple[float, float]:
    ends = [0.5, *lines.values()]
    for each in shown:
        ends += [
            x for x in map(each.auc.get, ("value", "low", "high")) if x is not None
        ]
    low, high = min(ends), max(ends)
    return max(-0.01, low - 0.04), min(1.015, high + 0.04)


def _named(bar: Bar) -> str:
    label = plots.plain(bar.label)
    return f"{label} ({bar.role})" if bar.role else label


def p_by_number(points: Sequence[tuple[int, float]], alpha: float, what: str) -> Figure:
    """Draws the median p of random subsets by their size.

    Args:
      points: Sizes, ascending, each with its p; the last is the whole set.
      alpha: The level of the test.
      what: What is counted, for the axis.
    """
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    plots.bare(axes)
    numbers, p_values = zip(*points, strict=True)
    floor = min(alpha, *p_values)
    axes.axhline(alpha, color="#D55E00", linestyle="--", linewidth=1.4)
    axes.plot(numbers, p_values, "o-", color="#0072B2", markersize=4)
    axes.plot(numbers[-1:], p_values[-1:], "D", color=INK, markersize=6)
    axes.set(xscale="log", yscale="log")
    left, right = numbers[0] / 1.25, numbers[-1] * 1.6
    axes.set_xlim(left, right)
    axes.set_ylim(floor / 1.6, 1.3)
    style: dict[str, Any] = {"fontsize": SIZE - 1, "va": "bottom", "ha": "right"}
    axes.text(right, alpha * 1.05, f"level {alpha:g}", color="#D55E00", **style)
    axes.set_xticks(_spaced(numbers), [f"{n}" for n in _spaced(numbers)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(what, **TEXT)
    axes.set_ylabel("p (median of subsets)", **TEXT)
    return figure


def _spaced(numbers: Sequence[int]) -> list[int]:
    """Returns the numbers whose digits do not overlap on a logarithmic axis."""
    spaced = [numbers[-1]]
    for number in reversed(numbers):
        if number * 1.7 <= spaced[-1]:
            spaced.append(number)
    return spaced[::-1]
