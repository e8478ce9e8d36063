"""Keys of a config that are proposed, refused and left out."""

import pytest

from vidsme_jax.checkpoints.fields import BOOKKEEPING, Fields


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
