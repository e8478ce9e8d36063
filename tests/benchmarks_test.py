"""The benchmarks count right, and their two sides give the same scores."""

import json
import pathlib
import sys

import pytest

from vidsme_jax.models import random

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
KEYS = {"name", "value", "unit", "ratio", "peer", "device", "versions", "commit"}


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("name", "teraflop"),
    [
        # Vision, two prefills, two heads.
        ("llava_qwen-7b", 6.2 + 2 * 32.0 + 2 * 2.51),
        ("llava_next_video-7b", 6.0 + 2 * 32.1 + 2 * 0.61),
        ("llava_next_video-34b", 6.1 + 2 * 163.3 + 2 * 2.12),
        ("llava_video-7b", 10.7 + 2 * 47.0 + 2 * 3.66),
        ("llava_onevision-7b", 10.7 + 2 * 43.8 + 2 * 3.42),
    ],
)
def test_necessary_operations(importable, name, teraflop):
    import _flops

    _, config = random.configuration(name)
    assert _flops.necessary_flops(config, 16).pair / 1e12 == pytest.approx(teraflop, rel=0.03)


def test_the_releases_loop_gives_the_same_scores(importable, capsys, monkeypatch):
    import release_loop

    monkeypatch.setattr(sys, "argv", ["release_loop.py"])
    assert not release_loop.main(["--size", "tiny"])
    lines = [
        json.loads(x) for x in capsys.readouterr().out.splitlines() if x[:1] == "{"
    ]
    assert len(lines) >= 2
    for line in lines:
        assert set(line) >= KEYS
    assert lines[-1]["equal"] and lines[-1]["ratio"] > 0
