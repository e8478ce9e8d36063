"""Signals that are no longer those of the file: they count nowhere, and it is said."""

import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from killed_run import config as small
from vidsme_jax import audit, parallel, settings, studies
from vidsme_jax.base import AuditError
from vidsme_jax.commands.finished import run_record
from vidsme_jax.run import contents

pytestmark = pytest.mark.usefixtures("without_figures")
CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
COUNT = 5


def _config(folder, **changes):
    config = small(None, batch_size=2, **changes)
    config.corpus.suspects = (str(folder / "rows.jsonl"),)
    return config


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder of clips with their manifest, and the finished run of them."""
    folder = tmp_path_factory.mktemp("stale")
    for clip in CLIPS[:COUNT]:
        shutil.copy(clip, folder)
    rows = [json.dumps({"video": clip.name}) + "\n" for clip in CLIPS[:COUNT]]
    (folder / "rows.jsonl").write_text("".join(rows))
    table = audit.run(_config(folder), folder / "whole").table
    return folder, table


@pytest.fixture
def corpus(scored, tmp_path):
    """The folder, whose clips and manifest are put back afterwards."""
    folder, table = scored
    kept = shutil.copytree(folder, tmp_path / "kept", ignore=lambda *_: ["whole"])
    run = pathlib.Path(shutil.copytree(folder / "whole", tmp_path / "run"))
    yield folder, table, run
    for file in kept.iterdir():
        _remove(folder / file.name)
        shutil.copy2(file, folder)


def _remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _lines(run):
    return [json.loads(x) for x in (run / "failures.jsonl").read_text().splitlines()]


def _again(run, **changes):
    about = run_record(run)
    config = settings.restored(about["config"])
    config.update_from_flattened_dict(changes)
    return audit.report_again(run, config, about)


def _extreme(table):
    """The clip whose motion is the bound of all others' q."""
    return table.id[np.argmax(table.flow_variance)]


def _assert_is_without(report, table, name):
    """The scores are those of a corpus that never had the clip."""
    left = table.id != name
    assert report.table.id.tolist() == table.id[left].tolist()
    for of, mine, bounds in (
        ("flow_variance", "q", (1.0, 2.0)),
        ("brightness_std", "r", None),
    ):
        values = getattr(table, of)[left]
        found = getattr(report.table, mine)
        ends = np.argmax(values), np.argmin(values)
        assert found[ends[mine == "r"]] == 1.0, (
            f"{mine} is scaled by a clip that is out"
        )
        assert bounds is None or found.min() >= 1
    assert (report.table.q != table.q[left]).any(), "the clip was no bound"
    assert report.metrics["counts"]["failures"] == 1
    (line,) = _lines(report.workdir)
    assert line["id"] == line["video"] == name
    assert name not in report.metrics["suspects"].__repr__()
    stored = pq.read_table(report.workdir / "scores.parquet").column("id").to_pylist()
    assert name not in stored


def _garbage(path):
    path.write_bytes(f"this is no video, but {path.name}".encode() * 100)


def _another(path):
    """Another clip stands in its place, and fails on the device."""
    shutil.copy(CLIPS[COUNT], path)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _cut(path):
    path.write_bytes(path.read_bytes()[:600])


@pytest.mark.parametrize(
    ("spoil", "stage"), [(_garbage, "open"), (_another, "signals")]
)
def test_a_clip_that_fails_now_is_nowhere_and_stays_listed(
    spoil, stage, corpus, monkeypatch
):
    folder, table, run = corpus
    name = _extreme(table)
    kept = (folder / name).read_bytes()
    spoil(folder / name)
    if spoil is _another:
        monkeypatch.setattr(parallel.Devices, "fetch", _broken)
    report = audit.run(_config(folder), run)
    _assert_is_without(report, table, name)
    assert report.failures[0].stage == stage and report.failures[0].cause
    line = (run / "failures.jsonl").read_text()
    for changes in ({"scores": "perplexity", "headline": "perplexity"}, {}):
        report = _again(run, **changes)
        assert len(report.table.id) == COUNT - 1
        assert (run / "failures.jsonl").read_text() == line
    _assert_is_without(report, table, name)
    # Repaired, the report still knows what the run found, and the next run scores it.
    (folder / name).write_bytes(kept)
    _assert_is_without(_again(run), table, name)
    monkeypatch.undo()
    report = audit.run(_config(folder), run)
    assert not report.failures and not _lines(run)
    for column, values in table.scores.items():
        np.testing.assert_array_equal(report.table.scores[column], values)
    np.testing.assert_array_equal(report.table.q, table.q)


