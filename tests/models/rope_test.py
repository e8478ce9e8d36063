"""The frequencies of rotary embeddings, against transformers' and in float64."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.llama import modeling_llama

from vidsme_jax import models
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.models import rope
from vidsme_jax.models.qwen_vl import params as qwen_vl

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SETTINGS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "llama3": LLAMA3,
    "llama3, 32": LLAMA3 | {"factor": 32.0},  # PerceptionLM-1B and -3B.
    "llama3, without original": {
        k: v for k, v in LLAMA3.items() if not k.startswith("original")
    },
    "llama3, narrow": LLAMA3 | {"low_freq_factor": 2.0, "high_freq_factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}


def _read(raw, embeddings=4096, **options):
    problems: list[str] = []
    fields = Fields(raw, "text_config", problems)
    return rope.read(fields, embeddings, **options), problems


def _theirs(raw, head_dim, embeddings=4096):
    """The module of transformers, whose buffer is what it multiplies positions by."""
    config = transformers.LlamaConfig(
        head_dim=head_dim, max_position_embeddings=embeddings, **raw
    )
    return modeling_llama.LlamaRotaryEmbedding(config).inv_freq.numpy()


def _in_float64(settings, theta, head_dim, embeddings=4096):
    out = []
    for k in range(head_dim // 2):
        angle = theta ** (-2 * k / head_dim)
        kind, factor = settings["rope_type"], settings.get("factor")
        if kind == "linear":
            angle /= factor
        elif kind == "llama3":
            original = settings.get("original_max_position_embeddings", embeddings)
            length = 2 * math.pi / angle
            low, high = settings["low_freq_factor"], settings["high_freq_factor"]
            if length > original / low:
                angle /= factor
            elif length >= original / high:
                part = (original / length - low) / (high - low)
                angle = (1 - part) * angle / factor + part * angle
        out.append(angle)
    return np.array(out)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("theta", "head_dim"), [(1e4, 128), (5e5, 64), (1e9, 6)])
@pytest.mark.parametrize("older", [False, True])
def test_frequencies_equal_transformers(name, theta, head_dim, older):
    settings = SETTINGS[name]
    raw = {"rope_parameters": settings | {"rope_theta": theta}}
    if older:
        renamed = {"rope_type": "type"}
        scaling = {renamed.get(key, key): value for key, value in settings.items()}
        raw = {"rope_theta": theta, "rope_scaling": scaling}
    found, problems = _read(raw)
    assert not problems
    frequencies = found.frequencies(head_dim)
    assert frequencies.dtype == np.float32
    expected = _theirs(raw, head_dim)
    # Where llama3 blends, torch's float32 is off by 3e-6 on some processors.
    np.testing.assert_allclose(frequencies, expected, rtol=1e-5)
    precise = _in_float64(settings, theta, head_dim)
    np.testing.assert_allclose(frequencies, precise, rtol=2e-6)


def test_llama3_has_all_three_parts():
    """Else the tests above would not see a wrong one."""
    found, _ = _read({"rope_theta": 5e5, "rope_scaling": LLAMA3})
    plain, _ = _read({"rope_theta": 5e5})
    part = plain.frequencies(128) / found.frequencies(128)
    assert (part < 1.01).any() and (part > 7.99).any()
    assert ((part > 1.5) & (part < 7.5)).sum() > 3


def test_positions_that_a_kind_is_meant_for():
    expected = {"default": 4096, "linear": 10240, "llama3": 4096, "dynamic": 4096}
    for name, positions in expected.items():
        found, _ = _read({"rope_scaling": SETTINGS[name]})
        assert found.max_positions(4096) == positions


def test_dynamic_is_the_default_up_to_its_positions_and_not_beyond():
    raw = {"rope_scaling": dict(SETTINGS["dynamic"])}  # transformers adds to it.
    config = transformers.LlamaConfig(head_dim=64, max_position_embeddings=32, **raw)
    theirs = modeling_llama.LlamaRotaryEmbedding(config)
    found, problems = _read(raw, 32)
    assert not problems and found.max_positions(32) == 32
    for rows, equal in ((32, True), (33, False)):
        positions = np.arange(rows, dtype=np.int32)[None]
        cos, sin = theirs(torch.zeros(1), torch.tensor(positions))
        ours = rope.rope_tables(jnp.asarray(positions)[..., None], found, 64)
        for one, other in zip(ours, (cos, sin), strict=True):
            near = np.allclose(one, other.numpy(), atol=1e-5)
            assert near == equal


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope_type is 'yarn'; built for 'default' or 'linear' or 'llama3' or "
            "'dynamic'",
        ),
        ({"rope_scaling": {"type": "longrope"}}, "type is 'longrope'; built for"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor is missing"),
        (
            {"rope_scaling": LLAMA3 | {"low_freq_factor": None}},
            "rope_scaling: low_freq_factor is missing",
        ),
        (
            {"rope_scaling": LLAMA3 | {"high_freq_factor": 1}},
            "low_freq_factor 1 is not below high_freq_factor 1",
        ),
        (
            {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 0}},
            "original_max_position_embeddings is 0, expected 1 to",
        ),
        (
            {"rope_parameters": SETTINGS["linear"] | {"high_freq_factor": 4.0}},
            "rope_parameters: unknown key 'high_freq_factor'",
        ),
        (
            {"rope_parameters": LLAMA3, "rope_scaling": LLAMA3 | {"factor": 32.0}},
            "contradict each other; remove one of the two",
        ),
        (
            {
                "rope_parameters": LLAMA3,
                "rope_scaling": LLAMA3 | {"low_freq_factor": 2.0},
            },
            "contradict each other; remove one of the two",
        ),
        (
            {"rope_parameters": SETTINGS["dynamic"] | {"partial_rotary_factor": 0.5}},
            "partial_rotary_factor is 0.5; built for 1.0",
        ),
    ],
)
def test_what_is_not_built_is_refused(changes, message):
    found, problems = _read(changes)
    assert len(problems) == 1 and message in problems[0]
    assert np.isfinite(found.frequencies(8)).all()


@pytest.mark.parametrize("kind", rope.KINDS[1:])
def test_classes_that_drop_scaling_refuse_it_in_the_new_spelling(kind):
    _, problems = _read({"rope_parameters": SETTINGS[kind]}, scaled=False)
    assert f"rope_type is '{kind}'; built for 'default'" in problems[0]


def _axis(k, sections, interleaved):
    """The axis that frequency k reads."""
    if interleaved:
        return k % 3 if k % 3 and k // 3 < sections[k % 3] else 0
    return next(axis for axis in range(3) if k < sum(sections[: axis + 1]))


@pytest.mark.parametrize(
    ("sections", "interleaved"),
    [
        ((2, 3, 3), False),
        ((5, 0, 3), False),
        ((4, 2, 2), True),
        ((5, 1, 2), True),
        ((24, 20, 20), True),
        ((16, 24, 24), False),
    ],
)
def test_three_axes_equal_a_loop(sections, interleaved):
    half, theta = sum(sections), 1e4
    positions = np.random.default_rng(0).integers(0, 200, (2, 5, 3)).astype(np.int32)
    settings = rope.Rope(theta=theta, sections=sections, interleaved=interleaved)
    found = rope.rope_tables(jnp.asarray(positions), settings, 2 * half)
    angles = np.zeros((2, 5, 2 * half))
    for k in range(half):
        axis = _axis(k, sections, interleaved)
        angles[..., k] = positions[..., axis] * theta ** (-k / half)
        angles[..., half + k] = angles[..., k]
    for one, other in zip(found, (np.cos(angles), np.sin(angles)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    if not interleaved:
        counted = np.bincount(settings.axes(half), minlength=3)
        assert tuple(counted) == sections


def test_one_axis_of_three_equal_ones():
    """Text has one position on all axes, and turns as without sections."""
    positions = jnp.arange(6, dtype=jnp.int32)[None, :, None]
    three = jnp.repeat(positions, 3, axis=-1)
    plain = rope.rope_tables(positions, rope.Rope(theta=1e4), 16)
    for interleaved in (False, True):
        own = rope.Rope(theta=1e4, sections=(4, 2, 2), interleaved=interleaved)
        for one, other in zip(rope.rope_tables(three, own, 16), plain, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_sections_of_published_models():
    expected = {
        qwen_vl.QWEN2: ((16, 24, 24), False, 1e6),
        qwen_vl.QWEN2_5: ((16, 24, 24), False, 1e6),
        qwen_vl.QWEN3: ((24, 20, 20), True, 5e6),
    }
    seen = 0
    for family in models.FAMILIES:
        for name, files in family.sizes.items():
            if family.name in expected and not name.endswith("-tiny"):
                problems: list[str] = []
                raw = files["config.json"]
                config, _ = qwen_vl.read_config(
                    raw, family.name, jnp.dtype("float32"), problems
                )
                own = config.text.rope
                found = own.sections, own.interleaved, own.theta
                assert not problems and found == expected[family.name]
                seen += 1
    assert seen == 11


SECTIONS = rope.Sections((2, 3, 3), 8)
TURNS = rope.Sections((4, 2, 2), 8, interleaved=True)


@pytest.mark.parametrize(
    ("sections", "given", "message"),
    [
        (
            SECTIONS,
            {"mrope_section": [2, 3, 4]},
            "mrope_section is [2, 3, 4]; expected",
        ),
        (SECTIONS, {"mrope_section": [4, 4]}, "add up to 8, half of"),
        (SECTIONS, {"mrope_section": [-1, 6, 3]}, "three whole numbers, for time"),
        (SECTIONS, {"mrope_section": [2, 3.0, 3]}, "three whole numbers, for time"),
        (SECTIONS, {"mrope_section": [True, 4, 3]}, "three whole numbers, for time"),
        (SECTIONS, {"mrope_section": "2,3,3"}, "mrope_section is '2,3,3', expected"),
        (SECTIONS, {"mrope_interleaved": True}, "unknown key 'mrope_interleaved'"),
        (TURNS, {"mrope_section": [2, 3, 3]}, "the last two at most a third"),
        (TURNS, {"mrope_interleaved": False}, "mrope_interleaved is False; built for"),
        (None, {"mrope_section": [2, 3, 3]}, "unknown key 'mrope_section'"),
        (None, {"type": "mrope"}, "type is 'mrope'; built for"),
    ],
)
def test_sections_that_do_not_add_up_are_refused(sections, given, message):
    given = {"rope_type": "default"} | given if "type" not in given else given
    _, problems = _read({"rope_scaling": given}, sections=sections)
    assert len(problems) == 1 and message in problems[0]


def test_sections_are_read_in_either_spelling():
    for raw in (
        {"rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]}},
        {"rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2]}},
    ):
        found, problems = _read(raw, sections=SECTIONS)
        assert not problems and (found.sections, found.kind) == ((4, 2, 2), "default")
    found, problems = _read({}, sections=TURNS)
    assert not problems and found.sections == (4, 2, 2) and found.interleaved
