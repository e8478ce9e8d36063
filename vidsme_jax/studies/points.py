"""Grids over stored signals: every clip is read once, for all points of a grid.

Axes: `points`, pairs (q, r); `series`, what is averaged over one end of its rows.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vidsme_jax import scores
from vidsme_jax.base import AuditError, Item, ScoredClip, ScoreTable
from vidsme_jax.scores import statistics, tables
from vidsme_jax.scores.profile import Profile, Score, tail_mean
from vidsme_jax.settings import views
from vidsme_jax.store.signals import Signals

_Compute = Callable[[ScoredClip], Sequence[float]]
_QR = dict[str, tuple[float, float]]  # (q, r) by clip.


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
    settings: views.Settings,
) -> Sheet:
    """Computes the points of a study that needs nothing but signals.

    Args:
      items: Of the corpus.
      store: The signals.
      names: Of the scores whose K is varied, for the study `k`.
      headline: The score declared in advance.
      settings: Of the run; `settings.study` is k, scales, orders or natural.

    Raises:
      AuditError: No clip has signals, or the corpus has no range to scale by.
    """
    motion = tables.measured(items, store)
    orders = tables.entropy_orders(motion, settings.motion)
    if settings.study == "k":
        points, compute = _families(names, headline, orders, settings)
    else:
        points, compute = _SME[settings.study](motion, orders, headline, settings)
    columns = [point.name for point in points]
    table, _ = tables.fill(items, store, columns, compute, orders, settings.profile)
    return Sheet(tuple(points), table)


def _families(
    names: Sequence[str], headline: str, orders: _QR, settings: views.Settings
) -> tuple[list[Point], _Compute]:
    """Returns each family of scores that averages one end of its rows, at every K."""
    profile = scores.PROFILES[settings.profile]
    families = {}
    for name in names:
        score = profile.table[name]
        if score.tail != "mean":
            families.setdefault((score.statistic, score.tail), score)
    if not families:
        raise AuditError(
            [
                f"config.scores is {settings.scores!r}: no score that averages the K % "
                "largest or smallest rows, whose K could be varied, such as vid_sme"
            ]
        )
    points, table = [], {}
    for score in families.values():
        for k in settings.studies.k:
            its = dataclasses.replace(score, ratio=k / 100)
            is_declared = _averaged(its) == _averaged(profile.table[headline])
            point = Point(at={"k": k}, score=score.family, declared=is_declared)
            points.append(point)
            table[point.name] = its
    grid = dataclasses.replace(profile, table=table)

    def compute(clip: ScoredClip) -> list[float]:
        return list(grid.compute(clip.signals, *orders[clip.key], table).values())

    return points, compute


def _averaged(score: Score) -> tuple:
    return score.statistic, score.tail, score.ratio


def _declared(headline: str, profile: Profile) -> tuple[str, float | None]:
    """Returns tail and K, in percent, of a headline that is a Vid-SME, else no K."""
    score = profile.table[headline]
    is_sme = score.statistic is statistics.vid_sme and score.tail != "mean"
    return (score.tail, 100 * score.ratio) if is_sme else ("min", None)


def _sme_point(tail: str, at: dict[str, Any], place: tuple, declared: tuple) -> Point:
    score = f"vid_sme, {_TAILS[tail]} rows"
    return Point(at=at, score=score, declared=place == declared)


def _scales(
    motion: dict, orders: _QR, headline: str, settings: views.Settings
) -> tuple[list[Point], _Compute]:
    """Returns the grid beta1 x beta2 x K."""
    profile, values = scores.PROFILES[settings.profile], settings.studies
    tail, k_declared = _declared(headline, profile)
    grid = [(a, b) for a in values.q_scales for b in values.r_scales]
    declared = settings.motion.q_scale, settings.motion.r_scale, k_declared
    points = [
        _sme_point(tail, {"q_scale": a, "r_scale": b, "k": k}, (a, b, k), declared)
        for a, b in grid
        for k in values.k
    ]
    at = [tables.entropy_orders(motion, settings.motion, scales) for scales in grid]
    pairs = {path: np.array([each[path] for each in at]) for path in motion}
    return points, _sme_compute(pairs, profile, values.k, (tail,))


def _orders(
    motion: dict, orders: _QR, headline: str, settings: views.Settings
) -> tuple[list[Point], _Compute]:
    """Returns (q, r) by each clip's motion and brightness, and the same for all."""
    profile, values = scores.PROFILES[settings.profile], settings.studies
    tail, k_declared = _declared(headline, profile)
    names = ["adaptive", *(f"q = {q:g}, r = {r:g}" for q, r in values.orders)]
    declared = "adaptive", k_declared
    points = [
        _sme_point(tail, {"orders": name, "k": k}, (name, k), declared)
        for name in names
        for k in values.k
    ]
    pairs = {path: np.array([own, *values.orders]) for path, own in orders.items()}
    return points, _sme_compute(pairs, profile, values.k, (tail,))


def _natural(
    motion: dict, orders: _QR, headline: str, settings: views.Settings
) -> tuple[list[Point], _Compute]:
    """Returns points of the entropy of one order, against the difference of two."""
    profile, ks = scores.PROFILES[settings.profile], settings.studies.k
    tail_declared, k_declared = _declared(headline, profile)
    second = settings.video.against.partition(":")[0]
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
        for k in ks
    ]
    pairs = {path: np.array([own]) for path, own in orders.items()}
    return points, _sme_compute(pairs, profile, ks, tuple(_TAILS), tuple(whose))


def _sme_compute(
    pairs: dict[str, np.ndarray],
    profile: Profile,
    ks: Sequence[views.Number],
    tails: tuple[str, ...],
    series: tuple[str, ...] = ("difference",),
) -> _Compute:
    """Averages Sharma-Mittal entropies: points x series x tails x K, in this order.

    The Renyi entropy is interpolated once per distinct q, and the rows of each series
    are sorted once for all K.

    Args:
      pairs: The (q, r) of each clip, shape (points, 2), by its key.
      profile: Of the scores.
      ks: K, in percent.
      tails: "min", "max".
      series: "difference", "natural", "second".
    """

    def compute(clip: ScoredClip) -> list[float]:
        assert clip.signals is not None, "a study of a run without the video's rows"
        natural, second = np.moveaxis(
            profile.sharma_mittal(clip.signals, *pairs[clip.key].T), 1, 0
        )
        kinds = {"difference": natural - second, "natural": natural, "second": second}
        ordered = np.sort(np.stack([kinds[s] for s in series], axis=1), axis=-1)
        means = [[tail_mean(ordered, tail, k / 100) for k in ks] for tail in tails]
        by_point = np.moveaxis(profile.sign * np.array(means), (0, 1), (2, 3))
        return by_point.ravel().tolist()

    return compute


_TAILS = {"min": "smallest", "max": "largest"}
_SME = {"scales": _scales, "orders": _orders, "natural": _natural}
