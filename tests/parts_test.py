"""Parts of signals: their numbers, and which of several rows of a clip count."""

import dataclasses
import json

import numpy as np
import pytest

from scored_texts import scored_text
from vidsme_jax.base import AuditError, MotionStatistics, ScoredClip, TokenSignals
from vidsme_jax.store import signals
from vidsme_jax.store.parts import Writer
from vidsme_jax.store.signals import Signals


def _clip(key, value, motion=(1.0, 2.0), texts=()):
    """A clip whose signals are all one value."""
    whole = np.full((2, 3, 15), value, np.float32)
    return ScoredClip(
        key=key,
        content_hash="ab",
        signals=TokenSignals(whole, *[whole[..., 0]] * 3),
        frame=np.arange(3, dtype=np.int16),
        frame_indices=(int(value),),
        motion=MotionStatistics(*motion),
        warnings=(f"of {value}",),
        texts=tuple(texts),
    )


def _text(key, answer):
    text = scored_text(np.ones((2, 3, 5)), [1, 2, 3], [1, 1, 2], answer=answer)
    return dataclasses.replace(text, asked=dataclasses.replace(text.asked, key=key))


def _numbers(folder):
    return sorted(int(path.stem[5:]) for path in folder.glob("part-*.parquet"))


def test_the_latest_rows_win_where_earlier_parts_are_read_too(tmp_path):
    """The text is in the first part alone, the clip's rows are in all."""
    store = Signals(tmp_path, {})
    text, other = _text("k", "a cat"), _text("l", "a dog")
    store.write([_clip("a", 1, (1.0, 2.0), [text]), _clip("b", 9)])
    store.write([_clip("a", 2, (3.0, 4.0), [other])])
    store.write([_clip("a", 3, (5.0, 6.0))])
    for opened in (store, Signals(tmp_path, {})):
        assert opened.finished["a"].parts == (0, 1, 2)
        (found,) = opened.read(["a"])
        assert (found.signals.renyi == 3).all() and (found.signals.log_prob == 3).all()
        assert found.frame_indices == (3,) and found.warnings == ("of 3",)
        assert found.motion == MotionStatistics(5.0, 6.0)
        assert opened.finished["a"].motion == MotionStatistics(5.0, 6.0)
        assert {x.asked.key: x.asked.answer for x in found.texts} == {
            "k": "a cat",
            "l": "a dog",
        }


def test_of_a_text_in_two_parts_the_latest_wins(tmp_path):
    store = Signals(tmp_path, {})
    for value, answer in ((1, "a cat"), (2, "a dog")):
        store.write([_clip("a", value, texts=[_text("k", answer)])])
        store.write([dataclasses.replace(_clip("b", value), texts=())])
    for opened in (store, Signals(tmp_path, {})):
        found = {clip.key: clip for clip in opened.read(["a", "b"])}
        assert [x.asked.answer for x in found["a"].texts] == ["a dog"]
        assert (found["b"].signals.renyi == 2).all()


def test_a_part_that_was_deleted_makes_no_other_be_overwritten(tmp_path):
    store = Signals(tmp_path, {})
    for key in "abc":
        store.write([_clip(key, ord(key))])
    (tmp_path / "part-000000.parquet").unlink()
    again = Signals(tmp_path, {})
    assert sorted(again.finished) == ["b", "c"]
    again.write([_clip("a", 7)])
    again.write([_clip("d", 8)])
    assert _numbers(tmp_path) == [1, 2, 3, 4]
    found = {clip.key: clip for clip in Signals(tmp_path, {}).read("abcd")}
    assert [found[key].signals.renyi[0, 0, 0] for key in "abcd"] == [7, 98, 99, 8]


def test_numbers_of_several_processes_are_above_those_that_are_there(tmp_path):
    first = Signals(tmp_path, {})
    for key in "abcd":
        first.write([_clip(key, 1)])
    for number in (0, 1):
        (tmp_path / f"part-{number:06}.parquet").unlink()
    both = [Signals(tmp_path, {}, Writer(process, 2)) for process in range(2)]
    for key, store in (("e", both[1]), ("f", both[0]), ("g", both[1])):
        store.write([_clip(key, 2)])
    assert _numbers(tmp_path) == [2, 3, 4, 5, 7]
    assert sorted(Signals(tmp_path, {}).finished) == list("cdefg")


def test_the_settings_of_a_folder_are_read_without_its_parts(tmp_path):
    assert signals.recorded(tmp_path) == {}
    Signals(tmp_path, {"model": "x"})
    assert signals.recorded(tmp_path) == {"model": "x", "format": signals.FORMAT}
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"model": "x", "format": signals.FORMAT + 1}))
    with pytest.raises(AuditError, match="its signals have format"):
        signals.recorded(tmp_path)


def test_the_settings_in_which_a_folder_differs(tmp_path):
    assert signals.differences(tmp_path, {"model": "x"}) == []
    Signals(tmp_path, {"model": "x", "frames": 4})
    assert signals.differences(tmp_path, {"model": "x"}) == []
    (found,) = signals.differences(tmp_path, {"model": "y", "frames": 4})
    for part in (str(tmp_path), "model", "x", "y"):
        assert part in found


def test_what_is_forgotten_of_a_clip_leaves_its_other_rows(tmp_path):
    store = Signals(tmp_path, {})
    for key in "abcd":
        store.write([_clip(key, 1, texts=[_text("k", "a cat"), _text("l", "a dog")])])
    store.forget("a")
    store.forget("b", texts=())
    store.forget("c", video=False, texts=("k",))
    store.forget("d", texts=("k", "l"))
    store.forget("e")
    left = {
        key: (clip.video is not None, [*clip.texts])
        for key, clip in store.finished.items()
    }
    assert left == {"b": (False, ["k", "l"]), "c": (True, ["l"])}
    found = {clip.key: clip for clip in store.read("abcd")}
    assert found["b"].signals is None and len(found["b"].texts) == 2
    assert [x.asked.key for x in found["c"].texts] == ["l"]
