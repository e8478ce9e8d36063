"""Manifests, folders and globs, and everything that can be wrong with them."""

import csv
import dataclasses
import json
import pathlib

import pyarrow
import pyarrow.parquet
import pytest

from vidsme_jax import settings
from vidsme_jax.base import AuditError
from vidsme_jax.data import corpora
from vidsme_jax.settings import views

ROWS = [
    {
        "video": "a.mp4",
        "question": 'What, or "who", is it?',
        "candidates": ["a red ball", "a | bar", "größer"],
        "answer": "a red ball",
        "id": "first",
        "group": "street",
        "date": "2024-05-01",
    },
    {"video": "b.mp4", "question": "Why?", "answer": "", "group": "home"},
    {"video": "b.mp4", "question": "When?"},
    {"video": "sub/c.mp4"},
]


def _corpus(**keys) -> views.Corpus:
    return dataclasses.replace(views.Settings.of(settings.default()).corpus, **keys)


def _load(corpus: views.Corpus):
    return corpora.load(corpus, looks=False).items


def _json(path: pathlib.Path, rows) -> str:
    path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return str(path)


def _jsonl(path: pathlib.Path, rows) -> str:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n\n".join(lines) + "\n", "utf-8")
    return str(path)


def _csv(path: pathlib.Path, rows) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            options = row.get("candidates")
            given = {"candidates": json.dumps(options)} if options else {}
            writer.writerow({**row, **given})
    return str(path)


def _parquet(path: pathlib.Path, rows) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


WRITERS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def _problems(**keys) -> list[str]:
    with pytest.raises(AuditError) as caught:
        _load(_corpus(**keys))
    return caught.value.problems


def _problem(**keys) -> str:
    (problem,) = _problems(**keys)
    return problem


@pytest.fixture
def good(tmp_path) -> str:
    """A manifest with nothing wrong, for the other role."""
    return _json(tmp_path / "good.json", [{"video": "good.mp4"}])


# -------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", WRITERS)
def test_all_formats_give_the_same_items(tmp_path, suffix):
    # Parquet takes its columns from the first row.
    rows = [{**dict.fromkeys(ROWS[0]), **row} for row in ROWS]
    source = WRITERS[suffix](tmp_path / f"m{suffix}", rows)
    items = _load(_corpus(suspects=(source,)))
    assert [item.id for item in items] == ["first", "b.mp4", "b.mp4#2", "sub/c.mp4"]
    first = items[0]
    assert first.video == "a.mp4" and first.clip == str(tmp_path / "a.mp4")
    assert first.question == 'What, or "who", is it?' and first.answer == "a red ball"
    assert first.candidates == ("a red ball", "a | bar", "größer")
    assert items[1].candidates == ()
    assert (first.group, first.role) == ("street", "suspects")
    assert items[1].group == "home" and items[2].question == "When?"
    assert items[3].clip == str(tmp_path / "sub/c.mp4")
    assert (items[3].question, items[3].answer) == ("", "")


def test_the_release_s_own_manifest(golden):
    source = str(golden / "longva_official" / "items.json")
    root = str(golden / "longva_official" / "videos")
    corpus = _corpus(members=(source,), nonmembers=(source,), video_root=root)
    items = _load(corpus)
    assert len(items) == 10 and all(pathlib.Path(item.clip).is_file() for item in items)
    labels = {
        row["video"]: row["label"]
        for row in json.loads(pathlib.Path(source).read_text())
    }
    for item in items:
        assert item.role == ("members" if labels[item.video] else "nonmembers")


def test_options_in_a_cell(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "video,candidates\n"
        "a.mp4,yes | no |maybe\n"
        'b.mp4,"[""yes"", ""no""]"\n'
        "c.mp4,\n"
        "d.mp4,only\n"
    )
    items = _load(_corpus(suspects=(str(path),)))
    assert [item.id for item in items] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    found = [item.candidates for item in items]
    assert found == [("yes", "no", "maybe"), ("yes", "no"), (), ("only",)]


def test_numbers_become_text(tmp_path):
    row = {"video": "a.mp4", "id": 7, "answer": 2, "candidates": [1, 2]}
    (item,) = _load(_corpus(suspects=(_json(tmp_path / "m.json", [row]),)))
    assert (item.id, item.answer, item.candidates) == ("7", "2", ("1", "2"))


