"""Commands on hostile input: the exit status, time, memory, what reaches the terminal.

Honest clips stand beside the hostile ones, and their scores do not move by a bit.
"""

import dataclasses
import json
import pathlib
import shutil

import asked
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reading
from generators import (
    EITHER,
    HONEST,
    REFUSED,
    clips,
    configs,
    frame_folders,
    named,
    webps,
    workdirs,
)

SECONDS = 200.0  # Of a whole audit: many times what it takes.
# What no row of a run must be able to do, in the columns that are printed and written.
TEXTS = (
    "\x1b]0;owned\x07\x1b[2J",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "a\u202eb\u2028c",
    "x" * 5000,
    "%s%n{0}",
)


@pytest.fixture(scope="module")
def base() -> pathlib.Path:
    """The honest clips, and their audit."""
    return workdirs.base()


def _run(folder: pathlib.Path, *commands: asked.Command) -> list[asked.Ended]:
    printed = folder / "printed"
    printed.mkdir()
    return asked.run(commands, printed)


def _beside(
    folder: pathlib.Path, base: pathlib.Path, cases
) -> tuple[pathlib.Path, list]:
    """Writes a corpus of the honest clips and cases; returns its manifest and rows."""
    corpus = folder / "corpus"
    shutil.copytree(base / "corpus", corpus)
    rows = json.loads((corpus / "m.json").read_text())
    expected = {row["id"]: HONEST for row in rows}
    names = [row["video"] for row in rows]
    for number, text in enumerate(TEXTS):
        row = {"id": f"{number} {text}", "group": text, "question": text}
        rows.append(row | {"video": names[number % len(names)]})
        expected[row["id"]] = HONEST
    for number, case in enumerate(cases):
        (corpus / f"{number}").mkdir()
        path = case.build(corpus / f"{number}")
        rows.insert(number % len(rows), {"id": case.name, "video": str(path)})
        expected[case.name] = case.expected
    manifest = corpus / "m.json"
    manifest.write_text(json.dumps(rows))
    return manifest, expected


def _flags(manifest: pathlib.Path, base: pathlib.Path, *more: str) -> tuple[str, ...]:
    compiled = f"--config.compile_cache={base / 'compiled'}"
    limits = "--config.corpus.allow_outside=true", "--config.video.max_seconds=5"
    return workdirs.small(manifest, compiled, *limits, *more)


def _assert_each(expected: dict[str, str], run: pathlib.Path) -> None:
    """Asserts that each row is scored or listed as failed, as is expected of it."""
    scored, failed = asked.scores(run), asked.failures(run)
    assert set(scored) | set(failed) == set(expected)
    assert not set(scored) & set(failed)
    wrong = {
        id: "scored" if id in scored else failed[id]
        for id, kind in expected.items()
        if (kind == REFUSED and id in scored) or (kind == HONEST and id in failed)
    }
    assert not wrong, wrong


def _of_all_kinds():
    """Clips that are files, folders of pictures, and WebP, each under another name."""
    yield from clips.cases(0)
    few = {
        "folder": frame_folders.cases(0, random=2, many=100),
        "WebP": (x for x in webps.cases(0, random=4) if "canvas of" not in x.name),
    }
    for kind, cases in few.items():
        for case in cases:
            yield dataclasses.replace(case, name=f"{kind}: {case.name}")


@pytest.mark.long
def test_an_audit_and_a_preparation_of_hostile_clips(tmp_path, base):
    manifest, expected = _beside(tmp_path, base, _of_all_kinds())
    audit, prepare = (
        asked.Command(f"vidsme_jax.{name}", flags, SECONDS)
        for name, flags in {
            "main": _flags(manifest, base, f"--workdir={tmp_path / 'run'}"),
            "commands.prepare": _flags(
                manifest, base, f"--out={tmp_path / 'prepared'}"
            ),
        }.items()
    )
    ended = _run(tmp_path, audit, prepare)
    asked.check(ended[0], audit, [3])
    _assert_each(expected, tmp_path / "run")
    asked.assert_same_scores(tmp_path / "run", base / "run")
    asked.check(ended[1], prepare, [3])
    page = (tmp_path / "run" / "report.html").read_bytes()
    assert len(page) < 5e6 and b"<img src=x" not in page
    assert not asked.controls(page.decode("utf-8"))


