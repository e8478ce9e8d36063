"""Stored signals to tables: every row's own text, and what a reference lacks."""

import dataclasses
import math

import numpy as np
import pytest

from scored_texts import scored_text
from vidsme_jax import scores
from vidsme_jax.base import (
    AuditError,
    Item,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
    text_key,
)
from vidsme_jax.scores import Revealed, tables
from vidsme_jax.settings import views
from vidsme_jax.store.signals import Signals

ANSWERS = {"a": ("cat", "dog"), "b": ("cat",), "c": ("sun",)}
MOTION = views.Motion(bounds=(90.0, 110.0, 190.0, 210.0))
NAMES = ("vid_sme", "response_loss", "instruction_rank", "response_loss_ref")
NAMES += ("vid_sme_ref", "response_wbc")


def _items():
    """Two rows ask about clip a, one of them in two manifests."""
    rows = [("a", "cat"), ("a", "dog"), ("b", "cat"), ("c", "sun"), ("a", "cat")]
    return [
        Item(
            id=f"{k}", video=clip, clip=clip, role="members", question="q", answer=text
        )
        for k, (clip, text) in enumerate(rows)
    ]


def _clip(key, seed, video=True):
    rng = np.random.default_rng([seed, ord(key)])
    texts = []
    for answer in ANSWERS[key]:
        count = 3 + len(answer) + ord(answer[0]) % 3  # Of the answer's rows.
        slices = np.repeat([1, 2], [4, count])
        logits = rng.normal(0, 2, (2, len(slices), 20))
        text = scored_text(logits, np.arange(4 + count), slices, answer=answer)
        asked = dataclasses.replace(text.asked, key=text_key("q", (), answer))
        texts.append(dataclasses.replace(text, asked=asked))
    signals = TokenSignals(
        *(
            rng.uniform(1, 2, (2, 6, *more)).astype(np.float32)
            for more in ((15,), (), (), ())
        )
    )
    return ScoredClip(
        key=key,
        content_hash=f"hash {key}",
        signals=signals if video else None,
        frame=np.arange(6 if video else 0, dtype=np.int16),
        frame_indices=(0, 1, 2, 3, 4, 5),
        motion=MotionStatistics(1.0 + ord(key), 2.0 * ord(key)),
        texts=tuple(texts),
    )


def _store(folder, clips):
    store = Signals(folder, {})
    store.write(clips)
    return store


def _table(items, store, names, **more):
    more = {"slices": ("video", "instruction", "response")} | more
    return tables.score_table(items, store, names, "exact", MOTION, **more)[0]


def _scores(table, name):
    return dict(zip(table.id.tolist(), table.scores[name].tolist(), strict=True))


def test_each_row_has_its_clip_and_its_own_text(tmp_path):
    clips = {key: _clip(key, 0) for key in ANSWERS}
    store = _store(tmp_path, clips.values())
    table = _table(_items(), store, NAMES[:3])
    assert table.id.tolist() == ["0", "1", "2", "3", "4"]
    assert table.cluster.tolist() == [f"hash {key}" for key in "aabca"]
    assert table.num_rows.tolist() == [6] * 5
    for row, item in enumerate(_items()):
        clip = clips[item.clip]
        (text,) = (t for t in clip.texts if t.asked.answer == item.answer)
        alone = scores.compute(
            clip.signals, table.q[row], table.r[row], NAMES[:3], text=text
        )
        for name, value in alone.items():
            assert table.scores[name][row] == pytest.approx(value, rel=1e-6), name
        assert table.num_response_rows[row] == (text.slice == 2).sum()
    loss = _scores(table, "response_loss")
    assert loss["0"] == loss["4"] != loss["1"]
    video = _table(_items(), store, ["vid_sme"])
    assert video.num_response_rows is None
    np.testing.assert_array_equal(video.scores["vid_sme"], table.scores["vid_sme"])


def test_orders_follow_from_motion_and_light(tmp_path):
    """At the ends of the ranges, where one cannot be taken for the other."""
    ends = {"a": (90.0, 190.0), "b": (110.0, 190.0), "c": (90.0, 210.0)}
    clips = [
        dataclasses.replace(_clip(key, 0), motion=MotionStatistics(*motion))
        for key, motion in ends.items()
    ]
    table = _table(_items(), _store(tmp_path, clips), ["vid_sme"])
    assert table.flow_variance.tolist() == [90, 90, 110, 90, 90]
    assert table.brightness_std.tolist() == [190, 190, 190, 210, 190]
    q, r = table.q.tolist(), table.r.tolist()
    assert q[0] == q[1] == q[3] == q[4] != q[2]
    assert r[0] == r[1] == r[2] == r[4] != r[3]
    # The same ranges are found without bounds.
    free = views.Motion()
    assert tables.entropy_orders({x.key: x.motion for x in clips}, free) == {
        clip: (q[row], r[row]) for row, clip in ((0, "a"), (2, "b"), (3, "c"))
    }


def test_rows_that_lack_signals_of_a_slice_are_left_out(tmp_path):
    clips = [_clip("a", 0), _clip("b", 0, video=False), _clip("c", 0)]
    clips[0] = dataclasses.replace(clips[0], texts=clips[0].texts[1:])
    store = _store(tmp_path, clips)
    assert _table(_items(), store, NAMES[:2]).id.tolist() == ["1", "3"]
    assert _table(_items(), store, ["vid_sme"]).id.tolist() == ["0", "1", "3", "4"]
    found = _table(_items(), store, ["response_loss"], slices=("response",))
    assert found.id.tolist() == ["1", "2", "3"]
    with pytest.raises(AuditError, match="no clip could be scored"):
        _table(_items()[:1], store, ["response_loss"])


