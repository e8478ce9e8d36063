"""The benchmarks: the count of operations, and every script at its smallest size."""

import importlib
import json
import pathlib
import subprocess
import sys

import pytest

from vidsme_jax.models import random
from vidsme_jax.models.flops import necessary_flops

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
KEYS = {"name", "value", "unit", "ratio", "peer", "device", "versions", "commit"}
SHORT = ["--size", "tiny", "--repeats", "1"]

quick = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture
def script(monkeypatch):
    """Imports a script by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def _run(module, capsys, *flags, status=0):
    assert module.main([*SHORT, *flags]) == status
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert lines
    for line in lines:
        assert set(line) >= KEYS
        assert line["value"] > 0
        assert line["versions"].keys() >= {"jax", "jaxlib", "numpy"}
        assert line.get("equal", True) == (status == 0)
    return {line["name"]: line for line in lines}


def test_the_stages_of_size(script):
    size = script("size")
    found = {name: stage(4) for name, stage in size.STAGES.items() if name != "scoring"}
    assert found["evaluating"]["page"] < size.LIMIT_PAGE
    assert found["shards"]["write"] > 0 and found["evaluating"]["mib"] > 0


# In TFLOP: vision, decoder and head per direction, counted by hand for 64 text tokens.
@pytest.mark.parametrize(
    ("name", "frames", "expected"),
    [
        ("llava_next_video-7b", 16, (6.0, 32.1, 0.61)),
        ("llava_next_video-7b", 64, (23.8, 142.8, 2.42)),
        ("llava_next_video-34b", 16, (6.1, 163.3, 2.12)),
        ("llava_qwen-7b", 16, (6.2, 32.0, 2.51)),
        ("llava_qwen-7b", 64, (24.6, 138.4, 10.05)),
        ("llava_onevision-0.5b", 16, (10.3, 2.7, 0.85)),
        ("llava_onevision-7b", 64, (42.7, 196.5, 13.68)),
        ("llava_video-7b", 16, (10.7, 47.0, 3.66)),
    ],
)
def test_necessary_operations(script, name, frames, expected):
    _, config = random.configuration(name)
    found = necessary_flops(config, frames, text=64)
    assert [x / 1e12 for x in found] == pytest.approx(expected, rel=0.03)
    assert found.pair == found.vision + 2 * (found.prefill + found.head)


@pytest.mark.parametrize("family", ["llava_qwen", "llava_onevision"])
@quick
def test_the_loop_and_transformers_score_as_we_do(script, capsys, family):
    flags = ["--model", family, "--frames", "2"]
    lines = _run(script("pairs"), capsys, *flags)
    for peer in ("transformers, tuned", "transformers, plain", "loop"):
        line = lines[f"pairs/ours against {peer}"]
        assert line["equal"] and line["ratio"] > 0 and line["peer"] == peer
    assert lines["pairs/mfu"]["value"] > 0
    loop = _run(script("release_loop"), capsys, *flags)
    assert loop["release_loop/ours"]["difference"] < 1e-4


@quick
def test_a_loop_cut_short_is_extrapolated_and_still_compared(
    script, capsys, monkeypatch
):
    release_loop = script("release_loop")
    whole = release_loop.release
    monkeypatch.setattr(
        release_loop,
        "release",
        lambda *args: whole(*args, patience=1e-9),
    )
    lines = _run(release_loop, capsys, "--frames", "2")
    assert lines["release_loop/loop"]["extrapolated_from_rows"] == 2


@quick
def test_other_scores_are_an_error(script, capsys, monkeypatch):
    release_loop = script("release_loop")
    right = release_loop.sharma_mittal
    monkeypatch.setattr(
        release_loop, "sharma_mittal", lambda s, q, r: right(s, q, r + 0.01)
    )
    assert release_loop.main([*SHORT, "--frames", "2"]) == 1
    assert "the scores differ" in capsys.readouterr().err


def test_the_parts_of_a_pair(script, capsys, monkeypatch):
    parts = script("parts")
    lines = _run(parts, capsys)
    assert len(lines) == 6
    for name, line in lines.items():
        assert line["difference"] < 1e-5 and (line["ratio"] is None) != ("ours" in name)
    right = parts.ours

    def wrong(*args):
        calls = right(*args)
        return calls | {"decoder": lambda: 1.001 * calls["decoder"]()}

    monkeypatch.setattr(parts, "ours", wrong)
    assert parts.main(SHORT) == 1
    assert "decoder differs" in capsys.readouterr().err


def test_head(script, capsys):
    sizes = ["--rows", "1152", "--vocab", "8192", "--hidden", "16"]
    lines = _run(script("head"), capsys, *sizes)
    assert lines["head/memory, two passes"]["ratio"] > 1  # More with more rows.
    assert lines["head/error, logits of deviation 12"]["value"] < 1e-4
    assert lines["head/error, logits of deviation 12"]["ratio"] > 10


def test_attention(script, capsys):
    lines = _run(script("attention"), capsys)
    assert lines["attention/error"]["value"] < 1e-5
    assert lines["attention/memory"]["ratio"] > 1


@quick
def test_scaling(script, capsys, monkeypatch):
    scaling = script("scaling")
    monkeypatch.setattr(scaling, "FRAMES", {"tiny": (2,)})
    monkeypatch.setattr(scaling, "CLIPS", {"tiny": (1, 3)})
    monkeypatch.setattr(scaling, "CLASSES", {"tiny": (512, 1024)})
    monkeypatch.setattr(scaling, "DEVICES", (4,))
    lines = _run(scaling, capsys, "--frames", "2")
    assert lines["scaling/frames"]["frames"] == 2
    assert lines["scaling/clips"]["clips"] == 3
    assert lines["scaling/devices"]["devices"] == 4


def test_a_grid_over_stored_signals(script, capsys):
    assert not script("studies").main(["--clips", "12", "--rows", "40"])
    line = json.loads(capsys.readouterr().out)
    assert set(line) >= KEYS
    assert line["points"] == 4 * 5 * 7


def test_scripts_need_no_video_and_no_data_libraries():
    absent = ("tensorflow_datasets", "grain", "av", "ml_collections", "cv2")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
    code += "import pairs, parts, head, attention, scaling"
    path = ":".join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