@pytest.mark.slow
def test_commands_that_refuse(tmp_path, base):
    """One child for all of them: each ends before anything is computed."""
    manifest = base / "corpus" / "m.json"
    commands, made = [], []
    for name in (
        *("config.json is nested", "config.json of 5 GiB", "headers: of 2^64"),
        *("pickle: calls os.system", "preprocessor_config.json: size, huge"),
        *("tokenizer: nested", "adapter: a rank of 4001 digits"),
    ):
        case = named("checkpoints", name)
        (tmp_path / f"{len(made)}").mkdir()
        folder = case.build(tmp_path / f"{len(made)}")
        made.append(name)
        more = f"--config.model.checkpoint={folder}", "--config.model.allow_pickle=true"
        flags = _flags(manifest, base, f"--workdir={tmp_path / 'no'}", *more)
        commands.append(asked.Command("vidsme_jax.main", flags, SECONDS))
    for case in list(configs.cases(0, random=2))[-2:]:
        flags = _flags(manifest, base, *case.build(tmp_path))
        made.append(case.name)
        commands.append(asked.Command("vidsme_jax.main", flags, SECONDS))
        module = "vidsme_jax.commands.prepare"
        made.append(case.name)
        commands.append(asked.Command(module, (*flags, "--out=/dev/null/a"), SECONDS))
    for name in ("json: nested deeply", "csv: 30,000 columns", "many: ids in pairs"):
        case = named("manifests", name)
        (tmp_path / f"{len(made)}").mkdir()
        path = case.build(tmp_path / f"{len(made)}")
        made.append(name)
        flags = _flags(path, base, f"--workdir={tmp_path / 'no'}")
        commands.append(asked.Command("vidsme_jax.main", flags, SECONDS))
    for name in ("config.json: a number of 5000 digits", "config: unknown keys"):
        case = named("workdirs", name)
        (tmp_path / f"{len(made)}").mkdir()
        folder = case.build(tmp_path / f"{len(made)}")
        made.append(name)
        flags = (f"--workdir={folder}",)
        commands.append(asked.Command("vidsme_jax.commands.report", flags, SECONDS))
    for name, command, ended in zip(
        made, commands, _run(tmp_path, *commands), strict=True
    ):
        expected = [2] if "30,000" not in name else [2, 3]
        asked.check(ended, command, expected)
        assert "nothing was computed" in ended.error, name
    assert not (tmp_path / "no" / "scores.parquet").exists()


@pytest.mark.long
def test_work_directories_that_others_changed(base):
    """What is wrong within the settings, or between files, a report says later."""
    later = (
        "config: 10^30",
        "config: scores",
        "config: a manifest e",
        "config: a surr",
    )
    found = [
        dataclasses.replace(case, expected=EITHER)
        if case.name.startswith(later)
        else case
        for case in workdirs.cases(0, random=4)
    ]
    said = reading.complaints(found, reading.READERS["workdirs"])
    assert not said, "\n".join(said)


# --------------------------------------------------------- what these tests would see


@pytest.fixture
def two_runs(tmp_path) -> tuple[pathlib.Path, pathlib.Path]:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
        table = pa.table(
            {"id": ["x", "y"], "vid_sme": [0.1, float("nan")], "n": [1, 2]}
        )
        pq.write_table(table, folder / "scores.parquet")
    return folders


@pytest.mark.parametrize(
    "column",
    [
        {"vid_sme": [0.10000000000000002, float("nan")]},
        {"vid_sme": [0.1, 0.0]},
        {"n": [1, 3]},
        {"id": ["x", "z"]},
    ],
)
def test_scores_that_move_by_a_bit_are_seen(two_runs, column):
    a, b = two_runs
    asked.assert_same_scores(a, b)
    rows = pq.read_table(a / "scores.parquet").to_pydict() | column
    pq.write_table(pa.table(rows), a / "scores.parquet")
    with pytest.raises(AssertionError):
        asked.assert_same_scores(a, b)


def test_what_is_seen_of_a_command():
    command = asked.Command("m", (), seconds=9)
    good = asked.Ended(3, 1.0, 1.0, "fine\n", "größer, 日本, 👩\u200d🚀\n")
    asked.check(good, command, [0, 3])
    for change in (
        {"status": 0},
        {"status": 1},
        {"status": -9},
        {"seconds": 9.5},
        {"gigabytes": 99.0},
        {"error": "Traceback (most recent call last):"},
        {"error": "\x1b[2J"},
        {"out": "a\x07"},
        {"out": "a\u202eb"},
        {"out": "a\udcffb"},
        {"out": "a\x9bb"},
        {"out": "a\u2028b"},
        {"out": "a\rb"},
    ):
        with pytest.raises(AssertionError):
            asked.check(dataclasses.replace(good, **change), command, [3])


def test_rows_that_are_scored_or_failed_in_vain_are_seen(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "n": [1]}), tmp_path / "scores.parquet")
    failure = {"id": "b", "video": "b", "stage": "open", "cause": "c"}
    (tmp_path / "failures.jsonl").write_text(json.dumps(failure))
    _assert_each({"a": HONEST, "b": REFUSED}, tmp_path)
    _assert_each({"a": EITHER, "b": EITHER}, tmp_path)
    for expected in (
        {"a": REFUSED, "b": REFUSED},
        {"a": HONEST, "b": HONEST},
        {"a": HONEST},
        {"a": HONEST, "b": REFUSED, "c": EITHER},
    ):
        with pytest.raises(AssertionError):
            _assert_each(expected, tmp_path)
    (tmp_path / "failures.jsonl").write_text(json.dumps(failure | {"cause": ""}))
    with pytest.raises(AssertionError):
        _assert_each({"a": HONEST, "b": REFUSED}, tmp_path)


@pytest.mark.long
def test_a_command_that_hangs_is_killed_and_its_memory_is_seen(tmp_path):
    (tmp_path / "sleeping.py").write_text("import time\ntime.sleep(600)\n")
    (tmp_path / "eating.py").write_text("kept = bytearray(3_000_000_000)\n")
    (tmp_path / "raising.py").write_text("raise KeyError('x')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        commands = [
            asked.Command("sleeping", (), seconds=1),
            asked.Command("eating", ()),
            asked.Command("eating", (), address_space=3.0),
            asked.Command("raising", ()),
        ]
        ended = _run(tmp_path, *commands)
    assert [each.status for each in ended] == [-9, 0, 1, 1]
    for each, command in zip(ended, commands, strict=True):
        with pytest.raises(AssertionError):
            asked.check(each, command, [0, 1, -9])
