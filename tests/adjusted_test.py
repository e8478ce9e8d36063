"""The test beyond the blind features: its level, what it adjusts for, its power."""

import numpy as np
import scipy.optimize
import scipy.stats

from vidsme_jax.evaluation import adjusted, blind, blind_families, matching, ranking
from vidsme_jax.evaluation.sources import Sources


def _world(rng, sources, columns, shift=0.0):
    """Columns over sources; all of them shifted a little."""
    x = rng.normal(size=(2 * sources, columns))
    x[:sources] += shift
    of = Sources.of(np.arange(sources), np.arange(sources) + sources)
    named = {f"c{k}": x[:, k] for k in range(columns)}
    return x, [blind_families.family("pixels", named, of)], of


def _p(found, of, score, seed):
    adjustment = adjusted.Adjustment.of(found, of, seed)
    dealt = adjustment.permuted(199, seed)
    ranked = ranking.ranks(score[:, None])
    return float(adjustment.p_values(ranked, dealt)[0])


def test_the_level_is_kept_with_more_columns_than_sources():
    rng = np.random.default_rng(0)
    p = []
    for seed in range(150):
        _, found, of = _world(rng, 20, 44)
        p.append(_p(found, of, rng.normal(size=40), seed))
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001


def test_what_the_features_explain_is_taken_off():
    rng = np.random.default_rng(1)
    alone, beyond = [], []
    for seed in range(40):
        x, found, of = _world(rng, 60, 4, shift=0.5)
        score = x.sum(axis=1) + rng.normal(size=120)
        beyond.append(_p(found, of, score, seed))
        alone.append(_p([], of, score, seed))
    assert np.mean(np.array(alone) <= 0.05) > 0.9
    assert np.mean(np.array(beyond) <= 0.05) < 0.3


def test_what_the_features_do_not_explain_is_found():
    rng = np.random.default_rng(2)
    p = []
    for seed in range(30):
        x, found, of = _world(rng, 50, 20, shift=0.1)
        score = x[:, 0] + rng.normal(size=100) + 1.2 * of.label
        p.append(_p(found, of, score, seed))
    assert np.mean(np.array(p) <= 0.05) > 0.9


def test_it_is_one_sided():
    rng = np.random.default_rng(3)
    _, found, of = _world(rng, 40, 3)
    score = rng.normal(size=80) - 2.0 * of.label
    assert _p(found, of, score, 0) > 0.99


def test_a_score_is_predicted_within_roles():
    rng = np.random.default_rng(4)
    _, found, of = _world(rng, 60, 3)
    # Of a score that is the label nothing is predicted.
    fit = blind.Fit.of(found[0].values, of, 0)
    score = of.label[:, None].astype(float)
    np.testing.assert_allclose(fit.scores(score, of.label), 0, atol=1e-12)
    own = found[0].values[:, :1]
    predicted = fit.scores(own, of.label)[:, 0]
    assert np.corrcoef(predicted, own[:, 0])[0, 1] > 0.95


def test_strata_are_of_the_propensity():
    rng = np.random.default_rng(5)
    x, found, of = _world(rng, 50, 2, shift=1.0)
    strata = adjusted.Adjustment.of(found, of, 0).strata
    assert np.bincount(strata).tolist() == [20] * 5
    sums = [x[strata == k].sum(axis=1).mean() for k in range(5)]
    assert sums == sorted(sums)
    few = Sources.of(np.arange(4), np.arange(4) + 4)
    assert adjusted.Adjustment.of([], few, 0).strata.tolist() == [0] * 8


def test_a_matching_has_as_many_pairs_as_any():
    rng = np.random.default_rng(6)
    for _ in range(30):
        label = np.arange(14) < 6
        values = rng.normal(size=14)
        width = matching.CALIPER * values.std()
        kept = matching.matched(values, label)
        near = np.abs(values[label][:, None] - values[~label]) <= width
        rows, columns = scipy.optimize.linear_sum_assignment(~near)
        assert kept.sum() == 2 * near[rows, columns].sum()
        assert kept[label].sum() == kept[~label].sum()
    assert (
        matching.overlap(np.array([0.0, 2, 1, 3]), np.array([1, 1, 0, 0], bool)) == 0.5
    )
