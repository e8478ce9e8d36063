"""Processes that decode: one that crashes, hangs or is killed costs its clip alone."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

import children
from killed_run import config as small
from vidsme_jax import audit, settings
from vidsme_jax.base import ClipError
from vidsme_jax.data import decoders, loader, reading, video
from vidsme_jax.data.limits import Limits
from vidsme_jax.data.sampling import Choice
from vidsme_jax.settings import views

CLIP = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[0]
SMALL = "configs/llava.py:tiny"
HOW = views.Settings.of(settings.default()).video


@pytest.fixture
def faulty(monkeypatch, tmp_path):
    """Makes clips that do to the process that decodes them what their names say."""
    monkeypatch.setattr(decoders, "_PROGRAM", "faulty_decoding")
    monkeypatch.setattr(decoders, "_GRACE", 0.5)
    decoders._pool_of.cache_clear()
    pool = decoders._pool()

    def made(name: str) -> pathlib.Path:
        return pathlib.Path(shutil.copy(CLIP, tmp_path / f"{name}.mp4"))

    yield made
    pool.close()
    decoders._pool_of.cache_clear()


def _cause(path: pathlib.Path, seconds: float = 60.0) -> str:
    with pytest.raises(ClipError) as caught:
        decoders.ask("content_hash", path, Limits(max_seconds=seconds))
    assert caught.value.stage == "process"
    return caught.value.cause


def _running() -> list[int]:
    """The processes of the pool that have not ended."""
    pool = decoders._pool()
    its = [*pool._idle, *pool._busy.values()]
    return [process._child.pid for process in its if process.runs()]


def test_a_process_gives_what_this_one_gives(tmp_path):
    frames, _ = reading.Videos(HOW).read(str(CLIP), {4, 7})(7)
    here = video.decode_chosen(CLIP, Choice("uniform", 1.0, [7]))
    np.testing.assert_array_equal(frames.pixels, here.pixels)
    assert frames.indices == here.indices and frames.warnings == here.warnings
    assert frames.content_hash == here.content_hash
    assert frames.container == here.container != {}
    small = reading.Videos(HOW).thumbnails(str(CLIP), [0, 3, 3], 24)
    np.testing.assert_array_equal(small, video.thumbnails(CLIP, [0, 3, 3], 24))
    data = CLIP.read_bytes()
    found, _ = decoders.ask("content_hash", data, Limits())
    assert found == {"content_hash": here.content_hash}


def test_errors_are_those_of_this_process(tmp_path, faulty):
    path = tmp_path / "a\udcff.mp4"
    with pytest.raises(ClipError) as caught:
        reading.Videos(HOW).read(str(path), {4})
    assert (caught.value.stage, caught.value.cause) == (
        "open",
        f"no such file: {path}",
    )
    with pytest.raises(ClipError, match="preprocess: MemoryError: for now"):
        decoders.ask("content_hash", faulty("raises"), Limits())


def test_a_crash_names_the_signal_and_the_next_clip_is_decoded(faulty):
    assert _cause(faulty("crashes")) == "the decoder crashed on it (SIGSEGV)"
    assert "killed, probably for lack of memory" in _cause(faulty("starves"))
    said = _cause(faulty("quits"))
    assert said.endswith(r"ended with status 5: at last: \x1b[2J gone")
    found, _ = decoders.ask("content_hash", faulty("good"), Limits())
    assert found["content_hash"] == video.content_hash(CLIP)


def test_a_clip_that_does_not_return_is_given_up(faulty):
    begun = time.monotonic()
    said = _cause(faulty("hangs"), seconds=0.5)
    assert said.startswith("not decoded within 0.5 s (config.video.max_seconds), and")
    assert time.monotonic() - begun < children.MOMENT
    assert not _running()


def test_a_process_that_the_kernel_does_not_end_is_left_behind(
    faulty, monkeypatch, caplog
):
    monkeypatch.setattr(decoders, "_END", 0.05)
    left = []
    with monkeypatch.context() as patch:
        patch.setattr(decoders.subprocess.Popen, "kill", lambda x: left.append(x))
        _cause(faulty("hangs"), seconds=0.2)
    assert "does not end when killed and is left behind" in caplog.text
    decoders.ask("content_hash", faulty("good"), Limits())
    left[0].kill()
    left[0].wait()


def test_a_process_that_ended_without_work_is_not_lent(faulty):
    good = faulty("good")
    decoders.ask("content_hash", good, Limits())
    (pid,) = _running()
    os.kill(pid, signal.SIGKILL)
    children.wait_for(lambda: not _running())
    decoders.ask("content_hash", good, Limits())
    assert _running() != [pid]


def test_signals_of_a_terminal_are_for_who_asks(faulty):
    good = faulty("good")
    decoders.ask("content_hash", good, Limits())
    (pid,) = _running()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    decoders.ask("content_hash", good, Limits())
    assert _running() == [pid] and os.getpgid(pid) != os.getpgid(0)


def test_threads_have_processes_of_their_own_at_most_one_each(faulty):
    clips = [faulty(f"good{k}") for k in range(12)]
    videos = reading.Videos(HOW)
    found = dict(loader.load_ahead(clips, lambda p: videos.read(str(p), {4})(4), 3))
    assert len(found) == 12 and not any(isinstance(x, ClipError) for x in found)
    assert 1 <= len(_running()) <= 3


def test_a_consumer_that_stops_does_not_wait_for_a_clip_that_hangs(faulty):
    stop = threading.Event()
    clips = [faulty("good"), faulty("hangs"), faulty("good2")]
    videos = reading.Videos(HOW)
    coming = loader.load_ahead(
        clips, lambda path: videos.read(str(path), {4})(4), 2, stop.is_set
    )
    assert next(coming)[0] == clips[0]
    threading.Timer(0.5, stop.set).start()
    begun = time.monotonic()
    assert list(coming) == []
    assert time.monotonic() - begun < HOW.max_seconds / 4
    children.wait_for(
        lambda: not any(each.name.startswith("clip") for each in threading.enumerate())
    )


def test_a_thread_that_is_given_up_gets_no_process(faulty):
    good, raised = faulty("good"), []

    def asked():
        decoders.abandon([threading.current_thread()])
        with pytest.raises(decoders.Abandoned) as caught:
            decoders.ask("content_hash", good, Limits())
        raised.append(caught)

    thread = threading.Thread(target=asked)
    thread.start()
    thread.join()
    assert raised and not _running()
    decoders.ask("content_hash", good, Limits())


@pytest.mark.long
def test_a_signal_ends_an_audit_whose_next_clip_hangs(faulty, tmp_path):
    faulty("hangs")
    program = (
        "from vidsme_jax.data import decoders; decoders._PROGRAM = 'faulty_decoding'; "
        "from vidsme_jax import main; main.run()"
    )
    here = pathlib.Path(__file__).parents[1]
    command = [sys.executable, "-c", program, "--config", here.parent / SMALL]
    command += [f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.corpus.suspects=('{tmp_path / 'hangs.mp4'}',)"]
    command += ["--config.motion.bounds=(0, 10, 0, 20)"]
    command += ["--config.corpus.members=()", "--config.corpus.nonmembers=()"]
    path = os.pathsep.join([str(here), str(here.parent)])
    env = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    with children.started(command, stderr=subprocess.PIPE, env=env) as process:
        before, line = [], ""
        while "0 scored before" not in line:
            before.append(line := process.stderr.readline())
            assert line, before
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=children.MOMENT)[1]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest


@pytest.mark.long
def test_an_audit_goes_on_and_the_others_scores_stay(faulty, tmp_path, monkeypatch):
    monkeypatch.setattr(audit.report.figures, "draw", lambda *args: [])
    config = small(None, **{"motion.bounds": (0.0, 10.0, 0.0, 20.0)})
    config.video.max_seconds, config.workers = 5.0, 2
    tables = []
    for bad in ((), ("crashes", "hangs")):
        folder = tmp_path / f"with{len(bad)}"
        folder.mkdir()
        for name in ("good1", "good2", "good3", *bad):
            shutil.move(faulty(name), folder)
        config.corpus.suspects = (str(folder),)
        report = audit.run(config, tmp_path / f"run{len(bad)}")
        assert {failure.id for failure in report.failures} == {f"{n}.mp4" for n in bad}
        assert {failure.stage for failure in report.failures} <= {"process"}
        path = tmp_path / f"run{len(bad)}" / "scores.parquet"
        tables.append(pq.read_table(path))
    assert tables[0].num_rows == 3 and tables[0].equals(tables[1])
