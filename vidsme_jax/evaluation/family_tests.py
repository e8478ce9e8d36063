"""Selects the families of blind features of two sets of rows.

Axes: `items`, rows of the table; `rows`, those of two roles, the first role's first.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import language
from vidsme_jax.evaluation.blind_families import APART, REACHING, Family, family
from vidsme_jax.evaluation.sources import Sources, alike


class Traits:
    """The features of a table's clips that need no model, by family and column."""

    def __init__(self, table: ScoreTable):
        """Computes the columns, those of texts once for all comparisons."""
        motion = np.log1p(table.flow_variance.astype(np.float64))
        self.units = table.units
        self.families: dict[str, dict[str, np.ndarray]] = {
            "motion": {
                "motion": motion,
                "changes of brightness": table.brightness_std.astype(np.float64),
            }
        }
        self.families |= {name: dict(columns) for name, columns in table.traits.items()}
        if table.question is not None and table.answer is not None:
            _, unit = np.unique(table.units, return_inverse=True)
            self.families["text"] = language.columns(
                table.question, table.answer, motion, unit
            )
        self.reaching = tuple(
            name
            for name in REACHING
            if name != "text" or table.num_response_rows is not None
        )

    @property
    def known(self) -> bool:
        """Returns whether the pixels were measured; if not, a test shows nothing."""
        pixels = self.families.get("pixels", {})
        return any(np.isfinite(values).any() for values in pixels.values())

    def between(
        self,
        first: Int[np.ndarray, " first"],
        second: Int[np.ndarray, " second"],
        *,
        whole: bool = False,
    ) -> "Between":
        """Returns the families of the rows of two roles.

        Args:
          first: The rows of the first role.
          second: The rows of the second role.
          whole: Whether to keep all rows. If not, rows are dropped until sources have
            equally many in both roles (`sources.alike`), so that labels can be
            permuted.
        """
        if not whole:
            kept = alike(self.units[first], self.units[second])
            first, second = first[kept[0]], second[kept[1]]
        rows = np.concatenate([first, second])
        sources = Sources.of(self.units[first], self.units[second])
        found: dict[str, Family] = {}
        for name in (*REACHING, *APART):
            columns = self.families.get(name, {})
            one = family(name, {k: v[rows] for k, v in columns.items()}, sources)
            if one is not None:
                found[name] = one
        reaching = [found[name] for name in self.reaching if name in found]
        apart = [one for name, one in found.items() if name not in self.reaching]
        return Between(rows, sources, reaching, apart)


class Between(NamedTuple):
    """Two roles, with the features that could separate them.

    Attributes:
      rows: Rows of the table, the first role's first.
      sources: The sources of these rows.
      reaching: The families that the model reads.
      apart: The families that cannot reach it.
    """

    rows: Int[np.ndarray, " rows"]
    sources: Sources
    reaching: list[Family]
    apart: list[Family]
