"""Small faults that are put into the code: which there are, and which are chosen."""

import ast
import importlib
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = '''"""Says 1 + 1."""

import numpy as np

_SIZE: int | None = 3


@decorated(1 + 1)
def mean(x: "Float[1 + 1]", axis: int = -1) -> int | None:
    """Says 1 + 1."""
    assert x.ndim > 1, "1 + 1"
    if axis < 0 and not x.size:
        raise ValueError(f"{axis + 1} of " + str(axis))
    problems.append("a" + "b")
    keep(x, axis)
    return np.sum(x, axis=-1) / len(x)
'''


@pytest.fixture
def script(monkeypatch):
    """Imports a script by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_faults_of_a_file(script):
    found = script("_mutants").mutants(SOURCE)
    for mutant in found:
        ast.parse(mutant.source)
        assert mutant.before != mutant.after
    told = [(x.kind, x.line, x.after) for x in found if x.kind != "constant"]
    head = 'def mean(x: "Float[1 + 1]", axis: int = 1) -> int | None:'
    assert told == [
        ("sign", 9, head),
        ("boolean", 12, "if (axis < 0 or not x.size):"),
        ("term", 12, "if (axis < 0):"),
        ("term", 12, "if (not x.size):"),
        ("comparison", 12, "if (axis <= 0) and not x.size:"),
        ("boolean", 12, "if axis < 0 and (x.size):"),
        ("statement", 15, "pass"),
        ("exchange", 15, "(keep(axis, x))"),
        ("operator", 16, "return (np.sum(x, axis=-1) * len(x))"),
        ("axis", 16, "return np.sum(x, axis=(-2)) / len(x)"),
        ("axis", 16, "return np.sum(x, axis=0) / len(x)"),
        ("sign", 16, "return np.sum(x, axis=1) / len(x)"),
    ]
    constants = {(x.line, x.after) for x in found if x.kind == "constant"}
    assert {line for line, _ in constants} == {5, 9, 12, 16}
    assert (5, "_SIZE: int | None = 4") in constants


def test_the_choice_is_that_of_the_seed_and_moves_with_no_other_line(script):
    pick = script("_mutants").pick
    chosen = pick({"a.py": SOURCE}, 5, "14")
    assert chosen == pick({"a.py": SOURCE}, 5, "14") != pick({"a.py": SOURCE}, 5, "15")
    assert len({mutant.line for _, mutant in chosen}) == 5
    moved = pick({"a.py": SOURCE.replace("_SIZE: int | None = 3", "\n")}, 5, "14")
    faults, others = ({(x.before, x.after) for _, x in y} for y in (chosen, moved))
    assert len(faults & others) >= 4
    assert len(pick({"a.py": SOURCE}, 999, "14")) == 5  # A line has one at most.


def test_every_survivor_has_an_argument(script):
    mutations = script("mutations")
    records = json.loads(mutations.RESULTS.read_text())
    assert sum(group.count for group in mutations.GROUPS.values()) == 40
    for record in records:
        assert record["group"] in mutations.GROUPS
        assert bool(record["caught_by"]) != bool(record.get("equivalent")), record
    for group in mutations.GROUPS.values():
        for module in group.modules:
            assert (ROOT / "vidsme_jax" / module).exists(), module


def test_a_fault_is_put_into_a_copy_and_what_caught_it_is_kept(
    script, tmp_path, monkeypatch, capsys
):
    """Of a sum the tests see that it is none, but not that a term is missing."""
    mutations = script("mutations")
    module, whole = (
        tmp_path / "vidsme_jax" / "sums.py",
        "def f(a, b):\n    return a + b\n",
    )
    module.parent.mkdir()
    module.write_text(whole)
    ran = []

    def failing(tree, tests):
        assert tree != tmp_path
        assert tests in {("sums_test.py",), ("sums_test.py::test_f",)}
        scope = {}
        exec((tree / "vidsme_jax" / "sums.py").read_text(), scope)
        ran.append(scope["f"](0, 2))
        return None if ran[-1] == 2 else "tests/sums_test.py::test_f"

    monkeypatch.setattr(mutations, "ROOT", tmp_path)
    group = mutations.Group(1, ("sums.py",), ("sums_test.py",))
    monkeypatch.setattr(mutations, "GROUPS", {"sums": group})
    monkeypatch.setattr(mutations, "known", lambda: ["vidsme_jax/sums.py"])
    monkeypatch.setattr(mutations, "failing", failing)
    out, seen = tmp_path / "out.json", {}
    for seed in range(9):
        status = mutations.main([f"--seed={seed}", f"--out={out}"])
        (record,) = json.loads(out.read_text())
        assert record["before"] == "return a + b" and record["line"] == 2
        seen[record["after"]] = record["caught_by"], status
        assert module.read_text() == whole
    name = "tests/sums_test.py::test_f"
    assert seen == {
        "return (a - b)": (name, 0),
        "return a": (name, 0),
        "return b": (None, 1),
    }
    record |= {"after": "return b", "caught_by": None, "equivalent": "a is always 0"}
    out.write_text(json.dumps([record]))
    seed = next(s for s in range(9) if _after(mutations, s) == "return b")
    assert mutations.main([f"--seed={seed}", f"--out={out}"]) == 0
    assert json.loads(out.read_text())[0]["equivalent"] == "a is always 0"
    monkeypatch.setattr(mutations, "failing", lambda *_: "sums_test.py::test_g")
    with pytest.raises(SystemExit, match=r"without a fault .*::test_g fails, too"):
        mutations.main([f"--seed={seed}", f"--out={out}"])


def _after(mutations, seed):
    return mutations.chosen("sums", seed)[0][0]["after"]
