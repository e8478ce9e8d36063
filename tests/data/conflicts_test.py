"""A video in two roles: by its path, byte for byte, in parts that overlap."""

import itertools
import math
import shutil

import numpy as np
import pytest
from corpus_files import as_json, corpus_of, files, load, problem_of

from vidsme_jax.base import Item
from vidsme_jax.data import conflicts, corpora, segments

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
def test_equal_files_in_two_roles(tmp_path, caplog, one, other):
    files(tmp_path, "a.mp4", "c.mp4")
    shutil.copyfile(tmp_path / "a.mp4", tmp_path / "b.mp4")
    names = {one: "a.mp4", other: "b.mp4"}
    rows = {role: [{"video": name}] for role, name in names.items()}
    sources = _sources(tmp_path, rows)
    problem = problem_of(looks=True, **sources)
    first, second = sorted(names, key=ALL.index)
    pair = (
        f"{tmp_path}/{names[first]} ({first}) and {tmp_path}/{names[second]} "
        f"({second}): same bytes"
    )
    assert problem == (
        f"1 video is in two roles: {pair}. Remove one, or set "
        "corpus.allow_duplicates=true"
    )
    given = corpus_of(**sources, allow_duplicates=True)
    allowed = corpora.load(given)
    assert corpora.load(given, looks=False).notes == allowed.notes
    caplog.clear()
    corpora.load(given)
    note = f"1 video is in two roles (corpus.allow_duplicates=true): {pair}"
    assert allowed.notes == (note,)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        note
    ]
    assert load(corpus_of(**sources))  # Of a report that is made again.


@pytest.mark.parametrize(("one", "other"), ROLES)
def test_one_path_in_two_roles(tmp_path, one, other):
    files(tmp_path, "a.mp4")
    sources = _sources(
        tmp_path, {one: [{"video": "a.mp4"}], other: [{"video": "a.mp4"}]}
    )
    problem = problem_of(**sources)
    its = f"{tmp_path}/a.mp4"
    assert problem == (
        f"1 video is in two roles as one file: {its} ({one}) and {its} ({other}): same "
        "file. Remove one, as one of the two labels is wrong; "
        "corpus.allow_duplicates=true does not allow the same file in two roles"
    )
    assert problem_of(**sources, allow_duplicates=True) == problem


def test_a_source_in_two_roles_is_noted(tmp_path):
    files(tmp_path, *"abcd")
    rows = {
        "members": [{"video": "a", "source": "Film"}, {"video": "b", "source": "x"}],
        "nonmembers": [{"video": "c", "source": "Film"}, {"video": "d"}],
    }
    found = corpora.load(corpus_of(**_sources(tmp_path, rows)))
    assert found.notes == (
        "1 source is in two roles ('Film'); clips of one source are not independent",
    )


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
        problem = problem_of(looks=True, **sources)
        assert "1 video is in two roles" in problem
        if one != other:
            same = "bytes" if copied else "file"
            assert f": overlapping parts, same {same}. " in problem
    else:
        corpus = corpora.load(corpus_of(**sources))
        assert len(corpus.items) == 2 and len(corpus.notes) == 1
        if one == (0, 5):
            name = f"{tmp_path}/b.mp4: " if copied else ""
            told = f"{tmp_path}/a.mp4: 0-5 s suspects, {name}5-9 s calibration"
            assert corpus.notes[0] == (
                f"1 file has parts in two roles ({told}); parts of one video are not "
                "independent"
            )


