"""Families of columns of features that need no model.

Motion, pixels and text are read by a model: where they differ, its scores may differ,
whether or not the clips are members. Containers, files and dates cannot reach it and
are reported separately.

Axes: `items`, rows of both roles; `sources`; `columns`; `spreads`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from vidsme_jax.evaluation.sources import Sources

REACHING = ("motion", "pixels", "text")
APART = ("container", "files", "dates")
_LEVELS = 8  # Levels of a text, such as a codec, that become columns, at most.
_RARE = 2  # Sources with a level, at least, for it to become a column.


class Family(NamedTuple):
    """One family of columns over the sources of two roles.

    Attributes:
      name: The name of the family.
      columns: The names of the columns of `values`.
      values: Means over the rows of each source, finite, none constant; of mean 0 and
        variance 1.
      spreads: The names of the columns of `distances`.
      distances: Distances of `values` from the median of their column, none constant:
        they differ where the roles differ in spread.
    """

    name: str
    columns: tuple[str, ...]
    values: Float[np.ndarray, "sources columns"]
    spreads: tuple[str, ...]
    distances: Float[np.ndarray, "sources spreads"]


def family(
    name: str, columns: Mapping[str, Shaped[np.ndarray, " items"]], sources: Sources
) -> Family | None:
    """Makes a family of columns; None if none of them varies.

    Args:
      name: The name of the family.
      columns: By name, float64, NaN where unknown, or texts as objects, each frequent
        level of which becomes a column.
      sources: The sources of the items.
    """
    names: list[str] = []
    found: list[np.ndarray] = []
    for column, values in columns.items():
        for level, numbers in _numbers(column, np.asarray(values), sources):
            names.append(level)
            found.append(numbers)
    if not found:
        return None
    means = _scaled(np.stack(found, axis=1))
    varies = _varies(means)
    if not varies.any():
        return None
    names = [each for each, kept in zip(names, varies, strict=True) if kept]
    means = means[:, varies]
    means = (means - means.mean(axis=0)) / means.std(axis=0)
    distances = np.abs(means - np.median(means, axis=0))
    spread = _varies(distances)
    spreads = (
        f"spread of {each}" for each, kept in zip(names, spread, strict=True) if kept
    )
    return Family(name, tuple(names), means, tuple(spreads), distances[:, spread])


def _varies(
    values: Float[np.ndarray, "sources columns"],
) -> Bool[np.ndarray, " columns"]:
    """Returns which columns are not constant."""
    return np.ptp(values, axis=0) > 1e-9 * np.abs(values).max(axis=0)


def _numbers(
    name: str, values: Shaped[np.ndarray, " items"], sources: Sources
) -> list[tuple[str, Float[np.ndarray, " sources"]]]:
    """Returns the columns of one trait, each with its name, as means over sources."""
    if values.dtype == object:
        texts, place = np.unique(values.astype(str), return_inverse=True)
        # Counts each level once per source, without a column for every level.
        levels = np.unique(sources.source * len(texts) + place) % len(texts)
        counts = np.bincount(levels, minlength=len(texts))
        frequent = np.argsort(-counts, kind="stable")[:_LEVELS]
        kept = [k for k in sorted(frequent.tolist()) if _RARE <= counts[k]]
        shares = sources.means((place[:, None] == kept).astype(np.float64))
        return [
            (f"{name} {texts[k] or 'none'}", share)
            for k, share in zip(kept, shares.T, strict=True)
        ]
    known = np.isfinite(values)
    if not known.any():
        return []
    filled = _scaled(np.where(known, values, 0.0)[:, None])[:, 0]
    filled[~known] = np.median(filled[known])
    columns = [(name, sources.means(filled[:, None])[:, 0])]
    if not known.all():
        absent = sources.means((~known)[:, None].astype(np.float64))
        columns.append((f"{name} unknown", absent[:, 0]))
    return columns


def _scaled(
    values: Float[np.ndarray, "rows columns"],
) -> Float[np.ndarray, "rows columns"]:
    """Divides each column by a power of two that brings its largest value near 1.

    Sums and squares then neither overflow nor underflow, and no digit of an ordinary
    column changes.
    """
    largest = np.abs(values).max(axis=0)
    return np.ldexp(values, -np.frexp(largest)[1])
