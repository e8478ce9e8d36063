"""Every file of a work directory: complete, strict, escaped, self-contained."""

import base64
import dataclasses
import errno
import hashlib
import html.parser
import io
import json
import os
import re

import numpy as np
import pyarrow.csv
import pytest
from pyarrow import parquet

from vidsme_jax import report, scores
from vidsme_jax.base import Failure, ScoreTable
from vidsme_jax.data.left_out import LeftOut
from vidsme_jax.evaluation import groups, intervals, metrics, suspects, validity
from vidsme_jax.report import drawings, files, plots, summary
from vidsme_jax.report.page import CLAIM, RATES_OF_ERROR
from vidsme_jax.report.plots import ClipCurve

NASTY = "<script>alert('1')</script>"
COLUMNS = ["id", "video", "role", "group", "content", "n_rows"]
COLUMNS += ["flow_variance", "brightness_std", "q", "r"]


def _table(counts=(40, 40, 20, 20), *, groups=("",), larger_is_member=True, seed=0):
    """Members move more and score higher; names that want escaping."""
    rng = np.random.default_rng(seed)
    roles = ("members", "nonmembers", "suspects", "calibration")
    role = np.repeat(np.array(roles, object), counts)
    n = len(role)
    member = role == "members"
    phi = rng.lognormal(0, 1, n) * np.where(member, 4.0, 1.0)
    b = rng.gamma(2, 5, n)
    score = rng.normal(0, 1, n) + 1.5 * member
    names = [f"{NASTY}{i}" if i % 7 == 0 else f'clip_{i}, "x".mp4' for i in range(n)]
    return ScoreTable(
        id=np.array([f"item-{i}" for i in range(n)], object),
        video=np.array(names, object),
        role=role,
        group=np.array(groups, object)[np.arange(n) % len(groups)],
        cluster=np.array([f"hash{i}" for i in range(n)], object),
        num_rows=np.full(n, 64),
        flow_variance=phi,
        brightness_std=b,
        q=2 - (phi - phi.min()) / np.ptp(phi),
        r=1 + 0.1 * (b - b.min()) / np.ptp(b),
        scores={
            "vid_sme": score if larger_is_member else -score,
            "perplexity": rng.normal(0, 1e-3, n) + 1 / 3,
            "max_renyi_2_10": rng.normal(0, 1, n) + 0.5 * member,
        },
        traits={"pixels": {"luminance": rng.normal(size=n)}},
        larger_is_member=larger_is_member,
    )


PROCEDURE = validity.Procedure(number=199)


def _curve(label, thumbnails=True):
    rng = np.random.default_rng(1)
    natural = 6 + 0.3 * rng.normal(size=12).cumsum()
    pictures = rng.integers(0, 255, (6, 54, 96, 3), np.uint8) if thumbnails else None
    return ClipCurve(
        label=label,
        id=NASTY,
        role="members",
        score=1.25,
        frame_indices=tuple(range(0, 132, 11)),
        natural=natural,
        reversed=natural[::-1] + 0.1,
        thumbnails=pictures,
    )


