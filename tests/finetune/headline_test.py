"""Which score may be recommended, and a weighted sum of scores."""

import dataclasses

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("beside_scripts")


def _made(
    gain: dict[int, float],
    pool: str = "drawn",
    snapshot: str = "3",
    *,
    seeds: int = 6,
    only: tuple[int, ...] = (0, 1),
):
    """A setting whose scores, by their place, are moved for members.

    `only` says of which seeds, modulo 2, they are.
    """
    import _combination
    import _evidence

    names, found = _combination.GIVEN, {}
    for seed in range(seeds):
        rng = np.random.default_rng([8, seed])
        member = rng.permutation(np.arange(300) % 2 == 0)
        values = rng.normal(size=(len(names), 300)) * 10.0 ** np.arange(-4, 6)[:, None]
        for place, moved in gain.items() if seed % 2 in only else ():
            values[place] += moved * 10.0 ** (place - 4) * member
        found[seed] = _evidence.Scored(
            names=names,
            values=values,
            member=member,
            ids=np.array([f"{k:03d}" for k in range(300)]),
            motion=rng.normal(size=(2, 300)),
            tokens=np.full(300, 5),
        )
    return _evidence.Setting(pool, "full", snapshot, "", "pool", found)


def _judged(*settings):
    import _evidence
    import _headline

    sources = {x.pool: {} for x in settings}
    found = [_evidence.evaluated(x, {}) for x in settings]
    return _headline.judged(settings, found, sources)


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


@pytest.mark.long
def test_a_headline_is_recommended_only_if_it_holds_wherever_anything_is_found():
    import _headline

    first, second = _headline.GIVEN[:2]
    places = [_combination_place(name) for name in (first, second)]
    both = _made(dict.fromkeys(places, 2.0))
    one = _made({places[1]: 2.0}, snapshot="10")
    nothing = _made({}, pool="film")

    alone = _judged(both, nothing)
    assert alone["given"]["settings"] == ["drawn full 3"]
    assert alone["given"]["recommended"] == first
    assert alone["greedy"]["recommended"] is None
    wide = _judged(both, one, nothing)
    assert wide["given"]["settings"] == ["drawn full 3", "drawn full 10"]
    assert wide["given"]["recommended"] == second
    assert wide["given"]["lost"][first] == ["drawn full 10"]
    assert _judged(nothing)["given"]["recommended"] is None
    assert any("Recommended: none" in line for line in _headline.lines(alone))


def _combination_place(name: str) -> int:
    import _combination

    return _combination.GIVEN.index(name)


def test_candidates_are_counted_on_the_seeds_that_the_sum_is_judged_on_too():
    """One that tells on even seeds alone is above Vid-SME of all, and lost on odd."""
    import _combination
    import _headline

    first = _headline.GIVEN[0]
    setting = _made({_combination_place(first): 3.0}, seeds=10, only=(0,))
    found = _judged(setting)
    its = found["given"]
    assert its["settings"] == ["drawn full 3"] and its["seeds"] == [10]
    assert its["lost"][first] == []
    assert its["lost_on_odd"][first] == ["drawn full 3"]
    assert set(its["lost_on_odd"]) == {*_headline.GIVEN, _combination.NAME}
    assert its["lost_on_odd"][_combination.NAME] == its["lost"][_combination.NAME]
    text = _headline.lines(found)
    said = next(x for x in text if "of 10 seeds each" in x)
    assert "on the 5 odd seeds of 1 settings" in said
    wanted = "not above Vid-SME in 0 of 1 settings, on odd seeds in 1 of 1 (none)"
    assert f"- `{first}`: {wanted}" in text
    wanted = "not above Vid-SME in 1 of 1 settings on odd seeds (drawn full 3)"
    assert f"- `{_combination.NAME}`: {wanted}" in text


def test_a_candidate_without_the_features_is_judged_on_odd_seeds():
    """Of the answers given one candidate is in no sum: it has its scores there too."""
    import _combination
    import _headline

    name = "response_wbc"
    assert name in _headline.GIVEN and name not in _combination.GIVEN
    setting = _made({_combination_place("response_loss"): 3.0})
    for seed, scored in setting.seeds.items():
        setting.seeds[seed] = dataclasses.replace(
            scored,
            names=(*scored.names, name),
            values=np.vstack([scored.values, scored.of("response_loss")]),
        )
    its = _judged(setting)["given"]
    assert its["lost"][name] == its["lost_on_odd"][name] == []


def test_a_sum_is_recommended_only_where_it_was_judged():
    """A setting of one seed, which has none left to judge on, is one it has not won."""
    import _combination
    import _headline

    places = map(_combination_place, (_headline.GIVEN[0], "response_pmi_blank"))
    gain = dict(zip(places, (0.3, 3.0), strict=True))
    won = _made(gain)
    single = _made(dict.fromkeys(gain, 3.0), snapshot="10", seeds=1)
    assert _judged(won)["given"]["recommended"] == _combination.NAME
    both = _judged(won, single)["given"]
    assert both["settings"] == ["drawn full 3", "drawn full 10"]
    assert both["lost"][_combination.NAME] == [] and both["recommended"] is None
    alone = _judged(single)
    assert alone["given"]["combination"] is None
    assert not any("odd seeds of" in line for line in _headline.lines(alone))


@pytest.mark.parametrize("low, lost", [(-0.01, True), (0.0, True), (0.01, False)])
def test_above_is_with_the_whole_interval(low, lost):
    import _headline

    name = _headline.GIVEN[0]
    score = {
        "auc": {"value": 0.6, "low": 0.55, "high": 0.65},
        "tpr_less_vid_sme": {"value": 0.1, "low": low, "high": 0.2},
    }
    row = {"pool": "drawn", "method": "full", "snapshot": "3", "kind": "", "seeds": 4}
    its = _headline.judged([], [row | {"scores": {name: score}}], {})["given"]
    assert its["lost"][name] == ["drawn full 3"] * lost
    assert its["recommended"] == (None if lost else name)
