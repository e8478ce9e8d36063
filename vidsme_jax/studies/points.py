"""Grids over stored signals: every clip is read once, for all points of a grid.

Axes: `points`, pairs (q, r); `series`, what is averaged over one end of its rows.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vidsme_jax import scores
from vidsme_jax.base import AuditError, Item, ScoredClip, ScoreTable
from vidsme_jax.scores import tables
from vidsme_jax.store.signals import Signals

_Compute = Callable[[ScoredClip], Sequence[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a study: one column of a table, one row of the results.

    Attributes:
      at: Where it is: value by coordinate, such as {"k": 30}.
      score: What is computed there.
      declared: Whether it is the one that was declared before the results were seen.
      note: What a reader must know of it, or "".
    """

    at: dict[str, Any]
    score: str
    declared: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """Of its column."""
        return ", ".join([self.score, *(f"{key} {x}" for key, x in self.at.items())])


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Points whose scores stand in one table, under their names."""

    points: tuple[Point, ...]
    table: ScoreTable


def sheet(
    items: Sequence[Item],
    store: Signals,
    names: Sequence[str],
    headline: str,
    config: ConfigDict,
) -> Sheet:
    """Computes the points of a study that needs nothing but signals.

    Args:
      items: Of the corpus.
      store: The signals.
      names: Of the scores whose K is varied, for the study `k`.
      headline: The score declared in advance.
      config: Of the run; `config.study` is k, scales, orders or natural.

    Raises:
      AuditError: No clip has signals, or the corpus has no range to scale by.
    """
    motion = tables.measured(items, store)
    orders = tables.entropy_orders(motion, config)
    if config.study == "k":
        points, compute = _families(names, headline, orders, config)
    else:
        points, compute = _SME[config.study](motion, orders, headline, config)
    columns = [point.name for point in points]
    table, _ = tables.fill(items, store, columns, compute, orders, config)
    return Sheet(tuple(points), table)


def _ratios(config: ConfigDict) -> list[float]:
    return [k / 100 for k in config.studies.k]


def _families(
    names: Sequence[str], headline: str, orders: dict, config: ConfigDict
) -> tuple[list[Point], _Compute]:
    """Each family of scores that averages one end of its rows, at every K."""
    table, official = scores.TABLES[config.profile], config.profile == "official"
    families: dict[tuple[str, str], str] = {}
    for name in names:
        score = table[name]
        if score.tail != "mean":
            # min_k_prob_10 and Min_10.0% Prob are of the families min_k_prob, Min Prob.
            family = re.sub(r"_\d+$|_[\d.]+%", "", name)
            families.setdefault((score.statistic, score.tail), family)
    if not families:
        raise AuditError(
            [
                f"config.scores is {config.scores!r}: no score that averages the K % "
                "largest or smallest rows, whose K could be varied, such as vid_sme"
            ]
        )
    declared = table[headline]
    points = [
        Point(
            at={"k": k},
            score=family,
            declared=(*which, k / 100)
            == (declared.statistic, declared.tail, declared.ratio),
        )
        for which, family in families.items()
        for k in config.studies.k
    ]
    sign = 1.0 if official else -1.0

    def compute(clip: ScoredClip) -> list[float]:
        q, r = orders[clip.key]
        c = scores.Clipwise(clip.signals, q, r, official)
        rows = {s: scores.ordered_rows(c, s) for s, _ in families}
        return [
            sign * float(scores.tail_mean(rows[statistic], tail, ratio))
            for statistic, tail in families
            for ratio in _ratios(config)
        ]

    return points, compute


def _declared(headline: str, config: ConfigDict) -> tuple[str, float | None]:
    """Tail and K, in percent, of a headline that is a Vid-SME, else of no K."""
    score = scores.TABLES[config.profile][headline]
    is_sme = score.statistic == "sme" and score.tail != "mean"
    return (score.tail, 100 * score.ratio) if is_sme else ("min", None)


def _label(tail: str) -> str:
    return f"vid_sme, {'smallest' if tail == 'min' else 'largest'} rows"


def _scales(
    motion: dict, orders: dict, headline: str, config: ConfigDict
) -> tuple[list[Point], _Compute]:
    """beta1 x beta2 x K."""
    tail, k_declared = _declared(headline, config)
    grid = [(a, b) for a in config.studies.q_scales for b in config.studies.r_scales]
    used = config.motion.q_scale, config.motion.r_scale
    points = [
        Point(
            at={"q_scale": scales[0], "r_scale": scales[1], "k": k},
            score=_label(tail),
            declared=scales == used and k == k_declared,
        )
        for scales in grid
        for k in config.studies.k
    ]
    at = [tables.entropy_orders(motion, config, scales) for scales in grid]
    pairs = {path: np.array([each[path] for each in at]) for path in motion}
    return points, _sme_compute(pairs.__getitem__, config, (tail,), ("difference",))


def _orders(
    motion: dict, orders: dict, headline: str, config: ConfigDict
) -> tuple[list[Point], _Compute]:
    """(q, r) of each clip's own motion and light against the same for all clips."""
    tail, k_declared = _declared(headline, config)
    fixed = config.studies.orders
    names = ["adaptive", *(f"q = {q:g}, r = {r:g}" for q, r in fixed)]
    points = [
        Point(
            at={"orders": name, "k": k},
            score=_label(tail),
            declared=name == "adaptive" and k == k_declared,
        )
        for name in names
        for k in config.studies.k
    ]
    return points, _sme_compute(
        lambda path: np.array([orders[path], *fixed]), config, (tail,), ("difference",)
    )


