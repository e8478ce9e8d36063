"""A video in two roles: by its path, byte for byte, in parts that overlap."""

import shutil

import pytest
from corpus_files import as_json, corpus_of, files, load, problem_of

from vidsme_jax.data import conflicts

ALL = ("members", "nonmembers", "suspects", "calibration")
ROLES = [
    ("members", "nonmembers"),
    ("suspects", "calibration"),
    ("members", "suspects"),
]


def _sources(folder, rows):
    """A manifest for each role; members and non-members have one another."""
    found = {
        role: (as_json(folder / f"{role}.json", its),) for role, its in rows.items()
    }
    for role in {"members", "nonmembers"} - set(found):
        if {"members", "nonmembers"} & set(rows):
            files(folder, f"{role}-only.mp4")
            its = [{"video": f"{role}-only.mp4"}]
            found[role] = (as_json(folder / f"{role}.json", its),)
    return found


@pytest.mark.parametrize(("one", "other"), ROLES)
def test_equal_files_in_two_roles(tmp_path, one, other):
    files(tmp_path, "a.mp4", "c.mp4")
    shutil.copyfile(tmp_path / "a.mp4", tmp_path / "b.mp4")
    names = {one: "a.mp4", other: "b.mp4"}
    rows = {role: [{"video": name}] for role, name in names.items()}
    sources = _sources(tmp_path, rows)
    problem = problem_of(looks=True, **sources)
    first, second = sorted(names, key=ALL.index)
    assert problem == (
        "1 videos are in two roles, by their paths or byte for byte: "
        f"{names[first]} ({first}) and {names[second]} ({second}); give each one role, "
        "such as by a column 'label', or leave it out of one; "
        "corpus.allow_duplicates=true audits them all the same"
    )
    assert load(corpus_of(**sources, allow_duplicates=True), looks=True)
    assert load(corpus_of(**sources))  # Of a report that is made again.


@pytest.mark.parametrize(("one", "other"), ROLES)
def test_one_path_in_two_roles(tmp_path, one, other):
    files(tmp_path, "a.mp4")
    sources = _sources(
        tmp_path, {one: [{"video": "a.mp4"}], other: [{"video": "a.mp4"}]}
    )
    problem = problem_of(**sources)
    if {one, other} == {"members", "nonmembers"}:
        assert problem.startswith("1 videos are listed both as members and as nonm")
        assert problem_of(**sources, allow_duplicates=True) == problem
    else:
        assert problem.startswith("1 videos are in two roles, by their paths or byte")
        assert load(corpus_of(**sources, allow_duplicates=True))


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ((0, 5), (5, 9), False),
        ((0, 5), (4, 9), True),
        ((0, 5), (0, 5), True),
        ((None, None), (4, 9), True),
        ((6, None), (2, 6), False),
        ((6, None), (8, 9), True),
    ],
)
@pytest.mark.parametrize("copied", [False, True])
def test_parts_of_a_video_in_two_roles(tmp_path, one, other, clash, copied):
    files(tmp_path, "a.mp4")
    shutil.copyfile(tmp_path / "a.mp4", tmp_path / "b.mp4")
    first, second = (dict(zip(("start", "end"), x, strict=True)) for x in (one, other))
    rows = {
        "suspects": [{"video": "a.mp4", **first}],
        "calibration": [{"video": "b.mp4" if copied else "a.mp4", **second}],
    }
    sources = _sources(tmp_path, rows)
    if clash:
        assert "are in two roles" in problem_of(looks=True, **sources)
    else:
        assert len(load(corpus_of(**sources), looks=True)) == 2


def test_only_files_that_may_be_equal_are_read(tmp_path, monkeypatch):
    read = []

    def spy(file, *args):
        read.append(file.name)
        return original(file, *args)

    original = conflicts.hashlib.file_digest
    monkeypatch.setattr(conflicts.hashlib, "file_digest", spy)
    large = 200_000
    (tmp_path / "a.mp4").write_bytes(b"a" * large)
    (tmp_path / "b.mp4").write_bytes(b"b" * large)  # As long, but begins otherwise.
    middle = b"c" * 90_000
    (tmp_path / "c.mp4").write_bytes(middle + b"1" + middle)
    (tmp_path / "d.mp4").write_bytes(middle + b"2" + middle)
    (tmp_path / "e.mp4").write_bytes(b"e")  # Twice in one role.
    (tmp_path / "f.mp4").write_bytes(b"e")
    (tmp_path / "g.mp4").touch()
    (tmp_path / "h.mp4").touch()  # Nothing is nothing's copy.
    rows = {
        "suspects": [{"video": f"{x}.mp4"} for x in "acefg"],
        "calibration": [{"video": f"{x}.mp4"} for x in ("b", "d", "h", "gone")],
    }
    assert load(corpus_of(**_sources(tmp_path, rows)), looks=True)
    assert sorted(read) == [str(tmp_path / "c.mp4"), str(tmp_path / "d.mp4")]


def test_pairs_are_one_problem(tmp_path):
    names = [f"{k}.mp4" for k in range(30)]
    files(tmp_path, *names)
    rows = [{"video": name} for name in names]
    problem = problem_of(**_sources(tmp_path, {"suspects": rows, "calibration": rows}))
    assert problem.startswith("30 videos are in two roles, ")
    assert problem.count("(suspects)") == 20 and " and 10 more; give" in problem
