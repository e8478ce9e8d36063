"""Figures inside a page: small, the same bytes each time, harmless, in its colours."""

import io
import re

import numpy as np
import pytest

from score_tables import table as scores_of
from vidsme_jax.report import cards, inline, overview, plots, representatives

HOSTILE = "</svg><script>alert(1)</script>&\"'"


def _drawn(label=HOSTILE, number=3, logarithmic=True):
    fpr = np.linspace(0, 1, number)
    rates = np.linspace(0.05, 1, 20)
    band = plots.Band(rates, rates**2, np.sqrt(rates))
    points = ((0.5, 0.6, 0.5, 0.7), (0.9, 0.0, None, None))
    curve = plots.Curve(label, fpr, np.sqrt(fpr), band, points)
    figure = plots.roc([curve], 20, logarithmic=logarithmic)
    figure.savefig(io.BytesIO(), format="png")
    figure.set_layout_engine("none")
    return figure


def test_text_of_others_stays_text():
    svg = inline.svg(_drawn(), "roc-0", HOSTILE, HOSTILE).decode()
    assert "<script" not in svg and svg.count("</svg>") == 1
    assert svg.count("&lt;script&gt;") == 3  # Title, description and legend.
    assert not re.search(r"<[^>]* style=|<style|xlink|xmlns|<metadata|<!--", svg)


def test_the_same_figure_gives_the_same_bytes_and_ids_of_its_own():
    one, again = (inline.svg(_drawn(), "a", "t", "d") for _ in range(2))
    assert one == again
    ids = re.findall(r'id="(.*?)"', one.decode())
    assert len(ids) == len(set(ids)) and all(each.startswith("a-") for each in ids)
    referred = re.findall(r'href="#(.*?)"|url\(#(.*?)\)', one.decode())
    assert {first or second for first, second in referred} <= set(ids)


def test_colours_are_the_pages_and_nothing_is_large():
    svg = inline.svg(_drawn("s", 100_000, False), "a", "t", "d").decode()
    colours = set(re.findall(r'(?:fill|stroke)="(.*?)"', svg))
    assert colours <= {"none", *inline.COLOURS.values()}
    assert "var(--first)" in colours and len(svg) < 40_000
    assert not re.search(r"\d\.\d\d", re.sub("opacity.*?>|stroke-.*?>", "", svg))


def test_bars_and_points_out_of_the_usual_are_drawn():
    auc = {"value": 1.0, "low": None, "high": None}
    none = {"value": 0.0, "low": 0.0, "high": 0.1}
    shown = [overview.Bar(HOSTILE, auc, "headline"), overview.Bar("$\\frac{$", none)]
    figures = [
        overview.bars(shown, {"without any model": 0.9, "reference model": 0.5}),
        overview.bars(shown[:1], {}),
        overview.p_by_number([(7, 1.0)], 0.05, "suspects"),
        overview.p_by_number([(1, 0.5), (2, 1e-7)], 0.05, "suspects"),
    ]
    for figure in figures:
        assert inline.svg(figure, "a", "t", "d").startswith(b"<svg ")


def test_families_are_of_one_statistic_and_a_rule_chooses_one():
    names = ["min_renyi_1_0", "mean_renyi_1", "unknown", "mean_renyi_1_ref"]
    names += ["response_mean_renyi_1", "max_renyi_1_0"]
    found = representatives.of_scores(names, True, ["unknown"])
    assert found[0] == representatives.Family("unknown", ())
    others = "min_renyi_1_0", "max_renyi_1_0"
    assert found[1] == representatives.Family("mean_renyi_1", others)
    assert [each.score for each in found[2:]] == names[3:5]
    official = representatives.of_scores(["ppl", "Min_0% Prob", "Min_5.0% Prob"], False)
    assert [len(each.others) for each in official] == [0, 1]


@pytest.mark.parametrize("larger", [True, False])
def test_a_place_counts_those_that_are_less_member_like(larger):
    values = np.array([2.0, 1.0, 2.0, 3.0, 0.0, np.nan])
    role = ["suspects", *["calibration"] * 5]
    signed = values if larger else -values
    its = scores_of(signed, role, larger_is_member=larger)
    curve = plots.ClipCurve(
        label="most",
        id="id0",
        role="suspects",
        score=2.0,
        frame_indices=(0,),
        natural=np.zeros(1),
        reversed=None,
        thumbnails=None,
    )
    rows = [{"ids": ["id0"], "p_value": 0.5, "adjusted_p_value": 0.5, "listed": False}]
    (card,) = cards.of_curves([curve], its, "s", "", {"rows": rows})
    assert card.places == [cards.Place("s", float(signed[0]), 2, 4)]  # A tie is none.
    assert card.statement() == "More member-like by s than 2 of 4 calibration clips."
    assert card.tested == "Its video: p = 0.5, adjusted 0.5: not listed."
    other = scores_of([1.0], ["members"])
    (card,) = cards.of_curves([curve], other, "s", "", {"rows": []})
    assert "no clips known not to be members" in card.statement()
    assert card.role == "suspect"
