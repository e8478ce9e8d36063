"""Whether the corpus itself gives the answer away, before any model is asked.

The entropy orders q and r of a clip are monotone functions of its motion (phi) and its
brightness variation (b). Where these two alone tell members from non-members, a score
computed from q and r can do so without the model having seen anything; model-free
("blind") classifiers beat published attacks on many benchmarks that way [1].

[1] Das, Zhang and Tramer, 2024. Blind baselines beat membership inference attacks for
  foundation models. https://arxiv.org/abs/2406.16201
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import metrics

_MIN_VIDEOS = 5  # Of each role, to fit the classifier.
_FOLDS = 5
_REPEATS = 5  # Different splits, averaged; from _MANY videos on one is enough.
_MANY = 5000
_MAX_LISTED = 20  # Duplicates listed by hash.
_MAX_VERTICES = 200  # Of the blind ROC curve kept for the report.


class _Pair(NamedTuple):
    """The rows of two roles: features, label (True for the first role), video."""

    features: Float[np.ndarray, "items 2"]  # log1p(phi), b.
    label: Bool[np.ndarray, " items"]
    cluster: np.ndarray


class _Words(NamedTuple):
    """What the roles are called and what a shift between them spoils."""

    first: str
    second: str
    consequence: str
    doubt: str


_MEMBERSHIP = _Words(
    "members",
    "non-members",
    "a score computed from q and r cannot be read as evidence of membership here",
    "a score",
)
_SUSPICION = "the two are not exchangeable, and p-values of suspects do not hold here"


def blind_baseline(
    table: ScoreTable, num_bootstrap: int, seed: int, headline: str | None = None
) -> dict[str, Any]:
    """Tries to tell members from non-members by motion and brightness alone.

    Args:
      table: Its scores are used for the verdicts only.
      num_bootstrap: Resamples of videos behind each interval.
      seed: Of the cross-fitting and the resamples.
      headline: A score whose AUC is compared with the blind one, resample by resample.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN. `comparisons`: for each of
      `metrics.comparisons`, what `_compare` gives, with `duplicates` (videos listed in
      both roles), `verdicts` (by score: `shift_verdict`) and, where asked,
      `headline_minus_blind`. `suspects`: the same test of suspects against the clips
      they are compared with, or None.
    """
    found = {}
    for name, comparison in metrics.comparisons(table).items():
        members, nonmembers = comparison.members, comparison.nonmembers
        pair = _pair(table, members, nonmembers)
        result, blind = _compare(pair, num_bootstrap, seed, _MEMBERSHIP)
        result["description"] = comparison.description
        result["duplicates"] = _duplicates(table, members, nonmembers)
        rows = np.concatenate([members, nonmembers])
        scores = {s: metrics.oriented(table, s)[rows] for s in table.scores}
        result["verdicts"] = {
            s: shift_verdict(result, _auc(score, pair.label))
            for s, score in scores.items()
        }
        if headline in scores and blind is not None:
            result["headline_minus_blind"] = _difference(
                scores[headline], blind, pair, num_bootstrap, seed
            )
        found[name] = result
    return {"comparisons": found, "suspects": _suspects(table, num_bootstrap, seed)}


def shift_verdict(blind: dict[str, Any], auc: float | None) -> dict[str, Any]:
    """Says what a score's AUC is worth next to the blind baseline's.

    Held against the strongest of the blind results that separate, which is the more
    cautious choice.

    Args:
      blind: One comparison of `blind_baseline`.
      auc: The score's, larger = member; None if it has none.

    Returns:
      `verdict`, `statement` and `blind`, the result it was held against.
    """
    if blind["separates"] is None or auc is None:
        none = "The score has no AUC here."
        return {
            "verdict": "not tested" if auc is not None else "no result",
            "statement": blind["statement"] if auc is not None else none,
            "blind": None,
        }
    results = [blind[key] for key in ("cross_fitted", "motion", "brightness")]
    found = [result for result in results if result["low"] > 0.5]
    strongest = max(found, key=lambda r: r["value"]) if found else results[0]
    blind_auc = f"AUC {metrics.in_words(strongest)} from {strongest['name']} alone"
    shown = f"AUC {auc:.2f}, and {blind_auc}"
    if not found:
        verdict = "not shown to be confounded"
        statement = (
            f"Not shown to be confounded by motion or brightness: {shown}. Other "
            "differences between the two sets were not tested."
        )
    elif strongest["value"] >= auc:
        verdict = "invalid: shift"
        statement = (
            f"Invalid as evidence of membership: {shown}. The two sets differ in their "
            "content, and that alone explains as much."
        )
    else:
        verdict = "confounded: shift"
        statement = (
            f"Confounded: {shown}. The two sets differ in their content; the score's "
            "AUC is higher than that alone gives here, but how much of it, if any, is "
            "membership cannot be told from this comparison."
        )
    return {"verdict": verdict, "statement": statement, "blind": strongest}


def _pair(
    table: ScoreTable, first: Int[np.ndarray, " first"], second: Int[np.ndarray, " two"]
) -> _Pair:
    rows = np.concatenate([first, second])
    phi, brightness = table.flow_variance[rows], table.brightness_std[rows]
    return _Pair(
        np.stack([np.log1p(phi), brightness], axis=1).astype(np.float64),
        np.arange(len(rows)) < len(first),
        table.cluster[rows],
    )


def _auc(
    score: Float[np.ndarray, " items"], label: Bool[np.ndarray, " items"]
) -> float | None:
    finite = bool(np.isfinite(score).all())
    return metrics.auc(score[label], score[~label]) if finite else None


def _bootstrap(
    scores: Float[np.ndarray, "scores items"],
    pair: _Pair,
    num_bootstrap: int,
    seed: int,
) -> Float[np.ndarray, "scores resamples"]:
    return metrics.bootstrap(
        scores[:, pair.label],
        scores[:, ~pair.label],
        pair.cluster[pair.label],
        pair.cluster[~pair.label],
        thresholds=np.zeros(len(scores)),
        num_bootstrap=num_bootstrap,
        seed=seed,
    ).auc


def _fewest_videos(pair: _Pair) -> int:
    return min(metrics.num_videos(pair.cluster[pair.label == x]) for x in (True, False))


def cross_fitted(pair: _Pair, seed: int) -> Float[np.ndarray, " items"] | None:
    """Log-odds of the first role for each row, from videos the fit has not seen.

    A logistic regression on the standardised features and their squares, so that both
    a shift and a difference in spread are found; one observation a video, folds never
    share a video, averaged over several splits. None with fewer than 5 videos a role.
    """
    if _fewest_videos(pair) < _MIN_VIDEOS:
        return None
    # A video in both roles is two observations in one fold.
    _, video = np.unique(pair.cluster, return_inverse=True)
    _, first, row = np.unique(
        2 * video + pair.label, return_index=True, return_inverse=True
    )
    x, label, group = pair.features[first], pair.label[first], video[first]
    logits = np.zeros(len(first))
    repeats = _REPEATS if len(first) < _MANY else 1
    for repeat in range(repeats):
        fold = _folds(group, label, np.random.default_rng([seed, repeat]))
        for test in (fold == k for k in range(_FOLDS)):
            train = ~test
            model = make_pipeline(
                StandardScaler(),
                FunctionTransformer(_with_squares),
                LogisticRegression(max_iter=1000),
            )
            logits[test] += model.fit(x[train], label[train]).decision_function(x[test])
    return logits[row] / repeats


def _folds(
    video: Int[np.ndarray, " items"],
    label: Bool[np.ndarray, " items"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " items"]:
    """A fold for each item: at random, a video's items together, roles evenly spread.

    Videos are shuffled, put in the order first role only, both, second only, and dealt
    out in turn: folds are of equal size, and of each role, and every fold has both
    roles if there are as many videos of each as folds.
    """
    num = int(video.max()) + 1
    share = np.bincount(video, label, num) / np.bincount(video, minlength=num)
    order = rng.permutation(num)
    order = order[np.argsort(-share[order], kind="stable")]
    fold = np.empty(num, int)
    fold[order] = np.arange(num) % _FOLDS
    return fold[video]


def _with_squares(x: Float[np.ndarray, "items 2"]) -> Float[np.ndarray, "items 4"]:
    return np.concatenate([x, x**2], axis=1)


def _compare(
    pair: _Pair, num_bootstrap: int, seed: int, words: _Words
) -> tuple[dict[str, Any], Float[np.ndarray, " items"] | None]:
    """Separates two roles by their features.

    Returns:
      `motion` and `brightness`: the AUC, at least 0.5, of one feature, `low`, `high`
      and the `direction` in which it tells the roles apart; `cross_fitted`: that of
      the classifier; `separates`: one of the three intervals lies above 0.5;
      `evidence`: the result the `statement` quotes; `roc`: of the classifier. Beside
      it the classifier's output, None where there are too few videos. Of matched roles
      one pair in six separates by chance (measured; three intervals of 95 %).
    """
    finite = bool(np.isfinite(pair.features).all())
    logits = cross_fitted(pair, seed) if finite else None
    if logits is None:
        needs = f"that needs at least {_MIN_VIDEOS} videos of each"
        reason = needs if finite else "some of these statistics are not finite"
        result = {"separates": None, "evidence": None, "roc": None} | {
            "statement": f"Not tested whether motion and brightness alone separate "
            f"{words.first} from {words.second}: {reason}."
        }
        return result | dict.fromkeys(("motion", "brightness", "cross_fitted")), None
    scores = np.stack([*pair.features.T, logits])
    resamples = _bootstrap(scores, pair, num_bootstrap, seed)
    motion, brightness, fitted = (
        metrics.estimate(
            metrics.auc(s[pair.label], s[~pair.label]), aucs, _fewest_videos(pair)
        )
        for s, aucs in zip(scores, resamples, strict=True)
    )
    motion = _two_sided(motion, "motion", f"{words.first} move")
    brightness = _two_sided(
        brightness, "changes of brightness", f"the brightness of {words.first} changes"
    )
    fitted["name"] = "motion and brightness"
    found = [r for r in (fitted, motion, brightness) if r["low"] > 0.5]
    evidence = found[0] if found else fitted
    result = {
        "motion": motion,
        "brightness": brightness,
        "cross_fitted": fitted,
        "separates": bool(found),
        "evidence": evidence,
        "statement": _statement(evidence, bool(found), words),
        "roc": _vertices(metrics.roc_curve(logits[pair.label], logits[~pair.label])),
    }
    return result, logits


def _two_sided(result: dict[str, Any], name: str, what: str) -> dict[str, Any]:
    """Turns an AUC below 0.5 round and says which way the feature points."""
    if result["value"] >= 0.5:
        return result | {"name": name, "direction": f"{what} more"}
    low, high = 1 - result["high"], 1 - result["low"]
    turned = {"value": 1 - result["value"], "low": low, "high": high}
    return result | turned | {"name": name, "direction": f"{what} less"}


def _vertices(curve: metrics.RocCurve) -> dict[str, list[float]]:
    last = len(curve.fpr) - 1
    spread = np.linspace(0, last, _MAX_VERTICES // 2)
    near_zero = np.geomspace(1, last + 1, _MAX_VERTICES // 2) - 1
    kept = np.unique(np.concatenate([spread, near_zero]).astype(int))
    return {"fpr": curve.fpr[kept].tolist(), "tpr": curve.tpr[kept].tolist()}


def _statement(evidence: dict[str, Any], separates: bool, words: _Words) -> str:
    first, second, consequence, doubt = words
    numbers = f"AUC {metrics.in_words(evidence)}"
    if separates:
        name = evidence["name"].capitalize()
        tell = "tells" if name == "Motion" else "tell"
        return (
            f"{name} alone, without any model, {tell} {first} from {second} with "
            f"{numbers}: {consequence}."
        )
    return (
        f"No shift in motion or brightness between {first} and {second} was found at "
        f"this sample size ({numbers} without any model). That does not prove there is "
        f"none, and {doubt} can be confounded by what was not tested: scene content, "
        "length, codec, source."
    )


def _duplicates(
    table: ScoreTable,
    members: Int[np.ndarray, " members"],
    nonmembers: Int[np.ndarray, " nonmembers"],
) -> dict[str, Any]:
    """Videos, by content hash, that are listed both as member and as non-member."""
    shared = np.intersect1d(table.cluster[members], table.cluster[nonmembers])
    if not len(shared):
        return {"count": 0, "statement": "", "videos": []}

    def ids(rows: Int[np.ndarray, " rows"], cluster: str) -> list[str]:
        return table.id[rows[table.cluster[rows] == cluster]].tolist()

    return {
        "count": len(shared),
        "statement": f"{len(shared)} "
        + ("video is" if len(shared) == 1 else "videos are")
        + " listed both as member and as non-member: the labels are wrong.",
        "videos": [
            {
                "hash": str(cluster),
                "members": ids(members, cluster),
                "nonmembers": ids(nonmembers, cluster),
            }
            for cluster in shared[:_MAX_LISTED]
        ],
    }


def _difference(
    score: Float[np.ndarray, " items"],
    blind: Float[np.ndarray, " items"],
    pair: _Pair,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any] | None:
    """AUC of the score less that of the cross-fitted classifier, paired."""
    if not np.isfinite(score).all():
        return None
    both = np.stack([score, blind])
    aucs = _bootstrap(both, pair, num_bootstrap, seed)
    first, second = (metrics.auc(s[pair.label], s[~pair.label]) for s in both)
    low, high = np.percentile(aucs[0] - aucs[1], [2.5, 97.5])
    return {"value": first - second, "low": float(low), "high": float(high)}


def _suspects(
    table: ScoreTable, num_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Tests whether suspects look like the clips that calibrate their p-values."""
    role = "calibration" if (table.role == "calibration").any() else "nonmembers"
    rows = np.flatnonzero(table.role == "suspects"), np.flatnonzero(table.role == role)
    if not all(map(len, rows)):
        return None
    name = "calibration clips" if role == "calibration" else "non-members"
    words = _Words("suspects", name, _SUSPICION, "a p-value")
    result, _ = _compare(_pair(table, *rows), num_bootstrap, seed, words)
    return result | {"description": f"suspects and {name}"}
