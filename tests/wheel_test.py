"""A wheel of this tree, installed where nothing else of it is, runs the demo."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import children

ROOT = pathlib.Path(__file__).parents[1]
_TREE = ("vidsme_jax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
_BUILD = "from setuptools import build_meta; build_meta.build_wheel({!r})"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of a copy of the tree, without network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in _TREE:
        if (ROOT / name).is_dir():
            unseen = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / "tree" / name, ignore=unseen)
        else:
            shutil.copy(ROOT / name, folder / "tree" / name)
    build = [sys.executable, "-W", "ignore", "-c", _BUILD.format(str(folder))]
    done = children.run(build, cwd=folder / "tree")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The scripts of an environment that has the wheel, and libraries from this one.

    A line of a .pth file names a folder whose own .pth files, such as that of an
    editable installation, are not read.
    """
    folder = tmp_path_factory.mktemp("environment")
    make = [sys.executable, "-m", "venv", "--without-pip", folder]
    subprocess.run(make, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    install += ["--no-compile", "--target", site, wheel]
    done = children.run(install, env=_outside())
    assert done.returncode == 0, done.stderr
    libraries = [x for x in sys.path if pathlib.Path(x).name.endswith("-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    return folder / "bin"


def _outside():
    """Returns an environment in which no variable leads to the tree."""
    left = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: x for name, x in os.environ.items() if name not in left}


def test_it_holds_the_configurations_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "configs").glob("*.py"):
        assert f"vidsme_jax/configs/{path.name}" in names
    for path in (ROOT / "vidsme_jax").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in names, path
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "vidsme_jax" in tops


@pytest.mark.long
def test_it_runs_the_demo_from_any_folder(installed, tmp_path):
    python, environment = installed / "python", _outside()
    which = "import vidsme_jax; print(vidsme_jax.__file__)"
    done = children.run([python, "-c", which], cwd=tmp_path, env=environment)
    assert done.stdout.startswith(str(installed.parent)), done.stdout + done.stderr
    demo = [python, "-m", "vidsme_jax.main", "--config", "llava"]
    done = children.run(demo, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/llava/report.html").exists()
    assert "\nmatched " in done.stdout
    # The console script; of what was scored before nothing is left to do.
    command = [python, "-m", "vidsme_jax", "audit", "--config", "llava", "--check"]
    done = children.run(command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "has something stored of 300 of 300 clips" in done.stdout
    listed = [python, "-m", "vidsme_jax", "audit", "--config", "list"]
    done = children.run(listed, cwd=tmp_path, env=environment)
    assert str(installed.parent) in done.stdout and "\nllava " in done.stdout
