"""The command line: outputs, exit statuses, messages."""

import json
import pathlib
import signal
import subprocess
import sys

import jax
import pyarrow.parquet as pq
import pytest
from absl.testing import flagsaver

import children
import interrupted
from vidsme_jax import commands, main, parallel, settings

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    "--config.corpus.max_clips=6",
    "--config.report.num_permutations=100",
    "--config.video.num_frames=4",
)


def _run(*flags: str, cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vidsme_jax.main", *flags]
    return children.run(command, cwd=cwd)


# 2026-11: how ml_collections loads a file.
loading = pytest.mark.filterwarnings("ignore:the load_module")


@pytest.fixture
def here(monkeypatch, capsys):
    """Does what `_run` does in this process, which has imported everything."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(commands, "begin", lambda: None)
    monkeypatch.setattr(parallel, "keep_programs", lambda folder: None)

    def run(*given: str):
        command = ["vidsme", *given]
        monkeypatch.setattr(sys, "argv", command)
        try:
            status = main.main(main.parse(command))
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, said.out, said.err

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with flagsaver.flagsaver():
        yield run
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.long
def test_the_readme_command_in_small_from_anywhere(tmp_path):
    config = f"{ROOT}/configs/llava.py"
    done = _run("--config", config, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nmatched " in done.stdout and "\nshifted " in done.stdout
    assert (tmp_path / "runs" / "llava" / "report.html").exists()
    again = _run("--config", config, *SMALL, cwd=tmp_path)
    assert again.returncode == 0 and "12 scored before" in again.stderr


@loading
def test_failures_exit_3(tmp_path, here, figureless):
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
    for name, videos in (
        ("m.json", [*clips[:3], tmp_path / "gone.mp4"]),
        ("n.json", clips[3:6]),
    ):
        rows = [{"video": str(video)} for video in videos]
        (tmp_path / name).write_text(json.dumps(rows))
    status, said, error = here(
        "--config=configs/llava.py",
        *SMALL,
        f"--config.corpus.members=('{tmp_path}/m.json',)",
        f"--config.corpus.nonmembers=('{tmp_path}/n.json',)",
        "--config.corpus.allow_outside",
        "--config.slices=('video',)",  # These rows have no answers.
        "--config.headline=vid_sme",
        f"--workdir={tmp_path}/run",
    )
    assert status == 3, error
    assert "not scored: 1 row, see" in said
    failure = json.loads((tmp_path / "run" / "failures.jsonl").read_text())
    assert failure["stage"] == "open" and "gone.mp4" in failure["video"]


@loading
@pytest.mark.long
def test_near_duplicates_make_no_report_and_lose_nothing(tmp_path, here, figureless):
    """They are known once the clips are scored, so that something was computed."""
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clips[0].read_bytes() + b"\0\0\0\x08free")
    for name, videos in (("m.json", clips[:3]), ("n.json", [*clips[3:5], copy])):
        rows = [{"video": str(video)} for video in videos]
        (tmp_path / name).write_text(json.dumps(rows))
    given = [
        "--config=configs/llava.py",
        *SMALL,
        f"--config.corpus.members=('{tmp_path}/m.json',)",
        f"--config.corpus.nonmembers=('{tmp_path}/n.json',)",
        "--config.corpus.allow_outside",
        "--config.slices=('video',)",
        "--config.headline=vid_sme",
        f"--workdir={tmp_path}/run",
    ]
    for _ in range(2):  # When they were scored, and when they were before.
        status, _, error = here(*given)
        assert status == 2 and "no report was made, 1 problem:" in error
        assert "nothing was computed" not in error
        assert "the signals are kept, and the next run scores no clip again" in error
        assert list((tmp_path / "run" / "signals").glob("part-*.parquet"))
    status, _, error = here(*given, "--config.corpus.allow_duplicates=true")
    assert status == 0, error


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "--config is missing"),
        (
            ("--config=configs/lava.py",),
            "--config=configs/lava.py: no such config file; did you mean "
            "'configs/llava.py'?; --config list prints all",
        ),
        (
            ("--config=configs/llava.py:8b",),
            "used: no variant '8b'; known: demo, 7b",
        ),
        (
            ("--config=configs/llava.py", "--config.video.num_frame=4"),
            "config.video.num_frame: no such key; did you mean 'video.num_frames'?",
        ),
        (("--config=configs/llava.py", "--config.profile=exakt"), "one of exact"),
        (("--config=configs/llava.py", "--workdirr=x"), "workdir"),
        (("--config=configs/llava.py", "more"), "argument 'more'"),
    ],
)
def test_what_is_wrong_exits_2_with_a_sentence(flags, text):
    done = _run(*flags)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@loading
def test_too_little_memory_exits_2_with_a_sentence(tmp_path, here, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: allocating 99 bytes")

    monkeypatch.setattr(parallel.Devices, "runner", lambda *_: full)
    status, _, said = here(
        "--config=configs/llava.py",
        "--config.corpus.max_clips=2",
        f"--workdir={tmp_path}/run",
    )
    assert status == 2 and "Traceback" not in said
    assert "does not suffice for the first batch" in said and "99 bytes" in said
    assert "config.batch_size = 8 (it is 16)" in said
    assert not list(tmp_path.rglob("part-*"))


def _fail(monkeypatch, begin):
    """Every batch fails on the devices from the `begin`-th on."""
    fetched, fetch = [], parallel.Devices.fetch

    def failing(devices, out):
        fetched.append(out)
        if len(fetched) < begin:
            return fetch(devices, out)
        raise jax.errors.JaxRuntimeError("INTERNAL: the card fell off the bus\nstack")

    monkeypatch.setattr(parallel.Devices, "fetch", failing)


_FAILING = (
    "--config.corpus.max_clips=3",
    "--config.batch_size=2",
    "--config.parallel.data=1",
    "--config.scores=vid_sme",
)


@pytest.mark.parametrize("config", ["llava.py", "studies.py:against-tiny"])
@loading
@pytest.mark.long
def test_a_device_that_fails_exits_2_with_a_sentence(
    config, tmp_path, here, monkeypatch, figureless
):
    command = f"--config=configs/{config}", *_FAILING, *SMALL[1:]
    _fail(monkeypatch, 2)
    status, _, said = here(*command, f"--workdir={tmp_path}/run")
    assert status == 2 and "Traceback" not in said and "stack" not in said
    assert said.splitlines()[-1] == (
        "the run stopped: 3 clips in a row failed on the devices, each alone in its "
        "batch; the last error is INTERNAL: the card fell off the bus; results so far "
        f"are in {tmp_path}/run; fix the cause and run the same command to continue"
    )
    assert len(list(tmp_path.rglob("part-*"))) == 1


@loading
def test_devices_that_never_work_exit_2_with_a_sentence(tmp_path, here, monkeypatch):
    _fail(monkeypatch, 0)
    command = "--config=configs/llava.py", *_FAILING, f"--workdir={tmp_path}/run"
    status, _, said = here(*command)
    assert status == 2 and "Traceback" not in said
    assert "1 problem" in said and "every clip fails on the devices" in said
    assert "Set a smaller config.batch_size" in said


@loading
def test_a_score_that_is_not_there(here):
    status, _, said = here("--config=configs/llava.py", "--config.headline=vidsme")
    assert status == 2 and "did you mean 'vid_sme'" in said


@loading
def test_listing_scores(here):
    status, said, _ = here("--config=configs/llava.py", "--config.scores=list")
    assert status == 0
    lines = [line.split()[0] for line in said.splitlines()]
    assert len(set(lines)) == 77 + 83 + 87 + 1  # The last is of the form NAME_ref.
    assert sum(name.startswith("instruction_") for name in lines) == 83


@pytest.mark.long
@loading
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_and_continued(number, tmp_path, here, figureless):
    flags = (
        "--config=configs/llava.py",
        "--config.report.num_permutations=100",
        "--config.batch_size=4",
        "--config.corpus.max_clips=24",
        "--config.scores=vid_sme",
        f"--workdir={tmp_path}",
    )
    place = f"vidsme_jax.store.parts:Parts.write:3:{number.value}"
    ended = children.run(
        [sys.executable, interrupted.__file__, place, "vidsme_jax.main", *flags],
        cwd=ROOT,
    )
    signals = tmp_path / "signals"
    assert ended.returncode == 130, ended.stderr
    assert "the same command continues" in ended.stderr
    done = len(list(signals.glob("part-*.parquet")))
    status, _, said = here(*flags)
    assert status == 0, said
    parts = signals.glob("part-*.parquet")
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    # Of each clip its video and the one text about it, once.
    scored = {(row["key"], row["text"]) for row in rows}
    assert len(rows) == len(scored) == 2 * 48 > 2 * 4 * done
