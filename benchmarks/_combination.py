"""A weighted sum of scores, fitted on half of the seeds and judged on the other half.

The weights are those of one logistic regression over all settings with the given
features: each feature is divided by its deviation over the clips of the seeds that are
fitted, and its mean in a table is taken off there, since another model's level differs.
A ranking is not moved by that, so the sum is of raw scores times coefficients.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import _evidence
import numpy as np

# With the answers that were trained on, and with the model's own alone.
GIVEN = (
    "response_min_k_plus_plus_100",
    "response_min_k_plus_plus_30",
    "response_loss",
    "response_loss_ref",
    "response_min_k_plus_plus_100_ref",
    "response_mean_renyi_1",
    "response_pmi_blank",
    "response_vid_sme_max_30",
    "vid_sme",
    "mean_renyi_1",
)
GREEDY = (
    "vid_sme",
    "vid_sme_mean",
    "mean_renyi_1",
    "mean_renyi_2",
    "min_k_plus_plus_30",
    "min_k_plus_plus_100",
    "response_loss",
    "response_mean_renyi_1",
    "response_max_renyi_1_30",
    "response_vid_sme",
    "response_vid_sme_max_30",
    "response_pmi",
)
NAME = "combination"
_LIKELIHOOD = 100.0  # Weighs the mean log-likelihood against the squared weights.


def fit(settings: Sequence[_evidence.Setting], names: Sequence[str]) -> dict[str, Any]:
    """Returns the coefficients of raw scores, fitted on the seeds of even number.

    Args:
      settings: Of any pools and ways of training; each counts alike.
      names: The features, which every setting has.

    Returns:
      `coefficients` by score, `seeds` and `settings` that were fitted.
    """
    from sklearn.linear_model import LogisticRegression

    features, labels, weights = [], [], []
    for setting in settings:
        even = {s: x for s, x in setting.seeds.items() if _is_fitted(s)}
        for scored in even.values():
            values = np.stack([scored.of(name) for name in names], axis=1)
            features.append(values - values.mean(0))
            labels.append(scored.member)
            weights.append(np.full(len(values), 1 / (len(values) * len(even))))
    deviation = np.concatenate(features).std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    total = np.concatenate(weights)
    model = LogisticRegression(C=_LIKELIHOOD, fit_intercept=False, max_iter=1000)
    model.fit(
        np.concatenate(features) / deviation,
        np.concatenate(labels),
        sample_weight=total / total.sum(),
    )
    found = model.coef_[0] / deviation
    return {
        "coefficients": dict(zip(names, map(float, found), strict=True)),
        "weights": dict(zip(names, map(float, model.coef_[0]), strict=True)),
        "seeds": "even",
        "settings": [setting.name for setting in settings],
    }


def judged(
    setting: _evidence.Setting, fitted: dict[str, Any]
) -> _evidence.Setting | None:
    """Returns the setting's seeds of odd number, with the sum as a score.

    Args:
      setting: To judge on.
      fitted: Of `fit`.

    Returns:
      None if there is no such seed, or a score is missing.
    """
    known = fitted["coefficients"]
    seeds = {}
    for seed, scored in setting.seeds.items():
        if _is_fitted(seed):
            continue
        if not set(known) <= set(scored.names):
            return None
        its = sum(weight * scored.of(x) for x, weight in known.items())
        seeds[seed] = dataclasses.replace(
            scored,
            names=(*scored.names, NAME),
            values=np.vstack([scored.values, its]),
        )
    return dataclasses.replace(setting, seeds=seeds) if seeds else None


def _is_fitted(seed: int) -> bool:
    return seed % 2 == 0
