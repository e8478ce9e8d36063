"""A pool in two: whole units, by chance, and manifests that an audit takes."""

import collections
import itertools
import json
import os
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "data"))

from corpus_files import as_json, corpus_of, files

from vidsme_jax.base import AuditError, Item
from vidsme_jax.data import corpora
from vidsme_jax.finetune import split


def _pool(*units: int, source: str = "film") -> list[Item]:
    """Items of units of so many clips, each with two rows."""
    return [
        Item(
            id=f"{u}.{k}.{row}",
            video=f"{u}.{k}.mp4",
            clip=f"/v/{u}.{k}.mp4",
            role="suspects",
            source=f"{source} {u}" if source else "",
        )
        for u, count in enumerate(units)
        for k in range(count)
        for row in range(2)
    ]


def _clips(items) -> set[str]:
    return {item.clip for item in items}


def _problem(items, share=0.5, **more) -> str:
    with pytest.raises(AuditError) as caught:
        split.divide(items, share, 0, **more)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("share", [0.2, 0.5, 0.77])
@pytest.mark.parametrize("seed", range(5))
def test_units_stay_whole(share, seed):
    sizes = np.random.default_rng(seed).integers(1, 6, 30).tolist()
    items = _pool(*sizes)
    members, nonmembers = split.divide(items, share, seed)
    assert {i.role for i in members} == {"members"}
    assert {i.role for i in nonmembers} == {"nonmembers"}
    assert not {i.source for i in members} & {i.source for i in nonmembers}
    assert abs(len(_clips(members)) - share * sum(sizes)) <= 0.5
    kept = {i.id: i._replace(role="suspects") for i in (*members, *nonmembers)}
    assert [kept[item.id] for item in items] == items
    places = [items.index(i._replace(role="suspects")) for i in members]
    assert places == sorted(places)


def test_rows_may_come_in_any_order_and_videos_may_move():
    items = _pool(*[1, 2, 3] * 8)
    wanted = {item.id for item in split.divide(items, 0.4, 7)[0]}
    order = np.random.default_rng(0).permutation(len(items)).tolist()
    moved = [items[k]._replace(clip=f"/w{items[k].clip}") for k in order]
    assert {item.id for item in split.divide(moved, 0.4, 7)[0]} == wanted
    assert {item.id for item in split.divide(items, 0.4, 8)[0]} != wanted


@pytest.mark.long
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_every_unit_is_a_member_as_often_as_another(share):
    sizes = [1, 1, 2, 2, 3, 3, 4, 4] * 2
    items, count, seeds = _pool(*sizes), collections.Counter(), 500
    for seed in range(seeds):
        count.update({item.source for item in split.divide(items, share, seed)[0]})
    shares = np.array([count[f"film {u}"] for u in range(len(sizes))]) / seeds
    assert np.all(np.abs(shares - share) < 0.08), shares  # 4 standard deviations.
    assert abs(shares[np.array(sizes) == 1].mean() - share) < 0.04, shares
    assert abs(shares[np.array(sizes) == 4].mean() - share) < 0.04, shares


