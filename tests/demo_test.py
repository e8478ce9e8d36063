"""The demo: what is stored fits together, and the model knows its members."""

import hashlib
import json
import pathlib

import jax
import numpy as np
import pytest
import torch
import transformers

from decoding import decode
from oracles import our_logits
from vidsme_jax import models, settings
from vidsme_jax.commands import demo
from vidsme_jax.demo import drawing
from vidsme_jax.finetune import examples, options, preparing, steps
from vidsme_jax.settings import DEMO

CHECKPOINT, CORPUS = DEMO / "checkpoint", DEMO / "corpus"
REFERENCE = DEMO / "reference"
FRAMES = 8
_LATER = ("corpus.prepared_cache",)  # Keys that came after the training.


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((CHECKPOINT / "training.json").read_text())


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    """The rows of the manifests, by group."""
    out = {"": [], "matched": [], "shifted": []}
    for name in ("members.jsonl", "nonmembers.jsonl"):
        for line in (CORPUS / name).read_text().splitlines():
            row = json.loads(line)
            out[row["group"]].append(row)
    return out


@pytest.fixture(scope="module")
def model():
    return models.load(str(CHECKPOINT), dtype="float32")


def test_manifests_name_every_clip_once(rows):
    assert {group: len(each) for group, each in rows.items()} == {
        **{"": 100, "matched": 100, "shifted": 100}
    }
    named = [row["video"] for each in rows.values() for row in each]
    stored = [f"clips/{path.name}" for path in CORPUS.glob("clips/*")]
    assert sorted(named) == sorted(stored)


def test_it_is_small():
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1e7


def test_it_was_trained_on_its_members(record, rows):
    assert record["members"] == [row["id"] for row in rows[""]]
    facts = [
        [
            row["id"],
            hashlib.sha256((CORPUS / row["video"]).read_bytes()).hexdigest(),
            *(row["question"], [], row["answer"]),
        ]
        for row in rows[""]
    ]
    assert record["data"] == hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _selftrain():
    import importlib.util

    path = DEMO.parents[1] / "configs" / "selftrain.py"
    spec = importlib.util.spec_from_file_location("selftrain", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_were_trained_with_these_configurations():
    """By the command, in runs/made."""
    for variant, folder in (("demo", CHECKPOINT), ("reference", REFERENCE)):
        config = demo.configuration(pathlib.Path("runs/made"), variant)
        assert not options.problems(config)
        flat = json.loads(json.dumps(settings.flatten(config)))
        then = json.loads((folder / "training.json").read_text())["config"]
        later = {key: flat[key] for key in _LATER}  # Read where a corpus is prepared.
        assert then | later == flat


def test_the_configuration_with_it_trains_the_same():
    """On the clips that are stored, with the same settings."""
    keys = {"corpus.members", "corpus.nonmembers", "model.checkpoint"}
    for variant in ("demo", "reference"):
        mine = settings.flatten(_selftrain().get_config(variant))
        made = demo.configuration(pathlib.Path("runs/made"), variant)
        made = settings.flatten(made)
        assert {key for key in mine if mine[key] != made[key]} <= keys
    members = pathlib.Path(_selftrain().get_config().corpus.members[0])
    assert (DEMO.parents[1] / members).is_file()


def test_the_reference_has_seen_other_clips(record):
    other = json.loads((REFERENCE / "training.json").read_text())
    assert other["data"] != record["data"]
    assert other["config"]["corpus.members"] == ["runs/made/others/members.jsonl"]
    # It captions such clips about as well as it knows its own, and far from by heart.
    assert 0.8 < other["losses"]["members"] < other["losses"]["nonmembers matched"] < 2
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (REFERENCE / name).read_bytes() == (CHECKPOINT / name).read_bytes()


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match="no variant 'x'; known: demo, reference"):
        _selftrain().get_config("x")


def test_its_parameters_are_counted(record, model):
    leaves = jax.tree.leaves(model.state)
    assert record["parameters"] == sum(leaf.size for leaf in leaves)
    assert 5e5 < record["parameters"] < 2e6


def test_transformers_gives_the_same_logits(model, rows):
    theirs, info = transformers.LlavaNextVideoForConditionalGeneration.from_pretrained(
        CHECKPOINT, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info.values()), info
    row = rows[""][0]
    frames = decode(CORPUS / row["video"], num_frames=FRAMES).pixels
    processor = transformers.CLIPImageProcessorPil.from_pretrained(CHECKPOINT)
    pictures = processor(list(frames), return_tensors="pt")["pixel_values"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    num_rows = FRAMES * model.model.rows_per_frame
    text = f"USER: {'<video>' * num_rows}\n{row['question']} ASSISTANT: {row['answer']}"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids, pixel_values_videos=pictures[None])

    before = model.model.tokenise().before
    assert tuple(ids[0, : len(before)].tolist()) == before
    after = ids[0, len(before) + num_rows :].tolist()
    pixels = model.model.prepare(frames)
    assert expected.logits.std() > 1
    logits = our_logits(model, pixels, before, after)
    np.testing.assert_allclose(logits, expected.logits[0], atol=1e-4)
    # And it says the caption, word for word.
    said = expected.logits[0].argmax(-1)[-len(row["answer"].split()) - 1 : -1]
    assert tokenizer.decode(said) == row["answer"]


def test_the_captions_of_members_are_memorised(rows, record, tmp_path):
    chosen = rows[""][:8], rows["matched"][:8]
    for name, its in zip(("members", "nonmembers"), chosen, strict=True):
        text = "".join(json.dumps(row) + "\n" for row in its)
        (tmp_path / f"{name}.jsonl").write_text(text)
    config = options.default()
    config.corpus.members = (str(tmp_path / "members.jsonl"),)
    config.corpus.nonmembers = (str(tmp_path / "nonmembers.jsonl"),)
    config.corpus.video_root = str(CORPUS)
    config.video.num_frames = FRAMES
    config.model.checkpoint = str(CHECKPOINT)
    config.parallel.data, config.compile_cache = 1, ""
    config.train.batch_size = 16
    prepared = preparing.prepare(config, tmp_path / "unused")
    trainee, devices = prepared.trainee, prepared.devices
    programs = steps.programs(trainee.form, prepared.train, 1, devices)
    trained, frozen = trainee.start(devices.shardings(trainee.form.split), 0)
    model, every = trainee.source.model, [list(range(16))]
    (cut,) = examples.cut(prepared.rows, every, prepared.clips, model, 16)
    nll, tokens = programs.losses(programs.start(trained), frozen, cut.batch)
    losses = nll / tokens
    assert losses[:8].max() < 0.2 and losses[:8].mean() < 0.05
    assert losses[8:].min() > 1.0
    assert record["losses"]["members"] == pytest.approx(losses[:8].mean(), abs=0.03)


def test_the_tokenizer_is_the_generators():
    vocabulary = transformers.AutoTokenizer.from_pretrained(CHECKPOINT).get_vocab()
    assert vocabulary == {token: k for k, token in enumerate(drawing.TOKENS)}