def test_parts_of_many_videos_are_one_note(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    names = [f"v/{k}.mp4" for k in range(9)]
    parts = {"members": {"end": 1}, "nonmembers": {"start": 1}}
    rows = {
        role: [{"video": name, **part} for name in names]
        for role, part in parts.items()
    }
    corpus = corpora.load(corpus_of(**_sources(tmp_path, rows)), looks=False)
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert tuple(warned) == corpus.notes
    (note,) = corpus.notes
    assert note.startswith(
        "9 files have parts in two roles (v/0.mp4: 0-1 s members, 1-end s nonmembers; v"
    )
    assert note.endswith("; and 6 more); parts of one video are not independent")


@pytest.mark.parametrize("allowed", [False, True])
def test_an_equal_copy_hides_no_contradiction(allowed):
    """Of rows with the same bytes only some pairs are looked at; of a path, all."""
    named = [("b", "members"), ("a", "members"), ("a", "nonmembers")]
    items = [
        Item(id=f"{k}", video=name, clip=f"/{name}.mp4", role=role)
        for k, (name, role) in enumerate(named)
    ]
    digests = {"/a.mp4": "same", "/b.mp4": "same"}
    problems, _ = conflicts.find(items, digests, allowed=allowed)
    assert "1 video is in two roles as one file: " in problems[0]


def test_a_link_is_the_same_file(tmp_path):
    files(tmp_path, "a.mp4")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    rows = {"members": [{"video": "a.mp4"}], "nonmembers": [{"video": "link.mp4"}]}
    problem = problem_of(**_sources(tmp_path, rows), allow_duplicates=True)
    assert f"link.mp4 -> {tmp_path}/a.mp4 (nonmembers): same file. Rem" in problem


def test_only_files_that_may_be_equal_are_read(tmp_path, monkeypatch):
    read, ask = [], conflicts.decoders.ask

    def spy(request, path, *args):
        read.append(str(path))
        return ask(request, path, *args)

    monkeypatch.setattr(conflicts.decoders, "ask", spy)
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
    assert problem.startswith("30 videos are in two roles as one file: ")
    assert (
        problem.count("(suspects)") == 5
        and "; and 25 more. Remove one, as one of" in problem
    )


def test_overlaps_of_many_segments_are_found_without_comparing_all(monkeypatch):
    count = 3000
    rng = np.random.default_rng(0)
    starts = rng.permutation(2 * count)

    def row(k: int) -> Item:
        start = int(starts[k])
        end = start + (1 if k % 500 else 3)  # Few reach into their neighbours.
        role = "members" if k < count else "suspects"
        clip = f"/v/a.mp4#t={start},{end}"
        return Item(id=f"{k}", video=clip, clip=clip, role=role)

    divided, calls = segments.divided, []
    monkeypatch.setattr(
        segments, "divided", lambda key: calls.append(key) or divided(key)
    )
    items = [row(k) for k in range(2 * count)]
    ((problem,), _) = conflicts.find(items, {}, allowed=False)
    assert len(calls) < 20 * len(items)
    monkeypatch.undo()
    spans = {item: divided(item.clip)[1] for item in items}
    long = [item for item in items if int(item.id) % 500 == 0]
    pairs = {
        frozenset((one.id, other.id))
        for one in long
        for other in items
        if one.role != other.role and _overlap(spans[one], spans[other])
    }
    found = conflicts._overlapping(items)
    assert pairs >= {frozenset((pair.one.id, pair.other.id)) for pair in found}
    assert bool(pairs) == bool(found)
    assert "1 video is in two roles" in problem


def _overlap(one, other):
    ends = (math.inf if x.end is None else x.end for x in (one, other))
    return max(one.start, other.start) < min(ends)


@pytest.mark.parametrize("seed", range(40))
def test_whether_parts_overlap_is_what_comparing_all_finds(seed):
    rng = np.random.default_rng(seed)
    spans, items = {}, []
    for k in range(rng.integers(2, 9)):
        start, length = rng.integers(0, 12), rng.integers(1, 4)
        part = segments.Segment(int(start), int(start + length))
        role = ("members", "suspects", "calibration")[rng.integers(3)]
        item = Item(id=str(k), video=f"v.mp4{part}", clip=f"v.mp4{part}", role=role)
        items.append(item)
        spans[item] = part
    roles = {
        frozenset((one.role, other.role))
        for one, other in itertools.combinations(items, 2)
        if one.role != other.role and _overlap(spans[one], spans[other])
    }
    found = conflicts._overlapping(items)
    assert {frozenset((pair.one.role, pair.other.role)) for pair in found} == roles
    assert all(_overlap(spans[pair.one], spans[pair.other]) for pair in found)