def test_the_video_counts_where_the_reference_lacks_the_text(tmp_path):
    clips = [_clip(key, 0) for key in ANSWERS]
    others = [dataclasses.replace(_clip(key, 1), texts=()) for key in ANSWERS]
    target = _store(tmp_path / "signals", clips)
    reference = _store(tmp_path / "reference", others)
    table = _table(_items(), target, NAMES, reference=reference)
    assert np.isfinite(table.scores["vid_sme_ref"]).all()
    assert np.isnan(table.scores["response_loss_ref"]).all()


def test_what_the_reference_lacks_is_nan_in_what_needs_it(tmp_path):
    clips = {key: _clip(key, 0) for key in ANSWERS}
    others = {key: _clip(key, 1) for key in ANSWERS}
    del others["c"]
    (cat,) = others["b"].texts
    cat = dataclasses.replace(cat, tokens=cat.tokens[::-1].copy())  # Other tokens.
    others["b"] = dataclasses.replace(others["b"], texts=(cat,))
    target = _store(tmp_path / "signals", clips.values())
    reference = _store(tmp_path / "reference", others.values())
    table = _table(_items(), target, NAMES, reference=reference)
    plain = _table(_items(), target, NAMES[:3])
    for name in NAMES[:3]:
        np.testing.assert_array_equal(table.scores[name], plain.scores[name])
    lacks = {
        n: [i for i, v in _scores(table, n).items() if math.isnan(v)] for n in NAMES
    }
    assert lacks == {name: [] for name in NAMES} | {
        "response_loss_ref": ["3"],
        "vid_sme_ref": ["3"],
        "response_wbc": ["2", "3"],
    }
    assert set(table.reference) == {"vid_sme", "response_loss", "instruction_rank"}
    for row, item in enumerate(_items()):
        if item.clip == "c":
            assert math.isnan(table.reference["vid_sme"][row])
            continue
        both = [
            (each.signals, *(t for t in each.texts if t.asked.answer == item.answer))
            for each in (clips[item.clip], others[item.clip])
        ]
        found = scores.compute(
            both[0][0],
            *(table.q[row], table.r[row], NAMES),
            text=both[0][1],
            reference=Revealed(*both[1]),
        )
        for name, value in found.items():
            expected = pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True)
            assert table.scores[name][row] == expected, name
        own = table.scores["vid_sme"][row] - table.scores["vid_sme_ref"][row]
        assert table.reference["vid_sme"][row] == pytest.approx(own)


def test_a_reference_counts_where_no_text_is_asked_about(tmp_path):
    clips = [dataclasses.replace(_clip(key, 0), texts=()) for key in ANSWERS]
    others = [dataclasses.replace(_clip(key, 1), texts=()) for key in ANSWERS]
    target = _store(tmp_path / "target", clips)
    reference = _store(tmp_path / "reference", others)
    names = ["vid_sme", "vid_sme_ref"]
    more = {"reference": reference, "slices": ("video",)}
    table = _table(_items(), target, names, **more)
    expected = table.scores["vid_sme"] - table.reference["vid_sme"]
    np.testing.assert_allclose(table.scores["vid_sme_ref"], expected, rtol=1e-5)
    assert np.isfinite(expected).all()


def test_a_reference_of_another_file_does_not_count(tmp_path):
    clips = [_clip(key, 0) for key in ANSWERS]
    changed = dataclasses.replace(clips[0], content_hash="another")
    target = _store(tmp_path / "signals", clips)
    reference = _store(tmp_path / "reference", [changed, *clips[1:]])
    table = _table(_items(), target, NAMES, reference=reference)
    own = np.isnan(table.reference["response_loss"])
    assert own.tolist() == [True, True, False, False, True]
    found = _scores(table, "vid_sme_ref")
    assert [i for i, value in found.items() if math.isnan(value)] == ["0", "1", "4"]
    assert found["2"] == 0


def test_a_reference_that_read_another_answer_counts_for_the_video_alone(tmp_path):
    """Answers that were generated again; those of the reference were not."""
    clips = [_clip(key, 0) for key in ANSWERS]
    (text,) = clips[1].texts
    asked = dataclasses.replace(text.asked, answer="a longer cat")
    other = dataclasses.replace(
        clips[1], texts=(dataclasses.replace(text, asked=asked),)
    )
    target = _store(tmp_path / "signals", clips)
    reference = _store(tmp_path / "reference", [clips[0], other, clips[2]])
    table = _table(_items(), target, NAMES, reference=reference)
    for name in ("response_loss_ref", "response_wbc"):
        lacks = [i for i, x in _scores(table, name).items() if math.isnan(x)]
        assert lacks == ["2"], name
    assert _scores(table, "vid_sme_ref") == dict.fromkeys("01234", 0.0)
    assert np.isnan(table.reference["response_loss"]).tolist() == [0, 0, 1, 0, 0]


def test_only_clips_of_the_table_bound_q_and_r(tmp_path):
    """Of clip c the texts are there, but not the video that is scored."""
    motion = views.Motion()
    clips = [_clip("a", 0), _clip("b", 0), _clip("c", 0, video=False)]
    store = _store(tmp_path, clips)
    given = _items(), store, ["vid_sme"], "exact", motion
    table = tables.score_table(*given, slices=("video", "instruction", "response"))[0]
    assert table.id.tolist() == ["0", "1", "2", "4"]
    assert table.q.tolist() == [2, 2, 1, 2] and table.r.max() == table.r[2] > 1
    assert tables.measured(_items(), store).keys() == {"a", "b"}
    texts = _table(_items(), store, ["response_loss"], slices=("response",))
    assert texts.id.tolist() == ["0", "1", "2", "3", "4"]