def _natural(
    motion: dict, orders: dict, headline: str, config: ConfigDict
) -> tuple[list[Point], _Compute]:
    """The entropy of one order of the frames alone, against the difference of two."""
    tail_declared, k_declared = _declared(headline, config)
    second = config.video.against.partition(":")[0]
    whose = {"difference": f"natural less {second}", "natural": "natural only"}
    whose["second"] = f"{second} only"
    points = [
        Point(
            at={"entropy": label, "rows": _TAILS[tail], "k": k},
            score="sme",
            declared=(which, tail, k) == ("difference", tail_declared, k_declared),
        )
        for which, label in whose.items()
        for tail in _TAILS
        for k in config.studies.k
    ]
    return points, _sme_compute(
        lambda path: np.array([orders[path]]), config, tuple(_TAILS), tuple(whose)
    )


def _sme_compute(
    pairs: Callable[[str], np.ndarray],
    config: ConfigDict,
    tails: tuple[str, ...],
    series: tuple[str, ...],
) -> _Compute:
    """Averages of Sharma-Mittal entropies: points x series x tails x K, in this order.

    The Renyi entropy is interpolated once per distinct q, and the rows of each series
    are sorted once for all K.

    Args:
      pairs: The (q, r) of a clip, shape (points, 2), by its path.
      config: Of the run.
      tails: "min", "max".
      series: "difference", "natural", "second".
    """
    sign = 1.0 if config.profile == "official" else -1.0
    ratios = _ratios(config)

    def compute(clip: ScoredClip) -> list[float]:
        q, r = pairs(clip.key).T
        both = scores.sharma_mittal_points(clip.signals, q, r, profile=config.profile)
        kinds = {
            "difference": lambda: both[:, 0] - both[:, 1],
            "natural": lambda: both[:, 0],
            "second": lambda: both[:, 1],
        }
        ordered = np.sort(np.stack([kinds[s]() for s in series], axis=1), axis=-1)
        means = [
            [np.asarray(scores.tail_mean(ordered, tail, ratio)) for ratio in ratios]
            for tail in tails
        ]
        return (sign * np.moveaxis(np.array(means), (0, 1), (2, 3))).ravel().tolist()

    return compute


_TAILS = {"min": "smallest", "max": "largest"}
_SME = {"scales": _scales, "orders": _orders, "natural": _natural}
