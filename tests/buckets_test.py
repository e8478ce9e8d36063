"""Folders in object stores: the same promises in memory and of real drivers.

Those of gs:// and s3:// are skipped where the extra `cloud-test` is not installed.
"""

import os
import pathlib
import urllib.request

import pytest

import object_server
from memory_store import MemoryStore
from vidsme_jax.base import AuditError
from vidsme_jax.store import buckets
from vidsme_jax.store.buckets import Bucket, Pieces

EXTRA = "pip install -e '.[cloud-test]'"  # Why a test is skipped.
KINDS = ("memory", "gs", "s3")


@pytest.fixture(params=KINDS)
def bucket(request, monkeypatch, tmp_path):
    """A folder of a bucket that is there."""
    if request.param == "memory":
        monkeypatch.setattr(Bucket, "_store", MemoryStore())
        monkeypatch.setattr(buckets, "DRIVERS", {"gs": "json"})
        yield Bucket("gs://audits/runs/a")
    elif request.param == "gs":
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        pytest.importorskip("gcsfs", reason=EXTRA)
        with object_server.serving() as server:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
            yield Bucket("gs://audits/runs/a")
    else:
        server = object_server.moto(monkeypatch, EXTRA)
        import boto3

        boto3.client("s3").create_bucket(Bucket="audits")
        yield Bucket(
            f"s3://audits/{tmp_path.name}"
        )  # Its servers share what they have.
        server.stop()


@pytest.fixture
def memory(monkeypatch) -> MemoryStore:
    """A store in memory."""
    store = MemoryStore()
    monkeypatch.setattr(Bucket, "_store", store)
    monkeypatch.setattr(buckets, "DRIVERS", {"gs": "json"})
    return store


