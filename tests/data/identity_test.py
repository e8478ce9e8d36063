"""The ids of rows and the keys of clips."""

import pathlib

import pytest
from corpus_files import as_json, corpus_of, load, problem_of, problems_of

from vidsme_jax.data import corpora


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
        "2 ids are given to several questions about one video each, and are made "
        "distinct, such as v1, v1#3, v1#4"
    ]


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
