"""The ids of rows and the keys of clips."""

import os
import pathlib

import pytest
from corpus_files import as_json, corpus_of, files, load, problem_of, problems_of

from vidsme_jax.data import corpora, links


def test_ids_that_were_not_given_avoid_those_that_were(tmp_path):
    rows = [{"video": "a.mp4"}, {"video": "a.mp4"}, {"video": "b.mp4", "id": "a.mp4#2"}]
    source = as_json(tmp_path / "m.json", rows)
    items = load(corpus_of(suspects=(source,)))
    assert [item.id for item in items] == ["a.mp4", "a.mp4#3", "a.mp4#2"]


@pytest.mark.parametrize("last", [0, 1, 2])
def test_ids_that_were_not_given_avoid_names_of_other_files(tmp_path, last):
    names = ["a.mp4", "a.mp4", "a.mp4#2"]
    names = names[last + 1 :] + names[: last + 1]
    source = as_json(tmp_path / "m.json", [{"video": name} for name in names])
    ids = [item.id for item in load(corpus_of(suspects=(source,)))]
    assert sorted(ids) == ["a.mp4", "a.mp4#2", "a.mp4#3"]
    assert ids[names.index("a.mp4#2")] == "a.mp4#2"


def test_repeated_ids(tmp_path):
    rows = [{"video": f"{k}.mp4", "id": "xyx"[k]} for k in range(3)]
    source = as_json(tmp_path / "m.json", rows)
    problem = problem_of(suspects=(source,))
    assert problem == (
        f"id 'x' is given 2 times, at {source}: row 1, {source}: row 3; ids must be "
        "unique in the corpus"
    )


def test_a_video_is_one_clip_however_it_is_named(tmp_path):
    (tmp_path / "real.mp4").write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    names = ["real.mp4", "other.mp4", "./sub/../real.mp4", "link.mp4"]
    rows = [{"video": name, "question": str(k)} for k, name in enumerate(names)]
    items = load(corpus_of(suspects=(as_json(tmp_path / "m.json", rows),)))
    clips = corpora.unique_clips(items)
    assert [pathlib.Path(clip.key).name for clip in clips] == ["real.mp4", "other.mp4"]
    assert [item.question for item in clips[0].items] == ["0", "2", "3"]


def test_an_id_that_the_questions_of_a_video_share_is_made_distinct(tmp_path, caplog):
    rows = [
        {"video": "a.mp4", "id": "v1", "question": "Who?"},
        {"video": "a.mp4", "id": "v1", "question": "Why?"},
        {"video": "b.mp4", "id": "v1#2", "question": "Who?"},
        {"video": "./a.mp4", "id": "v1", "question": "Why?", "answer": "so"},
        {"video": "c.mp4", "id": "v3"},
        {"video": "c.mp4", "id": "v3", "start": 3},
        {"video": "c.mp4", "id": "v3", "start": 3, "end": 5},
    ]
    with caplog.at_level("INFO", logger="absl"):
        items = load(corpus_of(suspects=(as_json(tmp_path / "m.json", rows),)))
    ids = ["v1", "v1#3", "v1#2", "v1#4", "v3", "v3#2", "v3#3"]
    assert [item.id for item in items] == ids
    said = [r.getMessage() for r in caplog.records if "made distinct" in r.getMessage()]
    assert said == [
        "2 ids are shared by several questions about one video; they are made "
        "distinct, such as v1, v1#3, v1#4"
    ]


def test_questions_may_differ_in_their_options_alone(tmp_path):
    rows = [{"video": "a.mp4", "id": "v1", "candidates": ["x", y]} for y in "yz"]
    items = load(corpus_of(suspects=(as_json(tmp_path / "m.json", rows),)))
    assert [item.id for item in items] == ["v1", "v1#2"]


@pytest.mark.parametrize(
    "other",
    [
        {"video": "b.mp4", "question": "Why?"},  # Another video.
        {"video": "a.mp4", "question": "Who?"},  # The same of the same video.
        {"video": "a.mp4", "question": "Who?", "group": "elsewhere"},
    ],
)
def test_any_other_id_that_repeats_is_an_error(tmp_path, other):
    rows = [{"video": "a.mp4", "question": "Who?"}, other]
    source = as_json(tmp_path / "m.json", [row | {"id": "v1"} for row in rows])
    assert problem_of(suspects=(source,)).startswith("id 'v1' is given 2 times, at ")