def test_a_folder(tmp_path):
    for name in ("b.MP4", "a.webm", "sub/c.mkv", "notes.txt", "._b.mp4", "poster.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    items = _load(_corpus(suspects=(str(tmp_path),), video_root=str(tmp_path)))
    assert [item.id for item in items] == ["a.webm", "b.MP4", "sub/c.mkv"]
    assert items[2].clip == str(tmp_path / "sub/c.mkv")


def test_a_glob_and_a_single_video(tmp_path, monkeypatch):
    for name in ("x/a.mp4", "y/b.mp4", "y/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    items = _load(_corpus(suspects=("*/*", "x/a.mp4")))
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
    source = _json(tmp_path / "lists/m.json", rows)
    anywhere = _corpus(suspects=(source,), allow_outside=True)
    by_manifest = _load(anywhere)
    expected = [f"{tmp_path}/lists/a.mp4", "/data/b.mp4", f"{tmp_path}/c.mp4"]
    assert [item.clip for item in by_manifest] == expected
    by_root = _load(dataclasses.replace(anywhere, video_root=str(elsewhere)))
    assert by_root[0].clip == str(elsewhere / "a.mp4")
    assert by_root[1].clip == "/data/b.mp4"


@pytest.mark.parametrize(
    "video",
    ["../c.mp4", "/data/b.mp4", "sub/../../c.mp4", "link/c.mp4", "~root/c.mp4", ".."],
)
def test_a_manifest_does_not_lead_outside_of_its_folder(tmp_path, video):
    inside = tmp_path / "lists"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    rows = [{"video": "a.mp4"}, {"video": video}, {"video": str(inside / "b.mp4")}]
    source = _json(inside / "m.json", rows)
    problem = _problem(suspects=(source,))
    assert (
        f"1 rows of manifests name videos outside of {inside}: {source}: row 2: "
        in (problem)
    )
    assert "corpus.allow_outside=true" in problem
    assert len(_load(_corpus(suspects=(source,), allow_outside=True))) == 3
    # A root that holds them is as good.
    if video in ("../c.mp4", "link/c.mp4"):
        (tmp_path / "link").symlink_to(tmp_path)
        rows = [{"video": video.replace("../", "")}]
        source = _json(inside / "m.json", rows)
        _load(_corpus(suspects=(source,), video_root=str(tmp_path)))


def test_what_the_user_names_may_lie_anywhere(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a.mp4").touch()
    (tmp_path / "near").mkdir()
    (tmp_path / "near/link.mp4").symlink_to(tmp_path / "far/a.mp4")
    for source in (tmp_path / "near", tmp_path / "near/*.mp4"):
        (item,) = _load(_corpus(suspects=(str(source),)))
        assert item.clip == str(tmp_path / "far/a.mp4")
    # The folder of a manifest may itself be a link.
    (tmp_path / "alias").symlink_to(tmp_path / "far")
    _json(tmp_path / "far/m.json", [{"video": "a.mp4"}])
    assert len(_load(_corpus(suspects=(str(tmp_path / "alias/m.json"),)))) == 1


def test_a_manifest_that_is_nested_without_end(tmp_path):
    path = tmp_path / "m.json"
    path.write_text("[" * 100_000)
    assert _problem(suspects=(str(path),)).endswith("nested too deeply")


def test_a_missing_video_is_not_an_error_of_the_corpus(tmp_path):
    source = _json(tmp_path / "m.json", [{"video": "gone.mp4"}])
    (item,) = _load(_corpus(suspects=(source,)))
    assert not pathlib.Path(item.clip).exists()


# ---------------------------------------------------------------------------- labels


def test_each_role_takes_its_own_rows(tmp_path):
    labels = [1, 0, "1", "0", "member", "Members", "non-member", "nonmember"]
    labels += ["nonmembers", "suspect", "suspects", "calibration", 1.0]
    rows = [{"video": f"{k}.mp4", "label": v} for k, v in enumerate(labels)]
    m = (_json(tmp_path / "m.json", rows),)
    items = _load(_corpus(members=m, nonmembers=m, suspects=m, calibration=m))
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
    items = _load(_corpus(members=(str(path),), nonmembers=(str(path),)))
    assert [item.role for item in items] == ["members", "nonmembers"]


@pytest.mark.parametrize("label", [2, "train", "nonmembr", -1, 0.5, ["member"]])
def test_any_other_label_is_an_error(tmp_path, label):
    rows = [{"video": "a.mp4", "label": 1}, {"video": "b.mp4", "label": label}]
    source = _json(tmp_path / "m.json", rows)
    problem = _problem(members=(source,), nonmembers=(source,))
    assert problem.startswith(f"{source}: row 2: 'label' is {label!r}; it must be one")
    assert "1 or member, 0 or nonmember, suspect, calibration" in problem
    assert ("did you mean 'nonmember'?" in problem) == (label == "nonmembr")


def test_a_role_that_finds_no_row_of_its_own(tmp_path):
    source = _json(tmp_path / "m.json", [{"video": "a.mp4", "label": "member"}])
    problem = _problem(members=(source,), nonmembers=(source,))
    expected = f"corpus.nonmembers: no row of {source} has this label; its labels: "
    assert problem == f"{expected}members"


# -------------------------------------------------------------------- ids and clips


def test_ids_that_were_not_given_avoid_those_that_were(tmp_path):
    rows = [{"video": "a.mp4"}, {"video": "a.mp4"}, {"video": "b.mp4", "id": "a.mp4#2"}]
    source = _json(tmp_path / "m.json", rows)
    items = _load(_corpus(suspects=(source,)))
    assert [item.id for item in items] == ["a.mp4", "a.mp4#3", "a.mp4#2"]


def test_repeated_ids(tmp_path):
    rows = [{"video": f"{k}.mp4", "id": "xyx"[k]} for k in range(3)]
    source = _json(tmp_path / "m.json", rows)
    problem = _problem(suspects=(source,))
    assert problem == (
        f"id 'x' is given 2 times, at {source}: row 1, {source}: row 3; ids must be "
        "unique in the corpus"
    )


def test_a_video_is_one_clip_however_it_is_named(tmp_path):
    (tmp_path / "real.mp4").write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    names = ["real.mp4", "other.mp4", "./sub/../real.mp4", "link.mp4"]
    rows = [{"video": name, "question": str(k)} for k, name in enumerate(names)]
    items = _load(_corpus(suspects=(_json(tmp_path / "m.json", rows),)))
    clips = corpora.unique_clips(items)
    assert [pathlib.Path(clip.key).name for clip in clips] == ["real.mp4", "other.mp4"]
    assert [item.question for item in clips[0].items] == ["0", "2", "3"]


# ------------------------------------------------------------------------- subsample


def test_subsample(tmp_path):
    sources = {}
    for role, count in (("members", 30), ("nonmembers", 5)):
        rows = [
            {"video": f"{role}{k}.mp4", "question": q}
            for q in "ab"
            for k in range(count)
        ]
        sources[role] = (_json(tmp_path / f"{role}.json", rows),)
    whole = _load(_corpus(**sources))
    few = _load(_corpus(**sources, max_clips=8))
    assert few == _load(_corpus(**sources, max_clips=8))
    assert few != _load(_corpus(**sources, max_clips=8, seed=1))
    assert [item for item in whole if item in few] == list(few)  # Order is kept.
    for role, videos in (("members", 8), ("nonmembers", 5)):
        mine = [item for item in few if item.role == role]
        assert len({item.clip for item in mine}) == videos
        assert len(mine) == 2 * videos  # Rows stay with their video.
    # The sample of one role does not depend on the size of another.
    other = (_json(tmp_path / "other.json", [{"video": "z.mp4"}]),)
    again = _load(_corpus(**{**sources, "nonmembers": other}, max_clips=8))
    assert [i for i in again if i.role == "members"] == [
        i for i in few if i.role == "members"
    ]


# ---------------------------------------------------------------------------- errors


def test_a_manifest_that_is_not_there(tmp_path, good):
    source = str(tmp_path / "god.json")
    problem = _problem(suspects=(source,))
    assert problem == f"{source}: no such manifest; did you mean 'good.json'?"
    source = str(tmp_path / "none/good.json")
    assert f"there is no folder {tmp_path / 'none'} either" in _problem(
        suspects=(source,)
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.json", b'[{"video": "a.mp4"},\n{"video" "b"}]', "line 2 column 10"),
        ("m.json", b'{"video": "a.mp4"}', "it must be a list of objects, one a row; "),
        ("m.json", b"[]", "the manifest has no rows"),
        ("m.json", b'["\xff"]', "can't decode byte 0xff"),
        ("m.jsonl", b'{"video": "a.mp4"}\n{"vid\n\n{\n', "line 2: "),
        ("m.jsonl", b'{"video": "a.mp4"}\n{"vid\n\n{\n', "; line 4: "),
        ("m.csv", b"", "the manifest has no rows"),
        ("m.csv", b"video\n", "the manifest has no rows"),
        ("m.csv", b'video\n"a.mp4\n', "cannot be read: unexpected end of data"),
        ("m.parquet", b"PAR1 or not", "cannot be read: "),
        ("m.json", b'[{"vidoe": "a.mp4", "x": 1}]', "no column 'video'; its columns: "),
        ("m.json", b'[{"vidoe": "a.mp4", "x": 1}]', "vidoe, x; did you mean 'vidoe'?"),
        ("m.csv", b"id,path\n1,a.mp4\n", "no column 'video'; its columns: id, path"),
        (
            "m.json",
            b'[{"video": "a"}, "b"]',
            "row 2: a row must be an object; it is a ",
        ),
        (
            "m.json",
            b'["a.mp4", "b.mp4"]',
            "row 1: a row must be an object; it is a str",
        ),
        (
            "m.json",
            b'[{"video": "a"}, {}]',
            "row 2: 'video' is None; it must be a path",
        ),
        ("m.jsonl", b'\n{"video": ""}', "line 2: 'video' is ''; it must be a path"),
        ("m.json", b'[{"video": 3}]', "row 1: 'video' is 3; it must be a path"),
        ("m.json", b'[{"video": "a\\u0000"}]', "it must be a path"),
        ("m.csv", b"video,id\na.mp4,1\n ,2\n", "line 3: 'video' is ' '; it must be"),
        ("m.csv", b"video\na.mp4,b\n", "line 2: more fields than the header has"),
        ("m.json", b'[{"video": "a", "answer": {}}]', "'answer' is a dict; it must be"),
        ("m.json", b'[{"video": "a", "candidates": 3}]', "'candidates' is 3; it must"),
        ("m.csv", b"video,candidates\na,[b\n", "'candidates' begins like a JSON list"),
        ("m.csv", b"video,candidates\na,b| |c\n", "'candidates' has the option ''; it"),
        (
            "m.json",
            b'[{"video": "a", "candidates": ["b", []]}]',
            "has the option []; it",
        ),
        (
            "m.json",
            b'[{"video": "a", "candidates": [null]}]',
            "has the option None; it",
        ),
    ],
)
def test_broken_manifests(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    problems = _problems(suspects=(str(path),))
    assert all(problem.startswith(f"{path}: ") for problem in problems)
    assert any(expected in problem for problem in problems), problems


def test_sources_that_yield_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    folder, no_match, no_video, typo = (
        str(tmp_path / name) for name in ("empty", "*.mp4", "*.txt", "note.tx")
    )
    problems = _problems(suspects=(folder, no_match, no_video, typo))
    assert problems[0].startswith(f"{folder}: no video in the folder; looked for .mp4")
    assert problems[1] == f"{no_match}: the glob matches nothing"
    assert problems[2].startswith(f"{no_video}: 1 matches, none a video (.mp4")
    assert problems[3] == (
        f"{typo}: no such manifest, folder or video; did you mean 'notes.txt'?"
    )


def test_a_video_root_that_is_not_there(good):
    problem = _problem(suspects=(good,), video_root="/no/such/root")
    assert problem == "corpus.video_root: no such folder: /no/such/root"


def test_a_video_on_both_sides(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    members = _json(tmp_path / "m.json", [{"video": "a.mp4"}, {"video": "b.mp4"}])
    problem = _problem(members=(members,), nonmembers=(str(tmp_path),))
    assert problem.startswith(
        "2 videos are listed both as members and as nonmembers: a.mp4, b.mp4; give"
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
        role: (_json(tmp_path / f"{role}.json", [{"video": f"{role}.mp4"}]),)
        for role in roles
    }
    if expected is None:
        assert len(_load(_corpus(**sources))) == len(roles)
    else:
        assert _problem(**sources).startswith(expected)


def test_everything_wrong_is_told_at_once(tmp_path):
    rows = [{"video": "a.mp4", "label": "x", "candidates": 1}, {"video": ""}, 3]
    bad = _json(tmp_path / "bad.json", rows)
    same = _json(tmp_path / "same.json", [{"video": "a.mp4", "id": "1"}] * 2)
    gone = str(tmp_path / "gone.csv")
    problems = _problems(
        members=(bad, same, gone, "tfds:x"), video_root=str(tmp_path / "gone")
    )
    starts = ("corpus.video_root", bad, bad, bad, bad, gone, "tfds:x", "id '1'")
    expected = (*starts, "corpus.members without")
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)
