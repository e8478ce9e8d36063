"""The page for a screen reader, in print and in the dark: by its markup alone."""

import itertools
import pathlib
import re

import pytest

import pages
from vidsme_jax.base import Failure
from vidsme_jax.report import page
from vidsme_jax.scores import EXACT

PAGE = pathlib.Path(page.__file__).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        found, html = pages.write(tmp_path_factory.mktemp("page"), patch)
    return found, html, pages.Tags(html)


@pytest.mark.long
def test_what_is_published_stands_above_any_score(made):
    found, _, tags = made
    text = re.sub(r"\s+", " ", tags.named("main")[0]["text"])
    order = [
        "Named in lists of training data",
        pages.EXTRA["published"]["statement"],
        found["statement"],
        "Gate: exceeded",
        "Verdict by comparison",
        "Scope: which attacks were run",
    ]
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert "canaries none were planted" in text
    assert "AUC 0.6 exceeded the AUC's" in text
    assert "p 0.01 not evaluable nothing" in text


def test_the_header_says_what_was_audited_and_what_was_not(made):
    _, _, tags = made
    (header,) = tags.named("header")
    text = re.sub(r"\s+", " ", header["text"])
    for said in (
        "Model /models/<script>alert('1')</script>",
        f"Its fingerprint {'f' * 64}",
        "Date 2026-11-30T06:37:02Z",
        "Command vidsme audit --config",
        "Version 0.1.0",
        "Members 40 rows of 40 videos from 40 sources: a-name",
        "tfds:set/train, c.csv and 1 more",
        "not scored: questions about the videos, answers to questions",
        "all but 8 frames of each clip, and sound",
        "no reference model",
        "no positive control",
        "not compared without the model: text, container, files, dates, scene content",
        "1 row failed and have no scores",
        "11 rows or files of the sources were left out beforehand",
    ):
        assert said in text, said
    assert "published lists" not in text  # They were searched.


def test_what_is_not_there_is_not_shown(tmp_path, monkeypatch):
    table = pages.table((40, 40, 0, 0), groups=("",))
    none = dict.fromkeys(("published", "gate"))
    _, html = pages.write(tmp_path, monkeypatch, table=table, extra=none, run={})
    tags = pages.Tags(html)
    text = re.sub(r"\s+", " ", tags.named("body")[0]["text"])
    for absent in ("Gate:", "Named in lists", "None", "Suspects "):
        assert absent not in text, absent
    assert "published lists of training data were not searched" in text
    for said in ("Date not recorded", "Command not recorded", "Model not recorded"):
        assert said in text


