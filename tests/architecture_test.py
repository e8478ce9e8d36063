"""The package is layered: a module may import only from layers before its own."""

import ast
import pathlib
import statistics

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "vidsme_jax"
LAYERS = (
    ("clock", "wording"),
    ("addresses",),
    ("base",),
    ("terminal",),
    ("exits", "settings", "arguments", "names", "progress", "store", "parallel"),
    ("entropy", "motion", "data", "checkpoints", "evaluation", "demo"),
    ("models", "scores", "prepared", "published"),
    ("run",),
    ("report", "finetune"),
    ("studies",),
    ("audit",),
    ("control", "canary"),
    ("commands",),
    ("__init__", "__main__", "main"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: pathlib.Path):
    """Yields (line, first part of the module inside the package)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            root, *rest = node.module.split(".")
            if root == "vidsme_jax":
                for there in rest[:1] or [alias.name for alias in node.names]:
                    yield node.lineno, there
        elif isinstance(node, ast.Import):
            for alias in node.names:
                root, *rest = alias.name.split(".")
                if root == "vidsme_jax" and rest:
                    yield node.lineno, rest[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_up(path: pathlib.Path):
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert here in LEVEL, f"{here} has no layer"
    for line, there in _imports(path):
        if there == "__version__":
            continue
        assert there == here or LEVEL[there] < LEVEL[here], (
            f"{path.name}:{line}: {here} may not import {there}."
        )


def test_torch_is_never_imported_by_the_package():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(n.split(".")[0] == "torch" for n in names), path


def test_files_stay_small():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    for path, length in lengths.items():
        assert length <= (200 if path == PACKAGE / "audit.py" else 410), path
    assert statistics.median(lengths.values()) <= 150


def test_a_configuration_is_read_at_the_entrances_only():
    """Stages take the typed views of `settings.views`."""
    entrances = {"audit.py", "main.py", "commands", "control", "settings", "finetune"}
    entrances |= {"studies/__init__.py", "run/checks.py", "run/asking.py"}
    entrances |= {"canary/testing.py", "run/rehearsal.py", "run/problems.py"}
    for path in FILES:
        here = path.relative_to(PACKAGE)
        if not {here.as_posix(), here.parts[0]} & entrances:
            assert "ml_collections" not in path.read_text(), here


def test_no_drawer_modules():
    assert not {p.stem for p in FILES} & {"utils", "helpers", "common", "misc"}
