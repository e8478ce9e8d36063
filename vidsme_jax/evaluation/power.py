r"""What numbers of clips can show, before any model has been run.

The one-sided rank-sum test of sets of n1 and n0 clips at level a finds an AUC A with
power 1 - b where

$$A \ge 1/2 + (z_a + z_b) \sqrt{D (n_1 + n_0 + 1) / (12 n_1 n_0)}$$

with the variance of the AUC where nothing is to be found [1]. Clips of one source are
alike: with m clips a source and the correlation ICC of their scores, the variance is
that of D = 1 + (m - 1) ICC times fewer clips [2]. Where the two sets have D1 and D0,
D (n1 + n0 + 1) is D1 n0 + D0 n1 + sqrt(D1 D0). The ICC is not known before the run: it
is an assumption, and stated as one.

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
OF_USED = (0.65, 0.8, 0.9)  # AUC of used videos, for the smallest share.
_MANY = 1_000_000  # Clips; of more the number is not given.


@dataclasses.dataclass(frozen=True)
class Clips:
    """The clips of one side of a comparison.

    Attributes:
      number: How many.
      per_source: Clips that the source of a clip has, on average over the clips.
      sources: How many sources.
    """

    number: int
    per_source: Number
    sources: int

    @classmethod
    def of(cls, name: str, many: Number, per_source: Number = 1) -> "Clips":
        """Returns a number of clips, of sources that are equally large.

        Raises:
          AuditError: A number cannot be that of clips.

        Example:
          >>> Clips.of("members", 30, 5)
          Clips(number=30, per_source=5, sources=6)
        """
        many, per_source = count(name, many), number("per_source", per_source, 1)
        problem = f"per_source is {per_source:g}, more than the {many} {name}"
        require(per_source <= many, problem)
        return cls(many, per_source, math.ceil(many / per_source - 1e-9))

    @classmethod
    def counted(cls, sources: Iterable[int]) -> "Clips":
        """Returns the clips of sources that have equally many.

        Sources of many clips count for more than in the mean over sources: so the
        variance of a mean over clips has it [2].

        Example:
          >>> Clips.counted([1, 1, 4])
          Clips(number=6, per_source=3.0, sources=3)
        """
        each = list(sources)
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
      first: Those that should rank higher.
      second: Those that they are compared with.
      alpha: Level of the one-sided test, in (0, 0.5).
      icc: Correlation of the scores of clips of one source, from 0 to 1.
      power: Chance that the AUC is found, in [0.5, 1).

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
    """Returns how many clips on each side find an AUC, with sources as these are.

    Args:
      auc: In (0.5, 1).
      first: Whose sources are as large; their number does not matter.
      second: Likewise.
      alpha: See `smallest_auc`, and the next two.
      icc: Correlation within sources.
      power: Chance that it is found.

    Raises:
      AuditError: A number is out of its range.
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

    If a share pi of the suspects was used, and used videos score with some AUC above
    those that were not, the set has AUC 1/2 + pi (AUC - 1/2).

    Args:
      auc: Of used videos, in (0.5, 1].
      suspects: The set.
      calibration: What it is compared with.
      alpha: See `smallest_auc`, and the next two.
      icc: Correlation within sources.
      power: Chance that it is found.

    Returns:
      The share; above 1 the set is not found though all of it was used.

    Raises:
      AuditError: A number is out of its range.
    """
    number("auc", auc, 0.5, 1, open="(")
    least = smallest_auc(suspects, calibration, alpha, icc, power)
    return (least - 0.5) / (auc - 0.5)


def least_listed(suspects: int, sources: int, fdr: Number) -> int:
    """Returns k_min, the smallest number of suspects that can be listed at all.

    With n sources of calibration clips no p-value is below 1 / (n + 1), and Benjamini
    and Hochberg list k of m suspects at a rate f only with p-values up to k f / m:
    k_min = ceil(m / (f (n + 1))), all of them above every calibration clip. More than
    m: none can be.

    Args:
      suspects: How many; clips, not sources.
      sources: Of calibration clips: however many clips one has, it counts once.
      fdr: The false discovery rate.

    Raises:
      AuditError: A number is out of its range.

    Example:
      >>> least_listed(50, 19, 0.05), least_listed(50, 500, 0.05)
      (50, 2)
    """
    suspects, sources = count("suspects", suspects), count("sources", sources)
    return math.ceil(suspects / (_exact(fdr) * (sources + 1)))


def sources_for_one(suspects: int, fdr: Number) -> int:
    """Returns how many sources of calibration it takes to list one of m suspects alone.

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
    """Says which AUC members and non-members find, and what one of interest takes.

    Args:
      members: Of them.
      nonmembers: Likewise.
      alpha: Level of the test.
      auc: The smallest of interest, in (0.5, 1).
      icc: Correlation within sources.
    """
    least = smallest_auc(members, nonmembers, alpha, icc)
    test = f"a one-sided test at level {alpha:g} finds with {percent(POWER)} power"
    shown, interest = _apart(least, auc)
    said = f"the smallest AUC that {test} is {shown}"
    if least > 1:
        said = f"there is no AUC that {test}"
    if max(members.per_source, nonmembers.per_source) > 1:
        said += f", if scores of one source correlate by {icc:g} (ICC, assumed)"
    if least <= auc:
        return f"{said}; {interest}, the smallest of interest, is within reach"
    takes = clips_for(auc, members, nonmembers, alpha, icc)
    many = f"about {takes}" if takes <= _MANY else "more than a million"
    return f"{said}; {interest}, the smallest of interest, takes {many} clips a role"


