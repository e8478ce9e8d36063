"""A report without one of its pictures, of very many things, over an older one."""

import dataclasses
import time

import numpy as np
import pytest

from curves_test import _Reader
from report_test import _curve, _Page, _table, _write
from score_tables import table as scores_of
from store_test import _clip
from vidsme_jax.base import Failure, Item
from vidsme_jax.data.left_out import LeftOut
from vidsme_jax.evaluation import groups, metrics
from vidsme_jax.report import curves, drawings, figures, files, page, plots
from vidsme_jax.studies import drawing

LONG = "\u202e<&'" * 3000


def _fails(error):
    def failing(*args, **kwargs):
        raise error

    return failing


@pytest.mark.parametrize(
    "error", [ValueError("\x1b[2J<b>"), MemoryError(), RuntimeError("x" * 10_000)]
)
def test_a_figure_that_cannot_be_drawn_is_left_out(
    tmp_path, monkeypatch, caplog, error
):
    monkeypatch.setattr(plots, "clip_curve", _fails(error))
    monkeypatch.setattr(plots, "roc", _fails(error))
    with caplog.at_level("WARNING", "absl"):
        _, html = _write(tmp_path, _table())
    text = _Page(html).words
    assert text.count("This figure could not be drawn: ") == 3
    assert type(error).__name__ in text and "\x1b" not in html and "<b>" not in html
    lines = [m for m in caplog.messages if "is left out" in m]
    assert len(lines) == 3 and max(map(len, lines)) < 300
    left = {p.stem for p in (tmp_path / "figures").iterdir()}
    assert left == {"scores", "orders", "auc-0-all", "growth-0-all", "growth-suspects"}


def test_a_figure_that_cannot_be_rendered_is_left_out(tmp_path, monkeypatch):
    drawn = figures.draw(_table(), {"comparisons": {}}, [], "vid_sme")
    monkeypatch.setattr(figures, "_rendered", _fails(MemoryError("full")))
    written = figures.write(tmp_path / "figures", drawn)
    assert [(each.figure, png) for each, png in written] == [(None, b"")] * 4
    assert not list((tmp_path / "figures").iterdir())


def test_a_study_without_its_figure():
    row = {"comparison": "all", "auc": 0.5, "k": 1, "score": "s"}
    found = {"study": "k", "comparisons": {"all": {}}, "points": [row]}
    (left,) = drawing.draw(found, "s")  # A point without its interval.
    assert left.figure is None and "KeyError" in left.caption


class _Broken(_Reader):
    def __init__(self, error=None, pictures=None, unchanged=True):
        self.error, self.pictures, self.same = error, pictures, unchanged

    def unchanged(self, key, content_hash, before):
        return self.same

    def thumbnails(self, key, indices, height):
        if self.error:
            raise self.error
        return self.pictures


@pytest.mark.parametrize(
    "reader, text",
    [
        (_Broken(MemoryError("4 GiB")), "MemoryError: 4 GiB"),
        (_Broken(RuntimeError("\x1b[2J")), "RuntimeError: \\x1b[2J"),
        (_Broken(unchanged=False), "has changed since it was scored"),
    ],
)
def test_a_picture_that_cannot_be_read_is_left_out(monkeypatch, caplog, reader, text):
    clip = _clip("a")
    members = {"read": lambda self, keys: iter([clip]), "has_one_order": False}
    store = type("Store", (), members)()
    profile = type("P", (), {"sharma_mittal": lambda *_: np.zeros((2, 6))})()
    monkeypatch.setitem(curves.scores.PROFILES, "fake", profile)
    item = Item(id="id0", video="\x1b]0;v", clip="a", role="members")
    other = item._replace(id="id1", role="nonmembers")
    table = scores_of([1.0, 0.0], ["members", "nonmembers"])
    extreme = curves.extreme_curves.__wrapped__  # The stand-ins have other types.
    with caplog.at_level("WARNING", "absl"):
        found = extreme([item, other], store, table, "s", "fake", reader)
    assert [each.thumbnails for each in found] == [None]  # Both rows are of one clip.
    assert text in found[0].missing
    assert len(caplog.messages) == 1 and "\x1b" not in "".join(caplog.messages)
    assert text in drawings.clip(found[0], "n", "t")[0].caption


