"""Stored signals to scores, one row per row of the manifests. No model is needed."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from vidsme_jax import scores
from vidsme_jax.base import AuditError, Item, MotionStatistics, ScoredClip, ScoreTable
from vidsme_jax.motion import statistics
from vidsme_jax.settings import views
from vidsme_jax.store.signals import Signals


def score_table(
    items: Sequence[Item],
    store: Signals,
    names: Collection[str],
    profile: str,
    motion: views.Motion,
    *,
    response: str = "given",
    reference: Signals | None = None,
) -> tuple[ScoreTable, dict[str, list[str]]]:
    """Scores every item whose clip has signals.

    q and r are scaled over these clips, all roles together, or by `motion.bounds`.

    Args:
      items: Of the corpus.
      store: The signals.
      names: Of the scores.
      profile: Of the scores, by name.
      motion: How motion and light become q and r.

    Returns:
      The scores, and what was noticed while decoding, by video.

    Raises:
      AuditError: No clip has signals, or the corpus has no range to scale by.
    """
    orders = entropy_orders(measured(items, store), motion)

    def compute(clip: ScoredClip) -> list[float]:
        found = scores.compute(clip.signals, *orders[clip.key], names, profile=profile)
        return list(found.values())

    return fill(items, store, names, compute, orders, profile)


def measured(items: Sequence[Item], store: Signals) -> dict[str, MotionStatistics]:
    """Returns the motion statistics of the clips that have signals, by key.

    Raises:
      AuditError: No clip has signals.
    """
    known, paths = store.statistics(), dict.fromkeys(i.clip for i in items)
    motion = {path: known[path] for path in paths if path in known}
    if not motion:
        raise AuditError(["no clip could be scored"])
    return motion


def entropy_orders(
    motion: dict[str, MotionStatistics],
    settings: views.Motion,
    scales: tuple[views.Number, views.Number] | None = None,
) -> dict[str, tuple[float, float]]:
    """Returns (q, r) of every clip, by key, scaled as configured or by other scales.

    Raises:
      AuditError: The corpus has no range to scale by.
    """
    phi = np.array([m.flow_variance for m in motion.values()])
    b = np.array([m.brightness_std for m in motion.values()])
    bounds = settings.bounds or statistics.bounds(phi, b)
    scales = scales or (settings.q_scale, settings.r_scale)
    q, r = statistics.entropy_orders(phi, b, bounds, *scales)
    return dict(zip(motion, zip(q.tolist(), r.tolist(), strict=True), strict=True))


def fill(
    items: Sequence[Item],
    store: Signals,
    names: Collection[str],
    compute: Callable[[ScoredClip], Sequence[float]],
    orders: dict[str, tuple[float, float]],
    profile: str,
) -> tuple[ScoreTable, dict[str, list[str]]]:
    """Reads every clip once and makes a table of what `compute` returns for it.

    Args:
      items: Of the corpus.
      store: The signals.
      names: Of the columns.
      compute: One number a column, in the sign of the profile.
      orders: (q, r) of every clip that has signals, by key.
      profile: Of the scores, by name.

    Returns:
      As `score_table`.
    """
    place = {path: row for row, path in enumerate(orders)}
    values = np.empty((len(names), len(orders)))
    facts: dict[str, tuple[str, int, MotionStatistics]] = {}
    warnings: dict[str, list[str]] = {}
    for clip in store.read(orders.keys()):
        values[:, place[clip.key]] = compute(clip)
        facts[clip.key] = clip.content_hash, clip.num_rows, clip.motion
        if clip.warnings:
            warnings[clip.key] = list(clip.warnings)
    scored = [item for item in items if item.clip in facts]
    taken = [place[item.clip] for item in scored]

    def column(pick: Callable[[str], Any], dtype: Any = np.float64) -> np.ndarray:
        return np.array([pick(item.clip) for item in scored], dtype)

    table = ScoreTable(
        id=np.array([i.id for i in scored], object),
        video=np.array([i.video for i in scored], object),
        role=np.array([i.role for i in scored], object),
        group=np.array([i.group for i in scored], object),
        cluster=column(lambda p: facts[p][0], object),
        num_rows=column(lambda p: facts[p][1], np.int64),
        flow_variance=column(lambda p: facts[p][2].flow_variance),
        brightness_std=column(lambda p: facts[p][2].brightness_std),
        q=column(lambda p: orders[p][0]),
        r=column(lambda p: orders[p][1]),
        scores={name: values[row, taken] for row, name in enumerate(names)},
        larger_is_member=scores.PROFILES[profile].larger_is_member,
    )
    return table, warnings