def no_verdict(members: Clips, nonmembers: Clips) -> list[str]:
    """Says which roles have too few sources for any verdict."""
    both = {"members": members, "non-members": nonmembers}
    return [
        f"there will be no verdict: the {name} have "
        f"{counted(each.sources, 'source')}, and it takes {MIN_SOURCES}"
        for name, each in both.items()
        if each.sources < MIN_SOURCES
    ]


def no_test(suspects: Clips, calibration: Clips) -> list[str]:
    """Says whether a side has too few sources for any test of suspects."""
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
    """Says how many suspects can be listed at all, and what one alone takes.

    Args:
      suspects: See `least_listed`, and the next two.
      sources: Of calibration clips.
      fdr: The false discovery rate.
    """
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
    """Says what a comparison of members with non-members can show.

    Args:
      members: Of them.
      nonmembers: Likewise.
      alpha: Level of the test.
      auc: The smallest of interest, in (0.5, 1).
      fprs: False-positive rates of the TPRs.
      icc: Correlation within sources.

    Returns:
      One sentence each, without its full stop.

    Raises:
      AuditError: A number is out of its range.
    """
    lines = [found_auc(members, nonmembers, alpha, auc, icc)]
    if max(members.per_source, nonmembers.per_source) > 1:
        alone = smallest_auc(members, nonmembers, alpha, 0)
        that = "there would be none either" if alone > 1 else f"it would be {alone:.2f}"
        lines.append(f"if scores of one source did not correlate at all, {that}")
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
    """Says what suspects can show against calibration clips: of the set, of the list.

    Args:
      suspects: Of them.
      calibration: Likewise.
      alpha: Level of the test of the whole set.
      fdr: False discovery rate of the list.
      icc: Correlation within sources.

    Returns:
      One sentence each, without its full stop.

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
    """Returns such as "80 %", rounded up."""
    return f"{math.ceil(100 * share - 1e-9)} %"


def _apart(first: float, second: float) -> tuple[str, str]:
    """Formats two numbers with digits, two to ten, until they differ in one."""
    digits = 2
    while digits < 10 and first != second and round(first - second, digits) == 0:
        digits += 1
    return f"{first:.{digits}f}", f"{second:.{digits}f}"


def _design(per_source: Number, icc: Number) -> float:
    return 1.0 + (number("per_source", per_source, 1) - 1) * number("icc", icc, 0, 1)


def _quantiles(alpha: Number, power: Number) -> float:
    number("alpha", alpha, 0, 0.5, open="()")
    number("power", power, 0.5, 1, open=")")
    import scipy.stats  # It takes longer than all else that `vidsme power` does.

    return float(scipy.stats.norm.isf(alpha) + scipy.stats.norm.ppf(power))


def _exact(rate: Number) -> fractions.Fraction:
    """Returns the rate that was written: 0.05 is 1/20, which no float is."""
    return fractions.Fraction(repr(float(number("fdr", rate, 0, 1, open="()"))))
