"""The corpus as a whole: roles, labels, what is left out, what is refused."""

import json
import pathlib

import pytest
from corpus_files import (
    as_json,
    corpus_of,
    load,
    problem_of,
    problems_of,
)

from vidsme_jax.data import corpora
from vidsme_jax.data.left_out import LeftOut


def test_the_release_s_own_manifest(golden):
    source = str(golden / "longva_official" / "items.json")
    root = str(golden / "longva_official" / "videos")
    corpus = corpus_of(members=(source,), nonmembers=(source,), video_root=root)
    items = load(corpus)
    assert len(items) == 10 and all(pathlib.Path(item.clip).is_file() for item in items)
    labels = {
        row["video"]: row["label"]
        for row in json.loads(pathlib.Path(source).read_text())
    }
    for item in items:
        assert item.role == ("members" if labels[item.video] else "nonmembers")


def test_each_role_takes_its_own_rows(tmp_path):
    labels = [1, 0, "1", "0", "member", "Members", "non-member", "nonmember"]
    labels += ["nonmembers", "suspect", "suspects", "calibration", 1.0]
    rows = [{"video": f"{k}.mp4", "label": v} for k, v in enumerate(labels)]
    m = (as_json(tmp_path / "m.json", rows),)
    items = load(corpus_of(members=m, nonmembers=m, suspects=m, calibration=m))
    by_role = {
        role: [int(pathlib.Path(item.clip).stem) for item in items if item.role == role]
        for role in ("members", "nonmembers", "suspects", "calibration")
    }
    assert by_role == {
        "members": [0, 2, 4, 5, 12],
        "nonmembers": [1, 3, 6, 7, 8],
        "suspects": [9, 10],
        "calibration": [11],
    }


