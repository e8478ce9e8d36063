r"""Computes which results numbers of clips allow, before any model is run.

The one-sided rank-sum test of sets of n1 and n0 clips at level a finds an AUC A with
power 1 - b where

$$A \ge 1/2 + (z_a + z_b) \sqrt{D (n_1 + n_0 + 1) / (12 n_1 n_0)}$$

with the variance of the AUC under the null hypothesis [1]. With m clips a source whose
scores correlate by ICC, the variance is that of D = 1 + (m - 1) ICC times fewer clips
[2]. If the two sets have D1 and D0, D (n1 + n0 + 1) is D1 n0 + D0 n1 + sqrt(D1 D0). The
ICC is not known before the run: it is an assumption, and stated as one.

[1] Mann and Whitney, 1947. https://doi.org/10.1214/aoms/1177730491
[2] Kish, 1965. Survey Sampling, sections 5.4 and 8.2.
"""

import dataclasses
import fractions
import math
from collections.abc import Iterable, Sequence

from vidsme_jax.arguments import count, number, require
from vidsme_jax.evaluation.verdicts import MIN_SOURCES
from vidsme_jax.wording import counted

Number = int | float

POWER = 0.8
ICC = 0.5  # Of clips of one source, by default.
MIN_SUSPECTS = 2  # Sources of suspects; one passes however much it differs.
OF_USED = (0.65, 0.8, 0.9)  # AUCs of used videos, for the smallest share.
_MANY = 1_000_000  # Clips; larger numbers are not written out.


@dataclasses.dataclass(frozen=True)
class Clips:
    """The clips of one side of a comparison.

    Attributes:
      number: The number of clips.
      per_source: The clips per source, averaged over the clips.
      sources: The number of sources.
    """

    number: int
    per_source: Number
    sources: int

    @classmethod
    def of(cls, name: str, many: Number, per_source: Number = 1) -> "Clips":
        """Returns a number of clips, with equally many per source.

        Args:
          name: The name of the clips, for messages.
          many: The number of clips, at least 1.
          per_source: The clips per source, from 1 to `many`.

        Raises:
          AuditError: A number is out of its range.

        Example:
          >>> Clips.of("members", 30, 5)
          Clips(number=30, per_source=5, sources=6)
        """
        many, per_source = count(name, many), number("per_source", per_source, 1)
        problem = f"per_source is {per_source:g}, more than the {many} {name}"
        require(per_source <= many, f"{problem}; it must be at most their number")
        return cls(many, per_source, math.ceil(many / per_source - 1e-9))

    @classmethod
    def of_sources(cls, numbers: Iterable[int]) -> "Clips":
        """Returns the clips of sources with these numbers of clips.

        `per_source` is averaged over clips, not over sources, as in the variance of a
        mean over clips [2].

        Example:
          >>> Clips.of_sources([1, 1, 4])
          Clips(number=6, per_source=3.0, sources=3)
        """
        each = list(numbers)
        total = sum(each)
        return cls(total, sum(m * m for m in each) / total, len(each))


def smallest_auc(
    first: Clips,
    second: Clips,
    alpha: Number = 0.05,
    icc: Number = ICC,
    power: Number = POWER,
) -> float:
    """Returns the smallest AUC that is found with some power; above 1 there is none.

    Args:
      first: The clips that should rank higher.
      second: The clips that they are compared with.
      alpha: The level of the one-sided test, in (0, 0.5).
      icc: The correlation of the scores of clips of one source, from 0 to 1.
      power: The probability that the AUC is found, in [0.5, 1).

    Raises:
      AuditError: A number is out of its range.

    Example:
      >>> round(smallest_auc(Clips.of("a", 30), Clips.of("b", 30)), 3)
      0.687
    """
    d1, d0 = (_design(x.per_source, icc) for x in (first, second))
    n1, n0 = first.number, second.number
    spread = d1 * n0 + d0 * n1 + math.sqrt(d1 * d0)
    return 0.5 + _quantiles(alpha, power) * math.sqrt(spread / (12 * n1 * n0))


