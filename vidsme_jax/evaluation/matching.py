"""The largest subset of two roles whose sources have like propensities, in pairs.

Axes: `sources`, of both roles.
"""

import numpy as np
from jaxtyping import Bool, Float

CALIPER = 0.2  # Standard deviations of the propensity that a pair may differ by.


def matched(
    propensity: Float[np.ndarray, " sources"], label: Bool[np.ndarray, " sources"]
) -> Bool[np.ndarray, " sources"]:
    """Returns which sources are in a pair, one of each role, of like propensity.

    On a line, pairing in order the lowest of both that are near enough gives as many
    pairs as any pairing.

    Args:
      propensity: Of being in the first role, on any scale.
      label: True for the first role.

    Example:
      >>> label = np.array([True, True, False, False])
      >>> matched(np.array([0.0, 9.0, 0.1, -9.0]), label).tolist()
      [True, False, True, False]
    """
    width = CALIPER * float(propensity.std()) + 1e-12
    first, second = (
        side[np.argsort(propensity[side], kind="stable")]
        for side in (np.flatnonzero(label), np.flatnonzero(~label))
    )
    found = np.zeros(len(label), bool)
    i = j = 0
    while i < len(first) and j < len(second):
        apart = propensity[first[i]] - propensity[second[j]]
        if abs(apart) <= width:
            found[[first[i], second[j]]] = True
        i += apart <= width
        j += apart >= -width
    return found


def overlap(
    propensity: Float[np.ndarray, " sources"], label: Bool[np.ndarray, " sources"]
) -> float:
    """Returns the share of sources whose propensity lies in the range of both roles."""
    low = max(propensity[label].min(), propensity[~label].min())
    high = min(propensity[label].max(), propensity[~label].max())
    return float(((propensity >= low) & (propensity <= high)).mean())