def test_labels_in_a_csv(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("video,label\na.mp4,1\nb.mp4,0\n")
    items = load(corpus_of(members=(str(path),), nonmembers=(str(path),)))
    assert [item.role for item in items] == ["members", "nonmembers"]


@pytest.mark.parametrize("label", [2, "train", "nonmembr", -1, 0.5, ["member"]])
def test_any_other_label_is_an_error(tmp_path, label):
    rows = [{"video": "a.mp4", "label": 1}, {"video": "b.mp4", "label": label}]
    source = as_json(tmp_path / "m.json", rows)
    problem = problem_of(members=(source,), nonmembers=(source,))
    assert problem.startswith(
        f"{source}: the column 'label' has {label!r} in 1 of 2 rows (first: row 2"
    )
    assert "1 or member, 0 or nonmember, suspect, calibration" in problem
    assert ("did you mean 'nonmember'?" in problem) == (label == "nonmembr")


def test_a_role_that_finds_no_row_of_its_own(tmp_path):
    source = as_json(tmp_path / "m.json", [{"video": "a.mp4", "label": "member"}])
    problem = problem_of(members=(source,), nonmembers=(source,))
    expected = f"corpus.nonmembers: no row of {source} has this label; its labels: "
    assert problem == f"{expected}members"


@pytest.mark.parametrize("column", ["label", "split"])
@pytest.mark.parametrize("roles", [("members", "nonmembers"), ("suspects",)])
def test_a_source_of_one_role_with_rows_of_another(tmp_path, roles, column):
    # Class labels 0 and 1 of a data set, taken for membership.
    sources = {}
    for role in roles:
        rows = [{"video": f"{role}{k}.mp4", column: k % 2} for k in range(8)]
        sources[role] = (as_json(tmp_path / f"{role}.json", rows),)
    fields = () if column == "label" else (f"label={column}",)
    problems = problems_of(**sources, fields=fields)
    assert len(problems) == len(roles)
    if len(roles) == 2:
        (source,) = sources["members"]
        assert problems[0] == (
            f"{source} is given as corpus.members alone, but by its column "
            f"{column!r} 4 are nonmembers, of 8 rows (the first: {source}: row 1); "
            "give it as corpus.nonmembers too, which takes them there, or, if the "
            "column holds something else, leave it out: "
            "--config.corpus.fields=\"('label=',)\""
        )
    # The ways out: no column is the label, or both roles have both sources.
    assert len(load(corpus_of(**sources, fields=("label=",)))) == 8 * len(roles)
    if len(roles) == 2:
        both = tuple(source for its in sources.values() for source in its)
        items = load(corpus_of(members=both, nonmembers=both, fields=fields))
        assert [item.role for item in items] == ["members"] * 8 + ["nonmembers"] * 8


def test_a_label_that_is_none_has_a_way_out(tmp_path):
    rows = [{"video": f"{k}.mp4", "label": f"class {k}"} for k in range(100)]
    source = as_json(tmp_path / "m.json", rows)
    assert problem_of(suspects=(source,)) == (
        f"{source}: the column 'label' has 'class 0' ... 'class 99' in 100 of 100 rows "
        "(first: row 1). It is read as the role: 1 or member, 0 or nonmember, suspect, "
        "calibration. If it holds something else, leave it out: "
        "--config.corpus.fields=\"('label=',)\""
    )
    problem = problem_of(suspects=(source,), fields=("group=label",))
    assert problem.endswith("--config.corpus.fields=\"('group=label', 'label=')\"")
    assert len(load(corpus_of(suspects=(source,), fields=("label=",)))) == 100


def test_what_a_label_leaves_out_is_counted_and_logged(tmp_path, caplog):
    labels = [1, 1, 1, 0, 0, "suspect", "calibration", "calibration", None]
    rows = [{"video": f"{k}.mp4", "label": label} for k, label in enumerate(labels)]
    rows[-1] = {"video": "0.mp4", "question": "again", "label": 1}
    source = as_json(tmp_path / "m.json", rows)
    corpus = corpus_of(members=(source,), nonmembers=(source,))
    with caplog.at_level("INFO", logger="absl"):
        loaded = corpora.load(corpus, looks=False)
    about = {"source": source, "what": "rows"}
    taken = "their label is {}, and they are used in that role"
    no_role = "their label is {0}, and no corpus.{0} has this source"
    assert loaded.left_out == (
        LeftOut(role="members", count=2, why=taken.format("nonmembers"), **about),
        LeftOut(role="nonmembers", count=4, why=taken.format("members"), **about),
        LeftOut(role="", count=1, why=no_role.format("suspects"), **about),
        LeftOut(role="", count=2, why=no_role.format("calibration"), **about),
    )
    said = caplog.text
    assert f"corpus.members: 2 rows of {source} left out: their label is nonm" in said
    assert f"2 rows of {source} left out: their label is calibration, and no" in said


def test_what_a_subsample_leaves_out_is_counted(tmp_path):
    rows = [{"video": f"{k % 5}.mp4", "question": str(k)} for k in range(10)]
    source = as_json(tmp_path / "m.json", rows)
    loaded = corpora.load(corpus_of(suspects=(source,), max_clips=2), looks=False)
    (left,) = loaded.left_out
    assert (left.source, left.role, left.count) == ("", "suspects", 6)
    assert str(left) == (
        "corpus.suspects: 6 rows left out: corpus.max_clips is 2 videos per role"
    )


def test_the_log_of_what_is_left_out_has_20_lines(tmp_path, caplog):
    sources = []
    for number in range(15):
        rows = [{"video": f"{number}-{k}.mp4", "label": k} for k in range(2)]
        sources.append(as_json(tmp_path / f"{number}.json", rows))
    sources = tuple(sources)
    with caplog.at_level("INFO", logger="absl"):
        corpora.load(corpus_of(members=sources, nonmembers=sources), looks=False)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("left out: " in line for line in lines) == 20
    assert "and 10 more lines about rows and files left out" in lines


def test_of_each_kind_of_problem_there_are_20_lines(tmp_path):
    rows = [{"video": "a.mp4", "candidates": 3}] * 15
    bad = tuple(as_json(tmp_path / f"bad{k}.json", rows) for k in range(3))
    gone = tuple(str(tmp_path / f"gone{k}.csv") for k in range(30))
    rows = [{"video": f"{k}.mp4", "id": str(k % 25)} for k in range(50)]
    ids = as_json(tmp_path / "ids.json", rows)
    problems = problems_of(suspects=(*bad, *gone, ids))
    kinds = [
        sum("'candidates'" in problem for problem in problems),
        sum("no such manifest" in problem for problem in problems),
        sum("ids must be" in problem for problem in problems),
    ]
    assert kinds == [3 * 15, 19, 19] and len(problems) == 85  # 20 of each manifest.
    more = [problem for problem in problems if "more problems of this kind" in problem]
    assert more == [f"and {n} more problems of this kind" for n in (11, 6)]


def test_subsample(tmp_path):
    sources = {}
    for role, count in (("members", 30), ("nonmembers", 5)):
        rows = [
            {"video": f"{role}{k}.mp4", "question": q}
            for q in "ab"
            for k in range(count)
        ]
        sources[role] = (as_json(tmp_path / f"{role}.json", rows),)
    whole = load(corpus_of(**sources))
    few = load(corpus_of(**sources, max_clips=8))
    assert few == load(corpus_of(**sources, max_clips=8))
    assert few != load(corpus_of(**sources, max_clips=8, seed=1))
    assert [item for item in whole if item in few] == list(few)  # Order is kept.
    for role, videos in (("members", 8), ("nonmembers", 5)):
        mine = [item for item in few if item.role == role]
        assert len({item.clip for item in mine}) == videos
        assert len(mine) == 2 * videos  # Rows stay with their video.
    # The sample of one role does not depend on the size of another.
    other = (as_json(tmp_path / "other.json", [{"video": "z.mp4"}]),)
    again = load(corpus_of(**{**sources, "nonmembers": other}, max_clips=8))
    assert [i for i in again if i.role == "members"] == [
        i for i in few if i.role == "members"
    ]


def test_a_video_on_both_sides(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    members = as_json(tmp_path / "m.json", [{"video": "a.mp4"}, {"video": "b.mp4"}])
    problem = problem_of(members=(members,), nonmembers=(str(tmp_path),))
    assert problem.startswith(
        f"2 videos are in two roles as one file: {tmp_path}/a.mp4 (members) and"
    )


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ((), "nothing to audit: give corpus.members and corpus.nonmembers, or corpus"),
        (("members",), "corpus.members without corpus.nonmembers: "),
        (("nonmembers",), "corpus.nonmembers without corpus.members: "),
        (("members", "suspects"), "corpus.members without corpus.nonmembers: "),
        (("calibration",), "corpus.calibration alone: "),
        (("suspects",), None),
        (("suspects", "calibration"), None),
        (("members", "nonmembers"), None),
        (("members", "nonmembers", "suspects", "calibration"), None),
    ],
)
def test_roles_that_can_be_audited_together(tmp_path, roles, expected):
    sources = {
        role: (as_json(tmp_path / f"{role}.json", [{"video": f"{role}.mp4"}]),)
        for role in roles
    }
    if expected is None:
        assert len(load(corpus_of(**sources))) == len(roles)
    else:
        assert problem_of(**sources).startswith(expected)


def test_a_faulty_row_hides_nothing_of_the_others(tmp_path):
    rows = [{"video": "a.mp4", "label": "cat"}, {"video": "/etc/x.mp4"}]
    rows += [{"video": f"{name}.mp4", "id": "1"} for name in "bc"]
    problems = "\n".join(problems_of(suspects=(as_json(tmp_path / "m.json", rows),)))
    for expected in ("'cat' in 1 of 4", "outside of", "id '1' is given 2 times"):
        assert expected in problems


def test_everything_wrong_is_reported_at_once(tmp_path):
    rows = [{"video": "a.mp4", "label": "x", "candidates": 1}, {"video": ""}, 3]
    bad = as_json(tmp_path / "bad.json", rows)
    same = as_json(tmp_path / "same.json", [{"video": "a.mp4", "id": "1"}] * 2)
    gone = str(tmp_path / "gone.csv")
    problems = problems_of(
        members=(bad, same, gone, "tfds:x"), video_root=str(tmp_path / "gone")
    )
    starts = ("corpus.video_root", bad, bad, bad, bad, gone, "tfds:x", "id '1'")
    expected = (*starts, "corpus.members without")
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)