def clips_for(
    auc: Number,
    first: Clips,
    second: Clips,
    alpha: Number = 0.05,
    icc: Number = ICC,
    power: Number = POWER,
) -> int:
    """Returns the number of clips a side that finds an AUC, with as large sources.

    `auc` is in (0.5, 1), and only `per_source` of the sides matters; the other
    arguments are those of `smallest_auc`.

    Raises:
      AuditError: A number is out of its range.

    Example:
      >>> clips_for(0.6, Clips.of("a", 30), Clips.of("b", 30))
      104
    """
    number("auc", auc, 0.5, 1, open="()")
    d1, d0 = (_design(x.per_source, icc) for x in (first, second))
    c = (_quantiles(alpha, power) / (auc - 0.5)) ** 2 / 12
    # n^2 = c ((d1 + d0) n + sqrt(d1 d0)), the formula above solved for n1 = n0 = n.
    half = c * (d1 + d0) / 2
    return math.ceil(half + math.sqrt(half**2 + c * math.sqrt(d1 * d0)) - 1e-9)


def smallest_share(
    auc: Number,
    suspects: Clips,
    calibration: Clips,
    alpha: Number = 0.05,
    icc: Number = ICC,
    power: Number = POWER,
) -> float:
    """Returns the smallest share of used suspects at which the set is found.

    If a share pi of the suspects was used, and used videos score above the others with
    some AUC, the set has AUC 1/2 + pi (AUC - 1/2).

    `auc` is that of used videos, in (0.5, 1]; the other arguments are those of
    `smallest_auc`, with the suspects first.

    Returns:
      The share; above 1 if the set is not found even when all of it was used.

    Raises:
      AuditError: A number is out of its range.
    """
    number("auc", auc, 0.5, 1, open="(")
    least = smallest_auc(suspects, calibration, alpha, icc, power)
    return (least - 0.5) / (auc - 0.5)


def least_listed(suspects: int, sources: int, fdr: Number) -> int:
    """Returns k_min, the smallest number of suspects that can be listed.

    With n sources of calibration clips no p-value is below 1 / (n + 1), and Benjamini
    and Hochberg list k of m suspects at a rate f only with p-values up to k f / m:
    k_min = ceil(m / (f (n + 1))), all of them above every calibration clip. If it is
    more than m, none can be listed.

    Args:
      suspects: The number of suspects; clips, not sources.
      sources: The number of sources of calibration clips, each of which counts once.
      fdr: The false discovery rate, in (0, 1).

    Raises:
      AuditError: A number is out of its range.

    Example:
      >>> least_listed(50, 19, 0.05), least_listed(50, 500, 0.05)
      (50, 2)
    """
    suspects, sources = count("suspects", suspects), count("sources", sources)
    return math.ceil(suspects / (_exact(fdr) * (sources + 1)))


def sources_for_one(suspects: int, fdr: Number) -> int:
    """Returns how many sources of calibration clips list one of m suspects alone.

    Raises:
      AuditError: A number is out of its range.

    Example:
      >>> sources_for_one(50, 0.05), sources_for_one(1, 0.05)
      (999, 19)
    """
    return math.ceil(count("suspects", suspects) / _exact(fdr) - 1)


def found_auc(
    members: Clips, nonmembers: Clips, alpha: Number, auc: Number, icc: Number = ICC
) -> str:
    """Returns a sentence on the AUC that is found, and the clips for one of interest.

    The arguments are those of `of_roles`.
    """
    least = smallest_auc(members, nonmembers, alpha, icc)
    test = f"a one-sided test at level {alpha:g} finds with {percent(POWER)} power"
    shown, interest = _apart(least, auc)
    text = f"the smallest AUC that {test} is {shown}"
    if least > 1:
        text = f"there is no AUC that {test}"
    if max(members.per_source, nonmembers.per_source) > 1:
        text += f", if scores of one source correlate by {icc:g} (ICC, assumed)"
    if least <= auc:
        return f"{text}; {interest}, the smallest of interest, is within reach"
    takes = clips_for(auc, members, nonmembers, alpha, icc)
    many = f"about {takes}" if takes <= _MANY else "more than a million"
    return f"{text}; {interest}, the smallest of interest, takes {many} clips a role"


def no_verdict(members: Clips, nonmembers: Clips) -> list[str]:
    """Returns one sentence per role that has too few sources for a verdict."""
    both = {"members": members, "non-members": nonmembers}
    return [
        f"there will be no verdict: the {name} have "
        f"{counted(each.sources, 'source')}, and it takes {MIN_SOURCES}"
        for name, each in both.items()
        if each.sources < MIN_SOURCES
    ]


def no_test(suspects: Clips, calibration: Clips) -> list[str]:
    """Returns one sentence per side that has too few sources to test suspects."""
    return [
        f"nothing will be tested or listed: the {name} have "
        f"{counted(each.sources, 'source')}, and it takes {least}"
        for name, each, least in (
            ("suspects", suspects, MIN_SUSPECTS),
            ("calibration clips", calibration, MIN_SOURCES),
        )
        if each.sources < least
    ]


