"""Work directories on servers that enforce the condition of a put.

Skipped where the extra `cloud-test` is not installed.
"""

import io
import os
import pathlib
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

import children
import killed_run
import object_server
from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.store.buckets import Bucket

EXTRA = "pip install -e '.[cloud-test]'"  # Why a test is skipped.
ROOT = pathlib.Path(settings.__file__).parents[2]
FLAGS = [
    *("--config.corpus.max_clips=2", "--config.batch_size=1", "--config.workers=1"),
    *("--config.scores=vid_sme", "--config.headline=vid_sme"),
    *("--config.slices=video", "--config.video.num_frames=2"),
]


@pytest.fixture
def gs():
    """A server that is asked as Google Cloud Storage is."""
    pytest.importorskip("gcsfs", reason=EXTRA)
    with object_server.serving() as server:
        yield server


def _command(workdir: str | pathlib.Path, *more: str) -> list[str]:
    config = str(ROOT / "configs" / "llava.py")
    program = [sys.executable, "-m", "vidsme_jax.main"]
    return [*program, "--config", config, f"--workdir={workdir}", *FLAGS, *more]


def _environment(server: object_server.Server, cache: pathlib.Path) -> dict[str, str]:
    return os.environ | {
        "STORAGE_EMULATOR_HOST": server.endpoint,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": str(ROOT),
    }


def _scores(data: bytes) -> dict:
    return pq.read_table(io.BytesIO(data)).to_pydict()


def _run(
    command: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess:
    return children.run(command, env=environment, cwd=ROOT)


@pytest.mark.parametrize("lost", [False, True], ids=["same machine", "another machine"])
def test_an_audit_that_is_killed_in_a_put_continues(gs, tmp_path, lost):
    """Killed as its second part arrives, half of whose bytes are there."""
    running: list[subprocess.Popen] = []

    def kill(name: str) -> None:
        if name.endswith("part-000001.parquet") and running:
            os.killpg(running.pop().pid, signal.SIGKILL)
            gs.cut = 1

    gs.at_put = kill
    first = _environment(gs, tmp_path / "first")
    with children.started(
        _command("gs://audits/run"), env=first, cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        running.append(process)
        assert process.wait(children.PATIENCE) == -signal.SIGKILL
    parts = [name for name in gs.objects if "/part-" in name]
    assert parts == ["audits/run/signals/part-000000.parquet"]
    where = _environment(gs, tmp_path / "second") if lost else first
    done = _run(_command("gs://audits/run"), where)
    assert done.returncode == 0, done.stderr
    assert f"4 clips, {1 if lost else 2} scored before" in done.stderr
    alone = _run(_command(tmp_path / "alone"), first)
    assert alone.returncode == 0, alone.stderr
    theirs = (tmp_path / "alone" / "scores.parquet").read_bytes()
    assert _scores(gs.objects["audits/run/scores.parquet"][1]) == _scores(theirs)


def test_a_bucket_without_rights_is_refused_with_a_sentence(gs, tmp_path):
    gs.denied = {"POST"}
    done = _run(_command("gs://audits/run"), _environment(gs, tmp_path))
    assert done.returncode == 2 and not gs.objects
    assert "gs://audits/run: cannot be used (no right to write" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_stops_in_the_middle_stops_the_run(gs, tmp_path):
    """The part that it did not take is put by the next run."""

    def stop(name: str) -> None:
        if name.endswith("part-000002.parquet"):
            gs.denied = {"POST"}  # From now on, and this put is cut.
            gs.cut = 1

    gs.at_put = stop
    where = _environment(gs, tmp_path / "cache")
    done = _run(_command("gs://audits/run"), where)
    assert done.returncode == 2, done.stderr
    assert "the run stopped: gs://audits/run/signals/part-000002.parquet" in done.stderr
    assert "results so far are in gs://audits/run" in done.stderr
    assert "Traceback" not in done.stderr
    gs.at_put, gs.denied = (lambda name: None), set()
    done = _run(_command("gs://audits/run"), where)
    assert done.returncode == 0, done.stderr
    assert "4 clips, 3 scored before" in done.stderr


def test_a_server_of_s3_that_stops_in_the_middle(
    tmp_path, monkeypatch, decoded, figureless
):
    """What it had is there when it is back, and what it did not take is put first."""
    server = object_server.moto(monkeypatch, EXTRA)
    host, port = server.get_host_and_port()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="stopping")
    config, url = killed_run.config(3, share="1/1"), "s3://stopping/run"
    put = Bucket.create_from

    def stop(bucket: Bucket, name: str, path: pathlib.Path) -> None:
        if name.startswith("part-000001"):
            server.stop()
        put(bucket, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create_from", stop)
        with pytest.raises(OSError, match="the server did not write it") as caught:
            audit.run(config, url)
    part = "signals/part-000001-1-of-1.parquet"
    assert caught.value.filename == f"{url}/{part}"
    server = type(server)(ip_address=host, port=port, verbose=False)
    server.start()
    del decoded[:]
    assert audit.run(config, url).finished == 1
    assert len(decoded) == 1
    where = {"Bucket": "stopping", "Key": f"run/{part}"}
    data = client.get_object(**where)["Body"].read()
    client.put_object(**where, Body=data[: len(data) // 2])
    with pytest.raises(AuditError) as refused:
        audit.run(config, url)
    assert refused.value.problems[0].startswith(f"{url}/{part}: damaged (")
    server.stop()
