"""The demo: what is stored fits together, and the model knows its members."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from decoding import decode
from oracles import our_logits
from vidsme_jax import models
from vidsme_jax.data import corpora
from vidsme_jax.demo import drawing
from vidsme_jax.finetune import batches, options, source, training
from vidsme_jax.settings import DEMO, views

CHECKPOINT, CORPUS = DEMO / "checkpoint", DEMO / "corpus"
REFERENCE = DEMO / "reference"
FRAMES = 8


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
            *(row["question"], row["answer"]),
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
    module = _selftrain()
    for variant, folder in (("demo", CHECKPOINT), ("reference", REFERENCE)):
        config = module.get_config(variant)
        config.overwrite = True
        assert not options.problems(config)
        flat = json.loads(json.dumps(options.settings.flatten(config)))
        assert json.loads((folder / "training.json").read_text())["config"] == flat


def test_the_reference_has_seen_other_clips(record):
    other = json.loads((REFERENCE / "training.json").read_text())
    assert other["data"] != record["data"]
    assert not any("demo" in name for name in other["config"]["corpus.members"])
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


def test_the_captions_of_members_are_memorised(model, record):
    config = options.default()
    config.video.num_frames = FRAMES
    opened = source.open_source(str(CHECKPOINT), random_seed=None)
    config.corpus.members = (str(CORPUS / "members.jsonl"),)
    config.corpus.nonmembers = (str(CORPUS / "nonmembers.jsonl"),)
    items = corpora.load(views.view(views.Corpus, config)).items
    chosen = [item for item in items if item.role == "members"][:8]
    chosen += [item for item in items if item.group == "matched"][:8]
    found: list[str] = []
    texts = batches.tokenise(chosen, opened.model, FRAMES, found)
    assert not found
    config.train.batch_size = 16
    batch = next(batches.Clips(config, opened.model.prepare).batches(texts))
    module = nnx.merge(model.graphdef, model.state)
    batch = jax.tree.map(jnp.asarray, batch)
    losses = np.asarray(jax.jit(training.answer_nll)(module, batch))
    assert losses[:8].max() < 0.2 and losses[:8].mean() < 0.05
    assert losses[8:].min() > 1.0
    assert record["losses"]["members"] == pytest.approx(losses[:8].mean(), abs=0.03)


def test_the_tokenizer_is_the_generators():
    vocabulary = transformers.AutoTokenizer.from_pretrained(CHECKPOINT).get_vocab()
    assert vocabulary == {token: k for k, token in enumerate(drawing.TOKENS)}
