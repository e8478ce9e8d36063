"""Folders, globs and single videos, and where a manifest may lead."""

import dataclasses
import os
import pathlib

import pytest
from corpus_files import as_json, corpus_of, files, load, problem_of, problems_of

from vidsme_jax.data import corpora


@pytest.fixture
def good(tmp_path) -> str:
    """A manifest with nothing wrong, for the other role."""
    return as_json(tmp_path / "good.json", [{"video": "good.mp4"}])


def test_a_folder(tmp_path):
    for name in ("b.MP4", "a.webm", "sub/c.mkv", "notes.txt", "._b.mp4", "poster.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    items = load(corpus_of(suspects=(str(tmp_path),), video_root=str(tmp_path)))
    assert [item.id for item in items] == ["a.webm", "b.MP4", "sub/c.mkv"]
    assert items[2].clip == str(tmp_path / "sub/c.mkv")


def test_a_folder_has_no_columns(tmp_path, caplog):
    """Of fields of other sources that is said; with nothing else they are an error."""
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").touch()
    other = as_json(tmp_path / "m.json", [{"path": "b.mp4"}])
    said = "has no columns: its files are identified by name"
    for source in (
        f"{tmp_path}/films",
        f"{tmp_path}/films/*",
        f"{tmp_path}/films/a.mp4",
    ):
        caplog.clear()
        keys = {"suspects": (source, other), "fields": ("video=path",)}
        with caplog.at_level("INFO", "absl"):
            names = [item.clip for item in load(corpus_of(**keys))]
        assert names == [str(tmp_path / "films" / "a.mp4"), str(tmp_path / "b.mp4")]
        (line,) = [x for x in caplog.messages if said in x]
        assert line.startswith(f"{source}: ") and line.endswith("is not used")
        problem = problem_of(suspects=(source,), fields=("video=path",))
        assert problem.startswith("corpus.fields: no source has a column 'path' for 'v")
        assert problem.endswith(said)
    caplog.clear()
    with caplog.at_level("INFO", "absl"):
        load(corpus_of(suspects=(source,), fields=("label=",)))
    assert not any(said in x for x in caplog.messages)


def test_a_glob_and_a_single_video(tmp_path, monkeypatch):
    for name in ("x/a.mp4", "y/b.mp4", "y/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    items = load(corpus_of(suspects=("*/*", "x/a.mp4")))
    assert [item.video for item in items] == ["x/a.mp4", "y/b.mp4", "x/a.mp4"]
    assert [item.id for item in items] == ["x/a.mp4", "y/b.mp4", "x/a.mp4#2"]
    assert items[1].clip == str(tmp_path / "y/b.mp4")
    clips = corpora.unique_clips(items)
    assert [len(clip.items) for clip in clips] == [2, 1]


def test_relative_and_absolute_paths(tmp_path):
    elsewhere = tmp_path / "videos"
    elsewhere.mkdir()
    (tmp_path / "lists").mkdir()
    rows = [{"video": "a.mp4"}, {"video": "/data/b.mp4"}, {"video": "../c.mp4"}]
    source = as_json(tmp_path / "lists/m.json", rows)
    anywhere = corpus_of(suspects=(source,), allow_outside=True)
    by_manifest = load(anywhere)
    expected = [f"{tmp_path}/lists/a.mp4", "/data/b.mp4", f"{tmp_path}/c.mp4"]
    assert [item.clip for item in by_manifest] == expected
    by_root = load(dataclasses.replace(anywhere, video_root=str(elsewhere)))
    assert by_root[0].clip == str(elsewhere / "a.mp4")
    assert by_root[1].clip == "/data/b.mp4"


@pytest.mark.parametrize(
    "video",
    ["../c.mp4", "/data/b.mp4", "sub/../../c.mp4", "link/c.mp4", ".."],
)
def test_a_manifest_does_not_lead_outside_of_its_folder(tmp_path, video):
    inside = tmp_path / "lists"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    rows = [{"video": "a.mp4"}, {"video": video}, {"video": str(inside / "b.mp4")}]
    source = as_json(inside / "m.json", rows)
    problem = problem_of(suspects=(source,))
    assert (
        f"1 row of manifests names videos outside of {inside}: {source}: row 2: "
        in (problem)
    )
    assert "corpus.allow_outside=true" in problem
    assert len(load(corpus_of(suspects=(source,), allow_outside=True))) == 3
    # A root that holds them is as good.
    if video in ("../c.mp4", "link/c.mp4"):
        (tmp_path / "link").symlink_to(tmp_path)
        rows = [{"video": video.replace("../", "")}]
        source = as_json(inside / "m.json", rows)
        load(corpus_of(suspects=(source,), video_root=str(tmp_path)))


def test_what_the_user_names_may_lie_anywhere(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a.mp4").touch()
    (tmp_path / "near").mkdir()
    (tmp_path / "near/link.mp4").symlink_to(tmp_path / "far/a.mp4")
    for source in (tmp_path / "near", tmp_path / "near/*.mp4"):
        (item,) = load(corpus_of(suspects=(str(source),)))
        assert item.clip == str(tmp_path / "far/a.mp4")
    # The folder of a manifest may itself be a link.
    (tmp_path / "alias").symlink_to(tmp_path / "far")
    as_json(tmp_path / "far/m.json", [{"video": "a.mp4"}])
    assert len(load(corpus_of(suspects=(str(tmp_path / "alias/m.json"),)))) == 1


def test_a_missing_video_is_not_an_error_of_the_corpus(tmp_path):
    source = as_json(tmp_path / "m.json", [{"video": "gone.mp4"}])
    (item,) = load(corpus_of(suspects=(source,)))
    assert not pathlib.Path(item.clip).exists()


def test_sources_that_yield_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    folder, no_match, no_video, typo = (
        str(tmp_path / name) for name in ("empty", "*.mp4", "*.txt", "note.tx")
    )
    problems = problems_of(suspects=(folder, no_match, no_video, typo))
    assert problems[0].startswith(f"{folder}: no video in the folder; looked for .mp4")
    assert problems[1] == f"{no_match}: the glob matches nothing"
    assert problems[2].startswith(f"{no_video}: 1 matches, none a video (.mp4")
    assert problems[3] == (
        f"{typo}: no such manifest, folder or video; did you mean 'notes.txt'?"
    )


def test_a_video_root_that_is_not_there(good):
    problem = problem_of(suspects=(good,), video_root="/no/such/root")
    assert problem == (
        "corpus.video_root: no such folder: /no/such/root (there is no folder /no/such "
        "either)"
    )


# -------------------------------------------------------- paths that look like patterns


@pytest.mark.parametrize("name", ["[a]", "a*", "what?", "[!x] (1)", "[[]"])
def test_a_path_that_is_there_is_no_pattern(tmp_path, name):
    folder = tmp_path / name
    files(folder, "clip [1].mp4", "sub/clip *.mp4")
    (tmp_path / "a").mkdir()  # What some would match.
    files(tmp_path / "a", "other.mp4")
    video = str(folder / "clip [1].mp4")
    (item,) = load(corpus_of(suspects=(video,)))
    assert item.clip == video
    assert len(load(corpus_of(suspects=(str(folder),)))) == 2
    # A part of a pattern that is there is a name.
    (item,) = load(corpus_of(suspects=(f"{folder}/sub/*.mp4",)))
    assert item.clip == str(folder / "sub/clip *.mp4")
    rows = [{"video": "clip [1].mp4"}, {"video": "sub/clip *.mp4"}]
    manifest = as_json(folder / "m[1].json", rows)
    assert len(load(corpus_of(suspects=(manifest,)), looks=True)) == 2
    elsewhere = as_json(tmp_path / "m.json", rows)
    corpus = corpus_of(suspects=(elsewhere,), video_root=str(folder))
    assert load(corpus, looks=True)[0].clip == video


def test_patterns(tmp_path):
    files(tmp_path, "a1.mp4", "a2.mp4", "[a].mp4", "b/c/d.mp4", "b/e.mp4", ".h.mp4")
    files(tmp_path, ".hidden/x.mp4")

    def found(pattern: str) -> list[str]:
        items = load(corpus_of(suspects=(f"{tmp_path}/{pattern}",)))
        return [str(pathlib.Path(i.clip).relative_to(tmp_path)) for i in items]

    assert found("a?.mp4") == found("a[0-9].mp4") == ["a1.mp4", "a2.mp4"]
    assert found("[[]a].mp4") == ["[a].mp4"]  # A bracket, escaped.
    assert found("**/*.mp4") == ["[a].mp4", "a1.mp4", "a2.mp4", "b/c/d.mp4", "b/e.mp4"]
    assert found("**") == found("**/*.mp4")
    assert found("b/**/d.mp4") == found("*/*/*") == ["b/c/d.mp4"]


def test_a_pattern_that_is_a_name(tmp_path):
    files(tmp_path, "clip[1].mp4")
    source = f"{tmp_path}/clip[2].mp4"
    assert problem_of(suspects=(source,)) == (
        f"{source}: no file of this name; read as a pattern it matches nothing; did "
        "you mean 'clip[1].mp4'?"
    )


def test_a_pattern_of_manifests(tmp_path):
    rows = [{"video": "a.mp4"}]
    one, other = (as_json(tmp_path / f"{name}.json", rows) for name in "ab")
    source = f"{tmp_path}/*.json"
    expected = f"{source}: a pattern selects videos, not manifests; name each: "
    assert problem_of(suspects=(source,)) == f"{expected}('{one}', '{other}')"
    source = f"{tmp_path}/a*.json"
    assert problem_of(suspects=(source,)).endswith(f"name each: ('{one}',)")


def test_names_of_files_are_no_addresses_and_need_not_be_utf8(tmp_path):
    names = (b"\xff\xfe.mp4", b"tfds:a.mp4", b"hf:b.mp4", b"new\nline.mp4")
    for name in names:
        pathlib.Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).touch()
    items = load(corpus_of(suspects=(str(tmp_path),)))
    found = {os.fsencode(item.video): item.clip for item in items}
    assert set(found) == set(names)
    assert all(os.path.isabs(clip) and os.path.isfile(clip) for clip in found.values())


@pytest.mark.parametrize(
    "name", ["x" * 5000, "x" * 5000 + ".json", "x" * 5000 + "/*.mp4", "a\0b", "\ud800"]
)
def test_names_that_no_file_can_have(name):
    assert name[:20] in problem_of(suspects=(name,))


def test_folders_of_videos_that_no_file_can_have(tmp_path):
    rows = [{"video": "x" * 5000 + "/a.mp4"}, {"video": "y/" * 3000 + "a.mp4"}]
    source = as_json(tmp_path / "m.json", rows)
    problem = problem_of(looks=True, suspects=(source,))
    assert "none of the 2 videos of its 2 rows is there" in problem