@pytest.mark.parametrize("seed", range(40))
def test_the_number_of_members_is_the_nearest_there_is(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.choice([2, 3, 5, 7, 8], rng.integers(3, 9)).tolist()
    share = rng.uniform(0.3, 0.7)
    members, _ = split.divide(_pool(*sizes), share, seed)
    sums = {
        sum(some)
        for n in range(len(sizes) + 1)
        for some in itertools.combinations(sizes, n)
    }
    nearest = min(abs(total - share * sum(sizes)) for total in sums)
    assert abs(len(_clips(members)) - share * sum(sizes)) == nearest


@pytest.mark.long
def test_large_pools_are_dealt_out_in_seconds(monkeypatch):
    monkeypatch.setattr(split, "_BLOCK", 50)
    sizes = np.random.default_rng(0).integers(1, 9, 4000).tolist()
    sizes[100] = 5000  # More than fits.
    members, _ = split.divide(_pool(*sizes), 0.2, 0)
    assert abs(len(_clips(members)) - 0.2 * sum(sizes)) <= 0.5


def test_without_a_source_files_and_near_duplicates_are_units():
    items = _pool(*[1] * 12, source="")
    parts = [items[0]._replace(id=f"p{k}", clip=f"/v/0.0.mp4#t={k},") for k in range(3)]
    items += parts
    copies = [("/v/1.0.mp4", "/v/2.0.mp4"), ("/v/9.0.mp4", "/v/2.0.mp4", "/gone.mp4")]
    apart = 0
    for seed in range(30):
        members, nonmembers = split.divide(items, 0.5, seed, copies)
        ours = [_clips(side) for side in (members, nonmembers)]
        for group in (
            {"/v/1.0.mp4", "/v/2.0.mp4", "/v/9.0.mp4"},
            {item.clip for item in (items[0], *parts)},
        ):
            assert any(group <= side for side in ours), seed
        apart += {"/v/3.0.mp4", "/v/4.0.mp4"} <= ours[0]
    assert 0 < apart < 30


def test_sources_that_share_a_near_duplicate_are_one():
    items = _pool(2, 2, 2, 2)
    for seed in range(20):
        sides = split.divide(items, 0.5, seed, [("/v/0.1.mp4", "/v/3.0.mp4")])
        sources = [{item.source for item in side} for side in sides]
        assert {"film 0", "film 3"} in sources


def test_a_pool_that_is_too_small():
    assert _problem(_pool(9)) == (
        "the pool cannot be divided: its 9 clips are 1 independent units, and members "
        "and non-members need at least one each; a unit is one `source`, or clips that "
        "are near-duplicates, or a file. Give clips of more sources"
    )
    joined = [("/v/0.0.mp4", "/v/1.0.mp4")]
    assert "its 2 clips are 1 independent units" in _problem(_pool(1, 1), joined=joined)
    assert "its 0 clips are 0 independent" in _problem([])
    few = _problem(_pool(1, 2))
    assert "its 3 clips in 2 independent units (the largest has 2)" in few
    assert "the share 0.5 gives 1 members and 2 non-members" in few
    assert "gives 0 members and 20 non-members" in _problem(_pool(10, 10), 0.1)
    assert "gives 20 members and 0 non-members" in _problem(_pool(10, 10), 0.9)
    assert len(_clips(split.divide(_pool(2, 2), 0.5, 0)[0])) == 2


ROWS = [
    {
        "video": "a.mp4",
        "question": "Πού; 🎬",
        "answer": "größer\nlater",
        "candidates": ["a | b", " c"],
        "group": "g",
        "source": "film",
        "id": "one",
    },
    {"video": "a.mp4", "question": "Why?"},
    {"video": "b.mp4", "start": 3, "end": "00:07.5", "source": "other"},
    {"video": "b.mp4", "start": 1.25, "end": 2},
    {"video": "sub/c.mp4", "start": 8},
    {"video": "./tfds:x.mp4"},
    {"video": " d.mp4"},
    {"video": "e.mp4#t=1,2"},
    {"video": "~f.mp4"},
]


@pytest.fixture
def pool(tmp_path) -> list[Item]:
    home = tmp_path / "videos"
    files(home, *(row["video"] for row in ROWS))
    files(home, "é.mp4", os.fsdecode(b"\xff.mp4"))
    manifest = as_json(home / "pool.json", ROWS)
    given = (manifest, f"{home}/*.mp4"[:-5] + "?.mp4")
    return list(corpora.load(corpus_of(suspects=given)).items)


def _kept(items) -> list[tuple]:
    """Everything but the role, and how the manifest writes the video."""
    return sorted(item._replace(role="", video="") for item in items)


@pytest.mark.parametrize("inside", [True, False])
def test_manifests_are_those_of_an_audit(pool, tmp_path, inside):
    sides = split.divide(pool, 0.5, 3)
    folder = tmp_path / ("videos" if inside else "split/new")
    root = split.write_manifests(folder, *sides)
    assert root == ("" if inside else str(tmp_path / "videos"))
    sources = [(str(folder / name),) for name in (split.MEMBERS, split.NONMEMBERS)]
    found = corpora.load(
        corpus_of(members=sources[0], nonmembers=sources[1], video_root=root)
    ).items
    names = ("members", "nonmembers")
    for role, side in zip(names, sides, strict=True):
        its = [item for item in found if item.role == role]
        odd = {item.clip for item in side if "\udcff" in item.clip}
        assert _kept(i for i in its if i.clip not in odd) == _kept(
            i for i in side if i.clip not in odd
        )
        assert {item.clip for item in its} == {item.clip for item in side}
    if not inside:
        with pytest.raises(AuditError, match=r"set corpus\.video_root"):
            corpora.load(corpus_of(members=sources[0], nonmembers=sources[1]))
    assert sorted(path.name for path in folder.glob("*.jsonl*")) == [
        split.MEMBERS,
        split.NONMEMBERS,
    ]


def test_no_run_leaves_manifests_of_two_splits(pool, tmp_path, monkeypatch):
    split.write_manifests(tmp_path, *split.divide(pool, 0.5, 3))
    write, left = split.write_atomically, []

    def killed(path, data):
        left.append(sorted(p.name for p in tmp_path.glob("*.jsonl")))
        if len(left) == 2:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(split, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        split.write_manifests(tmp_path, *split.divide(pool, 0.5, 4))
    assert left == [[split.NONMEMBERS]] * 2


def test_examples_of_datasets_are_in_no_manifest(tmp_path):
    items = _pool(2, 2)
    items[0] = items[0]._replace(clip="tfds:a/1.0.0/train/0")
    with pytest.raises(AuditError, match="1 clips are examples of a dataset"):
        split.write_manifests(tmp_path, items[:4], items[4:])
    assert list(tmp_path.iterdir()) == []


def test_overlaps_are_listed(tmp_path):
    files(tmp_path, *(f"{k}.mp4" for k in range(60)))
    (tmp_path / "1.mp4").write_bytes((tmp_path / "0.mp4").read_bytes())
    items = [
        Item(
            id=f"{k}",
            video=f"{k}.mp4",
            clip=str(tmp_path / f"{k}.mp4"),
            role="nonmembers" if k % 2 else "members",
        )
        for k in range(60)
    ]
    clips = [item.clip for item in items]
    assert split.overlaps(items[2:], []) == []
    one = (clips[2], clips[5], 0.876)
    (problem,) = split.overlaps(items[2:], [one, (clips[2], clips[4], 1.0)])
    assert problem == (
        "1 pair of clips in two roles are near-duplicates: 2.mp4 (members) and 5.mp4 "
        "(nonmembers): 87 % of their frames are alike. A model that was trained on one "
        "has seen the other: remove one of each pair, or give both the same role"
    )
    many = [(clips[0], clips[1], 1.0)] + [(clips[2], x, 0.5) for x in clips[3::2]]
    bytes_, near = split.overlaps(items, [*many, ("/gone", clips[3], 1.0)])
    assert bytes_.startswith("1 video is in two roles") and "same bytes" in bytes_
    assert near.startswith("29 pairs of clips") and near.count("alike") == 20
    assert "; and 9 more. A model" in near


def test_rows_are_plain_json(pool, tmp_path):
    split.write_manifests(tmp_path / "videos", pool[:1], pool[1:])
    lines = (tmp_path / "videos" / split.MEMBERS).read_text("ascii").splitlines()
    (row,) = map(json.loads, lines)
    assert row == ROWS[0]
