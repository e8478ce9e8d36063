"""Prepared corpora on servers of objects that enforce the condition of a put."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest

import children
import made_clips
import object_server
from made_clips import PNG
from vidsme_jax import settings
from vidsme_jax.base import AuditError, Clip, Item
from vidsme_jax.prepared import clips, writing
from vidsme_jax.store.buckets import Bucket

EXTRA = "pip install -e '.[cloud-test]'"  # Why a test is skipped.
NUMBERS = (0, 1, 6, 7, 11, 12, 16, 17)  # Two in each of four shards.


@pytest.fixture
def gs(monkeypatch):
    """A server that is asked as Google Cloud Storage is."""
    pytest.importorskip("gcsfs", reason=EXTRA)
    with object_server.serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        yield server


@pytest.fixture
def s3(monkeypatch):
    """The server of moto, which is asked as S3 is."""
    server = object_server.moto(monkeypatch, EXTRA)
    import botocore.session

    reset = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset"
    reset = urllib.request.Request(reset, b"")
    urllib.request.urlopen(reset).close()  # It keeps its objects for the next one.
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    server.stop()


@pytest.fixture(params=["gs", "s3"])
def root(request, monkeypatch) -> Bucket:
    monkeypatch.setattr(writing, "_CLIPS_PER_SHARD", 2)
    request.getfixturevalue(request.param)
    return Bucket(f"{request.param}://bucket/c")


@pytest.fixture
def items(tmp_path) -> list[Item]:
    return [made_clips.item(number, tmp_path) for number in NUMBERS]


def _write(root: Bucket, items: list[Item]) -> None:
    with writing.opened(root, PNG, len(NUMBERS)) as writer:
        writer.finish(items, made_clips.stage(writer, items), workers=2)


def _read(root: Bucket, items: list[Item], cache: pathlib.Path) -> None:
    found = clips.PreparedClips(root, PNG, cache=cache)
    found.match([Clip(item.clip, (item,)) for item in items])
    for number, item in zip(NUMBERS, items, strict=True):
        assert found.read(item.clip)[1] == made_clips.motion(number)


def test_a_corpus_is_written_extended_and_read(root, items, tmp_path):
    _write(root, items[:3])
    _write(root, items)
    _read(root, items, tmp_path / "cache")
    names = PNG.folder(root).names()
    left = [name for name in names if not name.startswith("1.1.0/")]
    assert sorted(left) == ["1.0.0/dataset_info.json", "settings.json"]


def test_of_two_runs_the_second_is_refused_by_the_server(root, items, tmp_path):
    with writing.opened(root, PNG, len(NUMBERS)) as writer:
        digests = made_clips.stage(writer, items[:5])
        _write(root, items[3:])
        with pytest.raises(OSError, match="another run has published the next version"):
            writer.finish(items[:5], digests, workers=2)
    _write(root, items[:5])
    _read(root, items, tmp_path / "cache")


def test_two_runs_at_once_of_the_same_clips_agree(root, items, tmp_path):
    both = threading.Barrier(2)

    def run() -> None:
        with writing.opened(root, PNG, len(NUMBERS)) as writer:
            digests = made_clips.stage(writer, items)
            both.wait(children.PATIENCE)
            writer.finish(items, digests, workers=2)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _read(root, items, tmp_path / "cache")
    names = PNG.folder(root).names()
    assert {name.partition("/")[0] for name in names} == {"1.0.0", "settings.json"}


def test_a_server_that_ignores_the_condition_is_refused(gs, items):
    gs.ignoring = True
    with pytest.raises(AuditError, match="it ignores If-None-Match, or generation 0"):
        _write(Bucket("gs://bucket/c"), items)


def _command(tmp_path: pathlib.Path, *flags: str) -> list[str]:
    corpus = settings.DEMO / "corpus"
    config = tmp_path / "c.py"
    config.write_text(
        "from vidsme_jax import settings\n"
        "def get_config():\n"
        "    config = settings.default()\n"
        f"    config.corpus.members = ({str(corpus / 'members.jsonl')!r},)\n"
        f"    config.corpus.nonmembers = ({str(corpus / 'nonmembers.jsonl')!r},)\n"
        "    config.corpus.max_clips, config.video.num_frames = 3, 2\n"
        "    return config\n"
    )
    program = [sys.executable, "-W", "ignore", "-m", "vidsme_jax", "prepare"]
    return [*program, f"--config={config}", *flags]


def test_a_command_that_is_killed_in_a_put_continues(gs, tmp_path):
    command = _command(tmp_path, "--out=gs://bucket/c", "--config.workers=1")
    running: list[subprocess.Popen[str]] = []
    for end, left in ((".clip", 2), ("array_record-00000-of-00001", 1)):
        puts = []

        def kill(name: str, end=end, left=left, puts=puts) -> None:
            if name.endswith(end):
                puts.append(name)
                if len(puts) == left:
                    running[-1].send_signal(signal.SIGKILL)
                    running[-1].wait()

        gs.at_put = kill
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        said, _ = process.communicate(timeout=children.PATIENCE)
        assert process.returncode == -signal.SIGKILL, said
        assert not [name for name in gs.objects if name.endswith("_info.json")]
    gs.at_put = lambda name: None
    done = children.run(command)
    assert done.returncode == 0, done.stderr
    assert "6 clips, 6 prepared before: gs://bucket/c/prepared/" in done.stdout
    assert not [name for name in gs.objects if "/staged/" in name]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"denied": {"POST"}}, "no right to write"),
        ({"failing": 10**6}, "the server did not write it"),
    ],
    ids=["denied", "failing"],
)
def test_a_server_that_refuses_is_a_sentence(gs, tmp_path, fault, text):
    for name, value in fault.items():
        setattr(gs, name, value)
    done = children.run(_command(tmp_path, "--out=gs://bucket/c"))
    assert done.returncode == 2 and text in done.stderr
    assert "gs://bucket/c/prepared/uniform_2_png" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_stops_in_the_middle_keeps_what_is_staged(gs, tmp_path):
    def stopping(name: str) -> None:
        if "array_record" in name:
            gs.denied = {"POST", "GET"}

    gs.at_put = stopping
    command = _command(tmp_path, "--out=gs://bucket/c")
    done = children.run(command)
    assert done.returncode == 2 and "the run stopped: gs://bucket/c" in done.stderr
    assert "6 of 6 clips are stored" in done.stderr, done.stderr
    gs.denied, gs.at_put = set(), lambda name: None
    done = children.run(command)
    assert "6 clips, 6 prepared before" in done.stdout, done.stderr
    assert os.environ["STORAGE_EMULATOR_HOST"] == gs.endpoint