def listable(suspects: int, sources: int, fdr: Number) -> str:
    """Returns a sentence on how many suspects can be listed; see `least_listed`."""
    least, one = least_listed(suspects, sources, fdr), sources_for_one(suspects, fdr)
    at = f"at a false discovery rate of {fdr:g}"
    if least == 1:
        return f"{at} one suspect alone can be listed"
    takes = f"to list one alone takes {one} sources of calibration clips"
    if least > suspects:
        return f"{at} no suspect can be listed, whatever the scores; {takes}"
    return (
        f"{at} no suspect is listed unless at least {least} rank above every "
        f"calibration clip; {takes}"
    )


def of_roles(
    members: Clips,
    nonmembers: Clips,
    *,
    alpha: Number,
    auc: Number,
    fprs: Sequence[Number],
    icc: Number = ICC,
) -> list[str]:
    """Returns what a comparison of members with non-members can show.

    Args:
      members: The clips of members.
      nonmembers: The clips of non-members.
      alpha: The level of the test.
      auc: The smallest AUC of interest, in (0.5, 1).
      fprs: The false-positive rates of the TPRs.
      icc: The correlation within sources.

    Returns:
      Sentences without their full stops.

    Raises:
      AuditError: A number is out of its range.
    """
    lines = [found_auc(members, nonmembers, alpha, auc, icc)]
    if max(members.per_source, nonmembers.per_source) > 1:
        alone = smallest_auc(members, nonmembers, alpha, 0)
        then = "there would be none either" if alone > 1 else f"it would be {alone:.2f}"
        lines.append(f"if scores of one source did not correlate at all, {then}")
    lines += no_verdict(members, nonmembers)
    needed = {rate: math.ceil(1 / _exact(rate)) for rate in fprs}
    for rate, least in needed.items():
        can = "can" if nonmembers.sources >= least else "cannot"
        lines.append(
            f"a TPR at a false-positive rate of {100 * rate:g} % {can} be estimated: "
            f"it takes {least} sources of non-members"
        )
    return lines


def of_suspects(
    suspects: Clips,
    calibration: Clips,
    *,
    alpha: Number,
    fdr: Number,
    icc: Number = ICC,
) -> list[str]:
    """Returns what the set and the list of suspects can show with calibration clips.

    Args:
      suspects: The suspects.
      calibration: The calibration clips.
      alpha: The level of the test of the whole set.
      fdr: The false discovery rate of the list.
      icc: The correlation within sources.

    Returns:
      Sentences without their full stops.

    Raises:
      AuditError: A number is out of its range.
    """
    if problems := no_test(suspects, calibration):
        return problems
    lines: list[str] = []
    for auc in OF_USED:
        share = smallest_share(auc, suspects, calibration, alpha, icc)
        found = (
            f"found with {percent(POWER)} power where {percent(share)} or more were"
            if share <= 1
            else f"not found with {percent(POWER)} power, not even where all were"
        )
        lines.append(f"if used videos score with AUC {auc:.2f}, the set is {found}")
    return [*lines, listable(suspects.number, calibration.sources, fdr)]


def percent(share: float) -> str:
    """Formats a share in percent, rounded up, such as "80 %"."""
    return f"{math.ceil(100 * share - 1e-9)} %"


def _apart(first: float, second: float) -> tuple[str, str]:
    """Formats two numbers with two to ten digits, as many as show that they differ."""
    digits = 2
    while digits < 10 and first != second and round(first - second, digits) == 0:
        digits += 1
    return f"{first:.{digits}f}", f"{second:.{digits}f}"


def _design(per_source: Number, icc: Number) -> float:
    """Returns the design effect D."""
    return 1.0 + (number("per_source", per_source, 1) - 1) * number("icc", icc, 0, 1)


def _quantiles(alpha: Number, power: Number) -> float:
    """Returns z_a + z_b."""
    number("alpha", alpha, 0, 0.5, open="()")
    number("power", power, 0.5, 1, open=")")
    import scipy.stats  # Slower than all the rest of `vidsme power`.

    return float(scipy.stats.norm.isf(alpha) + scipy.stats.norm.ppf(power))


def _exact(rate: Number) -> fractions.Fraction:
    """Returns a rate as the fraction that its digits denote: 0.05 is 1/20."""
    return fractions.Fraction(repr(float(number("fdr", rate, 0, 1, open="()"))))
