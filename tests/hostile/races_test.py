"""Killed at any operation on a file, or held up there while another process comes."""

import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

import pytest

import children

pytestmark = pytest.mark.long  # Each scenario is a program, killed at every step.
SCRIPT = pathlib.Path(__file__).parent / "races_forked.py"
TESTS = SCRIPT.parents[1]
KILLED = ("store", "report", "prepare", "prepare more")
RACES = ("two reports", "an audit and a report", "two audits", "two preparations")
_OF_FILES = ("OSError", "FileNotFoundError")  # Exit status 2, as `main` has it.
DELETED = ("a deleted run", "deleted signals", "a deleted preparation")


def _all(**task: Any) -> dict[str, list[dict[str, Any]]]:
    """Runs `races_forked.py`; returns what it found of each scenario."""
    memory = pathlib.Path("/dev/shm")  # Syncing to a disk takes most of the time.
    place = memory if os.access(memory, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="races-", dir=place)
    try:
        done = children.run(
            [
                sys.executable,
                "-W",
                "ignore",
                SCRIPT,
                json.dumps(task | {"folder": folder}),
            ],
            env=os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        )
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        one = json.loads(line)
        found.setdefault(one["scenario"], []).append(one)
    return found


@pytest.fixture(scope="module")
def few() -> dict[str, list[dict[str, Any]]]:
    """Of each scenario a few operations, of every kind some."""
    return _all(kills_each=5, races_each=2, seed=7)


@pytest.fixture(scope="module")
def every() -> dict[str, list[dict[str, Any]]]:
    """Of each scenario all operations."""
    return _all(kills_each=None, races_each=None)


@pytest.fixture(params=["few", pytest.param("every", marks=pytest.mark.slow)])
def found(request) -> dict[str, list[dict[str, Any]]]:
    """Few in each run of the tests, every one in a slow one."""
    return request.getfixturevalue(request.param)


def _ended(one: dict[str, Any], who: str) -> dict[str, Any]:
    status, said = one[who]
    assert status == 0, one
    return said


@pytest.mark.parametrize("scenario", KILLED)
def test_killed_at_any_operation_files_are_whole_and_nothing_is_lost(found, scenario):
    """Each file is the old or the new one, and the next run ends as if undisturbed."""
    about, *tried = found[scenario]
    assert about["moments"] > 20 and len(tried) >= 5
    wrong = [one for one in tried if one["problems"]]
    assert not wrong, wrong


@pytest.mark.slow
def test_an_audit_with_its_model_killed_at_any_operation():
    about, *tried = _all(only=["audit"], kills_each=30, seed=3)["audit"]
    assert about["moments"] > 20 and len(tried) == 30
    wrong = [one for one in tried if one["problems"]]
    assert not wrong, wrong


@pytest.mark.parametrize("scenario", RACES)
def test_a_second_run_in_one_folder_is_refused_and_changes_nothing(found, scenario):
    about, *tried = found[scenario]
    assert any(one["locked"] for one in tried)
    for one in tried:
        first, said = _ended(one, "first"), _ended(one, "second")
        # A report that has read what it is of, and then waited, reads it no more.
        overtaken = "another run has written it meanwhile" in (first["error"] or "")
        assert first["error"] is None or (overtaken and not one["locked"]), one
        if one["locked"]:
            assert "another run is" in said["error"] and not one["changed"], one
            assert one["outcome"] == about["files"] and not one["left"], one
        else:  # It was there first.
            assert said["error"] is None and not one["left"], one


def test_another_variant_is_prepared_too(found):
    about, *tried = found["two variants"]
    for one in tried:
        assert _ended(one, "first")["error"] is None
        assert _ended(one, "second")["error"] is None, one
        assert about["files"].items() <= one["outcome"].items(), one
        assert any("uniform_3_png/1.0.0/index" in name for name in one["outcome"])
        assert not one["left"], one


def test_an_audit_reads_a_whole_version_wherever_a_preparation_is(found):
    about, *tried = found["a preparation and an audit"]
    read = [_ended(one, "second")["found"] for one in tried]
    assert all(frames == read[0] for frames in read) and len(read[0]) == 2
    for one in tried:
        assert _ended(one, "first")["error"] is None
        assert one["outcome"] == about["files"] and not one["left"], one


@pytest.mark.parametrize("scenario", DELETED)
def test_a_run_whose_folder_is_deleted_ends_with_a_sentence(found, scenario):
    """Or makes the folder again, if it needs nothing of what was there."""
    _, *tried = found[scenario]
    for one in tried:
        said = _ended(one, "first")
        assert said["error"] is None or said["kind"] in ("AuditError", *_OF_FILES), one
        assert _ended(one, "second")["error"] is None
