"""Several processes give what one gives, and none waits for another that failed."""

import json
import pathlib
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import children
import two_processes
from vidsme_jax import audit, settings, studies
from vidsme_jax.base import AuditError
from vidsme_jax.run import processes

pytestmark = [pytest.mark.usefixtures("without_figures"), pytest.mark.long]
CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of 4 + 3 clips, the last of which is none."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "bad.mp4").write_bytes(b"no video")
    roles = {"members": CLIPS[:4], "nonmembers": [*CLIPS[4:6], folder / "bad.mp4"]}
    for role, clips in roles.items():
        rows = [{"video": str(clip)} for clip in clips]
        (folder / f"{role}.json").write_text(json.dumps(rows))
    asked = [
        {"video": str(clip), "question": "describe the video", "answer": answer}
        for k, clip in enumerate(CLIPS[:4])
        for answer in ("a ring", "a red cross", "two moves up")[: 1 + k % 3]
    ]
    (folder / "asked.json").write_text(json.dumps(asked))
    return folder


def _together(folder, *more, each=False):
    """Runs the two processes; returns how they ended."""
    program = pathlib.Path(two_processes.__file__)
    with children.port() as port:
        command = [sys.executable, str(program), str(port)]
        both = [[*command, str(place), str(folder), *more] for place in range(2)]
        return children.together(both, folder, each=each, cwd=program.parents[1])


@pytest.fixture(scope="module")
def said(folder):
    """What both processes said, by place."""
    ended = _together(folder)
    for process in ended:
        assert process.returncode == 0, [each.stderr[-2000:] for each in ended]
    return [json.loads(process.stdout.splitlines()[-1]) for process in ended]


@pytest.fixture(scope="module")
def alone(folder):
    """The same audit in one process on one device."""
    config = two_processes.configuration(folder)
    config.parallel.data = 1
    return audit.run(config, folder / "alone")


@pytest.mark.parametrize("grid", list(two_processes.GRIDS))
def test_two_processes_give_what_one_gives(said, alone, folder, grid):
    """Uneven shares: of the 7 clips one process has 4, the other 3, one of them bad."""
    _assert_same(said, alone, folder, grid, grid)


@pytest.mark.parametrize("response", ["given", "greedy"])
def test_texts_of_two_processes(said, folder, response):
    """Given answers on a grid that spans both, where all batches have one shape."""
    config = two_processes.configuration(folder)
    config.parallel.data = 1
    config = two_processes.asking(config, folder, response)
    alone = audit.run(config, folder / f"asked-alone-{response}")
    found = pq.read_table(folder / f"asked-{response}" / "scores.parquet").to_pydict()
    assert found["id"] == alone.table.id.tolist() and len(found["id"]) == 7
    for name, expected in alone.table.scores.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-4, err_msg=name)
    parts = (folder / f"asked-{response}" / "signals").glob("part-*.parquet")
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    texts = {(row["key"], row["text"]) for row in rows}
    assert len(texts) == len(rows) == (4 + 7 if response == "given" else 4 + 4)


@pytest.mark.parametrize("grid", ["own", "spanning"])
def test_both_stop_where_one_is_asked_to(said, alone, folder, grid):
    for place in range(2):
        # Of a grid of both all take the same steps, and these are few.
        assert said[place][f"stopped-{grid}"] <= (6 if grid == "own" else 4)
    _assert_same(said, alone, folder, f"stopped-{grid}", f"resumed-{grid}")


