"""The sequence for a card: every step at its smallest size, and steps that go wrong."""

import importlib
import json
import os
import pathlib
import re
import sys
import zipfile

import pytest

import children

HERE = pathlib.Path(__file__).parent
ABSENT = (
    "tensorflow_datasets av cv2 ml_collections pyarrow matplotlib sklearn array_record"
)


@pytest.fixture
def card(monkeypatch):
    """The module, with limits that a test can wait for."""
    monkeypatch.syspath_prepend(str(HERE.parent / "benchmarks"))
    module = importlib.import_module("card")
    monkeypatch.setattr(module, "MARGIN", 0.5)
    monkeypatch.setattr(module, "_FEWEST", 0.1)
    return module


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All steps in one process: its exit status, output, folder and cache."""
    folder = tmp_path_factory.mktemp("card")
    cache = folder / "cache"
    env = os.environ | _quick(cache) | {"HIDDEN": ABSENT}
    flags = ["--size", "tiny", "--out", str(folder / "out"), "--cache", str(cache)]
    flags += ["--commit", "abc123"]
    env["VIDSME_COMMIT"] = "abc123"  # As `card.py` tells the processes of its steps.
    done = children.run([sys.executable, str(HERE / "card_steps.py"), *flags], env=env)
    return done, folder / "out", cache


def _quick(cache):
    """What makes a program quick to compile; it belongs to the key in the cache."""
    return {
        "PYTHONPATH": str(HERE.parent),
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def _records(folder):
    """The lines of each step, by its name."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        name = path.stem.split("-", 2)[2]
        found[name] = [json.loads(text) for text in path.read_text().splitlines()]
    return found


@pytest.mark.long
def test_every_step_runs_where_much_is_missing(finished, card):
    done, folder, _ = finished
    assert done.returncode == 0, done.stdout + done.stderr
    records = _records(folder)
    assert list(records) == [step.name for step in card.STEPS]
    for step in card.STEPS:
        first, *lines, last = records[step.name]
        assert first["event"] == "begin" and first["commit"] == "abc123"
        ended = "skipped" if step.name == "endtoend" else "well"
        assert last["event"] == "end" and last["ended"] == ended
        assert bool(lines) == (ended == "well")
        for line in lines:
            assert line["commit"] == "abc123" and line["versions"]["jax"]
            assert line.get("equal", True)
        wanted = {one.line[0] for one in step.expected} - {"scaling/device memory"}
        if ended == "well":  # A CPU does not tell its memory.
            names = {line["name"].replace("flow/tiny", "flow/7b") for line in lines}
            assert wanted <= names
    imports = next(x for x in records["machine"] if x.get("name") == "machine/imports")
    assert set(imports["missing"]) == set(ABSENT.split())
    assert [x["batch"] for x in records["pairs"] if x.get("name") == "pairs/mfu"] == [
        1,
        4,
    ]
    assert records["long"][1]["frames"] == 128
    (skipped,) = re.findall(r"left out: (.*)", done.stdout)
    assert skipped.startswith("endtoend.py needs av, ")
    assert [path.name for path in folder.glob("*.tar.gz")] == [
        "step-4-parts-trace.tar.gz"
    ]


@pytest.mark.long
def test_a_second_run_finds_its_programs_in_the_cache(finished, card, monkeypatch):
    _, folder, cache = finished
    for key, value in _quick(cache).items():
        if "CACHE" not in key:
            monkeypatch.setenv(key, value)
    flags = ["--size", "tiny", "--out", str(folder.parent / "again")]
    flags += ["--commit", "def456"]
    assert card.main([*flags, "--cache", str(cache), "--step", "4"]) == 0
    ((_, *lines, last),) = _records(folder.parent / "again").values()
    assert lines[-1]["name"] == "parts/trace"
    assert {line["commit"] for line in lines} == {"def456"}
    # All but the draw and the product of the ruler's matrices, which are larger here.
    assert last["programs"]["compiled"] == 2 and last["programs"]["from_cache"] > 8


def _step(card, folder, name, code, **more):
    """A step that runs a script of its own."""
    script = folder / f"{name}.py"
    script.write_text(code)
    flags = more.pop("flags", ())
    more = {"seconds": 1, "compiling": 0, "what": name} | more
    return card.Step(name=name, commands=((str(script), *flags),), **more)


def _say(name, **more):
    return f"print({json.dumps(json.dumps({'name': name, 'unit': 's'} | more))})\n"