def test_no_more_than_20_lines_of_ids(tmp_path):
    rows = [{"video": f"{k}.mp4", "id": str(k % 30)} for k in range(60)]
    problems = problems_of(suspects=(as_json(tmp_path / "m.json", rows),))
    assert len(problems) == 20 and problems[18].startswith("id '18' is given 2 times")
    assert problems[19] == "and 11 more problems of this kind"


def _tree(folder: pathlib.Path) -> list[str]:
    """Makes folders, files and links of every kind; returns names that lead there."""
    for name in ("a/b", "real", "outside"):
        (folder / name).mkdir(parents=True)
    for name in ("a/1.mp4", "a/b/2.mp4", "real/3.mp4", "outside/x.mp4"):
        (folder / name).write_bytes(name.encode())
    for name, target in (
        ("to_a", "a"),
        ("a/up", ".."),
        ("a/link.mp4", "b/2.mp4"),
        ("a/twice.mp4", "link.mp4"),
        ("a/dangling.mp4", "b/none.mp4"),
        ("loop", "loop"),
        ("one", "two/x"),
        ("two", "one"),
        ("absolute", str(folder / "a" / "b")),
    ):
        (folder / name).symlink_to(target)
    folders = ("", "a", "a/b", "to_a", "to_a/up/a", "loop", "absolute", "none")
    files = ("1.mp4", "b/2.mp4", "link.mp4", "twice.mp4", "dangling.mp4", "..", ".")
    files += ("", "up", "3.mp4", "x" * 300, "b/../1.mp4")
    return [str(folder / one / file) for one in folders for file in files]


@pytest.mark.parametrize("listed", [1, 10**9])
def test_links_are_followed_as_by_the_system(tmp_path, monkeypatch, listed):
    monkeypatch.setattr(links, "_LISTED", listed)
    names = _tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    names += ["a/1.mp4", "to_a/link.mp4", "/", "1.mp4", "../x.mp4"]
    names += [f"{tmp_path}//a//1.mp4", f"{tmp_path}/{'a/up/' * 50}a/1.mp4"]
    assert links.resolved(names) == [os.path.realpath(name) for name in names]
    (found,) = links.resolved([f"{tmp_path}/one/1.mp4"])  # One that never ends.
    assert found == f"{tmp_path}/one/1.mp4"


def test_a_link_to_itself_does_not_hide_where_the_next_leads(tmp_path):
    """Python reads `l/../real` by its words where `l` leads to itself."""
    _tree(tmp_path)
    inner = tmp_path / "inner"
    (inner / "real").mkdir(parents=True)
    (inner / "l").symlink_to("l/../real")
    (inner / "real" / "x.mp4").symlink_to(tmp_path / "outside" / "x.mp4")
    (inner / "y.mp4").symlink_to("l/x.mp4")
    for name in ("l/x.mp4", "y.mp4", "real/x.mp4"):
        source = as_json(inner / "m.json", [{"video": name}])
        assert "names videos outside of" in problem_of(suspects=(source,))


def test_a_root_that_is_a_link_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    source = as_json(tmp_path / "m.json", [{"video": "a.mp4"}])
    found = problems_of(suspects=(source,), video_root=str(tmp_path / "loop"))
    assert found[0].startswith("corpus.video_root: no such folder")


def test_ids_in_pairs_are_20_lines(tmp_path):
    rows = [{"video": f"{k}.mp4", "id": f"i{k // 2}"} for k in range(2000)]
    problems = problems_of(suspects=(as_json(tmp_path / "m.json", rows),))
    assert len(problems) == 20
    assert problems[-1] == "and 981 more problems of this kind"


def test_folders_are_not_asked_for_file_by_file(tmp_path, monkeypatch):
    names = [f"v/{k}.mp4" for k in range(500)]
    files(tmp_path, *names)
    asked = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: asked.append(path) or lstat(path))
    source = as_json(tmp_path / "m.json", [{"video": name} for name in names])
    assert len(load(corpus_of(suspects=(source,)))) == 500
    assert len(asked) < 50
