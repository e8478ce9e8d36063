"""README and docs/ say what runs: every `sh` and `python` block does, in order."""

import os
import pathlib
import re
import sys

import pytest

import children

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder as a clone, whose runs/ the pages share as a reader's would."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "vidsme_jax"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_blocks_run(page, clone):
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    for language, text in blocks:
        shell = ["bash", "-euo", "pipefail", "-c", text]
        done = children.run(
            shell if language == "sh" else [sys.executable, "-c", text],
            cwd=clone,
            env=os.environ | {"PATH": path, "XLA_FLAGS": ""},
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert done.stdout


def test_readme_names_every_page():
    readme = README.read_text()
    for page in PAGES:
        assert f"docs/{page.name}" in readme
