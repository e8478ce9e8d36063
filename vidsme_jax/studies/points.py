"""Grids over stored signals: every clip is read once, for all points of a grid.

Axes: `points`, pairs (q, r); `series`, the entropies that are averaged over one end of
their rows.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from vidsme_jax import scores
from vidsme_jax.base import AuditError, Item, MotionStatistics, ScoredClip, ScoreTable
from vidsme_jax.scores import statistics, tables
from vidsme_jax.scores.profile import Profile, Score, tail_mean
from vidsme_jax.settings import views
from vidsme_jax.store.signals import Signals

_Compute = Callable[[ScoredClip], Sequence[float]]
_Motion = dict[str, MotionStatistics]  # By clip.
_QR = dict[str, tuple[float, float]]  # (q, r) by clip.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a study: one column of a table, one row of the results.

    Attributes:
      at: Its coordinates, such as {"k": 30}.
      score: The name of the score.
      declared: Whether it was declared before the results were seen.
      note: A remark for the reader, or "".
    """

    at: dict[str, int | float | str]
    score: str
    declared: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """Returns the name of its column."""
        return ", ".join([self.score, *(f"{key} {x}" for key, x in self.at.items())])


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Points, and a table with their scores, by the names of the points."""

    points: tuple[Point, ...]
    table: ScoreTable


def sheet(
    items: Sequence[Item],
    store: Signals,
    names: Sequence[str],
    headline: str,
    settings: views.Settings,
) -> Sheet:
    """Computes the points of a study that needs the signals of one run.

    Args:
      items: The corpus.
      store: The signals.
      names: The scores whose K is varied, for the study `k`.
      headline: The score declared in advance.
      settings: The settings; `settings.study` is k, scales, orders or natural.

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
    families: dict[object, Score] = {}
    for name in names:
        score = profile.table[name]
        if score.tail != "mean":
            families.setdefault((score.statistic, score.tail), score)
    if not families:
        raise AuditError(
            [
                f"config.scores is {settings.scores!r}; the study k needs a score that "
                "averages the K % largest or smallest rows, such as vid_sme"
            ]
        )
    points, table = list[Point](), dict[str, Score]()
    for score in families.values():
        for k in settings.studies.k:
            varied = dataclasses.replace(score, ratio=k / 100)
            is_declared = _averaged(varied) == _averaged(profile.table[headline])
            point = Point(at={"k": k}, score=score.family, declared=is_declared)
            points.append(point)
            table[point.name] = varied
    grid = dataclasses.replace(profile, table=table)

    def compute(clip: ScoredClip) -> list[float]:
        return list(grid.compute(clip.signals, *orders[clip.key], table).values())

    return points, compute


def _averaged(score: Score) -> tuple[object, str, float]:
    return score.statistic, score.tail, score.ratio


def _declared(headline: str, profile: Profile) -> tuple[str, float | None]:
    """Returns tail and K, in percent, of a headline that is a Vid-SME; else no K."""
    score = profile.table[headline]
    is_sme = score.statistic is statistics.vid_sme and score.tail != "mean"
    return (score.tail, 100 * score.ratio) if is_sme else ("min", None)


def _sme_points(
    tail: str,
    keys: tuple[str, ...],
    grid: Sequence[tuple[int | float | str, ...]],
    declared: tuple[int | float | str | None, ...],
) -> list[Point]:
    score = f"vid_sme, {_TAILS[tail]} rows"
    return [
        Point(at=dict(zip(keys, at, strict=True)), score=score, declared=at == declared)
        for at in grid
    ]


def _scales(
    motion: _Motion, orders: _QR, headline: str, settings: views.Settings
) -> tuple[list[Point], _Compute]:
    """Returns the grid beta1 x beta2 x K."""
    profile, values = scores.PROFILES[settings.profile], settings.studies
    tail, k_declared = _declared(headline, profile)
    grid = [(a, b) for a in values.q_scales for b in values.r_scales]
    declared = settings.motion.q_scale, settings.motion.r_scale, k_declared
    places = [(*pair, k) for pair in grid for k in values.k]
    points = _sme_points(tail, ("q_scale", "r_scale", "k"), places, declared)
    at = [tables.entropy_orders(motion, settings.motion, scales) for scales in grid]
    pairs = {path: np.array([each[path] for each in at]) for path in motion}
    return points, _sme_compute(pairs, profile, values.k, (tail,))


def _orders(
    motion: _Motion, orders: _QR, headline: str, settings: views.Settings
) -> tuple[list[Point], _Compute]:
    """Returns points with (q, r) of each clip, and with the same (q, r) for all."""
    profile, values = scores.PROFILES[settings.profile], settings.studies
    tail, k_declared = _declared(headline, profile)
    names = ["adaptive", *(f"q = {q:g}, r = {r:g}" for q, r in values.orders)]
    places = [(name, k) for name in names for k in values.k]
    points = _sme_points(tail, ("orders", "k"), places, ("adaptive", k_declared))
    pairs = {path: np.array([own, *values.orders]) for path, own in orders.items()}
    return points, _sme_compute(pairs, profile, values.k, (tail,))


def _natural(
    motion: _Motion, orders: _QR, headline: str, settings: views.Settings
) -> tuple[list[Point], _Compute]:
    """Returns points of the entropy of one frame order, and of the difference."""
    profile, ks = scores.PROFILES[settings.profile], settings.studies.k
    tail_declared, k_declared = _declared(headline, profile)
    second = settings.video.against.partition(":")[0]
    labels = {
        "difference": f"natural less {second}",
        "natural": "natural only",
        "second": f"{second} only",
    }
    points = [
        Point(
            at={"entropy": label, "rows": _TAILS[tail], "k": k},
            score="sme",
            declared=(which, tail, k) == ("difference", tail_declared, k_declared),
        )
        for which, label in labels.items()
        for tail in _TAILS
        for k in ks
    ]
    pairs = {path: np.array([own]) for path, own in orders.items()}
    return points, _sme_compute(pairs, profile, ks, tuple(_TAILS), tuple(labels))


def _sme_compute(
    pairs: dict[str, Float[np.ndarray, "points 2"]],
    profile: Profile,
    ks: Sequence[views.Number],
    tails: tuple[str, ...],
    series: tuple[str, ...] = ("difference",),
) -> _Compute:
    """Returns a function that averages the Sharma-Mittal entropies of a clip.

    Its result has the order points x series x tails x K. The Renyi entropy is
    interpolated once per distinct q, and each series is sorted once for all K.

    Args:
      pairs: The (q, r) of each clip, by its key.
      profile: The score profile.
      ks: K, in percent.
      tails: "min", "max".
      series: "difference", "natural", "second".
    """

    def compute(clip: ScoredClip) -> list[float]:
        assert clip.signals is not None
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
