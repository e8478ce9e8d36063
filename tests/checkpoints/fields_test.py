"""Keys of a config that are proposed, refused and left out."""

import time

import pytest

from vidsme_jax.checkpoints.fields import BOOKKEEPING, EPS_RANGE, Fields


def _close(raw, ignored=(), **read):
    problems: list[str] = []
    fields = Fields(raw, "text_config", problems)
    for key, kind in read.items():
        fields.take(key, kind, None)
    fields.close(dict.fromkeys(ignored, "a reason"))
    return problems


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("num_hidden_layer", "num_hidden_layers"),
        ("rope_tetha", "rope_theta"),
        # Keys that are not read would be nearer.
        ("output_hidden_state", "num_hidden_layers"),
        ("pruned_head", "rope_theta"),
        ("mm_projector_r", None),
    ],
)
def test_only_keys_that_are_read_are_proposed(wrong, near):
    assert {"output_hidden_states", "pruned_heads"} <= BOOKKEEPING
    read = {"num_hidden_layers": int, "rope_theta": float}
    (problem,) = _close({wrong: 1}, ("mm_projector_lr",), **read)
    proposed = f"; did you mean {near!r}?" if near else " (it may change the model"
    assert f"text_config: unknown key {wrong!r}{proposed}" in problem


def test_what_is_built_is_named_once():
    problems: list[str] = []
    fields = Fields({"rope_type": "yarn"}, "config.json", problems)
    fields.expect("rope_type", "default", "default", "linear")
    (problem,) = problems
    assert problem.endswith("rope_type is 'yarn'; built for 'default' or 'linear'")


def test_twenty_unknown_keys_are_listed():
    problems = _close({f"novel_{k:02}": 1 for k in range(23)})
    assert len(problems) == 21 and "'novel_19'" in problems[19]
    assert problems[20] == "and 3 more unknown keys in text_config"


def test_thousands_of_unknown_keys_take_no_time():
    begun = time.process_time()
    problems = _close({f"rope_thet{k}": 1 for k in range(100_000)}, rope_theta=float)
    assert time.process_time() - begun < 2
    assert len(problems) == 21
    assert problems[20] == "and 99980 more unknown keys in text_config"


@pytest.mark.parametrize(
    "value", [0, -1, 10**4000, float("nan"), float("inf"), 1e-320, 2.0, True, "x", [1]]
)
def test_numbers_have_ranges(value):
    problems: list[str] = []
    fields = Fields({"eps": value}, "text_config", problems)
    assert fields.number("eps", 1e-6, *EPS_RANGE) == 1e-6
    (problem,) = problems
    assert "text_config: eps is " in problem and len(problem) < 300


def test_values_are_shown_in_part():
    problems: list[str] = []
    fields = Fields({"a": ["x" * 10**6] * 10**5, "b": {"k" * 10**6: 1}}, "c", problems)
    fields.take("a", int)
    fields.expect("b", 1)
    fields.size("c", 1)
    assert len(problems) == 2 and max(map(len, problems)) < 300