def _write(folder, table, **changes):
    arguments = dict(
        table=table,
        evaluation=metrics.evaluate(table, (0.001, 0.05), 200, 0),
        suspects=suspects.suspects(table, "vid_sme", 0.05, PROCEDURE),
        curves=[_curve("most member-like"), _curve("least member-like")],
        run={
            "config": {"model.checkpoint": NASTY, "slices": ("video",)},
            "versions": {"source": "https://example.org"},
            "device": {"kernels": {"tower": "splash", "decoder": "cudnn"}},
            "utilisation": {"waited for": {"storing": 0.25}},
        },
        failures=[Failure(id="bad", video=NASTY, stage="decode", cause="it is <cut>")],
        warnings={NASTY: ["truncated & short"]},
        left_out=[
            LeftOut(source=NASTY, role="members", count=8, what="rows", why="old <b>"),
            LeftOut(source="", role="", count=3, what="files", why="partial"),
        ],
        notes=["3 videos are in two roles: <x>"],
        comparison="all",
        headline="vid_sme",
        descriptions={"vid_sme": f"the headline {NASTY}"},
    )
    arguments |= changes
    given = arguments["evaluation"], PROCEDURE, arguments["headline"]
    arguments["judged"] = validity.judge(table, *given)
    beside = {k: arguments.pop(k) for k in ("curves", "descriptions")}
    found, _ = report.write(folder, report.Results(**arguments), **beside)
    return found, (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "deep" / "folder"
    table = _table(groups=("", "$\\frac{$", "<b>day & night</b>"))
    found, page = _write(folder, table)
    return folder, table, found, page


class _Page(html.parser.HTMLParser):
    """Collects tags, what they refer to and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.text = [], [], []
        self.attributes = []
        self.feed(text)
        self.words = re.sub(r"\s+", " ", " ".join(self.text))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in ("href", "src", "srcset")]
        self.attributes += [k for k, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


def test_every_file_is_there(written):
    folder, *_ = written
    assert {p.name for p in folder.iterdir()} == {
        *("scores.parquet", "scores.csv", "metrics.json", "failures.jsonl"),
        *("report.html", "figures"),
    }
    stems = {
        *("roc-0-all", "roc-log-0-all", "scores", "orders"),
        *("roc-2-b-day-night-b", "roc-log-2-b-day-night-b"),
        *("roc-1-frac", "roc-log-1-frac"),
        *("clip-0-most-member-like", "clip-1-least-member-like"),
        *("auc-0-all", "auc-1-frac", "auc-2-b-day-night-b"),
        *("growth-0-all", "growth-1-frac", "growth-2-b-day-night-b"),
    }
    stems |= {"growth-suspects"}
    found = {p.name for p in (folder / "figures").iterdir()}
    assert found == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")}


def test_metrics_are_strict_json(written):
    folder, _, found, _ = written

    def refuse(constant):
        raise AssertionError(constant)

    text = (folder / "metrics.json").read_text()
    read = json.loads(text, parse_constant=refuse)
    assert read == json.loads(json.dumps(found))
    assert read["headline"] == "vid_sme"
    assert read["counts"]["failures"] == 1
    assert read["warnings"] == {NASTY: ["truncated & short"]}
    assert read["kernels"] == {"tower": "splash", "decoder": "cudnn"}
    assert set(read) >= {"verdict", "statement", "comparisons", "suspects"}
    assert (
        read["verdict"] == read["comparisons"]["all"]["verdicts"]["vid_sme"]["verdict"]
    )
    assert read["comparisons"]["all"]["scores"]["vid_sme"]["auc"]["value"] > 0.7


def test_scores_keep_every_digit(written):
    folder, table, *_ = written
    exact = parquet.read_table(folder / "scores.parquet")
    text = pyarrow.csv.read_csv(folder / "scores.csv")
    for rows in (exact, text):
        assert rows.column_names == [*COLUMNS, *table.scores]
        assert rows["video"].to_pylist() == table.video.tolist()
        for name, values in table.scores.items():
            np.testing.assert_array_equal(rows[name].to_numpy(), values)
        np.testing.assert_array_equal(rows["q"].to_numpy(), table.q)


@pytest.mark.long
def test_failures(written, tmp_path):
    folder, table, *_ = written
    lines = (folder / "failures.jsonl").read_text().splitlines()
    expected = {"id": "bad", "video": NASTY, "stage": "decode", "cause": "it is <cut>"}
    assert [json.loads(line) for line in lines] == [expected]
    found, page = _write(tmp_path, table, failures=[], left_out=[], curves=[])
    assert found["left_out"] == [] and "Left out of the sources" not in page
    assert (tmp_path / "failures.jsonl").read_text() == ""
    assert "Every row has its scores." in page


def test_what_was_left_out_of_the_sources_is_said(written):
    *_, found, page = written
    assert found["left_out"] == [
        {
            "source": NASTY,
            "role": "members",
            "count": 8,
            "what": "rows",
            "why": "old <b>",
        },
        {"source": "", "role": "", "count": 3, "what": "files", "why": "partial"},
    ]
    assert found["notes"] == ["3 videos are in two roles: <x>"]
    words = _Page(page).words
    assert "Of the corpus: 3 videos are in two roles: <x>" in words
    assert "Left out of the sources before anything was scored:" in words
    assert f"{NASTY} members 8 rows old <b> all any 3 files partial" in words


def test_the_page_needs_nothing_else(written):
    *_, page = written
    parsed = _Page(page)
    assert "data:image/jpeg;base64," in page
    inside = "data:image/jpeg;base64,", "#"
    assert all(x.startswith(inside) for x in parsed.references)
    assert not {"link", "iframe", "object", "form"} & set(parsed.tags)
    assert "@import" not in page and set(re.findall(r"url\(.", page)) <= {"url(#"}
    # One script and one style, by their digests; no attribute is either.
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
        assert parsed.tags.count(tag) == 1
    assert not [a for a in parsed.attributes if a == "style" or a.startswith("on")]
    assert len(page) < 5e6
    assert 'name="viewport"' in page


def test_every_string_is_escaped(written):
    *_, page = written
    assert page.count("<script") == 1 and "<b>day" not in page and "<cut>" not in page
    text = _Page(page).words
    for shown in (NASTY, "it is <cut>", "truncated & short", "<b>day & night</b>"):
        assert shown in text


def test_the_verdict_comes_first_and_says_it_in_words(written):
    *_, found, page = written
    text = _Page(page).words
    compared = found["comparisons"]
    assert set(compared) == {"all", "$\\frac{$", "<b>day & night</b>"}
    heads = "What this report claims", "Do the sets differ without the model?"
    heads += "The headline score all:", "All scores", "Figures", "Suspects "
    heads += "Failures and warnings", "Settings and fingerprints", "Glossary"
    places = [text.index(found["statement"]), *map(text.rindex, heads)]
    assert places == sorted(places)
    assert all(each["blind"]["statement"] in text for each in compared.values())
    assert "Difference found" in text
    assert "Without any model members and non-members differ: motion, AUC 0." in text
    assert "in at most 5 % of audits" in text


def test_the_page_claims_no_more_than_it_may(written):
    *_, found, page = written
    text = _Page(page).words
    assert found["statement"] in text
    assert CLAIM in text and "No score of one video proves" in text
    assert "was used for training" not in text
    assert "refused: a false-positive rate of 0.1 % needs at least 1000" in text
    assert "larger = member" in text and "lower = member" not in text
    auc = found["comparisons"]["all"]["scores"]["vid_sme"]["auc"]
    assert f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in text
    assert "exchangeable" in text
    assert found["suspects"]["exchangeable"]["statement"] in text
    assert found["comparisons"]["all"]["verdicts"]["vid_sme"]["statement"] in text
    assert "before the results" not in text and "hold for these videos" not in text


def test_the_page_shows_kernels_and_utilisation(written):
    *_, page = written
    assert "kernels tower splash decoder cudnn" in _Page(page).words
    assert "utilisation waited for storing 0.25" in _Page(page).words


@pytest.mark.long
def test_official_says_lower_is_member(tmp_path):
    _, page = _write(tmp_path, _table(larger_is_member=False))
    text = _Page(page).words
    assert "lower = member" in text and "larger = member" not in text
    assert "As released: TPR at FPR < 5 %" in text


def test_suspects_only_without_thumbnails(tmp_path):
    table = _table((0, 0, 6, 0))
    curves = [_curve("most member-like", thumbnails=False)]
    found, page = _write(tmp_path, table, curves=curves)
    text = _Page(page).words
    assert found["comparisons"] == {}
    assert found["verdict"] == "not_tested"
    assert "Not tested There are no two sets to compare" in text
    assert "6 suspects are ranked but not tested" in text
    assert "Its frames are not shown." in text
    assert "All scores" not in text
    assert not list((tmp_path / "figures").glob("roc*"))


def test_scores_that_are_missing_or_constant(tmp_path):
    table = _table()
    table.scores["perplexity"] = np.full(120, np.nan)
    table.scores["vid_sme"] = np.zeros(120)
    found, page = _write(tmp_path, table)
    assert found["verdict"] == "not_tested"
    assert "all of its values are equal" in found["statement"]
    assert "80 of the scores are not finite" in page


def test_the_score_next_to_the_headline_and_the_reference_have_a_sentence(tmp_path):
    table = _table((40, 40, 0, 0), groups=("", "<b>day & night</b>"))
    rng = np.random.default_rng(3)
    own = rng.normal(0, 1, 80)
    own[[0, 50, 51]] = np.nan
    names = "response_loss", "response_loss_sum"
    calibrated = table.scores["vid_sme"] - own
    table.scores.update(dict.fromkeys(names, table.scores["vid_sme"] + 1))
    table.scores["response_loss_ref"] = calibrated
    # Of two rows the reference has scored the video and not the text.
    of_video = np.where(np.isin(np.arange(80), [50, 51]), 0.0, own)
    table.reference.update({"response_loss": own, "vid_sme": of_video})
    table = dataclasses.replace(table, num_response_rows=np.arange(80))
    headline, beside = "response_loss_ref", scores.Beside("vid_sme", "control")
    declared = (headline, "response_loss", "vid_sme")
    found, page = _write(
        tmp_path,
        table,
        evaluation=metrics.evaluate(table, (0.05,), 200, 0, declared),
        suspects=suspects.suspects(table, headline, 0.05, PROCEDURE),
        headline=headline,
        beside=beside,
        curves=[],
        run={"reference": {"causes": ["a.mp4: signals: it is <cut>"]}},
    )
    text = _Page(page).words
    statement = found["beside"]["statement"]
    start = "As control: the score vid_sme ranks "
    assert statement.startswith(start) and statement in text
    assert statement.endswith(".") and ". " not in statement
    reference = found["reference"]
    assert reference["score"] == "response_loss"
    assert (reference["rows"], reference["lacking"]) == (80, 3)
    assert "does not separate members from non-members" in reference["statement"]
    assert reference["statement"] in text
    assert "3 of 80 rows lack scores that need the reference model's" in text
    assert "a.mp4: signals: it is <cut>" in text
    assert "Rows without the score 1 of members, 2 of non-members" in text
    assert "equal on every row: response_loss_sum" in text
    auc = found["comparisons"]["all"]["reference"]["response_loss"]["auc"]
    assert f"AUC of the reference model {auc['value']:.3f} [" in text
    exact = parquet.read_table(tmp_path / "scores.parquet")
    assert exact["n_response_rows"].to_pylist() == list(range(80))
    names = exact.column_names
    assert names.index("n_response_rows") == names.index("n_rows") + 1
    assert "response_loss_sum" in exact.column_names
    which = groups.comparisons(table)["all"]
    drawn = drawings.rocs(table, "all", "0-all", which, {}, headline, "vid_sme")
    texts = drawn[0].figure.legends[0].get_texts()
    labels = [text.get_text().split(",")[0] for text in texts]
    band = "95 % band of the first"
    assert labels == ["chance", "response_loss_ref", band, "vid_sme"]


def test_a_clip_of_one_frame_and_values_that_are_not_finite():
    curve = dataclasses.replace(
        _curve("most"),
        frame_indices=(0,),
        natural=np.array([np.nan]),
        reversed=np.array([1.0]),
        thumbnails=np.zeros((1, 8, 8, 3), np.uint8),
    )
    figure = plots.clip_curve(curve)
    figure.savefig(io.BytesIO(), format="png")
    labels = [text for text in figure.axes[0].texts if text.get_text()]
    assert [text.get_text() for text in labels] == ["natural order", "reversed"]
    assert all(np.isfinite(text.get_position()[1]) for text in labels)


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
    _write(tmp_path, _table())
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    evaluation = metrics.evaluate(_table(), (0.05,), 100, 0)
    evaluation["comparisons"]["all"]["scores"]["vid_sme"]["auc"]["low"] = float("nan")
    with pytest.raises(ValueError):
        _write(tmp_path, _table(), evaluation=evaluation)
    after = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert before.keys() == after.keys()
    name = tmp_path / "metrics.json"
    assert after[name] == before[name]


def test_an_end_next_to_guessing_is_not_rounded_onto_it():
    result = {"value": 0.7, "low": 0.503, "high": 0.9}
    assert intervals.in_words(result) == "0.700 [0.503, 0.900]"
    assert intervals.in_words(result | {"low": 0.51}) == "0.70 [0.51, 0.90]"
    assert intervals.in_words(result | {"low": None}) == "0.70"
    assert intervals.in_words({"value": None}) == intervals.in_words(None) == "none"


def test_labels_that_a_font_cannot_draw():
    assert plots.plain("日本\n$x$") == "\N{REPLACEMENT CHARACTER}" * 3 + "$x$"
    assert len(plots.plain("a" * 100)) == 28


def test_labels_are_not_formulas_and_values_may_be_missing():
    line = plots.Curve("$\\frac{$", np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    plots.roc([line], 10, logarithmic=True).savefig(io.BytesIO(), format="png")
    values = np.array([0.0, np.nan, 1.0, np.inf])
    series = [plots.Series("$\\frac{$", "members", np.ones(4, bool))]
    figure = plots.histograms({"$\\frac{$": values}, series)
    figure.savefig(io.BytesIO(), format="png")
    assert np.isfinite(figure.axes[0].get_xlim()).all()


def test_a_long_curve_is_thinned_densely_near_zero():
    kept = plots._thinned(10**6)
    assert len(kept) <= 1000 and kept[0] == 0 and kept[-1] == 10**6 - 1
    assert np.sum(kept < 10**3) > 100
    assert plots._thinned(10).tolist() == list(range(10))


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    def failing(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    path.write_text("before")
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "after")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


@pytest.mark.long
def test_a_large_corpus_gives_a_small_page(tmp_path):
    table = _table((2500, 2500, 300, 700))
    table.scores.pop("max_renyi_2_10")
    _, page = _write(tmp_path, table)
    assert len(page) < 2e6
    assert len(re.findall(r'<td data-label="Listed">(yes|no)</td>', page)) == 200
    assert "The first 200 of 300; metrics.json has all." in page
    assert all(p.stat().st_size < 3e5 for p in (tmp_path / "figures").iterdir())


@pytest.mark.long
def test_rates_of_error_are_those_of_what_the_report_has(tmp_path):
    of_set = "a set without any used video is found in at most 5 % of audits, and of"
    for counts, verdicts, tested in (
        ((40, 40, 20, 20), True, True),
        ((40, 40, 0, 0), True, False),
        ((0, 0, 20, 20), False, True),
        ((0, 0, 6, 0), False, False),
        ((19, 40, 0, 0), False, False),
    ):
        _, page = _write(tmp_path, _table(counts), curves=[])
        text = _Page(page).words
        assert (RATES_OF_ERROR in text) == verdicts, counts
        assert (of_set in text) == tested, counts


def test_the_page_and_the_terminal_of_suspects(tmp_path):
    table = _table((0, 0, 20, 20))
    table.traits["files"] = {"bytes": np.repeat([1.0, 9.0], 20)}
    its = suspects.suspects(table, "vid_sme", 0.05, PROCEDURE)
    its["set"]["inference"] = {"p": 1.2e-7, "scores": 3, "sources": [10, 10]}
    its["set"]["p"] = 0.998
    found, page = _write(tmp_path, table, suspects=its, curves=[])
    text = _Page(page).words
    assert "and 10 of the others: p < 0.0001. The weights" in text
    assert "The files of suspects and calibration clips differ in what" in text
    said = summary.of_audit(found, 0, tmp_path)
    assert "set p = 1, " in said and "0.998" not in said


def test_a_role_is_missed_only_where_its_partner_is_there(tmp_path):
    """And the verdict's section says once what the verdict is."""
    found, page = _write(tmp_path, _table((0, 0, 20, 20)), curves=[])
    text = _Page(page).words
    assert "no members" not in text and "no non-members" not in text
    section = page.partition('id="verdict"')[2].partition("</section>")[0]
    assert section.count(found["suspects"]["set"]["statement"]) == 1
    _, page = _write(tmp_path, _table((20, 20, 20, 0)), curves=[])
    text = _Page(page).words
    assert "no calibration clips: known non-members" in text
