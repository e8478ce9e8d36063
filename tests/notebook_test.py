"""What a notebook shows of a report, and what is said of one suspect."""

import html.parser
import sys

import numpy as np
import pytest

from report_test import NASTY, _table, _write
from vidsme_jax.base import AuditError
from vidsme_jax.evaluation import suspects
from vidsme_jax.report import audit_report, files, notebook
from vidsme_jax.report.notebook import Picture

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook") / "run"
    table = _table((22, 22, 22, 24), groups=("", NASTY))
    metrics, _ = _write(folder, table)
    return audit_report.AuditReport(
        workdir=folder, table=table, metrics=metrics, failures=(), digest="d" * 64
    )


class _Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.links = [], [], []
        self.feed(text)
        self.text = " ".join(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        assert {name for name, _ in attrs} <= {"href", "src", "alt"}

    def handle_data(self, data):
        self.text.append(data)


def test_what_is_shown_is_escaped_and_needs_no_network(report):
    shown = _Tags(report._repr_html_())
    allowed = {"div", "p", "strong", "span", "table", "thead", "tbody", "tr"}
    assert set(shown.tags) <= allowed | {"th", "td", "a"}
    assert not shown.links  # The page is no file that this notebook could open.
    assert report.metrics["statement"] in shown.text
    assert "vid_sme (headline)" in shown.text and "(exploratory)" in shown.text
    assert str(report.workdir / "report.html") in shown.text
    assert "http" not in report._repr_html_()


def test_the_page_is_a_link_where_a_notebook_can_follow(report, monkeypatch):
    monkeypatch.chdir(report.workdir.parent)
    assert _Tags(report._repr_html_()).links == ["run/report.html"]
    its = notebook.of_audit(report.metrics, 2, report.workdir.parent / 'a"b:#')
    assert _Tags(its).links == ["a%22b%3A%23/report.html"]
    assert "Not scored: 2 rows." in its


def test_a_figure_shows_itself(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    picture = Picture(name="x", title=NASTY, caption="<b>", shown='"seen"', path=path)
    assert picture._repr_png_() == PNG
    shown = _Tags(picture._repr_html_())
    assert shown.tags == ["figure", "img", "figcaption", "b"]
    assert shown.links[0].startswith("data:image/png;base64,")


def test_a_report_is_one_short_line(report):
    assert len(repr(report)) < 300 and "\n" not in repr(report)
    assert str(report.workdir) in repr(report)


def test_without_pandas_the_remedy_is_named(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AuditError, match=r"pip install pandas, or read .*parquet"):
        report.frame()
    assert report._repr_html_() and report.summary()


def test_with_pandas_the_frame_is_that_of_the_file(report, monkeypatch):
    class Columns:
        def __init__(self, table):
            self.table = table

        def to_pandas(self):
            return self.table.column_names, len(self.table)

    whole = files.scores_of
    monkeypatch.setattr(
        files, "scores_of", lambda table: (Columns(whole(table)[0]), ())
    )
    monkeypatch.setitem(sys.modules, "pandas", sys)
    new = audit_report.AuditReport(**{x: getattr(report, x) for x in _FIELDS})
    names, rows = new.frame()
    assert names[:4] == ["id", "video", "role", "group"] and "vid_sme" in names
    assert rows == len(report.table.id)


_FIELDS = ("workdir", "table", "metrics", "failures", "digest")


def test_a_row_by_its_id(report):
    name = report.table.id[3]
    row = report.clip(name)
    assert row["id"] == name and row["role"] == report.table.role[3]
    assert row["vid_sme"] == report.table.scores["vid_sme"][3]
    with pytest.raises(AuditError, match="no row of the scores has the id 'nothing'"):
        report.clip("nothing")


@pytest.mark.long
def test_a_suspect_has_what_the_report_says_of_it(report):
    its = report.metrics["suspects"]
    row = its["rows"][0]
    assert row["p_value"] is not None
    for name in (row["video"], row["ids"][0]):
        one = report.suspect(name)
        assert (one.p, one.adjusted_p) == (row["p_value"], row["adjusted_p_value"])
        assert one.listed == row["listed"] and one.score == row["score"]
        assert one.sources == its["calibration"]["sources"] == 24
        assert one.p >= one.smallest_p == 1 / 25 and one.suspects == 22
        assumed = suspects.ASSUMPTION.format(calibration="calibration clips")
        assert assumed in str(one) and "named before any score was seen" in str(one)
        assert ("is listed" in str(one)) == one.listed
        assert "<" not in one._repr_html_().removeprefix("<p>").removesuffix("</p>")


def _changed(report, **changes):
    metrics = report.metrics | {"suspects": report.metrics["suspects"] | changes}
    values = {x: getattr(report, x) for x in _FIELDS} | {"metrics": metrics}
    return audit_report.AuditReport(**values)


def test_a_suspect_that_was_not_tested_has_no_p(report):
    row = report.metrics["suspects"]["rows"][0]
    none = {"p_value": None, "adjusted_p_value": None, "listed": None}
    said = "1 suspect is ranked but not tested: the suspects are of 1 source."
    one = _changed(report, rows=[row | none], statement=said).suspect(row["ids"][0])
    assert one.p is None and one.listed is None
    assert said in str(one) and "p = " not in str(one)
    lacking = _changed(report, rows=[row | none | {"score": None}], statement=said)
    assert "it has no result" in str(lacking.suspect(row["ids"][0]))


def test_a_suspect_of_a_changed_question_is_exploratory(report):
    name = report.metrics["suspects"]["rows"][0]["video"]
    metrics = report.metrics | {"declaration": {"exploratory": True}}
    values = {x: getattr(report, x) for x in _FIELDS} | {"metrics": metrics}
    said = str(audit_report.AuditReport(**values).suspect(name))
    assert said.startswith("Changed after the results: exploratory. ")


@pytest.mark.long
def test_who_is_no_suspect_is_reported(report):
    member = report.table.id[np.flatnonzero(report.table.role == "members")[0]]
    with pytest.raises(AuditError, match="has the role members and is no suspect"):
        report.suspect(member)
    near = report.metrics["suspects"]["rows"][0]["ids"][0]
    with pytest.raises(AuditError, match="is no suspect of this audit; did you mean"):
        report.suspect(f"{near}x")
    with pytest.raises(AuditError, match="this audit has none"):
        _changed(report, rows=[]).suspect("x")