@pytest.mark.parametrize("spoil", [pathlib.Path.unlink, _pipe, _cut])
def test_however_a_clip_cannot_be_read(spoil, corpus):
    folder, table, run = corpus
    name = _extreme(table)
    spoil(folder / name)
    for report in (audit.run(_config(folder), run), _again(run)):
        _assert_is_without(report, table, name)
        assert report.failures[0].stage == "open"


def _broken(devices, out):
    raise jax.errors.JaxRuntimeError("INTERNAL: the device failed\nat 0x7f")


def test_a_report_leaves_out_what_has_changed_since_the_run(corpus):
    """No run has found out; a file that is only touched, or gone, is no other one."""
    folder, table, run = corpus
    name, *others = sorted(table.id, key=lambda i: i != _extreme(table))
    _another(folder / name)
    os.utime(folder / others[0])
    (folder / others[1]).unlink()
    for _ in range(2):
        report = _again(run)
        _assert_is_without(report, table, name)
        assert report.failures[0].cause == contents.CHANGED


def test_a_report_needs_no_video(corpus):
    folder, table, run = corpus
    for name in table.id:
        (folder / name).unlink()
    report = _again(run)
    assert report.table.id.tolist() == table.id.tolist() and not report.failures
    assert not json.loads((run / "metrics.json").read_text())["notes"]
    with pytest.raises(AuditError, match="none of the 5 videos of its 5 rows is there"):
        audit.run(_config(folder), run)


def test_rows_of_the_manifest_come_and_go(corpus, caplog):
    """One that is gone is in no bound; one that no run has scored is said to be so."""
    folder, table, run = corpus
    name = _extreme(table)
    rows = [{"video": i} for i in table.id if i != name] + [{"video": CLIPS[7].name}]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with caplog.at_level("WARNING", "absl"):
        report = _again(run)
    (note,) = json.loads((run / "metrics.json").read_text())["notes"]
    assert note.startswith("the rows that are evaluated are not those of the report")
    assert caplog.messages.count(note) == 1
    assert report.table.q[np.argmax(report.table.flow_variance)] == 1
    (failure,) = report.failures
    assert (failure.id, failure.stage) == (CLIPS[7].name, "signals")
    assert failure.cause == "no signals of it are stored; run the audit again"


@pytest.mark.long
@pytest.mark.parametrize("study", ["k", "frames"])
def test_a_study_leaves_it_out_of_every_sheet(study, corpus):
    folder, table, run = corpus
    name, *others = sorted(table.id, key=lambda i: i != _extreme(table))
    config = _config(folder)
    config.corpus.suspects = ()
    for role, names in (("members", (name, *others[:2])), ("nonmembers", others[2:])):
        rows = [json.dumps({"video": each}) + "\n" for each in names]
        (folder / f"{role}.jsonl").write_text("".join(rows))
        config.corpus[role] = (str(folder / f"{role}.jsonl"),)
    config.study, config.studies.k, config.studies.frames = study, (30,), (2, 3)
    config.report.num_permutations = 100
    where = run.parent / "study"
    assert not studies.run(config, where).failures
    _garbage(folder / name)
    found = studies.run(config, where)
    (failure,) = found.failures
    assert failure.id == name and len(found.sheets) == (1 if study == "k" else 2)
    for sheet in found.sheets:
        assert name not in sheet.table.id and len(sheet.table.id) == COUNT - 1
        assert sheet.table.q[np.argmax(sheet.table.flow_variance)] == 1
    assert len(_lines(where)) == 1
    for each in others[2:]:
        _garbage(folder / each)
    with pytest.raises(AuditError) as caught:
        studies.run(config, where)
    assert caught.value.problems[0] == (
        "nothing is left to compare: 2 videos of config.corpus.members and 0 of "
        "config.corpus.nonmembers were scored; both need some"
    )
    assert len(caught.value.problems) == 4
