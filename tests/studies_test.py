"""Every study end to end on demo clips, against audits at its points."""

import csv
import importlib.util
import json
import pathlib

import pyarrow.parquet as pq
import pytest

from vidsme_jax import audit, settings, studies
from vidsme_jax.base import AuditError
from vidsme_jax.data import decoders
from vidsme_jax.prepared import preparation
from vidsme_jax.run.stopping import Stop
from vidsme_jax.settings import views
from vidsme_jax.store import signals

pytestmark = [pytest.mark.usefixtures("without_figures"), pytest.mark.long]
FILE = pathlib.Path(__file__).parents[1] / "configs" / "studies.py"


def _config(variant):
    spec = importlib.util.spec_from_file_location("studies_config", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant)
    assert not settings.problems(config)
    config.parallel.data = 1
    return config


def _rows(workdir):
    return json.loads((workdir / "study.json").read_text())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Shared: what one study computed, the next ones read from the shards."""
    return tmp_path_factory.mktemp("studies")


def test_a_study_scores_the_video_s_rows_of_one_model():
    config = _config("k-tiny")
    config.slices, config.scores = ("instruction",), "instruction_loss"
    config.headline = "instruction_loss"
    config.reference.checkpoint = str(settings.DEMO / "reference")
    with pytest.raises(AuditError) as caught:
        studies.check(config)
    assert "config.reference: a study scores one model" in str(caught.value)
    assert "config.slices is ('instruction',): a study is of" in str(caught.value)


@pytest.mark.parametrize("study", ["k", "scales", "orders", "natural"])
def test_studies_of_stored_signals(study, workdir):
    studies.run(_config(f"{study}-tiny"), workdir)
    for name in ("study.csv", "study.parquet", "study.json", "study.html"):
        assert (workdir / name).stat().st_size > 0, name
    assert (workdir / "figures" / "study.png").exists()
    assert len((workdir / "study.csv").read_text().splitlines()) > 3
    assert "was used for training" not in (workdir / "study.html").read_text()


def test_a_grid_point_is_the_audit_with_its_settings(workdir):
    config = _config("scales-tiny")
    studies.run(config, workdir)
    with (workdir / "study.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    config.study = ""
    config.motion.q_scale, config.motion.r_scale = 0.5, 0.5
    config.scores = "vid_sme"
    report = audit.run(config, workdir)
    auc = report.metrics["comparisons"]["all"]["scores"]["vid_sme"]["auc"]["value"]
    found = [
        float(row["auc"])
        for row in rows
        if row["comparison"] == "all"
        and (float(row["q_scale"]), float(row["r_scale"])) == (0.5, 0.5)
        and float(row["k"]) == 30
    ]
    assert found == [pytest.approx(auc, abs=1e-9)]


def test_frames_are_decoded_once_and_equal_audits(tmp_path, decoded):
    config = _config("frames-tiny")
    studies.run(config, tmp_path)
    assert len(decoded) == len(set(decoded)) == 12
    with (tmp_path / "study.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["comparison"] == "all"]
    config.study, config.video.num_frames = "", 2
    report = audit.run(config, tmp_path / "audit")
    results = report.metrics["comparisons"]["all"]["scores"]
    for name in ("vid_sme", "perplexity"):
        (found,) = [
            float(row["auc"])
            for row in rows
            if row["score"] == name and row[_counts(rows)] == "2"
        ]
        assert found == pytest.approx(results[name]["auc"]["value"], abs=1e-9)
    # At one frame natural and reversed are the same.
    (alone,) = [r for r in rows if r["score"] == "vid_sme" and r[_counts(rows)] == "1"]
    assert float(alone["auc"]) == 0.5


def _counts(rows):
    """The column of the number of frames."""
    return next(key for key in rows[0] if "frames" in key)


def test_reversed_against_a_shuffle(tmp_path):
    studies.run(_config("against-tiny"), tmp_path)
    text = (tmp_path / "study.csv").read_text()
    assert "reversed" in text and "shuffled:0" in text


@pytest.mark.parametrize("study", ["frames", "against"])
def test_prepared_clips_give_what_their_videos_give(study, tmp_path, monkeypatch):
    config = _config(f"{study}-tiny")
    config.corpus.max_clips, config.batch_size = 2, 2
    config.scores, config.studies.frames, config.video.num_frames = "vid_sme", (1, 3), 3
    studies.run(config, tmp_path / "raw")
    made = config.copy_and_resolve_references()
    for made.video.num_frames in (2, 3):
        preparation.run(views.Settings.of(made), tmp_path / "made")
    monkeypatch.setattr(decoders, "ask", None)
    config.corpus.prepared = str(tmp_path / "made")
    studies.run(config, tmp_path / "prepared")
    raw, prepared = (
        (tmp_path / name / "study.csv").read_text() for name in ("raw", "prepared")
    )
    assert raw == prepared and len(raw.splitlines()) > 2


def test_frames_that_are_not_prepared_are_named(tmp_path):
    config = _config("frames-tiny")
    config.corpus.max_clips = 1
    config.video.sampling = "midpoint"
    preparation.run(views.Settings.of(config), tmp_path / "made")
    config.corpus.prepared = str(tmp_path / "made")
    with pytest.raises(AuditError) as caught:
        studies.run(config, tmp_path / "run")
    single, two = caught.value.problems
    assert "no single frames" in single and "leave 1 out" in single
    assert "midpoint_2_png (it has midpoint_4_png)" in two
    assert two.endswith("2 frames: --config.video.num_frames=2")


def test_a_clip_that_failed_when_prepared_fails_at_every_count(tmp_path):
    config = _config("frames-tiny")
    (tmp_path / "bad.mp4").write_bytes(b"none")
    config.corpus.max_clips = 2
    config.corpus.suspects = (str(tmp_path / "bad.mp4"),)
    for config.video.num_frames in (2, 4):
        preparation.run(views.Settings.of(config), tmp_path / "made")
    config.corpus.prepared = str(tmp_path / "made")
    report = studies.run(config, tmp_path / "run")
    (failure,) = report.failures
    assert (failure.stage, failure.video) == ("open", config.corpus.suspects[0])


def test_more_frames_than_the_model_holds(tmp_path):
    config = _config("frames-tiny")
    config.studies.frames = (2, 100_000)
    with pytest.raises(AuditError, match=r"100000|100,000"):
        studies.run(config, tmp_path)


def test_a_study_that_is_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    config, stop, write = _config("frames-tiny"), Stop(), signals.Signals.write
    config.batch_size = 2

    def asking(store, clips, slices):
        stop.asked = True
        return write(store, clips, slices)

    with monkeypatch.context() as patch:
        patch.setattr(signals.Signals, "write", asking)
        with pytest.raises(KeyboardInterrupt):
            studies.run(config, tmp_path, stop)
    assert not (tmp_path / "study.json").exists()
    kept = {part: part.read_bytes() for part in tmp_path.rglob("part-*.parquet")}
    folders = sorted(tmp_path.glob("frames-*"))
    assert len(folders) == 3 and 0 < len(kept) < 6
    studies.run(config, tmp_path)
    assert all(part.read_bytes() == data for part, data in kept.items())
    for folder in folders:
        parts = sorted(folder.rglob("part-*.parquet"))
        tables = (pq.read_table(part, columns=["key"]) for part in parts)
        paths = [path for table in tables for path in table.column("key").to_pylist()]
        assert len(paths) == len(set(paths)) == 12


@pytest.mark.parametrize("limit", ["max_pixels", "max_seconds"])
def test_studies_keep_the_limits_of_decoding(limit, tmp_path):
    config = _config("frames-tiny")
    config.video[limit] = 1 if limit == "max_pixels" else 1e-9
    with pytest.raises(AuditError, match=rf"config\.video\.{limit}"):
        studies.run(config, tmp_path)


def test_a_study_of_text_is_refused(tmp_path):
    config = _config("k-tiny")
    config.slices = ("video", "response")
    with pytest.raises(AuditError, match="a study is of the rows of the video alone"):
        studies.run(config, tmp_path)
