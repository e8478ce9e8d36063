"""The benchmark from files to stored signals, at its smallest size."""

import importlib
import importlib.util
import json
import os
import pathlib
import sys
import tempfile

import jax
import pytest

import children
from vidsme_jax.run import timeline, utilisation

TESTS = pathlib.Path(__file__).parent
BENCHMARKS = TESTS.parent / "benchmarks"
FLAGS = ["--size", "tiny", "--repeats", "1", "--clips", "3", "--workers", "1"]
NEEDLESS = "tensorflow_datasets grain array_record transformers matplotlib sklearn"
PACKAGES = {"av", "opencv-python-headless", "ml-collections", "pyarrow"}


@pytest.fixture
def endtoend(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return importlib.import_module("endtoend")


def _apart(hidden, code, tmp_path):
    """Runs code in a process that does not find some packages."""
    env = os.environ | {"HIDDEN": hidden}
    env |= {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TMPDIR": str(tmp_path)}
    code = f"import sys, card_steps\n{code}"
    return children.run([sys.executable, "-c", code, *FLAGS], env=env)


@pytest.mark.long
def test_from_files_to_signals(endtoend, tmp_path):
    code = "import endtoend; sys.exit(endtoend.main())"
    done = _apart(NEEDLESS, code, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    names = ("pairs", "files", "host", "encoding")
    assert list(lines) == [f"endtoend/tiny/{name}" for name in names]
    assert all(line["value"] > 0 for line in lines.values())
    paths, seconds = endtoend.clips(tmp_path, "tiny", 3)
    assert seconds == 0 and all(path.exists() for path in paths)  # Known by now.
    files, host = lines["endtoend/tiny/files"], lines["endtoend/tiny/host"]
    rate = lines["endtoend/tiny/pairs"]["value"]
    ratio = pytest.approx(files["value"] / rate, rel=1e-2)
    assert files["ratio_spread"] == [ratio, ratio]
    assert files["ratio"] is None and not files["decided"]  # After one round.
    assert files["reached"] is None and files["lacks"] is None
    assert (files["workers"], files["clips"]) == (1, 3)
    assert files["computing"] > 0 and timeline.STORING in files["waited"]
    stages = {"hash", "scan", "decode", "motion", "preprocess", "describe"}
    assert host["stages"].keys() == host["shares"].keys() == stages
    assert sum(host["stages"].values()) == pytest.approx(host["value"], rel=1e-2)
    assert sum(host["shares"].values()) == pytest.approx(1, rel=1e-2)
    assert host["costliest"] == max(host["stages"], key=host["stages"].__getitem__)
    assert host["needed_cores"] == pytest.approx(host["value"] * rate, rel=1e-2)


def test_what_is_missing_is_named(endtoend, tmp_path):
    assert set(endtoend.NEEDED.values()) == PACKAGES
    scripts = "import endtoend, decode; print(endtoend.main(), decode.main([]))"
    done = _apart(" ".join(endtoend.NEEDED), scripts, tmp_path)
    assert done.stdout == "2 2\n"
    first, second = done.stderr.splitlines()
    assert all(package in first for package in PACKAGES)
    assert second == "decode.py needs av, opencv-python-headless: pip install"


def _used(clips, decoding, storing, workers):
    """What a round tells."""
    return utilisation.Utilisation(
        clips=clips,
        batches=clips,
        seconds=8.0,
        busy=3.0,
        waited={timeline.CLIPS: 4.0, timeline.STORING: storing},
        compiling=0.0,
        operations=1.0,
        devices=1.0,
        peak=None,
        core_seconds={"decode": decoding, "motion": 0.5},
        workers=workers,
        cores=4,
        on_cpu=False,
    )


@pytest.fixture
def reported(endtoend, monkeypatch, capsys):
    """Reports three rounds of six clips, of which pairs take a second each."""
    models = importlib.import_module("_models")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def report(walls, *, workers=8):
        files = endtoend.Files.__new__(endtoend.Files)
        files.used = [_used(6, d, d, workers) for d in (1.0, 0.4, 0.1)]
        times = {"pairs": (6.0, 6.0, 6.0), "files": walls}
        times = {name: models.Times(found, found) for name, found in times.items()}
        run = type("Run", (), {"extra": {}})
        rounds = models.Rounds(times, {})
        status = endtoend.report("tiny", run, files, rounds, 6, 0.0)
        told = capsys.readouterr()
        _, whole, host = (json.loads(text) for text in told.out.splitlines())
        return status, whole, host, told.err

    return report


def test_rounds_are_summed(reported):
    status, files, host, _ = reported((6.0, 6.0, 6.1))
    assert status == 0 and files["reached"] and files["ratio"] == 1.0
    assert files["lacks"] is None and files["computing"] == 0.5  # 3 x 3 s, 18 clips.
    assert files["waited"] == {timeline.CLIPS: 0.6667, timeline.STORING: 0.08333}
    assert host["stages"] == {"decode": 0.5, "motion": 0.5}
    assert host["value"] == 1.0 and host["needed_cores"] == 1.0


def test_an_accelerator_that_waits_is_reported(reported):
    status, files, _, told = reported((8.0, 8.0, 8.1))
    assert status == 1 and files["reached"] is False
    assert files["lacks"] == "decode" and files["ratio"] == 0.75
    assert told == "75% of the rate of pairs; the costliest stage is decode\n"
    # With fewer cores than it takes nothing else could come of it.
    status, files, _, told = reported((8.0, 8.0, 8.1), workers=0)
    assert status == 0 and files["reached"] is None and not told
    assert files["lacks"] == "decode"


def test_rounds_that_are_far_apart_decide_nothing(reported):
    status, files, _, told = reported((6.0, 8.0, 12.0))
    assert status == 0 and files["reached"] is None and not told
    assert files["ratio"] is None and not files["decided"] and files["lacks"] is None
    assert files["ratio_spread"] == [0.5, 1.0] and "0.5 to 1" in files["undecided"]