def test_headings_are_in_order(made):
    _, _, tags = made
    levels = [int(x["tag"][1]) for x in tags.named("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(x["text"].strip() for x in tags.named("h1", "h2", "h3", "h4"))


def test_ids_are_unique_and_what_is_referred_to_is_there(made):
    _, _, tags = made
    ids = [x["attrs"]["id"] for x in tags.found if "id" in x["attrs"]]
    assert len(ids) == len(set(ids)) > 20
    referred = set()
    for each in tags.found:
        attrs = each["attrs"]
        for key in ("aria-labelledby", "aria-describedby"):
            referred |= set(attrs.get(key, "").split())
        if attrs.get("href", "").startswith("#"):
            referred.add(attrs["href"][1:])
        referred |= set(
            re.findall(r"url\(#(.+?)\)", " ".join(map(str, attrs.values())))
        )
    assert referred <= set(ids)


def test_every_table_has_a_caption_and_heads(made):
    _, _, tags = made
    tables = [x for x in tags.named("table") if _depth(x, "table") == 0]
    assert len(tables) > 10
    for each in tables:
        nested = each["attrs"]["class"] == "tree" and _depth(each, "tr")
        assert tags.inside(each, "caption") or nested, each["text"][:80]
    assert all(x["attrs"].get("scope") in ("row", "col") for x in tags.named("th"))
    for row in tags.named("tr"):
        cells = [x for x in tags.named("th", "td") if x["in"] is row]
        lone = len(cells) == 1 and "colspan" in cells[0]["attrs"]
        assert lone or cells[0]["tag"] == "th", row["text"]


def _depth(each, tag):
    found, each = 0, each["in"]
    while each is not None:
        found, each = found + (each["tag"] == tag), each["in"]
    return found


def test_every_figure_has_a_name_and_words(made):
    _, _, tags = made
    figures = tags.named("figure")
    assert len(figures) >= 12
    for each in figures:
        (drawn,) = tags.inside(each, "svg")
        assert drawn["attrs"]["role"] == "img"
        (title,) = tags.inside(drawn, "title")
        (desc,) = tags.inside(drawn, "desc")
        assert title["text"].strip() and len(desc["text"]) > 20
        assert drawn["attrs"]["aria-labelledby"] == title["attrs"]["id"]
        (caption,) = tags.inside(each, "figcaption")
        assert len(caption["text"]) > 20
    assert all(x["attrs"]["alt"] for x in tags.named("img"))
    texts = " ".join(x["text"] for x in tags.named("desc"))
    assert re.search(r"vid_sme 0\.\d\d \[0\.\d\d, 0\.\d\d\]", texts)
    assert re.search(r"By the number of suspects: 1: p = ", texts)


def test_no_colour_alone(made):
    """Every box has a word in its first line, every line of a figure a name."""
    _, _, tags = made
    boxes = [x for x in tags.found if "box" in x["attrs"].get("class", "").split()]
    assert len(boxes) >= 6
    for box in boxes:
        marks = [
            x
            for x in tags.found
            if x["attrs"].get("class") == "mark" and tags.within(x, box)
        ]
        assert marks and marks[0]["text"].strip(), box["text"]
    colours = {
        value
        for svg in tags.named("svg")
        for x in tags.found
        if tags.within(x, svg)
        for key, value in x["attrs"].items()
        if key in ("fill", "stroke")
    }
    assert all(c == "none" or c.startswith("var(--") for c in colours), colours


def test_landmarks(made):
    _, _, tags = made
    assert [len(tags.named(x)) for x in ("main", "header", "nav")] == [1, 1, 1]
    assert tags.named("html")[0]["attrs"]["lang"] == "en"
    skip = next(x for x in tags.named("a"))
    assert skip["attrs"] == {"class": "skip", "href": "#verdict"}
    for each in tags.named("section"):
        assert each["attrs"]["aria-labelledby"]


def _palettes():
    css = (PAGE / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in blocks)
    assert light.keys() == dark.keys()
    return light, dark


def _luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_enough_by_day_and_by_night():
    for palette in _palettes():
        for ink in ("ink", "soft", "link", "first", "second", "third", "fourth"):
            for paper in ("paper", "box", "mark"):
                bright, dim = sorted(
                    (_luminance(palette[x]) for x in (ink, paper)), reverse=True
                )
                contrast = (bright + 0.05) / (dim + 0.05)
                assert contrast >= 4.5, (ink, paper, palette[ink], contrast)
        lines = _luminance(palette["pale"]), _luminance(palette["paper"])
        assert (max(lines) + 0.05) / (min(lines) + 0.05) >= 3


def test_one_row_a_family_and_the_rest_folded(made):
    found, _, tags = made
    outer = next(
        x for x in tags.named("table") if "sortable" in x["attrs"].get("class", "")
    )
    bodies = [x for x in tags.named("tbody") if x["in"] is outer]
    firsts = [
        next(x for x in tags.named("th") if tags.within(x, body))["text"].split()[0]
        for body in bodies
    ]
    assert firsts == ["vid_sme", "perplexity", "max_renyi_2_10"]
    (more,) = tags.inside(bodies[0], "details")
    assert "2 more like vid_sme" in more["text"]
    assert "vid_sme_max_0" in more["text"] and "vid_sme_mean" in more["text"]
    assert "equal on every row: min_k_prob_5" in bodies[1]["text"]
    columns = [x for x in tags.named("th") if x["attrs"]["scope"] == "col"]
    heads = [x["text"].strip() for x in columns]
    # No score can have a rate at 0.1 % of 40 sources: one sentence, and no column.
    assert "TPR at FPR ≤ 5 %" in heads and "TPR at FPR ≤ 0.1 %" not in heads
    shown = {score for x in found["comparisons"].values() for score in x["scores"]}
    rows = {x["text"].split()[0] for x in tags.inside(outer, "th")}
    assert shown <= rows


def test_a_card_says_where_the_clip_stands(made):
    _, _, tags = made
    cards = tags.named("article")
    assert len(cards) == 2
    said = re.sub(r"\s+", " ", cards[0]["text"])
    assert "The most member-like clip (member)" in said
    assert re.search(r"More member-like by vid_sme than \d+ of 25 calibration", said)
    assert "perplexity none not known" in said
    assert len(tags.inside(cards[0], "img")) == 6
    assert "not a p-value" in tags.named("main")[0]["text"]


@pytest.mark.long
def test_of_100_000_rows_the_page_is_below_5_mb(made):
    """Suspects, groups, scores and hits as many and as long as they can be."""
    found, *_ = made
    one = found["comparisons"]["all"]
    every = {name: one["scores"]["vid_sme"] for name in EXACT.names()}
    verdicts = dict.fromkeys(every, one["verdicts"]["vid_sme"])
    whole = one | {"scores": every, "verdicts": verdicts}
    names = [f"group {k} {pages.LONG}" for k in range(50)]
    its = found["suspects"]
    row = its["rows"][0]
    rows = [{**row, "video": f"{pages.LONG}{k}"} for k in range(100_000)]
    groups = [{**its["set"]["groups"][0], "group": name} for name in names]
    several = its | {"rows": rows, "set": its["set"] | {"groups": groups}}
    hits = [
        {**pages.EXTRA["published"]["hits"][0], "entry": pages.LONG}
        for _ in range(100_000)
    ]
    large = found | {
        "comparisons": {"all": whole} | dict.fromkeys(names, whole),
        "suspects": several,
        "published": pages.EXTRA["published"] | {"hits": hits},
    }
    cause = dict.fromkeys(("id", "video", "stage", "cause"), pages.LONG)
    html = page.render(
        large,
        pathlib.Path("run"),
        figures=[],
        run=pages.RUN,
        failures=[Failure(**cause)] * 100_000,
        descriptions=dict.fromkeys(every, "what it averages, in one line"),
    )
    assert 1e6 < len(html.encode()) < 5e6
    assert "of 100000; metrics.json has all." in html
    assert html.rstrip().endswith("</html>")
