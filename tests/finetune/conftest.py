"""A few drawn clips, an architecture, and a model that was trained on them."""

import json
import pathlib

import pytest

from oracles import llava_next_video as oracle
from vidsme_jax.demo import clips, drawing
from vidsme_jax.finetune import examples, options, preparing, steps, training

FRAMES = 4
BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def beside_scripts():
    """Lets the modules of benchmarks be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("corpus")
    clips.write_corpus(folder, num_members=5, num_matched=2, num_shifted=1, seed=3)
    return folder


@pytest.fixture(scope="module")
def architecture(tmp_path_factory) -> pathlib.Path:
    """A folder with a config and a tokenizer, and no weights."""
    folder = tmp_path_factory.mktemp("architecture")
    raw = oracle.make_model().config.to_dict()
    raw["video_token_index"] = drawing.TOKENS.index("<video>")
    raw["image_token_index"] = drawing.TOKENS.index("<image>")
    raw["text_config"]["pad_token_id"] = drawing.TOKENS.index("<pad>")
    (folder / "config.json").write_text(json.dumps(raw))
    drawing.tokenizer_files(folder)
    return folder


@pytest.fixture(scope="module")
def config(corpus, architecture):
    config = options.default()
    config.corpus.members = (str(corpus / "members.jsonl"),)
    config.corpus.nonmembers = (str(corpus / "nonmembers.jsonl"),)
    config.video.num_frames = FRAMES
    config.model.checkpoint = str(architecture)
    config.model.init = "random"
    config.compile_cache = ""
    config.parallel.data = 1
    config.train.batch_size = 3
    config.train.epochs = 12
    config.train.warmup_steps = 2
    config.train.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """(folder, what `run` returned)."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    return folder, training.run(config, folder)


@pytest.fixture(scope="module")
def example(config, tmp_path_factory):
    """(programs, state, the members laid out, the batch of the first three)."""
    prepared = preparing.prepare(config, tmp_path_factory.mktemp("unused"))
    programs = steps.programs(
        prepared.trainee.form, prepared.train, 24, prepared.devices
    )
    where = prepared.devices.shardings(prepared.trainee.form.split)
    trained, frozen = prepared.trainee.start(where, 0)
    assert not frozen
    rows, model = prepared.members, prepared.trainee.source.model
    cut = next(examples.cut(rows, [[0, 1, 2]], prepared.clips, model, 3))
    return programs, programs.start(trained), rows, cut.batch