def test_a_step_that_goes_wrong_costs_the_others_nothing(
    card, tmp_path, capsys, monkeypatch
):
    good = "import argparse; argparse.ArgumentParser().parse_args()\nimport os\n"
    code = good + _say("result", value=1.5) + "os._exit(0)"
    make = lambda name, code, **more: _step(card, tmp_path, name, code, **more)
    steps = (
        make("option", code, flags=("--no-such-option",), optional=("av",)),
        make("killed", _say("result", value=2) + "import os; os.kill(os.getpid(), 9)"),
        make("raises", "raise ValueError('out of memory')"),
        make("lacks", "import sys; sys.exit('needs av')", optional=("av",)),
        make(
            "lingers",
            "import subprocess\nsubprocess.Popen(['sleep', '600'])\nexit(3)",
        ),
        make("good", code),
    )
    monkeypatch.setattr("_running._GRACE", 1.0)
    out = tmp_path / "out"
    flags = ["--out", str(out), "--size", "tiny", "--cache", str(tmp_path / "cache")]
    assert card.main(flags, steps) == 1
    records = _records(out)
    ended = {name: lines[-1]["ended"] for name, lines in records.items()}
    assert ended == dict.fromkeys(ended, "failed") | {"good": "well"}
    assert records["killed"][1]["value"] == 2
    assert records["killed"][-1]["statuses"] == [-9]
    assert records["lingers"][-1]["seconds"] < 600 / 2
    assert records["good"][1]["value"] == 1.5
    assert "out of memory" in records["raises"][-1]["errors"][0][-1]
    assert "6 good: well" in capsys.readouterr().out.splitlines()[-1]
    assert card.main([*flags, "--step", "6"], steps) == 0


