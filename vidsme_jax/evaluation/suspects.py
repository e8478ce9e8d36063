"""Tests suspects, as a set and each, against clips known not to be members.

A conformal p-value is the rank of a suspect among calibration clips, where each source
counts once, however many clips it has. Without any model of the scores it is valid if
and only if the suspect, were it not a member, could have been drawn as the calibration
clips were: a source, and then a clip of it.

Axes: `suspects` and `calibration`, unique videos.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int, Shaped

from vidsme_jax.arguments import number, require, same_length, series
from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import family_tests, metrics, power, sets, validity
from vidsme_jax.evaluation.sources import Sources
from vidsme_jax.evaluation.validity import CALLED, Procedure
from vidsme_jax.evaluation.verdicts import BLIND_ALPHA, MIN_SOURCES, p_is
from vidsme_jax.wording import counted

ASSUMPTION = (
    "The p-values hold only if the suspects, had the model never seen them, would be "
    "exchangeable with the {calibration}: the same source, period, length and kind of "
    "content. A small p-value then says that a suspect ranks higher than such clips "
    "do by chance. It does not say that the suspect was in the training data."
)


def conformal_p_values(
    suspect_scores: Float[np.ndarray, " suspects"],
    calibration_scores: Float[np.ndarray, " calibration"],
    units: Shaped[np.ndarray, " calibration"] | None = None,
) -> Float[np.ndarray, " suspects"]:
    r"""Returns one-sided conformal p-values [1]; a larger score is more member-like.

    $$p_j = (1 + \sum_{k=1}^{m} |\{i \in I_k : c_i \ge s_j\}| / |I_k|) / (m + 1)$$

    over the m sources of calibration clips with scores c, where I_k are the clips of
    the k-th [2]; with one clip a source it is a rank. Ties count against the suspect.

    [1] Bates et al., 2023. Testing for outliers with conformal p-values.
      https://arxiv.org/abs/2104.08279
    [2] Lee, Barber and Willett, 2023. Distribution-free inference with hierarchical
      data. https://arxiv.org/abs/2306.06342

    Args:
      suspect_scores: Finite.
      calibration_scores: Finite.
      units: The source of each calibration clip; None: each clip is a source.

    Raises:
      AuditError: A score is not finite, or the clips and their sources differ in
        number.

    Example:
      >>> conformal_p_values(np.array([0.9, 0.2]), np.array([0.1, 0.3, 0.5])).tolist()
      [0.25, 0.75]
    """
    suspect_scores = series("suspect_scores", suspect_scores, least=0)
    calibration_scores = series("calibration_scores", calibration_scores, least=0)
    units = np.arange(len(calibration_scores)) if units is None else units
    same_length(calibration_scores=calibration_scores, units=units)
    _, source, clips = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(calibration_scores)
    below = np.concatenate([[0.0], np.cumsum(1 / clips[source[order]])])
    at = np.searchsorted(calibration_scores[order], suspect_scores, side="left")
    # Sums of shares of sources are whole numbers up to rounding.
    above = (below[-1] - below[at]).round(9)
    return (1 + above) / (len(clips) + 1)


def benjamini_hochberg(
    p_values: Float[np.ndarray, " suspects"],
) -> Float[np.ndarray, " suspects"]:
    """Adjusts p-values: listing those <= a bounds the false discovery rate by a [1].

    Valid for p-values that share their calibration clips (they are positively
    dependent, Bates et al., 2023).

    [1] Benjamini and Hochberg, 1995. https://doi.org/10.1111/j.2517-6161.1995.tb02031.x

    Raises:
      AuditError: There are none, or one is not in [0, 1].
    """
    p_values = series("p_values", p_values)
    wrong = p_values[(p_values < 0) | (p_values > 1)][:1].tolist()
    require(not wrong, f"p_values holds {wrong}; all must be in [0, 1]")
    return scipy.stats.false_discovery_control(p_values, method="bh")


def suspects(
    table: ScoreTable, score: str, fdr: float, tests: Procedure
) -> dict[str, Any]:
    """Tests the suspects of a table, as a set and then each, against calibration clips.

    The first test is whether suspects and calibration clips differ without the model:
    if they do, or it cannot be tested, nothing else is tested. The set and its groups
    follow, then the list, one row per video.

    Args:
      table: A table with rows of role `suspects`, and `calibration` or else
        `nonmembers`.
      score: The headline score. A video has the mean over its rows, which ask different
        questions; one without any score is ranked last and not tested.
      fdr: The false discovery rate, in (0, 1), at which suspects are listed.
      tests: How sets are tested.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN: `score`, `fdr`, `calibration`
      (role, number of videos and of sources), `sources` (of suspects), `left_out` (the
      rows that are not tested, in words), `exchangeable` (of `validity.shift`, or
      None), `apart` (of `validity.apart`, or None; no other test depends on it), `set`
      (`p`, `alpha`, `statement`, `groups`, `curve`, `inference`; or None), `fewest` and
      `for_one` (see `power.least_listed` and `power.sources_for_one`), `num_listed`,
      None if nothing is tested, `statement`, `notes`, and `rows`, most member-like
      first: `video`, `ids`, `group`, `score` (with the table's sign), `p_value`,
      `adjusted_p_value`, `listed`; the last three are None if nothing is tested.

    Raises:
      AuditError: The table has no such score, or the rate is out of range.
    """
    number("fdr", fdr, 0, 1, open="()")
    tests.check()
    role = "calibration" if (table.role == "calibration").any() else "nonmembers"
    oriented = metrics.oriented(table, score)
    tested = _by_video(oriented, table, "suspects")
    known = _by_video(oriented, table, role)
    have, calibrates = (np.isfinite(each.values) for each in (tested, known))
    units = table.units[_firsts(known, calibrates)]
    result: dict[str, Any] = {
        "score": score,
        "fdr": fdr,
        "calibration": {
            "role": role,
            "videos": len(units),
            "sources": len(np.unique(units)),
        },
        "sources": len(np.unique(table.units[_firsts(tested, have)])),
        "exchangeable": None,
        "left_out": "",
        "apart": None,
        "set": None,
        "fewest": None,
        "for_one": None,
        "num_listed": None,
        "notes": [],
        "rows": [],
    }
    if not len(tested.values):
        return result | {"statement": "There are no suspects."}
    result["notes"] = _lacking(have, calibrates, score, role)
    if not len(units):
        reason = f"none of the {CALLED[role]} has {score}"
        if not len(known.values):
            reason = "there are no calibration clips or non-members to compare with"
    elif not have.any():
        reason = f"none of them has {score}"
    else:
        reason = _test(result, table, score, tests, (tested, known), (have, calibrates))
    p_values, adjusted = np.full((2, len(tested.values)), np.nan)
    if not reason:
        p_values[have] = conformal_p_values(
            tested.values[have], known.values[calibrates], units
        )
        adjusted[have] = benjamini_hochberg(p_values[have])
    # An adjusted p-value equal to the rate may exceed it by one ulp.
    listed = adjusted <= fdr * (1 + 1e-12)
    signed = metrics.signed(table, tested.values)
    if not reason:
        result["num_listed"] = int(listed.sum())
    result["rows"] = [
        {
            "video": str(table.video[tested.rows[i][0]]),
            "ids": table.id[tested.rows[i]].tolist(),
            "group": str(table.group[tested.rows[i][0]]),
            "score": _number(signed.item(i)),
            "p_value": _number(p_values.item(i)),
            "adjusted_p_value": _number(adjusted.item(i)),
            "listed": bool(listed[i]) if not reason and have[i] else None,
        }
        for i in np.argsort(-tested.values, kind="stable")
    ]
    return result | {"statement": _statement(result, reason)}


def _test(
    result: dict[str, Any],
    table: ScoreTable,
    score: str,
    tests: Procedure,
    videos: tuple["_Videos", "_Videos"],
    have: tuple[Bool[np.ndarray, " suspects"], Bool[np.ndarray, " calibration"]],
) -> str:
    """Adds the tests of exchangeability and of the set to the result.

    Returns:
      Why nothing more can be tested; "" if the suspects can be listed.
    """
    traits = family_tests.Traits(table)
    between = traits.between(*map(_firsts, videos, have))
    sources, role = between.sources, result["calibration"]["role"]
    shared = np.intersect1d(videos[0].clusters, videos[1].clusters)
    if len(shared):
        return (
            f"{len(shared)} of them are, by content, among the "
            f"{CALLED[role]} too, clips declared not to be members"
        )
    if sources.counts[1] < MIN_SOURCES:
        return (
            f"the {CALLED[role]} are of {counted(sources.counts[1], 'source')}; it "
            f"takes {MIN_SOURCES} to test whether they are a fair comparison"
        )
    if sources.counts[0] < power.MIN_SUSPECTS:
        return (
            f"the suspects are of {counted(sources.counts[0], 'source')}; it takes "
            f"{power.MIN_SUSPECTS} to test whether they and the {CALLED[role]} are "
            "alike without any model"
        )
    permuted = sources.permuted(tests.number, tests.seed)
    joint = validity.joint_test(traits, between, permuted, tests)
    found = validity.shift(joint, between, tests, "suspects", role)
    result["exchangeable"] = found
    rows = int(have[0].sum()), int(have[1].sum())
    result["left_out"] = validity.left_out(between, rows, "suspects", role)
    result["apart"] = validity.apart(between, permuted, tests, "suspects", role)
    if found["differs"] is None:
        return "whether the two differ without any model is not known"
    if found["differs"]:
        return (
            f"they differ from the {CALLED[role]} without any model "
            f"({found['strongest']}, AUC {found['auc']:.2f}, {p_is(found['p'])}), so "
            "that their p-values would not hold"
        )
    found["statement"] += _detectable(sources)
    suspects = int(have[0].sum())
    result["fewest"] = power.least_listed(suspects, sources.counts[1], result["fdr"])
    result["for_one"] = power.sources_for_one(suspects, result["fdr"])
    by_row = np.full(len(table.role), np.nan)
    for each, kept in zip(videos, have, strict=True):
        by_row[_firsts(each, kept)] = each.values[kept]
    values = by_row[between.rows]
    # Rows of sources that have more than those of the other role are left out.
    left = int(sources.label[sources.source].sum())
    units, group = table.units[between.rows], table.group[between.rows]
    draws = tests.number, tests.seed
    p = sets.p_of_set(values, sources, *draws)
    columns: dict[str, np.ndarray] = {}
    for name in table.scores:
        column = metrics.oriented(table, name)[between.rows]
        if np.isfinite(column).all():
            columns[name] = column
    tested: dict[str, Any] = {
        "p": p,
        "alpha": tests.alpha,
        "videos": suspects,
        "found": p <= tests.alpha,
        "groups": sets.by_group(values, group, units, left, *draws),
        "curve": sets.curve(values, units, left, p, *draws),
        "inference": sets.dataset_inference(columns, sources, tests.seed),
    }
    result["set"] = tested
    tested["statement"] = _of_set(result)
    return ""


def _detectable(sources: Sources) -> str:
    """Returns a sentence on the difference that few suspects show; "" if not few."""
    few, calibration = sources.counts
    if few >= MIN_SOURCES:
        return ""
    sides = power.Clips.of("suspects", few), power.Clips.of("clips", calibration)
    least = power.smallest_auc(*sides, BLIND_ALPHA / 2)  # Either side may be above.
    size = f"of AUC {least:.2f} or more" if least < 0.995 else "that separates the two"
    return (
        f" With {few} sources of suspects only a large difference is found: in one "
        f"column alone, one {size} ({power.percent(power.POWER)} power at level "
        f"{BLIND_ALPHA:g}); among many columns it must be larger."
    )


def _of_set(result: dict[str, Any]) -> str:
    """Returns a sentence on the result of the test of the set."""
    found, role = result["set"], result["calibration"]["role"]
    about = (
        f"{found['videos']} suspects from {counted(result['sources'], 'source')} "
        f"against {result['calibration']['videos']} {CALLED[role]} from "
        f"{counted(result['calibration']['sources'], 'source')}: {p_is(found['p'])}"
    )
    if found["found"]:
        return (
            f"As a set the suspects rank higher by {result['score']} than the "
            f"{CALLED[role]} do by chance ({about})."
        )
    return (
        f"As a set the suspects do not rank higher by {result['score']} than the "
        f"{CALLED[role]} do by chance ({about}; level {found['alpha']:g}). A set "
        "with few used clips, or one that changed the model little, gives the same "
        "result."
    )


class _Videos(NamedTuple):
    """The videos of one role, in the order of their hashes."""

    clusters: Shaped[np.ndarray, " videos"]  # Content hashes.
    values: Float[np.ndarray, " videos"]  # Mean scores, NaN without any.
    rows: list[Int[np.ndarray, " items"]]  # Rows of the table, per video.


def _by_video(
    scores: Float[np.ndarray, " items"], table: ScoreTable, role: str
) -> _Videos:
    """Returns the videos of a role with their mean scores."""
    rows = np.flatnonzero(table.role == role)
    clusters, video, num_rows = np.unique(
        table.cluster[rows], return_inverse=True, return_counts=True
    )
    ordered = rows[np.argsort(video, kind="stable")]
    split = np.split(ordered, np.cumsum(num_rows)[:-1]) if len(rows) else []
    values = [_mean(scores[each]) for each in split]
    return _Videos(clusters, np.array(values, np.float64), split)


def _firsts(
    videos: _Videos, kept: Bool[np.ndarray, " videos"]
) -> Int[np.ndarray, " kept"]:
    """Returns the first row of each video that is kept."""
    firsts = [rows[0] for rows, keep in zip(videos.rows, kept, strict=True) if keep]
    return np.array(firsts, np.int64)


def _mean(values: Float[np.ndarray, " items"]) -> float:
    """Returns the mean of the values that are not NaN, exact for equal values."""
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan
    same = (values == values[0]).all()
    return float(values[0] if same else values.mean())


def _number(value: float) -> float | None:
    """Returns a number for JSON, None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def _lacking(
    have: Shaped[np.ndarray, " suspects"],
    calibrates: Shaped[np.ndarray, " calibration"],
    score: str,
    role: str,
) -> list[str]:
    """Returns one sentence per role of which videos have no score."""
    return [
        f"{int((~each).sum())} of the {len(each)} {name} have no {score} and are "
        f"{what}."
        for each, name, what in (
            (have, "suspects", "not tested"),
            (calibrates, CALLED[role], "not compared with"),
        )
        if not each.all()
    ]


def _statement(result: dict[str, Any], reason: str) -> str:
    """Returns what the list shows, or why nothing is tested."""
    num, calibration = len(result["rows"]), result["calibration"]
    if reason:
        who = "1 suspect is" if num == 1 else f"{num} suspects are"
        return f"{who} ranked but not tested: {reason}."
    called = CALLED[calibration["role"]]
    fewest, listed = result["fewest"], result["num_listed"]
    possible = (
        f"a list would need at least {fewest}, or {result['for_one']} sources of "
        f"{called} for one suspect alone"
        if fewest > 1
        else "one alone could be listed"
    )
    if fewest > num:
        possible = (
            f"none can be listed, whatever its score: it takes {result['for_one']} "
            f"sources of {called} for one alone"
        )
    videos, sources = calibration["videos"], calibration["sources"]
    once = ", each of which counts once" if sources < videos else ""
    return (
        f"{listed} of {num} suspects are listed at a false discovery rate of "
        f"{result['fdr']:g}, against {videos} {called} from "
        f"{counted(sources, 'source')}{once}: {possible}. "
        f"{ASSUMPTION.format(calibration=called)}"
    )
