"""Killed, stopped, starved, mixed up: nothing that was scored is lost or repeated."""

import errno
import gc
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import types

import jax
import pyarrow.parquet as pq
import pytest

import children
from killed_run import config as small
from vidsme_jax import audit, commands, exits, main, parallel, settings
from vidsme_jax.base import AuditError
from vidsme_jax.run import checks, pipeline, stopping
from vidsme_jax.store import lock, signals

SCRIPT = pathlib.Path(__file__).parent / "killed_run.py"
pytestmark = pytest.mark.usefixtures("without_figures")


def _scores(workdir: pathlib.Path):
    return pq.read_table(workdir / "scores.parquet")


def _parts(workdir: pathlib.Path) -> list[pathlib.Path]:
    return sorted((workdir / "signals").glob("part-*.parquet"))


def _killed(task: dict) -> subprocess.CompletedProcess:
    """Runs `killed_run.py`."""
    done = children.run(
        [sys.executable, SCRIPT, json.dumps(task)],
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return done


def _paths(workdir: pathlib.Path) -> list[str]:
    """The clips in the shards, as often as they are there."""
    tables = (pq.read_table(part, columns=["key"]) for part in _parts(workdir))
    return [path for table in tables for path in table.column("key").to_pylist()]


# ---------------------------------------------------------------------------- killed


@pytest.mark.long
@pytest.mark.parametrize(
    ("clips", "kills"), [(30, 6), pytest.param(100, 20, marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path, clips, kills):
    task = {"workdir": str(tmp_path), "clips": clips, "kills": kills, "seed": 5}
    done = _killed(task)
    attempts = [json.loads(line) for line in done.stdout.splitlines()]
    statuses = [attempt["status"] for attempt in attempts]
    assert statuses == [-signal.SIGKILL] * kills + [0, 0], done.stderr
    parts = [attempt["parts"] for attempt in attempts]
    assert parts == [*sorted(parts[:-2]), clips, clips]
    assert len(set(parts[:-2])) >= kills // 2, "the kills came too early"
    # Each attempt went on where the one before had ended, and no clip is there twice.
    before = re.findall(r"clips, (\d+) scored before", done.stderr)
    assert [int(number) for number in before] == [0, *parts[:-2], 0]
    paths = _paths(tmp_path / "killed")
    assert len(paths) == len(set(paths)) == clips
    assert _scores(tmp_path / "killed").equals(_scores(tmp_path / "whole"))
    assert not list((tmp_path / "killed").rglob("*.tmp"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("dtype", "response"),
    [("float32", "given"), pytest.param("bfloat16", "greedy", marks=pytest.mark.slow)],
)
def test_killed_with_several_texts_a_clip(tmp_path, dtype, response):
    """All texts of a clip are there or none; every bit is as without the kills."""
    kills, clips = 4, 6
    task = {"workdir": str(tmp_path), "clips": clips, "kills": kills, "seed": 3}
    asked = {"model.dtype": dtype, "response": response, "response_tokens": 4}
    done = _killed(task | {"asked": asked})
    statuses = [json.loads(line)["status"] for line in done.stdout.splitlines()]
    assert statuses == [-signal.SIGKILL] * kills + [0, 0], done.stderr
    killed, whole = (_rows(tmp_path / name) for name in ("killed", "whole"))
    assert len(killed) == len(whole) == 3 * clips
    for key, row in killed.items():
        assert row == whole[key], key
    for part in _parts(tmp_path / "killed"):
        assert pq.read_table(part, columns=["key"]).num_rows == 3
    assert _scores(tmp_path / "killed").equals(_scores(tmp_path / "whole"))
    if response == "greedy":
        answers = [
            (row["key"], row["text"])
            for part in (tmp_path / "killed" / "answers").glob("part-*.parquet")
            for row in pq.read_table(part).to_pylist()
        ]
        assert len(answers) == len(set(answers)) == 2 * clips


def _rows(workdir: pathlib.Path) -> dict[tuple[str, str], str]:
    """The rows in the shards, each once, by clip and text; NaN is equal to itself."""
    rows = [row for part in _parts(workdir) for row in pq.read_table(part).to_pylist()]
    found = {(row["key"], row["text"]): str(row) for row in rows}
    assert len(found) == len(rows)
    return found


# --------------------------------------------------------------------------- stopped


class _Once(stopping.Stop):
    """Asked to stop while the n-th shard is written."""

    def __init__(self, monkeypatch, shard: int):
        super().__init__()
        write = signals.Signals.write

        def asking(store, *args):
            self.asked = self.asked or len(_parts(store.folder.parent)) == shard - 1
            return write(store, *args)

        monkeypatch.setattr(signals.Signals, "write", asking)


@pytest.mark.long
def test_stopped_between_batches_what_was_sent_is_kept(tmp_path, monkeypatch):
    config = small(10, batch_size=2)
    sent, send = [], pipeline.Pipeline.send
    monkeypatch.setattr(
        pipeline.Pipeline, "send", lambda p, group: sent.append(group) or send(p, group)
    )
    with pytest.raises(KeyboardInterrupt):
        audit.run(config, tmp_path, _Once(monkeypatch, shard=2))
    keys = [
        str(prepared.key.sample.clip.key) for group in sent for prepared in group.clips
    ]
    assert len(keys) == 6 and _paths(tmp_path) == keys
    audit.run(config, tmp_path)
    assert sorted(_paths(tmp_path)) == sorted(set(_paths(tmp_path)))
    assert len(_paths(tmp_path)) == 10
    audit.run(config, tmp_path / "whole")
    whole = _scores(tmp_path / "whole")
    assert (
        _scores(tmp_path)
        .select(["id", "q", "r"])
        .equals(whole.select(["id", "q", "r"]))
    )


@pytest.fixture
def handlers():
    """Puts the signals back as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends_the_process(number, handlers):
    stop = stopping.Stop()
    stop.listen()
    with pytest.raises(KeyboardInterrupt):
        for _ in stop.between(range(3)):
            signal.raise_signal(number)
            assert stop.asked
            # The kernel's own: it ends the process wherever that is.
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            break
        else:
            pytest.fail("no batch")
        list(stop.between(()))


def test_with_no_batch_in_flight_a_signal_interrupts_at_once(handlers):
    stop = stopping.Stop()
    stop.listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_an_interrupt_that_python_drops_comes_before_the_first_batch(
    handlers, monkeypatch
):
    """As it drops what a callback of its garbage collector raises."""
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    stop = stopping.Stop()
    stop.listen()

    def collecting(phase, info):
        if not dropped:
            signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(collecting)
    gc.collect()
    gc.callbacks.remove(collecting)
    with pytest.raises(KeyboardInterrupt):
        next(stop.between(range(3)))
    assert dropped[0].exc_type is KeyboardInterrupt


# ------------------------------------------------- disks that are full or not writable


def _run_main(config, workdir, monkeypatch, capsys) -> tuple[int, str]:
    """The command line after its flags are parsed: exit status and what it says."""
    monkeypatch.setattr(main, "_CONFIG", types.SimpleNamespace(value=config))
    monkeypatch.setattr(main, "_WORKDIR", types.SimpleNamespace(value=str(workdir)))
    for name in ("_COORDINATOR", "_NUM_PROCESSES", "_PROCESS_ID", "_CHECK"):
        monkeypatch.setattr(main, name, types.SimpleNamespace(value=None))
    monkeypatch.setattr(commands, "usage_problem", lambda argv: "")
    monkeypatch.setattr(commands, "begin", lambda: None)
    status = main.main(["vidsme"])
    return status, capsys.readouterr().err


def _full(monkeypatch, after: int):
    """No space is left once so many files have been synced."""
    fsync, synced = os.fsync, []

    def failing(file):
        synced.append(file)
        if len(synced) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(os, "fsync", failing)


@pytest.mark.long
def test_a_full_disk(tmp_path, monkeypatch, capsys, handlers):
    config = small(6)
    with monkeypatch.context() as patch:
        _full(patch, after=2)  # Each file with its folder: run.json.
        status, said = _run_main(config, tmp_path, patch, capsys)
    assert status == exits.WRONG and not _parts(tmp_path)
    assert "declaration.json: No space left on device" in said
    with monkeypatch.context() as patch:
        _full(patch, after=2 + 2 * 3)  # The declaration, 3 shards.
        status, said = _run_main(config, tmp_path, patch, capsys)
    assert status == exits.WRONG
    assert "part-000003.parquet: No space left on device" in said
    assert (
        f"results so far are in {tmp_path}; fix the cause and run" in said
        and "Traceback" not in said
    )
    assert len(_paths(tmp_path)) == 3 and not list(tmp_path.rglob("*.tmp"))
    status, _ = _run_main(config, tmp_path, monkeypatch, capsys)
    assert status == exits.OK
    assert len(set(_paths(tmp_path))) == len(_paths(tmp_path)) == 6


@pytest.mark.long
def test_a_quota_of_the_kernel_s(tmp_path, monkeypatch, capsys, handlers):
    config = small(3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        status, said = _run_main(config, tmp_path, monkeypatch, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == exits.WRONG
    assert "part-000000.parquet: File too large" in said and "Traceback" not in said
    assert not _parts(tmp_path) and not list(tmp_path.rglob("*.tmp"))
    assert _run_main(config, tmp_path, monkeypatch, capsys)[0] == exits.OK


def test_a_report_that_finds_no_room_loses_no_signals(
    tmp_path, monkeypatch, capsys, handlers
):
    config = small(3)
    with monkeypatch.context() as patch:

        def refuse(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.json")

        patch.setattr(audit.report.files, "write_json", refuse)
        status, said = _run_main(config, tmp_path, patch, capsys)
    assert status == exits.WRONG and "metrics.json: No space left on device" in said
    assert len(_paths(tmp_path)) == 3


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys, handlers):
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o555)
    root, check = os.geteuid() == 0, checks.check

    def as_somebody_else(*asked):
        setup = check(*asked)
        if root:  # To whom nothing is forbidden.
            os.seteuid(65534)
        return setup

    monkeypatch.setattr(checks, "check", as_somebody_else)
    try:
        status, said = _run_main(small(3), folder / "run", monkeypatch, capsys)
    finally:
        if root:
            os.seteuid(0)
    assert status == exits.WRONG
    assert f"{folder / 'run'}: Permission denied" in said and "Traceback" not in said


def test_two_runs_in_one_folder(tmp_path, monkeypatch, capsys, handlers):
    with lock.locked(tmp_path):
        status, said = _run_main(small(3), tmp_path, monkeypatch, capsys)
    assert status == exits.WRONG
    assert "another run is writing to it; take another --workdir" in said
    assert not _parts(tmp_path)


def test_a_folder_that_is_deleted_under_a_run(tmp_path, monkeypatch, capsys, handlers):
    write, run = signals.Signals.write, tmp_path / "run"

    def deleting(store, *args):
        write(store, *args)
        if len(_parts(run)) == 2:
            shutil.rmtree(run)

    with monkeypatch.context() as patch:
        patch.setattr(signals.Signals, "write", deleting)
        status, said = _run_main(small(4), run, patch, capsys)
    assert status == exits.WRONG and "Traceback" not in said
    assert f"{run}/signals/part-000002.parquet: No such file or directory" in said
    assert _run_main(small(4), run, monkeypatch, capsys)[0] == exits.OK


def test_a_lock_that_cannot_be_one(tmp_path, monkeypatch, capsys, handlers):
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    status, said = _run_main(small(3), tmp_path / "run", monkeypatch, capsys)
    assert status == exits.WRONG and "Traceback" not in said
    assert f"{tmp_path}/run/.lock: not a regular file, so no lock; delete it" in said


# ------------------------------------------------------------- devices that fail


def test_one_clip_that_fails_on_the_device(tmp_path, monkeypatch, capsys, handlers):
    """It is listed each time; the others are scored once and as without it."""
    config, bad, whole = small(6, batch_size=4), [], tmp_path / "whole"
    audit.run(config, whole)
    last = _paths(whole)[-1]
    fetch, send = parallel.Devices.fetch, pipeline.Pipeline.send

    def watched(run, group):
        sent = send(run, group)
        if any(clip.key.sample.clip.key == last for clip in group.clips):
            bad.append(sent.out)
        return sent

    def failing(devices, out):
        if any(out is each for each in bad):
            raise jax.errors.JaxRuntimeError("INTERNAL: misaligned address")
        return fetch(devices, out)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Pipeline, "send", watched)
        patch.setattr(parallel.Devices, "fetch", failing)
        for _ in range(2):
            status, _ = _run_main(config, tmp_path / "run", patch, capsys)
            assert status == exits.FAILURES
            (line,) = (tmp_path / "run/failures.jsonl").read_text().splitlines()
            failure = json.loads(line)
            assert failure["stage"] == "signals" and failure["video"] in last
            assert failure["cause"] == "INTERNAL: misaligned address"
    assert set(_paths(tmp_path / "run")) == set(_paths(whole)) - {last}
    assert len(_paths(tmp_path / "run")) == 5
    status, _ = _run_main(config, tmp_path / "run", monkeypatch, capsys)
    assert status == exits.OK
    assert _scores(tmp_path / "run").equals(_scores(whole))


def test_a_device_that_breaks_and_is_mended(tmp_path, monkeypatch, capsys, handlers):
    config, fetched, fetch = small(8, batch_size=2), [], parallel.Devices.fetch

    def failing(devices, out):
        fetched.append(out)
        if len(fetched) > 2:
            raise jax.errors.JaxRuntimeError("INTERNAL: the card fell off the bus")
        return fetch(devices, out)

    with monkeypatch.context() as patch:
        patch.setattr(parallel.Devices, "fetch", failing)
        status, said = _run_main(config, tmp_path, patch, capsys)
    assert status == exits.WRONG and "3 clips in a row failed" in said
    assert len(_paths(tmp_path)) == 4 and not (tmp_path / "scores.csv").exists()
    assert _run_main(config, tmp_path, monkeypatch, capsys)[0] == exits.OK
    assert len(_paths(tmp_path)) == len(set(_paths(tmp_path))) == 8


# ------------------------------------------------------- shards that are not as left


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    audit.run(small(4), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of four clips that a test may spoil."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def test_half_a_shard(run, monkeypatch, capsys, handlers):
    scores, part = _scores(run), _parts(run)[2]
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    status, said = _run_main(small(4), run, monkeypatch, capsys)
    assert status == exits.WRONG and "Traceback" not in said
    assert f"{part}: damaged (" in said
    assert "delete it and its clips are scored again" in said
    assert len(_parts(run)) == 4
    part.unlink()
    assert _run_main(small(4), run, monkeypatch, capsys)[0] == exits.OK
    assert _scores(run).equals(scores)


def test_a_shard_with_a_bit_flipped(run):
    """Wherever it is: it is told, or it is in what the signals do not depend on."""
    part, folder = _parts(run)[1], run / "signals"
    recorded = signals.recorded(folder)

    def read():
        store = signals.Signals(folder, recorded)
        clips = list(store.read(store.finished))
        return [(c.key, c.motion, c.num_rows, *map(str, c.signals)) for c in clips]

    before, data = read(), part.read_bytes()
    rng, told = random.Random(0), 0
    for place in rng.sample(range(len(data)), 150):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        part.write_bytes(flipped)
        try:
            assert read() == before, place
        except AuditError as error:
            told += 1
            assert all(str(part) in problem for problem in error.problems), place
    assert told > 75


@pytest.mark.long
def test_a_shard_of_another_run(run, tmp_path, monkeypatch, capsys, handlers):
    audit.run(small(2, **{"video.num_frames": 3}), tmp_path / "other")
    foreign = run / "signals" / "part-000009.parquet"
    shutil.copy(_parts(tmp_path / "other")[0], foreign)
    status, said = _run_main(small(4), run, monkeypatch, capsys)
    assert status == exits.WRONG
    assert f"{foreign}: its signals were computed with video.num_frames = 3, " in said
    foreign.unlink()
    assert _run_main(small(4), run, monkeypatch, capsys)[0] == exits.OK
    # Without its record a folder still knows what its shards were computed with.
    (run / "signals" / "run.json").unlink()
    with pytest.raises(AuditError, match=r"video\.num_frames = 2, this run has 3"):
        audit.run(small(4, **{"video.num_frames": 3}), run)


def test_a_record_that_is_no_json(run):
    (run / "signals" / "run.json").write_text("{")
    with pytest.raises(AuditError, match=r"run\.json: damaged .*; delete it"):
        audit.run(small(4), run)


def test_other_settings_and_starting_again(run):
    for changes, named in (
        ({"video.num_frames": 3}, r"video\.num_frames = 2, this run has 3"),
        ({"video.sampling": "midpoint"}, r"video\.sampling = 'uniform'"),
        ({"model.dtype": "bfloat16"}, r"model\.dtype = 'float32'"),
        ({"model.prompt": "caption"}, r"model\.prompt = "),
    ):
        with pytest.raises(AuditError, match=named):
            audit.run(small(4, **changes), run)
    # A folder of the time when signals had no format.
    record = run / "signals" / "run.json"
    now = record.read_text()
    old = json.loads(now) | {"version": "0.1.0"}
    del old["format"]
    record.write_text(json.dumps(old))
    with pytest.raises(AuditError) as caught:
        audit.run(small(4), run)
    (problem,) = caught.value.problems
    assert "its signals have format 0, this version reads format 3; take" in problem
    record.write_text(now)
    # What signals do not depend on may change.
    audit.run(small(4, **{"video.max_seconds": 99.0, "batch_size": 2}), run)
    assert len(_parts(run)) == 4
    audit.run(small(4, **{"video.num_frames": 3, "overwrite": True}), run)
    assert set(_scores(run).column("n_rows").to_pylist()) == {12}


def test_a_clip_that_was_changed_in_place(tmp_path, caplog):
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
    for name, clip in zip(("a.mp4", "b.mp4", "c.mp4"), clips[:3], strict=True):
        shutil.copy(clip, tmp_path / name)
    config = small(3)
    config.corpus.suspects = (str(tmp_path / "*.mp4"),)
    before = audit.run(config, tmp_path / "run").table
    os.utime(tmp_path / "a.mp4")  # Touched, not changed.
    shutil.copy(clips[3], tmp_path / "b.mp4")
    (tmp_path / "c.mp4").unlink()  # The pattern names it no more.
    with caplog.at_level("INFO", "absl"):
        after = audit.run(config, tmp_path / "run").table
    config.corpus.suspects = (str(tmp_path / "[abc].mp4"),)
    assert "3 scored before" not in caplog.text
    assert "b.mp4: changed since it was scored, so scored again" in caplog.text
    assert caplog.text.count("changed since") == 1
    assert len(_parts(tmp_path / "run")) == 4  # The old one is kept and not read.
    assert after.cluster[1] != before.cluster[1]
    assert after.cluster[0] == before.cluster[0]
    with caplog.at_level("INFO", "absl"):
        caplog.clear()
        audit.run(config, tmp_path / "run")
    assert "changed since" not in caplog.text