def test_objects_come_back_as_they_were_put(bucket, tmp_path):
    assert bucket.names() == {}
    data = os.urandom(3000)
    bucket.create("signals/x", data)
    bucket.create("empty", b"")
    bucket.replace("top", b"1")
    (tmp_path / "local").write_bytes(data[:100])
    bucket.create_from("figures/from a file", tmp_path / "local")
    sizes = {name: stored.size for name, stored in bucket.names().items()}
    assert sizes == {
        "signals/x": 3000,
        "empty": 0,
        "top": 1,
        "figures/from a file": 100,
    }
    assert bucket.content("signals/x") == data
    assert bucket.content("empty") == b""
    assert bucket.piece("signals/x", 10, 20) == data[10:20]
    bucket.fetch("signals/x", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == data
    assert bucket.folder("signals").names().keys() == {"x"}
    assert bucket.has("empty") and not bucket.has("signals") and not bucket.has("emp")
    bucket.delete("signals/x")
    bucket.delete("signals/x")
    assert not bucket.has("signals/x")


def test_of_two_writers_of_a_name_the_second_is_refused(bucket, tmp_path):
    bucket.create("part", b"mine")
    bucket.create("part", b"mine")  # As after an answer that was lost.
    with pytest.raises(FileExistsError, match="with other content") as caught:
        bucket.create("part", b"else")
    assert caught.value.filename == f"{bucket.url}/part"
    (tmp_path / "local").write_bytes(b"else")
    with pytest.raises(FileExistsError, match="with other content"):
        bucket.create_from("part", tmp_path / "local")
    assert bucket.content("part") == b"mine"


def test_a_version_differs_where_an_object_was_put_again(bucket):
    bucket.replace("a", b"one")
    before = bucket.stored("a")
    assert bucket.names()["a"] == before
    bucket.replace("a", b"two")
    assert bucket.stored("a").version != before.version
    assert bucket.stored("a").size == before.size


def test_what_is_absent_is_said_by_its_url(bucket, tmp_path):
    for read in (
        lambda: bucket.content("no"),
        lambda: bucket.stored("no"),
        lambda: bucket.fetch("no", tmp_path / "no"),
        lambda: bucket.opened("no"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert caught.value.filename == f"{bucket.url}/no"
    assert not list(tmp_path.iterdir())


def test_pieces_are_those_of_the_whole(bucket):
    data = bytes(range(256)) * 8
    bucket.create("x", data)
    file = bucket.opened("x")
    assert file.seek(0, os.SEEK_END) == 2048
    assert file.seek(-8, os.SEEK_END) == 2040 == file.tell()
    assert file.read(100) == data[-8:] and file.read(1) == b""
    file.seek(5)
    file.seek(5, os.SEEK_CUR)
    assert file.read(3) == data[10:13]


def test_a_bucket_that_can_be_used_is_left_as_it_was(bucket):
    bucket.check()
    assert bucket.names() == {}


@pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)
def test_a_bucket_that_is_not_there_is_named(bucket):
    scheme = bucket.url[:2]
    with pytest.raises(AuditError) as caught:
        Bucket(f"{scheme}://absent/run").check()
    assert caught.value.problems == [
        f"{scheme}://absent/run: cannot be used (there is no bucket absent; create it, "
        "or correct the URL)"
    ]


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_what_is_wrong_with_keys_is_reported(bucket, monkeypatch):
    """The server does not know them, or there are none."""
    needed = "s3:GetObject, s3:ListBucket, s3:PutObject and s3:DeleteObject"
    _check_keys_from(0)
    try:
        with pytest.raises(AuditError) as caught:
            bucket.check()
    finally:
        _check_keys_from(float("inf"))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{bucket.url}: cannot be used (no right to write (The ")
    assert "AWS_PROFILE" in problem and needed in problem
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AuditError) as caught:
        Bucket(bucket.url).check()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{bucket.url}: cannot be used (no credentials to write")
    assert "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET" in problem


def _check_keys_from(requests: float) -> None:
    """Has the server of moto check the keys of all but so many requests."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    headers = {"Content-Type": "text/plain"}
    asked = urllib.request.Request(url, f"{requests}".encode(), headers)
    urllib.request.urlopen(asked).close()


# ---------------------------------------------------------------------------- failing


@pytest.mark.parametrize(
    ("call", "doing"), [("put", "write"), ("find", "list"), ("rm_file", "delete")]
)
def test_missing_rights_are_named(memory, call, doing):
    memory.denied = {call}
    with pytest.raises(AuditError) as caught:
        Bucket("gs://audits/a").check()
    (problem,) = caught.value.problems
    assert problem.startswith("gs://audits/a: cannot be used (no right to ")
    assert f"no right to {doing} (denied)" in problem
    assert "storage.objects.get, .list, .create and .delete" in problem


def test_a_server_that_cannot_be_reached_is_refused(memory):
    memory.failing = {"put": 1}
    with pytest.raises(AuditError) as caught:
        Bucket("gs://audits/a").check()
    (problem,) = caught.value.problems
    assert problem.startswith("gs://audits/a: cannot be used (the server did not write")
    assert "check the server's address (STORAGE_EMULATOR_HOST)" in problem


def test_a_server_that_ignores_the_condition_is_refused(memory):
    memory.ignoring = True
    with pytest.raises(AuditError, match="could overwrite each other's results"):
        Bucket("gs://audits/a").check()
    assert not memory.objects


def test_a_put_whose_answer_was_lost_counts(memory):
    memory.lost = 1
    Bucket("gs://audits/a").create("x", b"1")
    assert memory.objects["audits/a/x"][1] == b"1"


def test_a_server_that_does_not_answer_is_an_error_of_the_object(memory, tmp_path):
    memory.objects["audits/a/x"] = (1, b"12")
    bucket = Bucket("gs://audits/a")
    memory.failing = {"cat_file": 2, "put": 1, "find": 1}
    for call in (
        lambda: bucket.content("x"),
        lambda: bucket.fetch("x", tmp_path / "x"),
        lambda: bucket.create("y", b""),
        bucket.names,
    ):
        with pytest.raises(OSError, match="does not answer") as caught:
            call()
        assert caught.value.filename.startswith("gs://audits/a")
    assert not list(tmp_path.iterdir())
    memory.failing = {"cat_file": 1}
    pieces = bucket.opened("x")
    assert isinstance(pieces, Pieces)
    with pytest.raises(OSError, match="does not answer") as caught:
        pieces.read()
    assert pieces.failure is caught.value


@pytest.mark.parametrize(
    "url",
    [
        *("gs://", "gs:///a", "s3://b/../c", "gs://b//c", "gs://b/./c", "gs://B!/c"),
        *("gs://b/a\nb", "s3://a", "gs://-b/c"),
    ],
)
def test_what_is_no_url_of_a_folder_is_refused(url, monkeypatch):
    monkeypatch.setattr(buckets, "DRIVERS", {"gs": "json", "s3": "json"})
    with pytest.raises(AuditError, match=r"it must be (gs|s3)://BUCKET/FOLDER"):
        Bucket(url)


def test_other_schemes_and_missing_drivers_are_named(monkeypatch):
    assert "gs://BUCKET/FOLDER and s3://BUCKET/FOLDER are known" in buckets.problem(
        "az://a/b"
    )
    monkeypatch.setattr(buckets, "DRIVERS", {"gs": "no_such_driver"})
    assert "no_such_driver is not installed" in buckets.problem("gs://bucket/b")
    assert "vidsme-jax[cloud]" in buckets.problem("gs://bucket/b")


@pytest.mark.parametrize("fault", ["cut", "failing", "lost"])
def test_the_driver_tries_again(fault, monkeypatch, tmp_path):
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs", reason=EXTRA)
    with object_server.serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        bucket = Bucket("gs://audits/a")
        setattr(server, fault, 1)
        bucket.create("x", b"1")
        assert bucket.content("x") == b"1"
        (tmp_path / "file").write_bytes(b"2")
        setattr(server, fault, 1)
        bucket.create_from("y", pathlib.Path(tmp_path / "file"))
        assert bucket.content("y") == b"2"
