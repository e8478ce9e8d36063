"""The unit of statistics, near-duplicates in two roles, and traits in a table."""

import dataclasses
import math

import numpy as np
import pytest

from scores_tables_test import MOTION, NAMES, _clip, _items, _store
from vidsme_jax.base import AuditError, Fingerprint, Item, Traits
from vidsme_jax.data import appearance, similar
from vidsme_jax.scores import blind_columns, tables, units

COUNT = 12


def _traits(number: int, container: dict[str, str | float] | None = None) -> Traits:
    rng = np.random.default_rng(number)
    shape = COUNT, similar.WINDOWS
    hashes = rng.integers(2**64, size=(*shape, 2), dtype=np.uint64)
    pixels = np.full(len(appearance.COLUMNS), number, np.float32)
    return Traits(pixels, container or {}, Fingerprint(hashes, np.ones(shape, bool)))


def _corpus() -> tuple[list[Item], dict[str, str], dict[str, Traits | None]]:
    """Six clips: a and b of one source, c like b, d with the bytes of e, f alone."""
    sources = {"a": "Film", "b": "Film", "e": "", "f": ""}
    roles = {"a": "members", "b": "members", "c": "nonmembers"}
    items = [
        Item(
            id=key,
            video=f"{key}.mp4",
            clip=f"/{key}.mp4",
            role=roles.get(key, "suspects"),
            source=sources.get(key, ""),
        )
        for key in "abcdef"
    ]
    content = {item.clip: item.id for item in items} | {"/d.mp4": "e"}
    traits: dict[str, Traits | None] = {x.clip: _traits(ord(x.id)) for x in items}
    traits["/c.mp4"] = traits["/b.mp4"]
    traits["/f.mp4"] = None
    return items, content, traits


def test_units_join_sources_files_and_copies():
    items, content, traits = _corpus()
    labels, notes = units.of_items(items, content, traits)
    assert labels.tolist() == [*["source Film"] * 3, *["file e"] * 2, "file f"]
    assert notes == {}
    alone, _ = units.of_items(items, content, dict.fromkeys(traits))
    assert alone.tolist() == [*["source Film"] * 2, "file c", *["file e"] * 2, "file f"]
    parts = [
        items[5]._replace(clip=f"/f.mp4#t={k},{k + 1}", id=f"f{k}") for k in (1, 2)
    ]
    known = {item.clip: item.id for item in parts}
    labels, _ = units.of_items(parts, known, {})
    assert labels.tolist() == ["file f1"] * 2


def test_copies_in_two_roles_are_refused_or_noted():
    items, content, traits = _corpus()
    with pytest.raises(AuditError) as caught:
        units.of_items(items, content, traits, False)
    (problem,) = caught.value.problems
    assert problem.startswith("1 pair of clips in two roles are near-duplicates, which")
    assert "b.mp4 (members) and c.mp4 (nonmembers): 100 % of frames. A" in problem
    assert "corpus.allow_duplicates=true; the signals are kept" in problem
    assert problem.endswith("the next run scores no clip again")
    assert caught.value.scored
    _, notes = units.of_items(items, content, traits, True)
    assert notes == {
        "/b.mp4": ["is a near-duplicate of one of nonmembers"],
        "/c.mp4": ["is a near-duplicate of one of members"],
    }
    same = [x._replace(role="members") for x in items]
    assert units.of_items(same, content, traits, False)[1] == {}
    equal = content | {"/c.mp4": content["/b.mp4"]}  # `conflicts` has looked at those.
    assert units.of_items(items, equal, traits, False)[1] == {}
    copy = items[2]._replace(id="g", clip="/g.mp4", role="calibration")
    more, known = [*items, copy], content | {"/g.mp4": content["/c.mp4"]}
    _, notes = units.of_items(more, known, traits | {"/g.mp4": traits["/c.mp4"]}, True)
    assert notes["/g.mp4"] == ["is a near-duplicate of one of members"]
    assert len(notes["/b.mp4"]) == 2
    many = [(items[1], items[2], f"pair {k}") for k in range(30)]
    assert "pair 19; and 10 more. A model" in units.refusal(many)


def _full(tmp_path, **more):
    """A table of three clips and five rows; a and b are alike."""
    clips = {key: _clip(key, 0) for key in "abc"}
    facts = {"codec": "h264", "fps": 12.0, "file_size": 7, "creation_date": 3.5}
    of = {
        "a": _traits(1, facts),
        "b": _traits(1, {"codec": 3.0, "fps": "x"}),
        "c": None,
    }
    clips = {k: dataclasses.replace(x, traits=of[k]) for k, x in clips.items()}
    store = _store(tmp_path, clips.values())
    items = [x._replace(date="1970-01-03", source="") for x in _items()[:-1]]
    items.append(_items()[-1])
    items[2] = items[2]._replace(role="nonmembers")
    slices = ("video", "instruction", "response")
    return tables.score_table(
        items, store, NAMES[:3], "exact", MOTION, slices=slices, **more
    )


def test_a_table_has_units_texts_and_traits(tmp_path, monkeypatch):
    clip = _clip
    indices = tuple(range(COUNT))
    monkeypatch.setattr(
        "units_test._clip",
        lambda *x: dataclasses.replace(clip(*x), frame_indices=indices),
    )
    table, _ = _full(tmp_path)
    assert table.unit.tolist() == ["file hash a"] * 3 + ["file hash c", "file hash a"]
    assert units.made(table) == units.Made(0, 1, 1)
    assert str(units.made(table)) == (
        "2 units: 1 joined as near-duplicates, 1 single files"
    )
    assert table.source.tolist() == [x.source for x in _items()]
    assert table.question.tolist() == [x.question for x in _items()]
    assert table.answer.tolist() == [x.answer for x in _items()]
    assert table.traits["pixels"].keys() == set(appearance.COLUMNS)
    expected = [1, 1, 1, math.nan, 1]
    np.testing.assert_array_equal(table.traits["pixels"]["light"], expected)
    container = table.traits["container"]
    assert container["codec"].tolist() == ["h264", "h264", "", "", "h264"]
    np.testing.assert_array_equal(container["fps"], [12, 12, math.nan, math.nan, 12])
    assert container.keys() == {*blind_columns.TEXTS, *blind_columns.NUMBERS}
    sizes = table.traits["files"]["file_size"]
    np.testing.assert_array_equal(sizes, [7, 7, math.nan, math.nan, 7])
    dates = table.traits["dates"]
    np.testing.assert_array_equal(dates["date"], [2, 2, 2, 2, math.nan])
    made = dates["creation_date"]
    np.testing.assert_array_equal(made, [3.5, 3.5, math.nan, math.nan, 3.5])
    near = "is a near-duplicate of one of"
    _, warnings = _full(tmp_path / "again", allow_duplicates=True)
    assert any(near in note for notes in warnings.values() for note in notes)
    with pytest.raises(AuditError, match="in two roles are near-duplicates"):
        _full(tmp_path / "third", allow_duplicates=False)
