"""Parts of signals: their numbers, and which of several rows of a clip count."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scored_texts import scored_text
from vidsme_jax.base import AuditError, MotionStatistics, ScoredClip, TokenSignals
from vidsme_jax.store import indices, signals, tables
from vidsme_jax.store.signals import Signals
from vidsme_jax.store.writers import Writer


def _clip(key, value, motion=(1.0, 2.0), texts=()):
    """A clip whose signals are all one value."""
    whole = np.full((2, 3, 15), value, np.float32)
    return ScoredClip(
        key=key,
        content_hash="ab",
        signals=TokenSignals(whole, *[whole[..., 0]] * 3),
        frame=np.arange(3, dtype=np.int16),
        frame_indices=(int(value),),
        motion=MotionStatistics(*map(float, motion)),
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


# -------------------------------------------------------------------------- indices


@pytest.fixture
def three(monkeypatch, tmp_path):
    """A folder of eight parts, of which six are in two indices."""
    monkeypatch.setattr(indices, "_PARTS", 3)
    store = Signals(tmp_path, {"model": "x"})
    for value, key in enumerate("abcdefgh"):
        store.write([_clip(key, value, (value, 1.0)), _clip("z", value, (value, 0.0))])
    return tmp_path


@pytest.fixture
def looked(monkeypatch):
    """The names of the files that are opened."""
    names, opened = [], tables.opened

    def noted(path, *args):
        names.append(path.name)
        return opened(path, *args)

    monkeypatch.setattr(tables, "opened", noted)
    return names


def _state(store):
    found = {key: vars(clip.motion) for key, clip in store.finished.items()}
    return found, {key: clip.parts for key, clip in store.finished.items()}


def test_parts_that_an_index_has_are_not_opened(three, looked):
    index = [f"index-{number:06}.parquet" for number in (2, 5)]
    assert sorted(path.name for path in three.glob("index-*")) == index
    store = Signals(three, {"model": "x"})
    assert sorted(looked) == [*index, "part-000006.parquet", "part-000007.parquet"]
    anew = Signals(three, {"model": "x"}, indexed=False)
    assert (
        _state(store) == _state(anew) and anew.finished["z"].motion.flow_variance == 7
    )
    (clip,) = store.read(["c"])
    assert (clip.signals.renyi == 2).all()
    # Those that are in no index count as those that are written now.
    store.write([_clip("i", 8)])
    assert (three / "index-000008.parquet").exists()
    looked.clear()
    assert _state(Signals(three, {"model": "x"})) == _state(store)
    assert len(looked) == 3 and all(name.startswith("index") for name in looked)


def test_a_part_that_is_gone_or_another_is_not_taken_from_an_index(three, looked):
    (three / "part-000001.parquet").unlink()
    store = Signals(three, {"model": "x"})
    assert "b" not in store.finished and _state(store) == _state(
        Signals(three, {"model": "x"}, indexed=False)
    )
    # Cut off, it has another size.
    part = three / "part-000002.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    with pytest.raises(AuditError, match=r"part-000002\.parquet: damaged"):
        Signals(three, {"model": "x"})
    # Of the same size, it is damaged as soon as it is read.
    part.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    store = Signals(three, {"model": "x"})
    with pytest.raises(AuditError, match=r"part-000002\.parquet: damaged"):
        list(store.read("c"))


def test_another_part_in_the_place_of_one_is_noticed_when_it_is_read(three):
    data = (three / "part-000004.parquet").read_bytes()
    (three / "part-000003.parquet").write_bytes(data)
    index = three / "index-000005.parquet"
    table = pq.read_table(index)
    sizes = pa.array([len(data)] * len(table), pa.int64())
    tables.write(index, table.set_column(1, table.schema.field("size"), sizes))
    found = Signals(three, {"model": "x"})
    assert "d" in found.finished
    with pytest.raises(AuditError, match="its time is not that of its index"):
        list(found.read("d"))


@pytest.mark.parametrize(
    "how",
    ["bytes", "columns", "settings", "null", "folder", "twice", "time", "text"],
)
def test_an_index_that_cannot_be_used_is_ignored_with_a_warning(
    how, three, tmp_path_factory, caplog
):
    whole = _state(Signals(three, {"model": "x"}))
    index = three / "index-000002.parquet"
    table = pq.read_table(index)
    if how == "bytes":
        data = index.read_bytes()
        index.write_bytes(data[:100] + bytes([data[100] ^ 255]) + data[101:])
    elif how == "columns":
        tables.write(index, table.drop_columns(["text"]))
    elif how == "settings":
        other = {b"vidsme_jax.settings": b'{"format": 3, "model": "y"}'}
        tables.write(index, table.replace_schema_metadata(other))
    elif how == "null":
        sizes = pa.array([None, *table.column("size").to_pylist()[1:]], pa.int64())
        tables.write(index, table.set_column(1, table.schema.field("size"), sizes))
    elif how == "twice":  # With one part between.
        again = table.slice(0, 1)
        tables.write(index, pa.concat_tables([table, again]).combine_chunks())
    elif how == "time":
        times = pa.array([-1] * len(table), pa.int64())
        tables.write(index, table.set_column(2, table.schema.field("written"), times))
    elif how == "text":
        keys = pa.array([b"\xff"] * len(table)).view(pa.string())
        place = table.schema.get_field_index("key")
        tables.write(index, table.set_column(place, table.schema.field("key"), keys))
    else:
        index.unlink()
        index.mkdir()
    with caplog.at_level("WARNING", "absl"):
        assert _state(Signals(three, {"model": "x"})) == whole
    (message,) = (record.getMessage() for record in caplog.records)
    assert f"{index}: ignored, its parts are read (" in message


def test_an_index_that_cannot_be_written_costs_no_part(three, caplog):
    store = Signals(three, {"model": "x"})
    (three / "index-000008.parquet").mkdir()
    with caplog.at_level("WARNING", "absl"):
        store.write([_clip("i", 8)])
    assert "index-000008.parquet: not written" in caplog.text
    assert "i" in Signals(three, {"model": "x"}).finished


def test_writers_of_one_folder_have_indices_of_their_own(three):
    settings = {"model": "x"}
    writers = [Writer(process, 2) for process in range(2)]
    writers += [Writer(share=f"{place}-of-2") for place in (1, 2)]
    stores = [Signals(three, settings, writer) for writer in writers]
    for number in range(3):
        for place, store in enumerate(stores):
            store.write([_clip(f"{place} {number}", number)])
    names = {path.name for path in three.glob("index-*")}
    assert {"index-000000-1-of-2.parquet", "index-000000-2-of-2.parquet"} <= names
    found = Signals(three, settings)
    assert len(found.finished) == 9 + 12
    assert _state(found) == _state(Signals(three, settings, indexed=False))


def test_a_number_that_an_index_has_is_not_used_again(three):
    """The part would have the size of the one that was there, which an index has."""
    for number in (5, 6, 7):
        (three / f"part-{number:06}.parquet").unlink()
    store = Signals(three, {"model": "x"})
    clips = [_clip("f", 5, (5.0, 1.0)), _clip("z", 5, (5.0, 0.0))]
    store.write(clips)
    assert _numbers(three) == [0, 1, 2, 3, 4, 6]
    again = Signals(three, {"model": "x"})
    (found,) = again.read("f")
    assert (found.signals.renyi == 5).all()
    # An index of another folder, with the same settings.
    (three / "part-000006.parquet").rename(three / "part-000005.parquet")
    with pytest.raises(
        AuditError, match=r"delete every index-\*\.parquet in"
    ) as caught:
        list(Signals(three, {"model": "x"}).read("f"))
    assert "damaged" not in str(caught.value)
    for path in three.glob("index-*"):
        path.unlink()
    assert len(list(Signals(three, {"model": "x"}).read("fz"))) == 2


def test_a_clip_that_an_index_has_and_its_part_has_not_is_not_left_out(three):
    index = three / "index-000002.parquet"
    table = pq.read_table(index)
    keys = ["y" if key == "b" else key for key in table.column("key").to_pylist()]
    place, field = table.schema.get_field_index("key"), table.schema.field("key")
    tables.write(index, table.set_column(place, field, pa.array(keys, pa.string())))
    store = Signals(three, {"model": "x"})
    assert [clip.key for clip in store.read("a")] == ["a"]
    said = (
        r"part-000001\.parquet: no row of y, which its index names; delete every index"
    )
    with pytest.raises(AuditError, match=said):
        list(store.read("ay"))


def test_an_index_has_no_more_rows_than_are_read(monkeypatch, tmp_path, looked):
    monkeypatch.setattr(indices, "_ROWS", 5)
    store = Signals(tmp_path, {})
    for value in range(6):
        store.write([_clip(f"{value} {k}", value) for k in range(1 + 5 * (value == 3))])
    sizes = [len(pq.read_table(path)) for path in sorted(tmp_path.glob("index-*"))]
    assert sizes == [3, 6]
    looked.clear()
    assert _state(Signals(tmp_path, {})) == _state(store)
    assert sum(name.startswith("part-") for name in looked) == 2


@pytest.mark.parametrize("indexed", [False, True])
def test_a_number_that_has_none_after_it_is_of_somebody_else(indexed, three):
    last = "part-999999999999999999.parquet"
    if indexed:
        index = three / "index-000002.parquet"
        table = pq.read_table(index)
        names = [
            last if name == "part-000001.parquet" else name
            for name in table.column("part").to_pylist()
        ]
        field = table.schema.field("part")
        tables.write(index, table.set_column(0, field, pa.array(names, pa.string())))
    else:
        (three / "part-000007.parquet").rename(three / last)
    Signals(three, {"model": "x"}).write([_clip("i", 8)])
    assert "i" in Signals(three, {"model": "x"}).finished
