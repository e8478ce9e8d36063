"""Classifiers that see motion and brightness only, never the model.

The entropy orders q and r of a clip are monotone functions of its motion (phi) and its
brightness variation (b). Where these two alone separate members from non-members, a
score computed from q and r can do so without the model having seen anything; model-free
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
from vidsme_jax.evaluation import intervals, metrics
from vidsme_jax.evaluation.bootstrap import bootstrap

_MIN_VIDEOS = 5  # Of each role, to fit the classifier.
_FOLDS = 5
_REPEATS = 5  # Different splits, averaged; from _MANY videos on one is enough.
_MANY = 5000
_MAX_VERTICES = 200  # Of the ROC curve kept for the report.


class Pair(NamedTuple):
    """The rows of two roles: features, label (True for the first role), video."""

    features: Float[np.ndarray, "items 2"]  # log1p(phi), b.
    label: Bool[np.ndarray, " items"]
    cluster: np.ndarray

    @classmethod
    def of(
        cls,
        table: ScoreTable,
        first: Int[np.ndarray, " first"],
        second: Int[np.ndarray, " second"],
    ) -> "Pair":
        """Takes the rows of two roles from a table."""
        rows = np.concatenate([first, second])
        phi, brightness = table.flow_variance[rows], table.brightness_std[rows]
        return cls(
            np.stack([np.log1p(phi), brightness], axis=1).astype(np.float64),
            np.arange(len(rows)) < len(first),
            table.cluster[rows],
        )

    def kept(self, rows: Bool[np.ndarray, " items"]) -> "Pair":
        """Returns some of the rows."""
        return Pair(self.features[rows], self.label[rows], self.cluster[rows])

    def auc(self, score: Float[np.ndarray, " items"]) -> float:
        """Returns the AUC of the first role against the second."""
        return metrics.auc(score[self.label], score[~self.label])

    def bootstrap(
        self, scores: Float[np.ndarray, "scores items"], num_bootstrap: int, seed: int
    ) -> Float[np.ndarray, "scores resamples"]:
        """Returns the AUCs over resamples of videos."""
        return bootstrap(
            scores[:, self.label],
            scores[:, ~self.label],
            self.cluster[self.label],
            self.cluster[~self.label],
            thresholds=np.zeros(len(scores)),
            num_bootstrap=num_bootstrap,
            seed=seed,
        ).auc

    def fewest_videos(self) -> int:
        """Counts the videos of the role that has fewer."""
        return min(
            intervals.num_videos(self.cluster[self.label == x]) for x in (True, False)
        )


class Words(NamedTuple):
    """The names of two roles, and the consequence of a shift between them."""

    first: str
    second: str
    consequence: str
    doubt: str


def compare(
    pair: Pair, num_bootstrap: int, seed: int, words: Words
) -> tuple[dict[str, Any], Float[np.ndarray, " items"] | None]:
    """Separates two roles by their features.

    Returns:
      `motion` and `brightness`: the AUC, at least 0.5, of one feature, `low`, `high`
      and the `direction` in which the roles differ; `cross_fitted`: that of
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
    resamples = pair.bootstrap(scores, num_bootstrap, seed)
    motion, light, fitted = (
        intervals.estimate(pair.auc(s), aucs, pair.fewest_videos())
        for s, aucs in zip(scores, resamples, strict=True)
    )
    motion = _two_sided(motion, "motion", f"{words.first} move")
    light = _two_sided(
        light, "changes of brightness", f"the brightness of {words.first} changes"
    )
    fitted["name"] = "motion and brightness"
    found = [r for r in (fitted, motion, light) if r["low"] > 0.5]
    evidence = found[0] if found else fitted
    curve = metrics.roc_curve(logits[pair.label], logits[~pair.label])
    kept = metrics.spread(len(curve.fpr), _MAX_VERTICES)
    result = {
        "motion": motion,
        "brightness": light,
        "cross_fitted": fitted,
        "separates": bool(found),
        "evidence": evidence,
        "statement": _statement(evidence, bool(found), words),
        "roc": {"fpr": curve.fpr[kept].tolist(), "tpr": curve.tpr[kept].tolist()},
    }
    return result, logits


def cross_fitted(pair: Pair, seed: int) -> Float[np.ndarray, " items"] | None:
    """Returns log-odds of the first role, for each row from a fit without its video.

    A logistic regression on the standardised features and their squares, so that both
    a shift and a difference in spread are found; one observation a video, folds never
    share a video, averaged over several splits. None with fewer than 5 videos a role.
    """
    if pair.fewest_videos() < _MIN_VIDEOS:
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


def _two_sided(result: dict[str, Any], name: str, what: str) -> dict[str, Any]:
    """Turns an AUC below 0.5 round and says which way the feature points."""
    if result["value"] >= 0.5:
        return result | {"name": name, "direction": f"{what} more"}
    low, high = 1 - result["high"], 1 - result["low"]
    turned = {"value": 1 - result["value"], "low": low, "high": high}
    return result | turned | {"name": name, "direction": f"{what} less"}


def _statement(evidence: dict[str, Any], separates: bool, words: Words) -> str:
    first, second, consequence, doubt = words
    numbers = f"AUC {intervals.in_words(evidence)}"
    if separates:
        name = evidence["name"].capitalize()
        verb = "separates" if name == "Motion" else "separate"
        return (
            f"{name} alone, without any model, {verb} {first} from {second} with "
            f"{numbers}: {consequence}."
        )
    return (
        f"No shift in motion or brightness between {first} and {second} was found at "
        f"this sample size ({numbers} without any model). That does not prove there is "
        f"none, and {doubt} can be confounded by what was not tested: scene content, "
        "length, codec, source."
    )
