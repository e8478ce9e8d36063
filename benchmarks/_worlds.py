"""Worlds whose truth is known: features and scores of sources in two roles.

Features are of three families, of 44 columns: six factors and noise behind each column,
correlated within a source. A confounder is an index over a few columns of pixels, by
which the roles differ and which the score depends on. The reference model's score has
the same confounder and shares 0.7 of the variance of the score's noise.

Axes: `items`, clips, those of members first.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation.blind_families import Family, family
from vidsme_jax.evaluation.sources import Sources

SIZES = {"motion": 2, "pixels": 28, "text": 14}
_FACTORS = 6
_ICC = 0.6  # Of features.
_SCORE_ICC = 0.5
_SHARED = 0.7


class World(NamedTuple):
    """One draw.

    Attributes:
      features: By family, of shape (items, columns).
      label: True for members.
      unit: Of each item its source.
      score: None where there is none.
      reference: The reference model's own.
    """

    features: dict[str, np.ndarray]
    label: np.ndarray
    unit: np.ndarray
    score: np.ndarray | None = None
    reference: np.ndarray | None = None


def shift_of(auc: float) -> float:
    """Returns how far apart two normal laws of variance 1 are that have this AUC."""
    return float(np.sqrt(2) * scipy.stats.norm.ppf(auc))


def clips(
    rng: np.random.Generator, sources: int, per: int, icc: float, columns: int = 1
) -> np.ndarray:
    """Draws normal values of variance 1, (sources * per, columns)."""
    of_source = np.repeat(rng.normal(size=(sources, columns)), per, axis=0)
    own = rng.normal(size=(sources * per, columns))
    icc = icc if per > 1 else 0.0
    return of_source * np.sqrt(icc) + own * np.sqrt(1 - icc)


def scores(
    rng: np.random.Generator, sources: int, per: int, columns: int, factors: int = 8
) -> np.ndarray:
    """Draws correlated scores of both roles, each of variance 1, as `clips` does."""
    load = rng.normal(size=(factors, columns))
    load /= np.linalg.norm(load, axis=0)
    common = clips(rng, 2 * sources, per, _SCORE_ICC, factors) @ load
    return 0.8 * common + 0.6 * clips(rng, 2 * sources, per, _SCORE_ICC, columns)


def features(
    rng: np.random.Generator,
    sources: int,
    per: int,
    shifted: str = "",
    auc: float = 0.5,
) -> World:
    """Draws features alone.

    Args:
      rng: The only source of chance.
      sources: Of each role.
      per: Clips a source.
      shifted: A family of which one column differs between the roles; "" for none.
      auc: Of that column's means over sources.
    """
    label = np.repeat([True, False], sources * per)
    found = {}
    for name, columns in SIZES.items():
        load = rng.normal(size=(_FACTORS, columns)) * 0.7 / np.sqrt(_FACTORS)

        def drawn(
            number: int, load: np.ndarray = load, columns: int = columns
        ) -> np.ndarray:
            common = rng.normal(size=(number, _FACTORS)) @ load
            return common + 0.7 * rng.normal(size=(number, columns))

        of_source = np.repeat(drawn(2 * sources), per, axis=0)
        x = of_source * np.sqrt(_ICC) + drawn(2 * sources * per) * np.sqrt(1 - _ICC)
        found[name] = x / x.std(axis=0)
    if shifted:
        column = rng.integers(SIZES[shifted])
        found[shifted][:, column] += label * shift_of(auc) * _deviation(per)
    return World(found, label, np.repeat(np.arange(2 * sources), per))


def _deviation(per: int) -> float:
    """Returns the deviation of the mean of a source's clips, a feature's being 1."""
    return float(np.sqrt(_ICC + (1 - _ICC) / per))


def confounded(
    rng: np.random.Generator,
    sources: int,
    per: int,
    *,
    blind: float,
    rho: float,
    effect: float = 0.5,
    columns: int = 4,
    measured: bool = True,
) -> World:
    """Draws features and a score that depends on some of them.

    Args:
      rng: The only source of chance.
      sources: Of each role.
      per: Clips a source.
      blind: AUC of the confounder's means over sources.
      rho: Correlation of score and confounder within roles.
      effect: AUC of the score that membership alone would give.
      columns: Of the pixels, that the confounder is the sum of.
      measured: Without, the features are of another draw and know nothing of it.
    """
    world = features(rng, sources, per)
    pixels = world.features["pixels"]
    chosen = rng.choice(pixels.shape[1], columns, replace=False)
    spread = pixels[:, chosen].sum(axis=1).std()
    move = shift_of(blind) * _deviation(per) * spread / columns
    pixels[:, chosen] += world.label[:, None] * move
    index = pixels[:, chosen].sum(axis=1) / spread
    noise, other = (clips(rng, 2 * sources, per, _SCORE_ICC)[:, 0] for _ in range(2))
    other = np.sqrt(_SHARED) * noise + np.sqrt(1 - _SHARED) * other
    score, reference = (rho * index + np.sqrt(1 - rho**2) * x for x in (noise, other))
    score = score + world.label * shift_of(effect)
    if not measured:
        world = features(rng, sources, per)
    return world._replace(score=score, reference=reference)


def fewer(world: World, sources: int, per: int) -> World:
    """Keeps of the members only so many sources and clips of each."""
    _, source = np.unique(world.unit, return_inverse=True)
    place = np.arange(len(source)) - np.searchsorted(source, source)
    kept = ~world.label | ((source < sources) & (place < per))
    assert world.score is not None and world.reference is not None
    return World(
        {name: values[kept] for name, values in world.features.items()},
        *(world.label[kept], world.unit[kept]),
        *(world.score[kept], world.reference[kept]),
    )


def families(world: World) -> tuple[list[Family], Sources]:
    """Returns the families of a world as the program makes them."""
    units = world.unit
    sources = Sources.of(units[world.label], units[~world.label])
    made = []
    for name, values in world.features.items():
        columns = {f"{name} {k}": x for k, x in enumerate(values.T)}
        if (its := family(name, columns, sources)) is not None:
            made.append(its)
    return made, sources


def table(
    world: World,
    scores: dict[str, np.ndarray],
    reference: dict[str, np.ndarray] | None = None,
    roles: tuple[str, str] = ("members", "nonmembers"),
    **more: Any,
) -> ScoreTable:
    """Makes the table of a world, as a run would."""
    n = len(world.label)
    motion = world.features["motion"]
    traits = {
        name: {f"{name} {k}": x for k, x in enumerate(world.features[name].T)}
        for name in ("pixels", "text")
    }
    names = np.array([f"{k}" for k in range(n)], object)
    return ScoreTable(
        id=names,
        video=names,
        role=np.where(world.label, *roles).astype(object),
        group=np.full(n, "", object),
        cluster=names,
        num_rows=np.full(n, 8),
        num_response_rows=np.full(n, 8),  # So that text counts.
        flow_variance=np.expm1(5 + motion[:, 0] / 4),  # Of which the log is taken.
        brightness_std=motion[:, 1],
        q=np.ones(n),
        r=np.ones(n),
        scores=scores,
        reference=reference or {},
        unit=np.array([f"unit {k}" for k in world.unit], object),
        traits=traits,
        **more,
    )
