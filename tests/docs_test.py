"""README and docs/ say what runs: every `sh` and `python` block does, in order."""

import json
import os
import pathlib
import re
import sys
import tomllib

import pytest

import children

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


NOTEBOOK = ROOT / "docs" / "notebook.md"
LOG = ROOT / "docs" / "log.md"  # Of results alone.
# Runs cells as a notebook does: one after the other, and the last value of each shows.
CELLS = """
import ast, json, sys
space = {}
for cell in json.loads(sys.argv[1]):
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
        if value is not None:
            print("shown:", repr(value)[:200], len(value._repr_html_()) > 200)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder as a clone, whose runs/ the pages share as a reader's would."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "vidsme_jax"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.long
def test_the_notebook_runs(clone):
    text = NOTEBOOK.read_text()
    cells = [cell for language, cell in BLOCK.findall(text) if language == "python"]
    assert len(cells) > 5 and "```sh" not in text
    done = children.run(
        [sys.executable, "-c", CELLS, json.dumps(cells)],
        cwd=clone,
        env=os.environ | {"XLA_FLAGS": children.QUICK},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    shown = [x for x in done.stdout.splitlines() if x.startswith("shown: ")]
    assert len(shown) == 2 and all(x.endswith(" True") for x in shown), shown
    # What the page says was printed: but for last digits, which machines differ in.
    for line in ("it has no p-value: 1 suspect is ranked but not tested", "p = "):
        assert line in done.stdout and line in text


RUN = [page for page in PAGES if page not in (NOTEBOOK, LOG)]


@pytest.mark.long
@pytest.mark.parametrize("page", (README, *RUN), ids=lambda page: page.stem)
def test_blocks_run(page, clone):
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    for language, text in blocks:
        shell = ["bash", "-euo", "pipefail", "-c", text]
        done = children.run(
            shell if language == "sh" else [sys.executable, "-c", text],
            cwd=clone,
            env=os.environ | {"PATH": path, "XLA_FLAGS": children.QUICK},
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert done.stdout


def test_tests_that_are_named_are_there():
    """`tests/x.py::test_y`, and `::test_z` of the file that was named last."""
    pages = [README, ROOT / "SECURITY.md", *PAGES, ROOT / "benchmarks" / "README.md"]
    named = re.compile(r"`(tests/[a-z\d_/]+\.py)?(?:::(\w+))?[`\[]")
    count = 0
    for page in pages:
        path, text = "", ""
        for found, test in named.findall(page.read_text()):
            if found and found != path:
                path, text = found, (ROOT / found).read_text()
            if test:
                assert f"def {test}(" in text, f"{page.name}: {path}::{test}"
                count += 1
    assert count > 50


def test_readme_and_the_index_name_every_page():
    readme, index = README.read_text(), (ROOT / "docs" / "index.md").read_text()
    for page in PAGES:
        assert f"docs/{page.name}" in readme
        assert f"]({page.name})" in index or page.name == "index.md"


LINK = re.compile(r"\]\(((?!https?:)[^)#]*)(?:#([^)]*))?\)")
OTHERS = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")


def _anchors(page: pathlib.Path) -> set[str]:
    """The names that the headings of a page have as links."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "page",
    [README, *PAGES, *(ROOT / name for name in OTHERS)],
    ids=lambda page: page.stem,
)
def test_links_lead_to_files_and_headings(page):
    for file, anchor in LINK.findall(page.read_text()):
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), file
        assert not anchor or anchor in _anchors(there), f"{file}#{anchor}"


def test_tests_that_are_skipped_say_how_they_run():
    """The reason names an extra, and CONTRIBUTING has its environment and the file."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras, guide = about["project"]["optional-dependencies"], ROOT / "CONTRIBUTING.md"
    rows = [x for x in guide.read_text().splitlines() if x.startswith("| `pip install")]
    found = set()
    for path in (ROOT / "tests").rglob("*_test.py"):
        text = path.read_text()
        calls = re.findall(r"\bimportorskip\(([^)]*)\)", text)
        for call in calls if path != pathlib.Path(__file__) else ():
            assert "reason=" in call, f"{path.name}: importorskip({call})"
        for extra in re.findall(r"pip install -e '\.\[([a-z-]+)\]'\"", text):
            name = path.relative_to(ROOT).as_posix()
            assert extra in extras, f"{name}: {extra}"
            assert any(f"{extra}," in x and name in x for x in rows), f"{name}: {extra}"
            found.add(extra)
    assert found == {"cloud-test", "beam", "hub", "fuzz"}
