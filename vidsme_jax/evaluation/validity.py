"""Tests each comparison without the model and gives a verdict for each score.

Axes: `items`, rows of the table; `rows`, those of two roles; `scores`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.arguments import count, number, one_of, require
from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import (
    adjusted,
    blind,
    groups,
    growth,
    intervals,
    matching,
    metrics,
    placebo,
    ranking,
    verdicts,
)
from vidsme_jax.evaluation.duplicates import duplicates
from vidsme_jax.evaluation.family_tests import Between, Traits
from vidsme_jax.evaluation.sources import Labels
from vidsme_jax.evaluation.verdicts import Evidence
from vidsme_jax.settings import views
from vidsme_jax.wording import printable

_MAX_VERTICES = 200  # Of the ROC curve kept for the report.
CALLED = {"nonmembers": "non-members", "calibration": "calibration clips"}


# Two roles, permutations of their labels, and the joint test of their blind features.
_Whole = tuple[Between, Labels, blind.Joint | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Procedure:
    """The parameters of tests.

    Attributes:
      alpha: The level of each test, in (0, 1).
      smallest: The smallest AUC of interest, in (0.5, 1).
      number: The number of permutations.
      seed: The seed of permutations and of cross-fitting.
    """

    alpha: float = 0.05
    smallest: float = 0.6
    number: int = 1999
    seed: int = 0

    @property
    def blind_alpha(self) -> float:
        """Returns the level at which two sets differ without a model.

        It is not below 0.05, so that a stricter alpha does not hide differences.
        """
        return max(self.alpha, verdicts.BLIND_ALPHA)

    @classmethod
    def of(cls, given: views.Report) -> "Procedure":
        """Returns the procedure with the settings of a report."""
        return cls(
            alpha=given.alpha,
            smallest=given.smallest_auc,
            number=given.num_permutations,
        )

    def check(self) -> None:
        """Raises an `AuditError` if one of them is out of range."""
        number("alpha", self.alpha, 0, 1, open="()")
        number("smallest", self.smallest, 0.5, 1, open="()")
        count("number", self.number)
        require(
            self.alpha >= 1 / (self.number + 1),
            f"alpha is {self.alpha:g}, which is below the smallest p-value of "
            f"{self.number} permutations, {1 / (self.number + 1):.2g}; give a larger "
            f"alpha or at least {math.ceil(1 / self.alpha - 1 - 1e-9)} permutations",
        )


def judge(
    table: ScoreTable,
    evaluation: Mapping[str, Any],
    tests: Procedure,
    headline: str | None = None,
) -> dict[str, Any]:
    """Tests members against non-members without the model, and gives verdicts.

    Args:
      table: The scores, with the features of the clips.
      evaluation: The result of `metrics.evaluate` for this table.
      tests: The parameters of the tests.
      headline: The score that is evaluated on a matched subset where the sets differ,
        and whose p is computed for subsets of sources.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN: by comparison `description`,
      `sources` of both roles, `blind` (of `shift`), `apart` (of `apart`), `duplicates`
      (of `duplicates`), `left_out` (of `left_out`), `verdicts` by score (of
      `verdicts.of_score`), `matched` (of `matching.result` for `headline`, or None),
      `growth` (of `growth.of_score` for `headline` in the 6 largest comparisons, or
      None) and `roc`, the curve of the propensity.

    Raises:
      AuditError: The table has no such headline, or a number is out of range.
    """
    tests.check()
    if headline is not None:
        one_of("headline", headline, table.scores)
    compared = groups.comparisons(table)
    if not compared:
        return {}
    traits = Traits(table)
    found: dict[str, dict[str, Any]] = {}
    size = {name: len(each.nonmembers) for name, each in compared.items()}
    largest = sorted(compared, key=lambda name: -size[name])[: growth.MOST]
    for name, comparison in compared.items():
        members, nonmembers = comparison.members, comparison.nonmembers
        scores = evaluation["comparisons"][name]["scores"]
        between = traits.between(members, nonmembers)
        permuted = between.sources.permuted(tests.number, tests.seed)
        joint = joint_test(traits, between, permuted, tests)
        shared = duplicates(table, members, nonmembers)
        files = apart(between, permuted, tests, "members", "nonmembers")
        result: dict[str, Any] = {
            "description": comparison.description,
            "sources": dict(
                zip(("members", "nonmembers"), between.sources.counts, strict=True)
            ),
            "blind": shift(joint, between, tests, "members", "nonmembers"),
            "apart": files,
            "duplicates": shared,
            "left_out": left_out(
                between, (len(members), len(nonmembers)), "members", "nonmembers"
            ),
            "verdicts": _verdicts(
                *(table, traits, (between, permuted, joint)),
                *(scores, tests, shared["reason"], _in_files(files)),
            ),
            "roc": _roc(between, tests.seed),
        }
        result["matched"] = result["growth"] = None
        if headline is not None and name in largest:
            p_s = result["verdicts"][headline]["p_s"]
            levels = tests.alpha, tests.number, tests.seed
            result["growth"] = growth.of_score(table, headline, between, p_s, *levels)
        if headline is not None:
            differ = result["verdicts"][headline]["verdict"] == "shift"
            if differ or _in_files(files):
                whole = traits.between(members, nonmembers, whole=True)
                result["matched"] = matching.result(
                    *(table, traits, whole, headline, name, tests.seed)
                )
        found[name] = result
    return found


def left_out(between: Between, rows: tuple[int, int], first: str, second: str) -> str:
    """Returns a sentence on the rows that are not in the tests; "" if all are.

    `rows` are the numbers of rows of the two roles, `first` and `second` their names.
    """
    tested = int(between.sources.label[between.sources.source].sum())
    others = len(between.rows) - tested
    if (tested, others) == rows:
        return ""
    return (
        f"Tests are of {tested} of {rows[0]} rows of {_named(first)} and {others} of "
        f"{rows[1]} of {_named(second)}: the sources of the two have unequal numbers "
        "of rows, so that those with more are thinned at random. Intervals and lists "
        "are of all rows."
    )


def joint_test(
    traits: Traits,
    between: Between,
    permuted: Labels,
    tests: Procedure,
) -> blind.Joint | None:
    """Tests the families that a model would read; None if no pixels were measured."""
    if not traits.known:
        return None
    return blind.joint(between.reaching, between.sources, permuted, tests.seed)


def shift(
    joint: blind.Joint | None,
    between: Between,
    tests: Procedure,
    first: str,
    second: str,
) -> dict[str, Any]:
    """Returns the result of `joint_test` for two roles with these names.

    Returns:
      `differs`, None if it was not tested; `p`, `families` (p of each), `auc`,
      `strongest` in words, the number of `columns`, and a `statement`.
    """
    names = _named(first), _named(second)
    if joint is None:
        statement = (
            f"Not tested whether {names[0]} and {names[1]} differ without any model: "
            f"{verdicts.NOT_KNOWN}."
        )
        nothing = dict.fromkeys(("differs", "p", "auc", "strongest"))
        return nothing | {"families": {}, "columns": 0, "statement": statement}
    columns = sum(len(each.columns) for each in between.reaching)
    strongest = _strongest(joint)
    tested = (
        f"{columns} properties of {_listed([each.name for each in between.reaching])}"
    )
    if joint.p <= tests.blind_alpha:
        statement = (
            f"Without any model {names[0]} and {names[1]} differ: {strongest}, AUC "
            f"{joint.auc:.2f} ({verdicts.p_is(joint.p)}, corrected for all {tested})."
        )
    else:
        statement = (
            f"No difference between {names[0]} and {names[1]} was found in {tested} "
            f"({verdicts.p_is(joint.p)}; the largest is {strongest}, AUC "
            f"{joint.auc:.2f}). That does not show that there is none."
        )
    return _facts(joint, tests, statement) | {"columns": columns}


def _facts(joint: blind.Joint, tests: Procedure, statement: str) -> dict[str, Any]:
    """Returns a joint test for JSON."""
    return {
        "differs": joint.p <= tests.blind_alpha,
        "p": joint.p,
        "auc": joint.auc,
        "strongest": _strongest(joint),
        "families": joint.families,
        "statement": statement,
    }


def apart(
    between: Between,
    permuted: Labels,
    tests: Procedure,
    first: str,
    second: str,
) -> dict[str, Any] | None:
    """Tests whether files of two roles differ in features that cannot reach the model.

    Returns:
      As `shift`, without `columns`; None if no such feature varies.
    """
    if not between.apart:
        return None
    names = _named(first), _named(second)
    advice = "compare a matched subset"
    if first == "suspects":
        advice = f"take {names[1]} that were made and stored as the {names[0]} were"
    joint = blind.joint(between.apart, between.sources, permuted, tests.seed)
    strongest, tested = _strongest(joint), _listed([x.name for x in between.apart])
    if joint.p <= tests.blind_alpha:
        statement = (
            f"The files of {names[0]} and {names[1]} differ in what the model does not "
            f"read: {strongest}, AUC {joint.auc:.2f} ({verdicts.p_is(joint.p)}). Sets "
            "drawn at random from one collection differ this much in at most "
            f"{tests.blind_alpha:.0%} of draws; {advice}."
        )
    else:
        statement = (
            f"No difference was found in what the model does not read ({tested}; "
            f"{verdicts.p_is(joint.p)})."
        )
    return _facts(joint, tests, statement)


def _in_files(found: Mapping[str, Any] | None) -> str:
    """Names the strongest difference of the files; "" if none was found."""
    if found is None or not found["differs"]:
        return ""
    return f"{found['strongest']}, AUC {found['auc']:.2f}"


def _verdicts(
    table: ScoreTable,
    traits: Traits,
    whole: _Whole,
    scores: Mapping[str, Any],
    tests: Procedure,
    reason: str,
    files: str,
) -> dict[str, Any]:
    """Returns the verdict of each score, those that have the same rows together."""
    levels = tests.alpha, tests.smallest
    rows = whole[0].rows
    split = int(whole[0].sources.label[whole[0].sources.source].sum())
    columns = {name: metrics.oriented(table, name) for name in scores}
    placebos = {name: placebo.pair(table, name) for name in scores}
    together: dict[bytes, list[str]] = {}
    found: dict[str, Any] = {}
    for name in scores:
        kept = np.isfinite(columns[name][rows])
        if (pair := placebos[name]) is not None:
            kept &= np.isfinite(pair[:, rows]).all(axis=0)
        auc = scores[name]["auc"]
        if auc["value"] is not None and np.ptp(columns[name][rows][kept]) == 0:
            auc = intervals.refused("all of its values are equal")
        if auc["value"] is not None and kept[:split].any() and kept[split:].any():
            together.setdefault(kept.tobytes(), []).append(name)
        else:
            found[name] = verdicts.of_score(Evidence(auc), *levels, reason)
    for mask, names in together.items():
        kept = np.frombuffer(mask, bool)
        part = whole
        if not kept.all():
            firsts, others = rows[:split][kept[:split]], rows[split:][kept[split:]]
            between = traits.between(firsts, others)
            permuted = between.sources.permuted(tests.number, tests.seed)
            part = between, permuted, joint_test(traits, between, permuted, tests)
        each = np.stack([columns[name] for name in names], axis=1)
        tested = _tested(part, each, [placebos[name] for name in names], tests)
        for name, evidence in zip(names, tested, strict=True):
            evidence = evidence._replace(auc=scores[name]["auc"])
            found[name] = verdicts.of_score(evidence, *levels, reason, files)
    return {name: found[name] for name in scores}


def _tested(
    whole: _Whole,
    columns: Float[np.ndarray, "items scores"],
    placebos: list[Float[np.ndarray, "2 items"] | None],
    tests: Procedure,
) -> list[Evidence]:
    """Returns the evidence for verdicts of scores that all rows have."""
    between, permuted, joint = whole
    sources, seed = between.sources, tests.seed
    if min(sources.counts) < 2:
        return [Evidence({}, sources=sources.counts) for _ in placebos]
    ranked = ranking.ranks(columns[between.rows])
    p_s = ranking.p_values(ranked, sources, permuted)
    if joint is None:
        return [Evidence({}, float(p), sources=sources.counts) for p in p_s]
    adjustment = adjusted.Adjustment.of(between.reaching, sources, seed)
    within = adjustment.permuted(tests.number, seed)
    p_r = adjustment.p_values(sources.means(ranked), within)
    beyond = placebo.p_values(placebos, between, permuted, (adjustment, within))
    auc = blind.auc(blind.propensity(between.reaching, sources, seed), sources)
    strongest = "a combination of all that was measured"
    if joint.p <= tests.blind_alpha and joint.auc > auc:
        auc, strongest = joint.auc, _strongest(joint)
    return [
        Evidence({}, float(s), joint.p, float(r), *d, auc, strongest, sources.counts)
        for s, r, d in zip(p_s, p_r, beyond, strict=True)
    ]


def _roc(between: Between, seed: int) -> dict[str, Any] | None:
    """Returns the ROC curve of the propensity by families that reach the model."""
    if not between.reaching:
        return None
    values = blind.propensity(between.reaching, between.sources, seed)
    label = between.sources.label
    curve = metrics.roc_curve(values[label], values[~label])
    kept = metrics.thinned(len(curve.fpr), _MAX_VERTICES)
    return {
        "auc": blind.auc(values, between.sources),
        "fpr": curve.fpr[kept].tolist(),
        "tpr": curve.tpr[kept].tolist(),
    }


def _strongest(joint: blind.Joint) -> str:
    """Returns the name of the feature that separates two sets best."""
    if joint.strongest == blind.ALL:
        return f"all columns of {joint.family} together"
    column = printable(joint.strongest.replace("_", " "), 100)
    return column if joint.family in ("", "motion") else f"{column} ({joint.family})"


def _named(role: str) -> str:
    return CALLED.get(role, role)


def _listed(names: list[str]) -> str:
    """Returns names as 'a, b and c'."""
    *most, last = names or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last
