"""The page in a browser without a screen: at two widths, sorted, in the dark, printed.

One start of the browser looks at the page in frames of both widths; their measures are
read from the document that it prints.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

import children
import pages

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
WIDTHS = (1280, 390)
PROBE = """<!DOCTYPE html><meta charset="utf-8"><style>body { margin: 0 }
iframe { border: 0; height: 4000px; display: block }</style>FRAMES
<pre id="found"></pre><script>
function seen(view, each) {
  var box = each.getBoundingClientRect();
  return box.width > 0 && box.height > 0 && box.right > 0;
}
function words(each) { return each.textContent.replace(/\\s+/g, " ").slice(0, 80); }
function measured(frame) {
  var view = frame.contentWindow, page = view.document, over = [], cut = [];
  page.querySelectorAll("details").forEach(function (x) { x.open = true; });
  var width = page.documentElement.clientWidth;
  page.querySelectorAll("body *").forEach(function (x) {
    if (x.closest("script, .skip") || !seen(view, x)) { return; }
    var box = x.getBoundingClientRect();
    if (box.right > width + 1) { over.push(x.tagName + " " + words(x)); }
    var inline = view.getComputedStyle(x).display === "inline";
    if (!inline && !x.closest("svg") && x.scrollWidth > x.clientWidth + 1) {
      cut.push(x.tagName + " " + x.scrollWidth + " > " + x.clientWidth + words(x));
    }
  });
  page.querySelectorAll("figure svg text").forEach(function (x) {
    var box = x.getBoundingClientRect();
    var all = x.closest("svg").getBoundingClientRect();
    if (box.left < all.left - 2 || box.right > all.right + 2 ||
        box.top < all.top - 2 || box.bottom > all.bottom + 2) {
      cut.push("svg text " + words(x));
    }
  });
  return {
    over: over, cut: cut, asked: frame.width, width: width,
    scroll: page.documentElement.scrollWidth,
    tall: page.documentElement.scrollHeight,
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    paper: view.getComputedStyle(page.body).backgroundColor,
    ink: view.getComputedStyle(page.body).color,
    line: view.getComputedStyle(page.querySelector("figure svg text")).fill
  };
}
function order(table, column) {
  return Array.from(table.tBodies).map(function (x) {
    return x.rows[0].cells[column].getAttribute("data-v");
  });
}
function sorted(frame) {
  var page = frame.contentDocument, found = {};
  var table = page.querySelector("#scores ~ details table.sortable");
  var heads = table.tHead.rows[0].cells;
  found.before = order(table, 1);
  heads[1].querySelector("button").click();
  found.down = order(table, 1);
  found.said = [heads[1].getAttribute("aria-sort")];
  heads[1].querySelector("button").click();
  found.up = order(table, 1);
  found.said.push(heads[1].getAttribute("aria-sort"));
  var last = heads.length - 2;
  heads[last].querySelector("button").click();
  found.p = order(table, last);
  found.said.push(heads[1].getAttribute("aria-sort"));
  var nested = table.querySelector("table.sortable");
  nested.tHead.rows[0].cells[1].querySelector("button").click();
  found.nested = Array.from(nested.tBodies[0].rows).map(function (x) {
    return x.cells[1].getAttribute("data-v");
  });
  found.kept = order(table, last);
  var rows = page.querySelectorAll("#suspects ~ div table.sortable")[0];
  rows.tHead.rows[0].cells[2].querySelector("button").click();
  rows.tHead.rows[0].cells[2].querySelector("button").click();
  found.suspects = Array.from(rows.tBodies[0].rows).map(function (x) {
    return x.cells[2].getAttribute("data-v");
  });
  return found;
}
window.addEventListener("load", function () {
  var frames = Array.from(document.querySelectorAll("iframe"));
  var found = { frames: frames.map(measured), sorted: sorted(frames[0]) };
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def _start(folder, *arguments):
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={folder / 'profile'}", "--disable-dev-shm-usage"),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, timeout=children.PATIENCE)
    return done.stdout.decode()


def _letters(text):
    """Leaves out what the ends of lines change: spaces and hyphens."""
    return re.sub(r"[\s-]+", "", text)


def _probed(folder, page, *flags):
    frames = "".join(
        f'<iframe width="{width}" srcdoc="{html.escape(page)}"></iframe>'
        for width in WIDTHS
    )
    probe = folder / "probe.html"
    probe.write_text(PROBE.replace("FRAMES", frames))
    dom = _start(
        folder,
        *("--window-size=1400,1000", "--virtual-time-budget=5000", *flags),
        *("--dump-dom", probe.as_uri()),
    )
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert text is not None and text[1], "the probe has not run"
    return json.loads(html.unescape(text[1]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        found, page = pages.write(folder / "run", patch)
    return folder, found, page


@pytest.fixture(scope="module")
def probed(made):
    return _probed(made[0], made[2])


@pytest.mark.parametrize("place", [0, 1], ids=map(str, WIDTHS))
def test_nothing_overflows_and_nothing_is_cut_off(probed, place):
    found = probed["frames"][place]
    assert found["width"] == WIDTHS[place]
    assert found["over"] == [] and found["cut"] == []
    assert found["scroll"] <= WIDTHS[place]
    assert not found["dark"] and found["paper"] == "rgb(255, 255, 255)"


def test_tables_are_sorted_by_a_button_in_their_heads(probed):
    found = probed["sorted"]
    before = [float(x) for x in found["before"]]
    assert [float(x) for x in found["down"]] == sorted(before, reverse=True)
    assert [float(x) for x in found["up"]] == sorted(before)
    assert found["said"] == ["descending", "ascending", "none"]
    assert found["p"] == sorted(found["p"], key=float) == found["kept"]
    nested = [float(x) for x in found["nested"]]
    assert nested == sorted(nested, reverse=True) and len(nested) == 2
    suspects = [float(x) for x in found["suspects"]]
    assert suspects == sorted(suspects) and len(suspects) == 30


def test_by_night_the_paper_is_dark(made):
    flag = "--blink-settings=preferredColorScheme=0"
    found = _probed(made[0], made[2], flag)["frames"][0]
    assert found["dark"]

    def brightness(text):
        return sum(map(int, re.findall(r"\d+", text)[:3])) / 3

    assert brightness(found["paper"]) < 40
    assert brightness(found["ink"]) > 200 and brightness(found["line"]) > 200


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="no pdftotext is installed")
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_in_print_nothing_is_folded_away(made, script):
    folder, found, page = made
    if not script:
        page = re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)
    path, printed = folder / "print.html", folder / "print.pdf"
    path.write_text(page)
    _start(folder, "--no-pdf-header-footer", f"--print-to-pdf={printed}", path.as_uri())
    text = subprocess.run(
        ["pdftotext", str(printed), "-"],
        capture_output=True,
        check=True,
        timeout=children.PATIENCE,
    ).stdout.decode()
    sheets = [_letters(sheet) for sheet in text.split("\f")[:-1]]
    for number, sheet in enumerate(sheets, 1):
        assert f"page{number}of{len(sheets)}" in sheet
    whole = "".join(sheets)
    tags = pages.Tags(page)
    for fold in tags.named("details"):  # Their last words are there.
        for cell in tags.inside(fold, "td")[-3:]:
            assert _letters(cell["text"]) in whole
    names = [x for c in found["comparisons"].values() for x in c["scores"]]
    assert all(whole.count(name) >= len(found["comparisons"]) for name in set(names))
    figures = tags.named("figure")
    assert len(figures) >= 12
    for name in ("Clips", "The whole corpus", "<b>day & night</b>", "Provenance"):
        (head,) = (x for x in tags.named("h2", "h3") if x["text"].strip() == name)
        behind = tags.found[tags.found.index(head) :]
        text = next(x for x in behind if x["tag"] in ("p", "h3", "h4") and x != head)
        parts = _letters(name), _letters(text["text"])[:10]
        assert any("".join(parts) in sheet for sheet in sheets), parts
    for figure in figures:
        head = next(x for x in tags.found if x["in"] is figure)
        (caption,) = tags.inside(figure, "figcaption")
        title, words = (_letters(x["text"]) for x in (head, caption))
        last = _letters(caption["text"].split()[-1])
        parts = title[:10], words[:10], last  # Two columns: whole lines may be mixed.
        assert any(all(x in sheet for x in parts) for sheet in sheets), parts
