"""The benchmark from files to stored signals, at its smallest size."""

import importlib
import importlib.util
import json
import pathlib
import tempfile
import time

import jax
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
FLAGS = ["--size", "tiny", "--repeats", "1", "--clips", "3", "--workers", "1"]


@pytest.fixture
def endtoend(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return importlib.import_module("endtoend")


@pytest.mark.usefixtures("quick_to_compile")
def test_from_files_to_signals(endtoend, capsys, tmp_path):
    assert endtoend.main(FLAGS) == 0
    out = capsys.readouterr().out.splitlines()
    lines = {line["name"]: line for line in map(json.loads, out)}
    names = ("pairs", "files", "host", "encoding")
    assert list(lines) == [f"endtoend/tiny/{name}" for name in names]
    assert all(line["value"] > 0 for line in lines.values())
    paths, seconds = endtoend.clips(tmp_path, "tiny", 3)
    assert seconds == 0 and all(path.exists() for path in paths)  # Known by now.
    files, host = lines["endtoend/tiny/files"], lines["endtoend/tiny/host"]
    rate = lines["endtoend/tiny/pairs"]["value"]
    assert files["ratio"] == pytest.approx(files["value"] / rate, rel=1e-2)
    assert files["reached"] is None and (files["workers"], files["clips"]) == (1, 3)
    stages = {"hash", "scan", "decode", "motion", "preprocess", "store"}
    assert host["stages"].keys() == host["shares"].keys() == stages
    assert sum(host["stages"].values()) == pytest.approx(host["value"], rel=1e-2)
    assert sum(host["shares"].values()) == pytest.approx(1, rel=1e-2)
    assert host["dearest"] == max(host["stages"], key=host["stages"].__getitem__)
    assert host["needed_cores"] == pytest.approx(host["value"] * rate, rel=1e-2)


@pytest.mark.parametrize("missing", ["av", "ml_collections"])
def test_a_missing_package_is_named(endtoend, capsys, monkeypatch, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == missing else found(name),
    )
    assert endtoend.main(FLAGS) == 2
    error = capsys.readouterr().err
    assert missing.replace("_", "-") in error and error.count("\n") == 1


def test_an_accelerator_that_waits_is_told(endtoend, capsys, monkeypatch):
    def spend(files):
        with files.stages.spending("decode"):
            end = time.thread_time() + 0.02
            while time.thread_time() < end:
                pass

    monkeypatch.setattr(endtoend.Files, "score", spend)
    monkeypatch.setattr("_models.Run.ours", lambda self, clips: None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    # A step that takes no time wants more cores than there are, unless that is many.
    assert endtoend.main(FLAGS) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert {line["reached"] for line in lines if "reached" in line} == {None}
    assert endtoend.main([*FLAGS, "--workers", "1000000000"]) == 1
    assert "the dearest stage is decode" in capsys.readouterr().err
