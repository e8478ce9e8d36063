"""Every file in configs/ builds under lock, and its tiny variant runs end to end."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from ml_collections import config_flags

from vidsme_jax import audit, models, scores, settings
from vidsme_jax.finetune import options
from vidsme_jax.models import random
from vidsme_jax.run import signals
from vidsme_jax.settings import views

pytestmark = pytest.mark.usefixtures("without_figures")
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
AUDITS = sorted(
    p.stem
    for p in CONFIGS.glob("*.py")
    if p.stem not in ("finetune", "selftrain", "studies")
)


def _module(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _config(name, variant):
    config = _module(name).get_config(variant)
    config.lock()
    return config


def test_the_papers_targets_and_corpora_are_there():
    paper = {"vidsme_cinepile", "vidsme_nextqa", "vidsme_caption", "longva", "llava"}
    assert paper <= set(AUDITS)
    assert {"7b", "34b"} <= set(_module("llava").CHECKPOINTS)
    assert {"7b", "7b-dpo", "video-xl"} <= set(_module("longva").CHECKPOINTS)
    assert {"7b", "72b"} <= set(_module("llava_video").CHECKPOINTS)
    assert {"0.5b", "7b", "72b"} <= set(_module("llava_onevision").CHECKPOINTS)
    assert {"8b", "32b", "2.5-72b", "2-7b"} <= set(_module("qwen_vl").CHECKPOINTS)


@pytest.mark.parametrize("name", AUDITS)
def test_it_builds_under_lock(name):
    module = _module(name)
    for variant in module.CHECKPOINTS:
        config = _config(name, variant)
        assert not settings.problems(config), variant
        with pytest.raises(AttributeError):
            config.surprise = 1
    with pytest.raises(ValueError, match="no variant 'huge'"):
        module.get_config("huge")
    assert f"configs/{name}.py" in module.__doc__ and ":tiny" in module.__doc__
    assert config_flags is not None


@pytest.mark.parametrize("variant", ["lora", "full", "projector"])
def test_a_training_builds_under_lock(variant):
    config = _config("finetune", variant)
    config.model.checkpoint = "x"
    assert not options.problems(config)
    assert options.train_of(config).method == variant
    with pytest.raises(ValueError, match="no variant 'huge'; known: lora, full"):
        _module("finetune").get_config("huge")


@pytest.mark.parametrize("name", ["known_nextqa", "known_perceptiontest"])
def test_models_of_known_videos_have_a_placebo_and_a_blind_run(name):
    """On the same corpus, with the same settings."""
    module = _module(name)
    models_of = {variant.rpartition("_")[0] for variant in module.CHECKPOINTS}
    assert {"llava_video", "smolvlm2", "perception_lm"} <= models_of
    model = settings.flatten(_config(name, "llava_video_7b"))
    for variant in ("blind", "placebo_llava_video_7b", "perception_lm_8b"):
        other = settings.flatten(_config(name, variant))
        differ = {key for key in model if model[key] != other[key]}
        texts = {"slices", "headline"} if variant == "blind" else set()
        assert differ - texts == {"model.checkpoint"}
        assert f"{name}.py:{variant}" in module.__doc__ or "perception" in variant
    short = _config("known_nextqa", "smolvlm2_2.2b").corpus
    assert short.members == ("data/known/nextqa/members_1_3_m.json",)
    tiny = _config("known_nextqa", "tiny_smolvlm2")
    assert tiny.model.checkpoint == "random:smolvlm-tiny"
    assert tiny.corpus.max_clips == 4 and not tiny.corpus.video_root


@pytest.mark.parametrize("variant", ["2b", "7b"])
def test_published_videollama3_is_scored_in_one_order(variant):
    """Its processor leaves out rows: what compares two orders would be refused."""
    config = _config("video_llama_3", variant)
    names = scores.resolve(config.scores, config.profile)
    headline = scores.headline(config.headline, config.profile)
    assert headline in names
    assert not any(scores.compares_orders(x, config.profile) for x in names)


@pytest.mark.parametrize("corpus", ["cinepile", "nextqa", "caption"])
def test_the_releases_settings(corpus):
    config = _config(f"vidsme_{corpus}", "7b")
    assert config.video.num_frames == 16 and config.video.sampling == "uniform"
    assert (config.motion.q_scale, config.motion.r_scale) == (1.0, 0.1)
    assert config.model.prompt == ("caption" if corpus == "caption" else "mcq")
    assert config.profile == "official" and config.model.dtype == "float16"
    assert len(config.corpus.nonmembers) == (9 if corpus == "cinepile" else 1)


# Models that have a file of their own run there.
TINY = [*((name, "tiny") for name in AUDITS), ("known_nextqa", "tiny_placebo")]


@pytest.mark.long
@pytest.mark.parametrize(("name", "variant"), TINY)
def test_tiny_runs_end_to_end(name, variant, tmp_path):
    config = _config(name, variant)
    with config.unlocked():
        config.parallel.data = 1
    assert config.model.checkpoint.startswith(random.SCHEME)
    report = audit.run(config, tmp_path)
    assert not report.failures and len(report.table.id) == 8
    assert (tmp_path / "report.html").exists()
    names = {"official": 85}.get(config.profile, 77)
    names = 163 if "response" in config.slices else names
    assert len(report.table.scores) == names
    for value in report.table.scores.values():
        assert np.isfinite(value).all()
    headline = report.table.scores[report.metrics["headline"]]
    assert np.unique(headline).size == 8
    about = json.loads((tmp_path / "config.json").read_text())
    prompt = about["model"]["prompt"]
    if config.model.prompt == "mcq":
        assert "select the best option" in prompt
    assert about["fingerprints"]["model"]


@pytest.mark.slow
def test_half_precision_is_near_single():
    """The release runs in float16; the H100's runs are in bfloat16."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), np.uint8)
    found = {}
    for dtype in ("float32", "float16", "bfloat16"):
        model = models.load("random:llava_qwen-tiny", dtype=dtype)
        found[dtype] = signals.compute(model, frames).signals.renyi[..., 1]
    spread = found["float32"].std()
    assert np.abs(found["float16"] - found["float32"]).mean() < 0.02 * spread
    assert np.abs(found["bfloat16"] - found["float32"]).mean() < 0.1 * spread


def test_rows_of_several_manifests_are_distinguished(tmp_path):
    """CinePile's nine files of non-members become groups of the report."""
    from vidsme_jax.data import corpora

    config = _config("vidsme_cinepile", "7b").copy_and_resolve_references()
    for key in ("members", "nonmembers"):
        names = []
        for source in config.corpus[key]:
            path = tmp_path / pathlib.Path(source).name
            row = {"video": f"{path.stem}.mp4", "question": "?", "candidates": ["a"]}
            path.write_text(json.dumps([row | {"answer": "a"}]))
            names.append(str(path))
        config.corpus[key] = tuple(names)
    config.corpus.video_root = str(tmp_path)
    items = corpora.load(views.view(views.Corpus, config), looks=False).items
    groups = {i.group for i in items if i.role == "nonmembers"}
    assert groups == {*_module("vidsme_cinepile").TASKS}
    assert {i.group for i in items if i.role == "members"} == {""}