def _assert_same(said, alone, folder, grid, name):
    found = pq.read_table(folder / grid / "scores.parquet").to_pydict()
    assert found["id"] == alone.table.id.tolist()
    expected = alone.table.scores["vid_sme"]
    np.testing.assert_allclose(found["vid_sme"], expected, atol=1e-5)
    assert said[0][name] == [failure.id for failure in alone.failures]
    assert len(said[0][name]) == 1 and said[1][name] is None
    failures = (folder / grid / "failures.jsonl").read_text()
    assert len(failures.splitlines()) == 1 and "bad.mp4" in failures
    # Each wrote its own shards; no clip is in two of them.
    parts = sorted((folder / grid / "signals").glob("part-*.parquet"))
    paths = [pq.read_table(part, columns=["key"]).to_pydict() for part in parts]
    paths = [path for part in paths for path in part["key"]]
    assert len(parts) >= 2 and len(paths) == len(set(paths)) == 6


@pytest.mark.parametrize("grid", ["own", "spanning"])
def test_a_study_of_two_processes_is_that_of_one(said, folder, grid):
    config = two_processes.studied(two_processes.configuration(folder))
    config.parallel.data = 1
    alone = studies.run(config, folder / f"study-alone-{grid}")
    name = f"study-{grid}"
    assert said[0][name] == [failure.id for failure in alone.failures]
    assert len(said[0][name]) == 1 and said[1][name] is None
    found, expected = (
        pq.read_table(folder / each / "study.parquet").to_pydict()
        for each in (name, f"study-alone-{grid}")
    )
    assert found["auc"] == expected["auc"] and len(found["auc"]) > 1
    for run in ("frames-001", "frames-002"):
        for each in (name, f"study-alone-{grid}"):
            parts = (folder / each / run / "signals").glob("part-*.parquet")
            keys = [pq.read_table(x, columns=["key"]).to_pydict() for x in parts]
            keys = [key for part in keys for key in part["key"]]
            assert len(keys) == len(set(keys)) == 6


@pytest.mark.parametrize("grid", ["own", "spanning"])
def test_all_stop_where_the_devices_of_one_fail(said, alone, folder, grid):
    """What was scored is kept, and the same command continues."""
    bus = "INTERNAL: the card fell off the bus"
    failed = {"own": "clip", "spanning": "a batch failed on the devices"}[grid]
    assert failed in said[1][f"failed-{grid}"] and bus in said[1][f"failed-{grid}"]
    assert said[0][f"failed-{grid}"] == f"process 1 failed: {said[1][f'failed-{grid}']}"
    _assert_same(said, alone, folder, f"failed-{grid}", f"mended-{grid}")


def test_no_process_hangs_in_a_step_without_the_other(folder):
    """What was scored is kept; JAX ends neither process by an abort."""
    ended = _together(folder, "1", each=True)
    for process in ended:
        assert process.returncode == 2, process.stderr[-2000:]
        last = process.stderr.strip().splitlines()[-1]
        assert "the run stopped: process 1 failed: a batch failed on the" in last
        assert "INTERNAL: the card fell off the bus; results so far are in" in last
    assert list(folder.glob("unsent-1/signals/part-*.parquet"))


def test_processes_that_see_different_clips_all_end(said):
    for place in range(2):
        assert "process 1 sees other clips to score" in said[place]["disagreeing"][0]


def test_what_one_process_finds_wrong_ends_all(said):
    assert said[0]["broken"] == ["process 1 reported errors; see its output"]
    assert "/nowhere" in said[1]["broken"][0]


def test_one_process_needs_nothing():
    assert not processes.start(environment={})
    assert not processes.start(environment={"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"})
    assert processes.share(["a"], ["a"]) == (["a"], 1)


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (("h:1",), {}, "--num_processes .* is missing"),
        ((), {"JAX_PROCESS_ID": "1"}, "--coordinator .* is missing"),
        (("h:1", 2, 2), {}, "with 2 processes it must be 0 to 1"),
        (
            ("h:1", None, 0),
            {"JAX_NUM_PROCESSES": "two"},
            "--num_processes is 'two'; it must be an integer",
        ),
    ],
)
def test_what_joins_the_processes_is_checked(given, environment, message):
    with pytest.raises(AuditError, match=message):
        processes.start(*given, environment=environment)
