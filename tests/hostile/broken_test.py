"""What is broken, each a test that is expected to fail: see `broken.BROKEN`.

    pytest -m slow tests/hostile/broken_test.py

Where one does not fail any more, its line in `broken.py` goes, and the others' tests
take the case; an input of `crashes/` then moves to `corpus/`.
"""

import importlib
import json
import pathlib
import shutil

import asked
import broken
import fuzzing
import pytest
import reading
import targets
from generators import clips, workdirs

from vidsme_jax.checkpoints import adapter_config

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
# These block a thread that nobody can end.
HANGS = ("a playlist over a FIFO", "signals/part-000000.parquet: a FIFO")
CRASHES = fuzzing.HERE / "crashes"


def _expected(reason: str, run: bool = True):
    return pytest.mark.xfail(reason=reason, strict=True, run=run)


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        pytest.param(kind, pattern, marks=_expected(reason, pattern not in HANGS))
        for kind, patterns in broken.BROKEN.items()
        for pattern, reason in patterns.items()
        if kind != "commands"
    ],
)
def test_cases(kind, pattern, monkeypatch):
    monkeypatch.setattr(reading, "SECONDS", 30.0)  # Imports are among them.
    made = importlib.import_module(f"generators.{kind}").cases(0)
    cases = [case for case in made if broken.matches(case.name, pattern)]
    assert len(cases) > 0
    found = reading.complaints(cases, reading.READERS[kind])
    assert len(found) < len(cases), "\n".join(found)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(pattern, marks=_expected(reason))
        for pattern, reason in broken.BROKEN["commands"].items()
    ],
)
def test_commands(pattern, tmp_path):
    base = workdirs.base()
    corpus = tmp_path / "corpus"
    shutil.copytree(base / "corpus", corpus)
    rows = json.loads((corpus / "m.json").read_text())
    for number, case in enumerate(clips.cases(0, random=0)):
        if broken.matches(case.name, pattern):
            (corpus / f"{number}").mkdir()
            path = case.build(corpus / f"{number}")
            rows.append({"id": case.name, "video": str(path)})
    (corpus / "m.json").write_text(json.dumps(rows))
    flags = workdirs.small(
        corpus / "m.json", f"--config.compile_cache={base / 'compiled'}"
    )
    commands = [
        asked.Command(f"vidsme_jax.{name}", (*flags, where), seconds=60)
        for name, where in {
            "main": f"--workdir={tmp_path / 'run'}",
            "prepare": f"--out={tmp_path / 'prepared'}",
        }.items()
    ]
    (tmp_path / "printed").mkdir()
    for ended, command in zip(
        asked.run(commands, tmp_path / "printed"), commands, strict=True
    ):
        asked.check(ended, command, [0, 3])


@pytest.mark.parametrize(
    ("field", "text"),
    [
        pytest.param("id", "a\ud800", marks=_expected("UnicodeEncodeError at the end")),
        pytest.param("group", "a\ud800", marks=_expected("UnicodeEncodeError printed")),
    ],
)
def test_lone_surrogates(field, text, tmp_path):
    base = workdirs.base()
    shutil.copytree(base / "corpus", tmp_path / "corpus")
    manifest = tmp_path / "corpus" / "m.json"
    rows = json.loads(manifest.read_text())
    manifest.write_text(json.dumps([*rows, {"video": rows[0]["video"], field: text}]))
    compiled = f"--config.compile_cache={base / 'compiled'}"
    flags = workdirs.small(manifest, compiled, f"--workdir={tmp_path / 'run'}")
    command = asked.Command("vidsme_jax.main", flags)
    (tmp_path / "printed").mkdir()
    (ended,) = asked.run([command], tmp_path / "printed")
    asked.check(ended, command, [0, 2])


@pytest.mark.parametrize(
    ("target", "path"),
    [
        pytest.param(folder.name, path, id=path.name, marks=_expected("it crashed"))
        for folder in sorted(CRASHES.iterdir())
        for path in sorted(folder.iterdir())
    ],
)
def test_crashes(target: str, path: pathlib.Path):
    targets.TARGETS[target](path.read_bytes())


@_expected("the problem is listed, but the value is kept, against its annotation")
def test_the_bias_of_an_adapter():
    problems: list[str] = []
    assert adapter_config.read({"bias": {"a": 1}}, problems).bias == "none"
