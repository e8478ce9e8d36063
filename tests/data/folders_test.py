"""Links, loops, `~`, and files that only seem to be videos."""

import dataclasses
import os
import pathlib

import pytest
from corpus_files import as_json, corpus_of, files, load, problem_of

from vidsme_jax.data import corpora

# ------------------------------------------------------------------------------- links


@pytest.mark.parametrize("pattern", ["", "/**/*.mp4", "/**"])
def test_linked_folders_are_entered_and_loops_cut(tmp_path, pattern):
    files(tmp_path / "corpus", "part0/0.mp4", "part0/1.mp4")
    files(tmp_path / "disk2", "2.mp4", "deep/3.mp4")
    (tmp_path / "corpus/part1").symlink_to(tmp_path / "disk2")
    (tmp_path / "corpus/part0/loop").symlink_to(tmp_path / "corpus")
    (tmp_path / "disk2/self").symlink_to("self")
    (tmp_path / "disk2/again").symlink_to(tmp_path / "corpus/part0")
    items = load(corpus_of(suspects=(f"{tmp_path}/corpus{pattern}",)))
    names = [pathlib.Path(item.video).name for item in items]
    assert names == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    # Each by its own path: no link is on the way where there is one without.
    assert items[0].video.endswith("part0/0.mp4") and "loop" not in items[0].video
    assert items[3].clip == str(tmp_path / "disk2/deep/3.mp4")


@pytest.mark.parametrize("links_manifest", [False, True])
def test_links_into_the_cache_of_the_hub_are_inside(tmp_path, links_manifest):
    repository = tmp_path / "hub" / "datasets--owner--name"
    snapshot = repository / "snapshots" / "0123abc"
    files(repository / "blobs", "aaaa", "bbbb")
    (snapshot / "videos").mkdir(parents=True)
    (snapshot / "videos/x.mp4").symlink_to("../../../blobs/aaaa")
    manifest = snapshot / "m.json"
    as_json(manifest, [{"video": "videos/x.mp4"}])
    if links_manifest:
        manifest.rename(repository / "blobs" / "cccc")
        manifest.symlink_to("../../blobs/cccc")
    corpus = corpus_of(suspects=(str(manifest),))
    (item,) = load(corpus, looks=True)
    assert item.clip == str(repository / "blobs/aaaa")
    assert load(dataclasses.replace(corpus, video_root=str(snapshot)), looks=True)
    # Nothing else is: neither another repository's nor what lies beside the blobs.
    files(tmp_path / "hub" / "datasets--owner--other" / "blobs", "dddd")
    files(repository, "refs/secret.mp4")
    for name in ("../../datasets--owner--other/blobs/dddd", "refs/secret.mp4"):
        (snapshot / "videos/y.mp4").symlink_to(repository / name)
        as_json(manifest, [{"video": "videos/y.mp4"}])
        assert "outside of" in problem_of(suspects=(str(manifest),))
        (snapshot / "videos/y.mp4").unlink()


# ------------------------------------------------------------------ ~, and what is left


def test_a_tilde_in_a_manifest_is_part_of_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files(tmp_path, "~clip.mp4", "~/a.mp4", "~root/b.mp4", "home.mp4")
    rows = [{"video": name} for name in ("~clip.mp4", "~/a.mp4", "~root/b.mp4", "~")]
    items = load(corpus_of(suspects=(as_json(tmp_path / "m.json", rows),)))
    names = ["~clip.mp4", "~/a.mp4", "~root/b.mp4", "~"]
    assert [item.clip for item in items] == [str(tmp_path / name) for name in names]
    # In the configuration it is a home; names that are found are what they are.
    (item,) = load(corpus_of(suspects=("~/home.mp4",)))
    assert item.clip == str(tmp_path / "home.mp4")
    monkeypatch.chdir(tmp_path)
    (item,) = load(corpus_of(suspects=("*clip.mp4",)))
    assert item.clip == str(tmp_path / "~clip.mp4")
    problem = problem_of(suspects=("~nosuchuser/a.json",))
    assert problem.startswith("~nosuchuser/a.json: no such manifest")
    assert "no such folder: ~nosuchuser" in problem_of(
        suspects=("~/home.mp4",), video_root="~nosuchuser"
    )


PARTIAL = ("a.mp4.part", "b.f137.mp4.part", "c.mp4.ytdl", "d.mp4.part-Frag12")
PARTIAL += ("Unconfirmed 12.crdownload", "e.webm.tmp", "f.incomplete", "g.mp4.aria2")


@pytest.mark.parametrize("pattern", ["", "/*", "/**"])
def test_partial_downloads_are_left_out_and_counted(tmp_path, pattern, caplog):
    whole = ("a.mp4", "b.f137.mp4", "notes.tmp", "c.mp4")
    files(tmp_path, *PARTIAL, *whole)
    files(tmp_path, "g.mp4")  # Allocated by aria2.
    (tmp_path / "h.mp4").touch()  # Reserved by Firefox.
    files(tmp_path, "h.mp4.part")
    files(tmp_path, "i.mp4.download/i.mp4")  # Safari's.
    with caplog.at_level("INFO", logger="absl"):
        corpus = corpora.load(corpus_of(suspects=(f"{tmp_path}{pattern}",)))
    names = [pathlib.Path(item.clip).name for item in corpus.items]
    assert names == ["a.mp4", "b.f137.mp4", "c.mp4"]
    (left,) = corpus.left_out
    assert left.count == len(PARTIAL) + 4
    assert (left.source, left.what) == (f"{tmp_path}{pattern}", "files")
    assert left.why.startswith("left over from interrupted downloads: ")
    assert f"{left.count} files of {tmp_path}{pattern} left out: left" in caplog.text


def test_a_folder_of_nothing_but_partial_downloads(tmp_path):
    files(tmp_path, *PARTIAL)
    problem = problem_of(suspects=(str(tmp_path),))
    assert f"; {len(PARTIAL)} files are left out, left over from interrupted" in problem


def test_what_cannot_be_looked_at_is_said(tmp_path, monkeypatch):
    files(tmp_path, "a.mp4", "closed/b.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    corpus = corpora.load(corpus_of(suspects=(str(tmp_path),)))
    assert [item.video for item in corpus.items] == ["a.mp4"]
    closed, links = corpus.left_out
    assert (
        closed.why
        == f"folders that cannot be read: {tmp_path}/closed: Permission denied"
    )
    assert links.count == 2 and links.why.startswith("broken links: ")
