"""The benchmarks of the head, of attention and of devices, at their smallest size."""

import importlib
import json

import jax
import numpy as np
import pytest

from benchmark_scripts import SHORT, arguments, run_script
from vidsme_jax import parallel


@pytest.mark.long
def test_head(script, capsys, monkeypatch):
    head, seen = script("head"), []
    whole = head.exact
    monkeypatch.setattr(head, "_MOST_CHECKED", 16 * 4096)
    monkeypatch.setattr(
        head, "exact", lambda *given: seen.append(given[1].shape) or whole(*given)
    )
    sizes = ["--rows", "2304", "--vocab", "8192", "--hidden", "16"]
    lines = run_script(head, capsys, *sizes)
    assert lines["head/memory, two passes"]["ratio"] > 1  # More with more rows.
    peaked = lines["head/error, logits of deviation 12"]
    assert peaked["value"] < 1e-4 and peaked["ratio"] > 10
    assert peaked["checked"] == {"rows": 16, "vocab": 4096} and set(seen) == {
        (4096, 16)
    }
    for name in ("one pass", "two passes"):
        line = lines[f"head/time, {name}"]
        assert line["peer_cpu_seconds"] > 0 and len(line["ratio_spread"]) == 2


def test_memory_of_the_head_is_planned_for_the_device(script, capsys, monkeypatch):
    # On a device that tells its memory all logits of so few rows lie there at once.
    head, sizes = script("head"), (2304, 4096, 16)
    logits = 4 * 2304 * 4096 / 2**20
    dtype, found = jax.numpy.dtype("float32"), []
    for mib in (8192, 8):
        monkeypatch.setattr(
            parallel.Devices, "memory", lambda self, mib=mib: mib * 2**20
        )
        small = head.memory(sizes, dtype, {})
        one = json.loads(capsys.readouterr().out.splitlines()[0])["value"]
        found.append((small, one >= logits))
    assert found == [(True, True), (False, False)]  # 8 MiB are too few for the rest.


def test_head_for_a_card_that_is_not_there(script, capsys, monkeypatch):
    head, found = script("head"), importlib.util.find_spec

    def find_spec(name):
        parent, _, child = name.partition(".")
        if parent == "jax_plugins" and child:
            raise ModuleNotFoundError(name)  # As of a package that is not there.
        return None if parent == "jax_plugins" else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert head.main(["--compile-only", "--kind", "H200"]) == 2
    assert capsys.readouterr().err == "head.py --kind needs jax[cuda13]: pip install\n"
    with pytest.raises(SystemExit):
        head.main(["--kind", "H200"])
    assert "--kind is for --compile-only" in capsys.readouterr().err


def test_bytes_of_the_head(script, capsys, monkeypatch):
    # As on a card that is described as having this CPU's compiler.
    head, aot = script("head"), script("aot")
    here = type("Here", (), {"devices": jax.devices()[:1]})
    monkeypatch.setattr(aot, "topology", lambda case: here)
    head.traffic((64, 2048, 16), "H100", 2)
    line = json.loads(capsys.readouterr().out)
    assert line["name"] == "head/traffic, H100" and "step" not in line
    alone, whole = line["statistics"], line["with_the_write_of_the_product"]
    assert line["value"] == alone["bytes_a_logit"] >= 4
    logits = 2 * 64 * 2048  # A clip.
    assert alone["ms_a_clip"] == pytest.approx(
        1000 * logits * alone["bytes_a_logit"] / 3.0e12, rel=1e-3
    )
    more = whole["bytes_a_logit"] - alone["bytes_a_logit"]
    assert more == pytest.approx(4, abs=0.01)
    assert line["launches"] > line["launches_of_products"] >= 1


def test_attention(script, capsys):
    lines = run_script(script("attention"), capsys)
    assert lines["attention/error"]["value"] < 1e-5
    assert lines["attention/memory"]["ratio"] > 1


@pytest.mark.slow
def test_scaling(script, capsys, monkeypatch):
    scaling = script("scaling")
    monkeypatch.setattr(scaling, "CLIPS", {"tiny": (1, 3)})
    monkeypatch.setattr(scaling, "CLASSES", {"tiny": (512, 1024)})
    monkeypatch.setattr(scaling, "DEVICES", (4,))
    counted = []
    ours = scaling.Run.ours
    monkeypatch.setattr(
        scaling.Run, "ours", lambda run, c: counted.append(run.frames) or ours(run, c)
    )
    lines = run_script(scaling, capsys, "--frames", "3", "--axes", "frames")
    assert lines["scaling/frames"]["frames"] == 3 and set(counted) == {3}
    assert "scaling/device memory" not in lines  # A CPU does not tell.
    lines = run_script(scaling, capsys, "--frames", "2", "--axes", *scaling.AXES[1:])
    assert lines["scaling/clips"]["clips"] == 3
    assert lines["scaling/classes"]["classes"] == 1024
    assert lines["scaling/devices"]["devices"] == 4
    with pytest.raises(SystemExit):
        scaling.main([*SHORT, "--axes", "frames", "--frames", "2", "99999"])
    assert "--frames 99999: the model's positions hold" in capsys.readouterr().err


def test_the_memory_of_a_device_is_read_from_it(script, capsys, monkeypatch):
    scaling, report = script("scaling"), script("_report")
    monkeypatch.setattr(report, "device_peak_mib", lambda: 2048.0)
    lines = run_script(scaling, capsys, "--frames", "2", "--axes", "frames")
    assert lines["scaling/device memory"]["value"] == 2.0
    assert lines["scaling/frames"]["device_peak_mib"] == 2048.0
    told = {"peak_bytes_in_use": 3 * 2**20}
    fake = type("Fake", (), {"memory_stats": lambda self: told})
    monkeypatch.undo()
    monkeypatch.setattr(jax, "local_devices", lambda: [fake()])
    assert report.device_peak_mib() == 3.0


def test_the_classes_are_drawn_on_the_device(script, capsys, monkeypatch):
    scaling = script("scaling")
    monkeypatch.setattr(scaling, "CLASSES", {"tiny": (512,)})

    class Refusing:
        def __getattr__(self, name):
            raise AssertionError("drawn on the host")

    models = script("_models")
    run = models.prepare(arguments(models, "--frames", "2"))
    monkeypatch.setattr(np.random, "default_rng", lambda *args: Refusing())
    assert scaling.classes(run, (512,), 2)
