"""Which direction of the frames a score reads: the natural one, but for a few."""

import numpy as np
import pytest

from vidsme_jax import scores
from vidsme_jax.base import TokenSignals

ROWS = 7
OF_BOTH = ("vid_sme", "vetp")  # In the names of the few.


def _drawn(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.uniform(0.1, 2, shape).astype(np.float32)

    return TokenSignals(
        renyi=-np.sort(-draw(2, ROWS, 15), axis=-1),
        varentropy=draw(2, ROWS),
        gap=draw(2, ROWS),
        log_prob=-draw(2, ROWS),
        modified=draw(2, ROWS, 3),
        renyi_half_clamped=draw(2, ROWS),
        mean_renyi=-np.sort(-draw(2, 2, 15), axis=-1),
    )


def _changed(signals, direction):
    """Draws one direction anew."""
    drawn = (None if x is None else x.copy() for x in signals)
    changed = TokenSignals(*drawn)
    for array, other in zip(changed, _drawn(1), strict=True):
        if array is not None:
            array[direction] = other[direction]
    return changed


@pytest.mark.parametrize("profile", ["exact", "official"])
def test_all_but_a_few_read_the_natural_order_alone(profile):
    signals, names = _drawn(), scores.resolve("all", profile)
    whole, natural, second = (
        scores.compute(each, 1.5, 1.7, names, profile=profile)
        for each in (signals, _changed(signals, 0), _changed(signals, 1))
    )
    assert all(natural[name] != whole[name] for name in names)
    of_both = {name for name in names if second[name] != whole[name]}
    assert of_both == {name for name in names if any(x in name for x in OF_BOTH)}
    assert 0 < len(of_both) < len(names) / 2


@pytest.mark.parametrize(
    ("exact", "official", "place"),
    [
        ("modified_entropy", "Modified_entropy", 0),
        ("modified_renyi_05", "Modified_renyi_05", 1),
        ("modified_renyi_2", "Modified_renyi_2", 2),
    ],
)
def test_modified_entropies_are_those_of_the_natural_order(exact, official, place):
    signals = _drawn()
    mean = signals.modified[0, :, place].mean(dtype=np.float64)
    found = scores.compute(signals, 1.5, 1.7, [exact], profile="exact")
    assert found[exact] == pytest.approx(-mean)
    found = scores.compute(signals, 1.5, 1.7, [official], profile="official")
    assert found[official] == pytest.approx(mean)