def test_a_step_over_its_limit_keeps_its_lines(card, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"

    class Clock:
        """Seconds pass once the step has said "second", until it has ended."""

        now = 0.0

        def monotonic(self):
            record = out / "step-1-slow.jsonl"
            said = record.read_text() if record.exists() else ""
            self.now += 10 * ('"second"' in said and '"ended"' not in said)
            return self.now

    monkeypatch.setattr("_running.time", Clock())
    slow = _say("first", value=1) + _say("second", value=2)
    slow = "import sys, time, subprocess\n" + slow + "sys.stdout.flush()\n"
    # What it has started would keep its pipes open.
    slow += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    slow += "time.sleep(600)\n" + _say("third", value=3)
    steps = (
        _step(card, tmp_path, "slow", slow),
        _step(card, tmp_path, "next", _say("fourth", value=4)),
        _step(card, tmp_path, "late", _say("fifth", value=5)),
    )
    flags = ["--out", str(out), "--size", "tiny", "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(card, "LIMIT", 60.0)
    assert card.main([*flags, "--step", "1..2"], steps) == 1
    records = _records(out)
    assert [line.get("name") for line in records["slow"][1:-1]] == ["first", "second"]
    assert records["slow"][-1]["ended"] == "stopped"
    assert records["next"][-1]["ended"] == "well"
    assert re.search(r"\.\.\. [2-5]0 s, still running", capsys.readouterr().out)
    assert card.main([*flags, "--step", "3", "--limit", "0.5"], steps) == 1
    assert "not begun" in capsys.readouterr().out
    assert not (out / "step-3-late.jsonl").exists()


@pytest.mark.parametrize("asked", ["99", "0", "7..99", "4..2", "1..2..3", "x", "-1"])
def test_an_unknown_step_names_the_list(card, tmp_path, capsys, asked):
    assert card.main([f"--step={asked}", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert f"--step {asked}" in told
    assert all(step.name in told and step.what in told for step in card.STEPS)
    assert not (tmp_path / "out").exists()


def test_the_list_and_its_seconds(card, capsys):
    assert card.main(["--list"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(card.STEPS) + 2
    assert all(step.seconds <= 540 - 20 for step in card.STEPS)
    assert all(step.compiling < step.seconds for step in card.STEPS)
    assert sum(step.seconds for step in card.STEPS[:4]) <= 600 - 20
    assert sum(step.seconds for step in card.STEPS) <= 1200
    assert card.chosen(["3..N", "1", "3"], card.STEPS) == [*range(3, 9), 1]


def test_what_is_found_is_next_to_what_was_expected(card, tmp_path, capsys):
    expected = (
        card.Expected(("speed", "value"), 7.0, 8.0, "roofline", {"batch": 4}),
        card.Expected(("speed", "ratio"), 2.0, None, "aim"),
        card.Expected(("memory", "value"), None, 40.0, "aim"),
    )
    code = _say("speed", value=3.0, batch=1) + _say(
        "speed", value=7.5, ratio=1.5, batch=4
    )
    steps = (_step(card, tmp_path, "one", code, expected=expected),)
    flags = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert card.main(flags, steps) == 0
    told = capsys.readouterr().out
    assert "expects speed value, batch 4: 7.0 to 8.0 (roofline)" in told
    assert "speed ratio: at least 2.0 (aim); found 1.5  <- outside" in told
    assert "memory value: at most 40.0 (aim); found nothing" in told
    ((first, *_, last),) = _records(tmp_path / "out").values()
    assert [one["fits"] for one in last["found"]] == [True, False, False]
    assert [one["found"] for one in last["found"]] == [7.5, 1.5, None]
    assert first["expects"] == [one["expects"] for one in last["found"]]


def test_the_roofline_adds_up(card):
    steps = importlib.import_module("_steps")
    assert steps._sum("", 1) == pytest.approx((119.8, 133.4))  # Milliseconds.
    assert steps._sum("", 4) == pytest.approx((119.6, 133.2))
    parts = [steps._sum(part, 4) for part in ("tower", "decoder", "head")]
    assert [sum(x) for x in zip(*parts, strict=True)] == pytest.approx((119.6, 133.2))
    (pairs,) = (step for step in card.STEPS if step.name == "pairs")
    bounds = [(one.low, one.high) for one in pairs.expected]
    assert bounds == [  # Pairs a second, percent of 790 TFLOP/s, over transformers.
        *((7.5, 8.35), (70.5, 78.5), (2.0, None)),
        *((7.51, 8.36), (70.6, 78.6), (2.0, None)),
    ]


def test_wheels_are_unpacked_where_the_machine_lacks_them(card, tmp_path, capsys):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, module in (("carried_thing", "carried_thing"), ("numpy", "numpy")):
        with zipfile.ZipFile(wheels / f"{name}-9.9-py3-none-any.whl", "w") as packed:
            packed.writestr(f"{module}/__init__.py", "VERSION = 9.9\n")
    (wheels / "broken-1.0-py3-none-any.whl").write_bytes(b"no archive")
    code = "import json, carried_thing, numpy\n"
    code += "print(json.dumps({'name': 'version', 'value': carried_thing.VERSION,"
    code += " 'numpy': numpy.__version__, 'unit': ''}))\n"
    steps = (_step(card, tmp_path, "one", code),)
    flags = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert card.main([*flags, "--wheels", str(wheels)], steps) == 0
    ((_, line, _),) = _records(tmp_path / "out").values()
    assert line["value"] == 9.9 and line["numpy"] != "9.9"
    told = capsys.readouterr().out
    assert "unpacked wheels: carried-thing\n" in told
    assert "numpy-9.9-py3-none-any.whl is not needed" in told
    assert "broken-1.0-py3-none-any.whl: cannot be unpacked" in told
    with pytest.raises(SystemExit):
        card.main([*flags, "--wheels", str(tmp_path / "nowhere")], steps)
    assert "no such folder" in capsys.readouterr().err


def test_the_clocks_of_a_card_are_read(card, tmp_path, monkeypatch):
    clocks = importlib.import_module("_clocks")
    assert clocks.read() is None or "card" in clocks.read()
    tool, count = tmp_path / "nvidia-smi", tmp_path / "count"
    tool.write_text(
        f"""#!{sys.executable}
import pathlib, sys
count = pathlib.Path({str(count)!r})
count.write_text((count.read_text() if count.exists() else "") + "1")
sm = [1980, 1800, 1700][min(len(count.read_text()), 3) - 1]
assert all("=" in flag for flag in sys.argv[1:]), "a query sets nothing"
print(f"Some Card, 580.1, {{sm}}, 2619, [N/A], 41, 1024")
"""
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert clocks.read() == {
        "card": "Some Card",
        "driver": "580.1",
        "sm_mhz": 1980.0,
        "memory_mhz": 2619.0,
        "watts": None,
        "celsius": 41.0,
        "used_mib": 1024.0,
    }
    monkeypatch.setattr(clocks, "_PERIOD", 0.01)
    monkeypatch.setattr(clocks, "_PATIENCE", children.MOMENT)
    with clocks.watching() as seen:
        assert not seen
        children.wait_for(lambda: count.exists() and len(count.read_text()) >= 4)
    assert seen["sm_mhz"][::2] == [1700, 1800] and seen["memory_mhz"][1] == 2619
    assert "watts" not in seen
    report = importlib.import_module("_report")
    monkeypatch.setattr(report.jax, "default_backend", lambda: "gpu")
    line = report.line("a", 1.0, "s")
    assert line["clocks"]["sm_mhz"] == 1700.0
    assert report.line("b", 1.0, "s", clocks=seen)["clocks"] == seen