@pytest.mark.long
def test_figures_of_an_earlier_report_are_removed(tmp_path):
    folder = tmp_path / "figures"
    _write(tmp_path, _table(groups=("", "a", "b")))
    (folder / "study.png").write_bytes(b"of a study")
    (folder / "mine.png").write_bytes(b"of somebody")
    (folder / "roc-9-z.png.tmp").write_bytes(b"half")
    _write(tmp_path, _table(groups=("", "a")), curves=[])
    names = {path.name for path in folder.iterdir()}
    assert {"roc-0-all.png", "roc-1-a.pdf", "study.png", "mine.png"} <= names
    assert not [n for n in names if n.startswith(("clip-", "roc-2", "roc-9"))]


def test_only_so_many_bytes_of_pictures_are_in_a_page():
    one = figures.Drawing("a", None, "t", "c")
    shown = page.embedded([(one, b"x" * 1_500_000)] * 3)
    assert [len(png) for _, png in shown] == [1_500_000, 0, 0]
    assert "See the folder figures" in shown[1][0].caption


@pytest.fixture(scope="module")
def many():
    """100,000 groups, failures and warnings, all with long names."""
    number = 100_000
    names = [f"{LONG[:3000]}{k}" if k < 300 else f"g{k}" for k in range(number)]
    table = _table((500, number, 0, 0))
    table.group[500:] = names
    table.scores.pop("max_renyi_2_10")
    return table, names


def test_of_very_many_groups_the_largest_are_compared(many):
    table, _ = many
    table.group[500:600] = "the largest"
    table.group[-100:] = "the largest"
    started = time.monotonic()
    found = groups.comparisons(table)
    assert time.monotonic() - started < 5
    assert len(found) == 1 + groups.MAX_GROUPS and "the largest" in found
    assert groups.summary(table)["compared"] == groups.MAX_GROUPS
    said = "of 99801 groups of non-members the 50 with the most rows are compared"
    assert groups.summary(table)["statement"].startswith(said)
    few = scores_of(np.arange(2.0), ["members", "nonmembers"])
    assert groups.summary(few) == {"compared": 0, "left_out": 0, "statement": ""}


def test_groups_of_any_name_have_each_a_comparison():
    role = ["members"] + ["nonmembers"] * 4
    group = ["", "all", "group all", "group group all", "a"]
    table = scores_of(np.arange(5.0), role, group=group)
    assert len(groups.comparisons(table)) == 5


@pytest.mark.long
def test_a_report_of_very_many_things_stays_small(tmp_path, many, figureless):
    _, names = many
    cause = {"stage": LONG, "cause": LONG}
    failures = [Failure(id=n, video=n, **cause) for n in names[:300]]
    failures += [Failure(id=n, video=n, stage="", cause="") for n in names[300:]]
    left = [LeftOut(source=n, role=n, count=1, what=n, why=n) for n in names[:1000]]
    run = {
        "config": {f"{LONG}{k}": LONG for k in range(1000)},
        "versions": {"deep": _nested(300), "many": {n: n for n in names}},
    }
    few = _table((20, 20, 0, 0), groups=tuple(names[:2]))
    started = time.monotonic()
    found, html = _write(
        tmp_path,
        few,
        failures=failures,
        warnings={n: [LONG[:400], n] for n in names},
        left_out=left,
        notes=[LONG] * 1000,
        run=run,
        descriptions={"vid_sme": LONG},
        curves=[dataclasses.replace(_curve(LONG), id=LONG, missing=LONG)],
    )
    assert time.monotonic() - started < 60
    assert len(html.encode()) < 5e6
    assert found["counts"]["failures"] == 100_000
    assert "of 100000; failures.jsonl has all." in html
    assert "of 100000; metrics.json has all." in html


def _nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_histograms_of_very_many_groups(many):
    started = time.monotonic()
    assert len(plots.series(many[0])) == plots._MAX_HISTOGRAMS
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_formulas_behind_spaces_and_in_full_width(sign):
    for text in (f"{sign}1", f"  {sign}1", f"\u3000{sign}1", f"\xa0{sign}1"):
        assert files.as_text(text) == f"'{text}"
    assert files.as_text(f"a{sign}1") == f"a{sign}1"


def test_a_table_of_nothing_but_nan(tmp_path):
    table = _table()
    table.scores["vid_sme"][:] = np.nan
    assert metrics.oriented(table, "vid_sme").shape == (120,)
    found, html = _write(tmp_path, table, curves=[])
    assert "none: " in html and found["suspects"]["num_listed"] is None
    assert "could not be drawn" not in html
