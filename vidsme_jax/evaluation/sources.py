"""Groups the rows of two roles in sources, the independent observations of every test.

Clips cut from one film, near-duplicates and rows that ask about one video are of one
unit. A source is a unit with its rows of one role: a unit with rows in both roles is
two sources, which stay in one fold but are permuted as two. This is conservative: what
they share makes the two differ less than others do.

Axes: `items`, the rows of the first role and then of the second; `sources`, those of
the first role first; `permutations`.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from vidsme_jax.arguments import require

_DRAWN = 1 << 24  # Labels that are permuted at a time.
_CHUNK = 1 << 23  # Labels that are used at a time.


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labellings of sources, one bit per label.

    Attributes:
      bits: One row per labelling, eight sources a byte.
      sources: The number of sources.

    Example:
      >>> labels = Labels.of(np.array([[True, False, True]]))
      >>> len(labels), labels[:].tolist()
      (1, [[1, 0, 1]])
    """

    bits: UInt8[np.ndarray, "permutations bytes"]
    sources: int

    @classmethod
    def of(cls, labels: Shaped[np.ndarray, "permutations sources"]) -> "Labels":
        """Packs labels, 1 or True for the first role."""
        return cls(np.packbits(labels.astype(bool), axis=1), labels.shape[1])

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, rows: slice) -> UInt8[np.ndarray, "permutations sources"]:
        """Returns some of the labellings, 1 for the first role."""
        return np.unpackbits(self.bits[rows], axis=1, count=self.sources)

    def before(self, others: "Labels") -> "Labels":
        """Returns these labellings and then others of the same sources."""
        return Labels(np.concatenate([self.bits, others.bits]), self.sources)

    def chunks(
        self,
    ) -> Iterator[tuple[slice, Float[np.ndarray, "permutations sources"]]]:
        """Yields rows and their labels as float64, in chunks of bounded memory."""
        step = max(1, _CHUNK // self.sources)
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            yield rows, self[rows].astype(np.float64)


class Sources(NamedTuple):
    """The sources of two roles.

    Attributes:
      label: True for the first role.
      unit: The unit of each source, from 0; two sources may have the same.
      rows: The number of items of each source.
      source: The place of each item's source.
    """

    label: Bool[np.ndarray, " sources"]
    unit: Int[np.ndarray, " sources"]
    rows: Int[np.ndarray, " sources"]
    source: Int[np.ndarray, " items"]

    @classmethod
    def of(
        cls, first: Shaped[np.ndarray, " first"], second: Shaped[np.ndarray, " second"]
    ) -> "Sources":
        """Groups the rows of both roles by their units, of any dtype.

        Raises:
          AuditError: A role has no row.

        Example:
          >>> found = Sources.of(np.array(["a", "a", "b"]), np.array(["b", "c"]))
          >>> found.label.tolist(), found.rows.tolist(), found.unit.tolist()
          ([True, True, False, False], [2, 1, 1, 1], [0, 1, 1, 2])
        """
        require(
            len(first) and len(second),
            f"the roles have {len(first)} and {len(second)} rows; each needs one",
        )
        _, unit = np.unique(np.concatenate([first, second]), return_inverse=True)
        label = np.arange(len(unit)) < len(first)
        _, at, source, rows = np.unique(
            2 * unit + ~label,
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        order = np.argsort(~label[at], kind="stable")
        place = np.empty(len(at), np.int64)
        place[order] = np.arange(len(at))
        return cls(label[at][order], unit[at][order], rows[order], place[source])

    @property
    def counts(self) -> tuple[int, int]:
        """Returns the number of sources of each role."""
        first = int(self.label.sum())
        return first, len(self.label) - first

    def means(
        self, values: Float[np.ndarray, "items columns"]
    ) -> Float[np.ndarray, "sources columns"]:
        """Returns the means over the items of each source."""
        return self.sums(values) / self.rows[:, None]

    def sums(
        self, values: Float[np.ndarray, "items columns"]
    ) -> Float[np.ndarray, "sources columns"]:
        """Returns the sums over the items of each source."""
        count = len(self.label)
        columns = [np.bincount(self.source, x, count) for x in values.T]
        return np.stack(columns, axis=1) if columns else np.zeros((count, 0))

    def kept(self, items: Bool[np.ndarray, " items"]) -> "Sources":
        """Returns the sources of some of the items, those that have any left.

        Raises:
          AuditError: A role has no row left.
        """
        of_items, label = self.unit[self.source], self.label[self.source]
        return Sources.of(of_items[items & label], of_items[items & ~label])

    def permuted(
        self, number: int, seed: int, strata: Int[np.ndarray, " sources"] | None = None
    ) -> Labels:
        """Returns random permutations of the labels.

        Args:
          number: The number of permutations.
          seed: The seed; equal seeds give equal permutations.
          strata: The stratum of each source, within which labels are permuted; None:
            one stratum.
        """
        rng = np.random.default_rng([seed, 1])
        label = self.label.astype(np.uint8)
        found: list[np.ndarray] = []
        groups = [np.arange(len(label))]
        if strata is not None:
            groups = [np.flatnonzero(strata == k) for k in np.unique(strata)]
        step = max(1, _DRAWN // len(label))
        for start in range(0, number, step):
            some = np.empty((min(step, number - start), len(label)), np.uint8)
            for group in groups:
                tiled = np.tile(label[group], (len(some), 1))
                some[:, group] = rng.permuted(tiled, axis=1)
            found.append(np.packbits(some, axis=1))
        return Labels(np.concatenate(found), len(label))


def alike(
    first: Shaped[np.ndarray, " first"], second: Shaped[np.ndarray, " second"]
) -> tuple[Bool[np.ndarray, " first"], Bool[np.ndarray, " second"]]:
    """Chooses rows of two roles so that sources have equally many in both.

    Sources with more rows are not exchangeable with those of the other role, even if
    the rows are alike: the mean of ten rows varies less than one row. Each source keeps
    at most as many rows as the source of the same rank, by numbers of rows, has in the
    other role, drawn at random.

    Args:
      first: The unit of each row of one role.
      second: The unit of each row of the other role.

    Returns:
      Which rows are kept, of each role.

    Example:
      >>> kept = alike(np.array([0, 1, 2]), np.array([3, 3, 4, 4, 5, 5]))
      >>> kept[0].tolist(), int(kept[1].sum())
      ([True, True, True], 3)
    """
    rng = np.random.default_rng(9)
    places = [np.unique(each, return_inverse=True)[1] for each in (first, second)]
    sizes = [np.bincount(each) for each in places]
    orders: list[np.ndarray] = []
    for size in sizes:  # Equal sizes in any order.
        shuffled = rng.permutation(len(size))
        orders.append(shuffled[np.argsort(size[shuffled], kind="stable")])
    found: list[np.ndarray] = []
    for k, (place, size) in enumerate(zip(places, sizes, strict=True)):
        other = np.sort(sizes[1 - k])
        rank = (np.arange(len(size)) + 0.5) / len(size)
        most = np.empty(len(size), np.int64)
        most[orders[k]] = other[(rank * len(other)).astype(np.int64)]
        order = rng.permutation(len(place))
        order = order[np.argsort(place[order], kind="stable")]
        start = np.cumsum(size) - size
        kept = np.empty(len(place), bool)
        kept[order] = np.arange(len(place)) - start[place[order]] < most[place[order]]
        found.append(kept)
    return found[0], found[1]


def halves(
    unit: Int[np.ndarray, " items"],
    label: Bool[np.ndarray, " items"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, " items"]:
    """Divides units into two random halves, each role as evenly as possible."""
    _, place = np.unique(unit, return_inverse=True)
    num = int(place.max()) + 1
    share = np.bincount(place, label, num) / np.bincount(place, minlength=num)
    order = rng.permutation(num)
    order = order[np.argsort(-share[order], kind="stable")]
    half = np.zeros(num, bool)
    half[order[::2]] = True
    return half[place]


def p_value(observed: float, permuted: Float[np.ndarray, " permutations"]) -> float:
    """Returns the share of values at least as large, the observed one included.

    Values that differ only by the rounding of sums count as equal.

    Example:
      >>> p_value(3.0, np.array([1.0, 2.0, 3.0]))
      0.5
    """
    slack = 1e-9 * max(1.0, abs(observed))
    above = int((permuted >= observed - slack).sum())
    return (1 + above) / (len(permuted) + 1)
