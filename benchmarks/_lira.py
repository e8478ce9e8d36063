"""The ceiling: attacks that know other models of the same pool, one left out.

Every clip is a member for some seeds and a non-member for others. For the model of one
seed, the others are references: LiRA [1] compares its loss of a clip with the losses of
those that were trained on it and of those that were not; RMIA [2] compares how much
more likely the clip is than for the references with how much that is of other clips.

[1] Carlini et al., 2022. https://arxiv.org/abs/2112.03570
[2] Zarifzadeh et al., 2024. https://arxiv.org/abs/2312.03262

Axes: `seeds`; `clips`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

LEAST = 8  # Models, of which all but one are references; see `ceilings`.
_SIGMA = 1e-3  # Added to deviations, in nats a token.


def ceilings(seeds: Mapping[int, Any]) -> dict[str, dict[int, np.ndarray]]:
    """Returns both attacks by name, larger = member, for every seed.

    Half of the references have a clip and half have not, so of fewer than seven many
    clips would be judged by one model, or by what others' clips do; a method of few
    seeds has no ceiling rather than a low one.

    Args:
      seeds: The scores of each (`_evidence.Scored`), of the same clips.

    Returns:
      Empty where there are fewer than `LEAST` seeds, or clips differ.
    """
    keys = sorted(seeds)
    first = seeds[keys[0]]
    if len(keys) < LEAST:
        return {}
    if any(not np.array_equal(seeds[key].ids, first.ids) for key in keys):
        return {}
    log_p = np.stack([seeds[key].of("response_loss") for key in keys])
    member = np.stack([seeds[key].member for key in keys])
    found: dict[str, dict[int, np.ndarray]] = {"lira": {}, "rmia": {}}
    for place, key in enumerate(keys):
        others = np.arange(len(keys)) != place
        args = log_p[place], log_p[others], member[others]
        found["lira"][key] = lira(*args)
        found["rmia"][key] = rmia(*args, ~member[place])
    return found


def _means(
    values: Float[np.ndarray, "seeds clips"], member: Bool[np.ndarray, "seeds clips"]
) -> tuple[Float[np.ndarray, " clips"], Float[np.ndarray, " clips"]]:
    """Returns the mean of each clip over references with it, and over those without.

    A clip that all references have, or none, takes the mean of the others, moved by
    what training moves clips by on average.
    """
    counts = member.sum(0), (~member).sum(0)
    sums = np.where(member, values, 0).sum(0), np.where(member, 0, values).sum(0)
    own, out = (x / np.maximum(n, 1) for x, n in zip(sums, counts, strict=True))
    both = (counts[0] > 0) & (counts[1] > 0)
    moved = (own - out)[both].mean()
    own = np.where(counts[0] > 0, own, out + moved)
    return own, np.where(counts[1] > 0, out, own - moved)


def lira(
    log_p: Float[np.ndarray, " clips"],
    others: Float[np.ndarray, "seeds clips"],
    member: Bool[np.ndarray, "seeds clips"],
) -> Float[np.ndarray, " clips"]:
    """Returns the log ratio of two normal densities; deviations are of all clips.

    With few references the deviation of one clip cannot be known [1, section VI.C].

    Args:
      log_p: Of the answers under the model, nats a token.
      others: Under the references.
      member: Whether a reference was trained on a clip.
    """
    out = 0.0
    sides = zip((1, -1), (member, ~member), _means(others, member), strict=True)
    for sign, chosen, mean in sides:
        spread = np.where(chosen, others - mean, 0) ** 2
        free = np.maximum(chosen.sum(0) - 1, 0).sum()
        sigma = np.sqrt(spread.sum() / free) + _SIGMA
        out = out + sign * (-0.5 * ((log_p - mean) / sigma) ** 2 - np.log(sigma))
    return np.asarray(out)


def rmia(
    log_p: Float[np.ndarray, " clips"],
    others: Float[np.ndarray, "seeds clips"],
    member: Bool[np.ndarray, "seeds clips"],
    population: Bool[np.ndarray, " clips"],
) -> Float[np.ndarray, " clips"]:
    """Returns the share of other clips that a clip's likelihood ratio exceeds.

    Args:
      log_p: Of the answers under the model, nats a token.
      others: Under the references.
      member: Whether a reference was trained on a clip.
      population: The clips to compare with, which the model was not trained on; a clip
        is not compared with itself.
    """
    likely = np.exp(others)
    # A clip that all references have, or none, is moved by what training moves others
    # by, which can be more than its own likelihood: p(x) would be negative, and its
    # logarithm NaN. No estimate is below the least likelihood of any clip.
    means = np.maximum(_means(likely, member), likely.min())
    # p(x) is the mean of references with and without the clip, each half.
    ratio = log_p - np.log(means.mean(axis=0))
    known = np.sort(ratio[population])
    below = np.searchsorted(known, ratio, side="left")
    count = len(known) - population.astype(int)
    # Ties of clips beyond all others are broken by the ratio itself.
    return below / np.maximum(count, 1) + 1e-9 * np.tanh(ratio)
