"""Which score may be recommended, and a weighted sum of scores."""

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("beside_scripts")


def _made(gain: dict[int, float], pool: str = "drawn", snapshot: str = "3"):
    """A setting whose scores, by their place, are moved for members."""
    import _combination
    import _evidence

    names, seeds = _combination.GIVEN, {}
    for seed in range(6):
        rng = np.random.default_rng([8, seed])
        member = rng.permutation(np.arange(300) % 2 == 0)
        values = rng.normal(size=(len(names), 300)) * 10.0 ** np.arange(-4, 6)[:, None]
        for place, moved in gain.items():
            values[place] += moved * 10.0 ** (place - 4) * member
        seeds[seed] = _evidence.Scored(
            names=names,
            values=values,
            member=member,
            ids=np.array([f"{k:03d}" for k in range(300)]),
            motion=rng.normal(size=(2, 300)),
            tokens=np.full(300, 5),
        )
    return _evidence.Setting(pool, "full", snapshot, "", "pool", seeds)


def test_a_sum_is_fitted_on_half_of_the_seeds_and_judged_on_the_other():
    """It finds the two scores that tell, whatever their units, and beats either."""
    import _combination
    import _evidence

    setting = _made({0: 1.0, 3: 1.0})
    fitted = _combination.fit([setting], _combination.GIVEN)
    weights = np.array(list(fitted["weights"].values()))
    assert set(np.argsort(-weights)[:2]) == {0, 3}
    assert np.abs(np.delete(weights, [0, 3])).max() < 0.2
    judged = _combination.judged(setting, fitted)
    assert sorted(judged.seeds) == [1, 3, 5]
    draws = _evidence.Resampled(judged, {})
    aucs = [
        draws.of(_evidence.by_seed(judged, name), 0.05)[0][0]
        for name in (_combination.NAME, setting.seeds[0].names[0])
    ]
    assert aucs[0] > aucs[1] + 0.05
    scored = judged.seeds[3]
    plain = sum(c * scored.of(n) for n, c in fitted["coefficients"].items())
    np.testing.assert_array_equal(scored.of(_combination.NAME), plain)
    # What is judged has no part in the fit.
    setting.seeds[3].values[:] = 0
    assert _combination.fit([setting], _combination.GIVEN) == fitted


def test_a_headline_is_recommended_only_if_it_holds_wherever_anything_is_found():
    import _evidence
    import _headline

    first, second = _headline.GIVEN[:2]
    places = [_combination_place(name) for name in (first, second)]
    both = _made(dict.fromkeys(places, 2.0))
    one = _made({places[1]: 2.0}, snapshot="10")
    nothing = _made({}, pool="film")

    def judged(*settings):
        sources = {x.pool: {} for x in settings}
        found = [_evidence.evaluated(x, {}) for x in settings]
        return _headline.judged(settings, found, sources)

    alone = judged(both, nothing)
    assert alone["given"]["settings"] == ["drawn full 3"]
    assert alone["given"]["recommended"] == first
    assert alone["greedy"]["recommended"] is None
    wide = judged(both, one, nothing)
    assert wide["given"]["settings"] == ["drawn full 3", "drawn full 10"]
    assert wide["given"]["recommended"] == second
    assert wide["given"]["lost"][first] == ["drawn full 10"]
    assert judged(nothing)["given"]["recommended"] is None
    assert any("Recommended: none" in line for line in _headline.lines(alone))


def _combination_place(name: str) -> int:
    import _combination

    return _combination.GIVEN.index(name)
