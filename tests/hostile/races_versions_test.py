"""Versions of a prepared corpus: read, damaged, replaced, and what strangers left."""

import os
import pathlib
import resource
import shutil

import pytest

import killed_run
from vidsme_jax.base import AuditError
from vidsme_jax.data import decoders
from vidsme_jax.prepared import layout, preparation
from vidsme_jax.prepared.layout import Variant
from vidsme_jax.settings import views
from vidsme_jax.store import lock


@pytest.fixture(autouse=True)
def _one_clip_a_shard(monkeypatch):
    monkeypatch.setattr("vidsme_jax.prepared.writing._CLIPS_PER_SHARD", 1)


def _prepare(root: pathlib.Path, clips: int) -> int:
    given = views.Settings.of(killed_run.config(clips))
    return preparation.run(given, root).num_new


def _folder(root: pathlib.Path) -> pathlib.Path:
    return Variant.of(views.Settings.of(killed_run.config(2))).folder(root)


def _versions(root: pathlib.Path) -> list[str]:
    return [path.name for path in layout.versions(_folder(root))]


def test_a_version_that_is_read_is_deleted_by_a_later_run(tmp_path):
    _prepare(tmp_path, 2)
    before = _folder(tmp_path) / "1.0.0"
    content = {path.name: path.read_bytes() for path in before.iterdir()}
    with lock.held(before / layout.INFO):
        assert _prepare(tmp_path, 3) == 1
        assert _versions(tmp_path) == ["1.0.0", "1.1.0"]
        assert content == {path.name: path.read_bytes() for path in before.iterdir()}
        assert _prepare(tmp_path, 3) == 0 and before.exists()
    assert _prepare(tmp_path, 3) == 0
    assert _versions(tmp_path) == ["1.1.0"]


def test_a_damaged_version_is_replaced_though_an_older_one_is_whole(tmp_path):
    _prepare(tmp_path, 2)
    folder = _folder(tmp_path)
    older = pathlib.Path(shutil.copytree(folder / "1.0.0", tmp_path / "older"))
    (folder / "1.0.0").rename(folder / "1.4.0")
    older.rename(folder / "1.0.0")
    (index, *_) = (folder / "1.4.0").glob("index-*")
    index.write_bytes(b"damaged")
    assert _prepare(tmp_path, 2) == 0
    assert _versions(tmp_path) == ["1.5.0"]


def test_a_version_that_is_a_link_is_replaced_and_its_target_stays(tmp_path):
    _prepare(tmp_path, 2)
    version = _folder(tmp_path) / "1.0.0"
    target = version.rename(tmp_path / "elsewhere")
    version.symlink_to(target)
    _prepare(tmp_path, 3)
    assert _versions(tmp_path) == ["1.1.0"]
    assert (target / layout.INFO).exists() and not version.is_symlink()


def _interrupted(root: pathlib.Path, monkeypatch) -> list[pathlib.Path]:
    """A preparation that has staged two clips and no more; returns their files."""

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(layout.Shard, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _prepare(root, 2)
    staged = sorted((_folder(root) / "staged").glob("*/*"))
    assert [path.suffix for path in staged] == [".clip"] * 2
    return staged


def test_what_no_run_has_staged_is_left_alone(tmp_path, monkeypatch):
    staged = _interrupted(tmp_path, monkeypatch)
    place = staged[0].parent
    foreign = [place / "mine.clip", place / "a-b.failed", place / "x.tmp"]
    for path in foreign:
        path.write_text("a user's")
    pipe = place / ("0" * 64 + "-" + "1" * 64 + ".clip")
    os.mkfifo(pipe)
    assert _prepare(tmp_path, 2) == 0
    assert all(path.read_text() == "a user's" for path in foreign) and pipe.exists()


@pytest.mark.parametrize("kind", ["clip", "failed"])
def test_a_staged_file_that_is_damaged_is_named(tmp_path, monkeypatch, kind):
    staged = _interrupted(tmp_path, monkeypatch)
    bad = staged[0].with_suffix(f".{kind}")
    staged[0].rename(bad)
    for content in (b"[1]", b"\xff\xff", b"{"):
        bad.write_bytes(content)
        with pytest.raises(AuditError) as caught:
            _prepare(tmp_path, 2)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{bad}: damaged ("), problem
        assert "delete it and its clips are prepared again" in problem
    bad.unlink()
    assert _prepare(tmp_path, 2) == 1


def test_a_full_disk_loses_no_clip(tmp_path, monkeypatch):
    """As array_record says it: no error of Python's."""
    staged = _interrupted(tmp_path, monkeypatch)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*2 of 2 clips are stored"):
            _prepare(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted((_folder(tmp_path) / "staged").glob("*/*")) == staged
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(decoders, "ask", None)
    assert _prepare(tmp_path, 2) == 0
