"""`vidsme prepare --runner=DirectRunner` with several workers.

It needs an environment of its own: pip install -e '.[beam,cloud-test,test]'.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

import children
import object_server
from vidsme_jax import settings
from vidsme_jax.base import AuditError
from vidsme_jax.prepared.pipelines import Pipelines

pytest.importorskip("apache_beam", reason="pip install -e '.[beam]'")
pytestmark = pytest.mark.slow
CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:24]
BEAM = (
    "--runner=DirectRunner",
    "--beam_options=--direct_num_workers=2 --direct_running_mode=multi_processing",
)


@pytest.fixture
def videos(tmp_path) -> list[pathlib.Path]:
    """Of 24 one is cut."""
    (tmp_path / "v").mkdir()
    found = [pathlib.Path(shutil.copy(clip, tmp_path / "v")) for clip in CLIPS]
    found[1].write_bytes(found[1].read_bytes()[:1500])
    return found


def _command(videos: list[pathlib.Path], out: object, *flags: str) -> list[str]:
    config = videos[0].parents[1] / "c.py"
    config.write_text(
        "from vidsme_jax import settings\n"
        "def get_config():\n"
        "    config = settings.default()\n"
        f"    config.corpus.suspects = {tuple(map(str, videos))!r}\n"
        "    config.video.num_frames = 2\n"
        "    return config\n"
    )
    program = [sys.executable, "-W", "ignore", "-m", "vidsme_jax", "prepare"]
    return [*program, f"--config={config}", f"--out={out}", *flags]


def _content(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_corpus_is_that_which_threads_prepare(videos, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for command in (_command(videos, here), _command(videos, there, *BEAM)):
        done = children.run(command)
        assert done.returncode == 3, done.stderr
        assert "24 clips, 0 prepared before" in done.stdout
        assert "not prepared: 1 row" in done.stdout
    assert _content(here) == _content(there)
    done = children.run(_command(videos, there, *BEAM))
    assert "24 clips, 23 prepared before, 1 failed before" in done.stdout


def test_a_run_that_is_killed_continues(videos, tmp_path):
    """What is staged is not decoded again: those videos can be read no more."""
    staged = tmp_path / "there" / "prepared" / "uniform_2_png" / "staged"
    running = subprocess.Popen(
        _command(videos, tmp_path / "there", *BEAM),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    children.wait_for(lambda: len(list(staged.glob("*/*.clip"))) >= 3)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    children.run(_command(videos, tmp_path / "here"))
    done = children.run(_command(videos, tmp_path / "there", *BEAM))
    assert done.returncode == 3, done.stderr
    before = int(done.stdout.partition("24 clips, ")[2].partition(" ")[0])
    assert before >= 3
    assert _content(tmp_path / "here") == _content(tmp_path / "there")


def test_a_folder_that_cannot_be_written_is_a_sentence(videos, tmp_path):
    folder = tmp_path / "there" / "prepared" / "uniform_2_png"
    folder.mkdir(parents=True)
    (folder / "staged").write_text("no folder")
    done = children.run(_command(videos, tmp_path / "there", *BEAM))
    assert done.returncode == 2
    last = done.stderr.rpartition("nothing was computed")[2]
    assert "the pipeline of Beam ended (" in last and "staged" in last, done.stderr
    assert "Traceback" not in last


def test_in_a_bucket(videos, tmp_path, monkeypatch):
    pytest.importorskip("gcsfs", reason="pip install -e '.[cloud-test]'")
    with object_server.serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        done = children.run(_command(videos, "gs://bucket/c", *BEAM))
        assert done.returncode == 3, done.stderr
        children.run(_command(videos, tmp_path / "here"))
        for name, data in _content(tmp_path / "here").items():
            if not name.endswith(".lock"):
                assert server.objects[f"bucket/c/{name}"][1] == data
        assert not [name for name in server.objects if "/staged/" in name]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            "--direct_num_workrs=2",
            "no option --direct_num_workrs; did you mean 'direct",
        ),
        ("--direct_num_workers=x", "direct_num_workers: invalid int value: 'x'"),
    ],
)
def test_options_that_are_wrong_are_said_by_beam(options, text):
    with pytest.raises(AuditError, match=text):
        Pipelines("DirectRunner", options)
    Pipelines("FlinkRunner", "--flink_master=host:8081 --of_the_server=1")
