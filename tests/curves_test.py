"""Entropies by frame for the report, from the frame that each stored row shows."""

import dataclasses

import numpy as np
import pytest

from score_tables import table
from vidsme_jax import scores
from vidsme_jax.base import (
    ClipError,
    Item,
    MotionStatistics,
    ScoredClip,
    ScoreTable,
    TokenSignals,
)
from vidsme_jax.report import curves
from vidsme_jax.store.signals import Signals

FRAME = np.array([0, 0, -1, 2, 2, 2, -1, 5], np.int16)  # Frames 1, 3 and 4 have none.


@pytest.fixture
def store(monkeypatch):
    """Stands for a store of two clips; the second's rows are more certain."""
    clips = {}
    for place, key in enumerate(("a", "b")):
        rng = np.random.default_rng(place)
        renyi = rng.uniform(1, 2, (2, len(FRAME), 15)).astype(np.float32) / (1 + place)
        nothing = np.zeros((2, len(FRAME)), np.float32)
        clips[key] = ScoredClip(
            key=key,
            content_hash=key,
            signals=TokenSignals(renyi, nothing, nothing, nothing),
            frame=FRAME,
            frame_indices=(0, 10, 20, 30, 40, 50),
            motion=MotionStatistics(1.0, 1.0),
        )
    monkeypatch.setattr(Signals, "__init__", lambda self: None)
    monkeypatch.setattr(Signals, "has_one_order", False)
    monkeypatch.setattr(
        Signals, "read", lambda self, keys: iter([clips[key] for key in keys])
    )
    return Signals(), clips


class _Reader:
    """Gives the numbers of the frames that are asked for as pictures."""

    def read(self, key, counts):
        raise NotImplementedError

    def content_hash(self, key):
        raise NotImplementedError

    def unchanged(self, key, content_hash, before):
        if key == "b":
            raise ClipError("open", "gone")
        return content_hash == self.content

    content = "a"

    def thumbnails(self, key, indices, height):
        return np.stack([np.full((height, 8, 3), k, np.uint8) for k in indices])


@pytest.mark.parametrize("profile", ["exact", "official"])
def test_a_curve_averages_the_rows_of_each_frame(store, profile):
    store, clips = store
    items = [Item(id=k, video=k, clip=k, role="members") for k in ("a", "b")]
    ones = np.ones(2)
    table = ScoreTable(
        id=np.array(["a", "b"], object),
        video=np.array(["a", "b"], object),
        role=np.array(["members"] * 2, object),
        group=np.array([""] * 2, object),
        cluster=np.array(["a", "b"], object),
        num_rows=np.full(2, len(FRAME)),
        flow_variance=ones,
        brightness_std=ones,
        q=np.array([1.5, 1.2]),
        r=np.array([1.05, 1.0]),
        scores={"s": np.array([2.0, 1.0])},
        larger_is_member=scores.PROFILES[profile].larger_is_member,
    )
    found = curves.extreme_curves(items, store, table, "s", profile, _Reader())
    by_id = {curve.id: curve for curve in found}
    assert [curve.label for curve in found] == [
        "most member-like",
        "least member-like",
    ]
    assert found[0].id == ("a" if profile == "exact" else "b")
    for key, q, r in (("a", 1.5, 1.05), ("b", 1.2, 1.0)):
        rows = scores.PROFILES[profile].sharma_mittal(clips[key].signals, q, r)
        curve = by_id[key]
        assert curve.frame_indices == (0, 20, 50)
        for each, values in zip(rows, (curve.natural, curve.reversed), strict=True):
            expected = [each[[0, 1]].mean(), each[[3, 4, 5]].mean(), each[7]]
            np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert by_id["b"].thumbnails is None
    assert by_id["a"].thumbnails[:, 0, 0, 0].tolist() == [0, 20, 50]
    reader = _Reader()
    reader.content = (
        "another"  # The file has changed: its pictures are of other frames.
    )
    found = curves.extreme_curves(items, store, table, "s", profile, reader)
    assert [curve.thumbnails for curve in found] == [None, None]


def test_no_curves_without_rows_of_the_video_or_a_headline(store):
    store, clips = store
    items = [Item(id=k, video=k, clip=k, role="members") for k in ("a", "b")]
    given = table([2.0, 1.0], ["members"] * 2)
    given.id[:] = ["a", "b"]
    nan = np.array([np.nan, 1.0])
    given.scores.update({"one": nan, "none": np.full(2, np.nan)})
    drawn = curves.extreme_curves(items, store, given, "one", "exact", _Reader())
    assert [(curve.id, curve.label) for curve in drawn] == [("b", "most member-like")]
    assert curves.extreme_curves(items, store, given, "none", "exact", _Reader()) == []
    clips["a"] = dataclasses.replace(clips["a"], signals=None)
    drawn = curves.extreme_curves(items, store, given, "s", "exact", _Reader())
    assert [curve.label for curve in drawn] == ["least member-like"]


def test_three_clips_of_each_end_each_once_of_the_suspects_where_there_are_any():
    role = ["members"] * 4 + ["suspects"] * 8
    values = np.array([9.0, 8, 7, 6, 5, 5, 4, 3, 2, 1, 0, np.nan])
    given = table(values.copy(), role)
    clips = ["m0", "m1", "m2", "m3", "a", "a", "b", "c", "d", "d", "e", "f"]
    by_id = {
        str(name): Item(id=str(name), video=clip, clip=clip, role=its)
        for name, clip, its in zip(given.id, clips, role, strict=True)
    }

    def chosen(given):
        found = curves._extremes(given, "s", by_id)
        return {label: clips[place] for label, place in found}

    assert chosen(given) == {
        "most member-like": "a",
        "second most member-like": "b",
        "third most member-like": "c",
        "least member-like": "e",
        "second least member-like": "d",
    }
    given.scores["s"][4:] = np.nan  # No suspect has the headline.
    assert chosen(given) == {
        "most member-like": "m0",
        "second most member-like": "m1",
        "least member-like": "m3",
        "second least member-like": "m2",
    }
    given = table(values, ["members"] * 12)
    by_id = {key: item._replace(role="members") for key, item in by_id.items()}
    ends = [place for _, place in curves._extremes(given, "s", by_id)]
    assert [clips[place] for place in ends] == ["m0", "m1", "m2", "e", "d", "c"]
