"""SmolVLM2 against transformers' torch class and its processors, with video."""

import json
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file, save_file
from tokenizers import processors
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings
from transformers.video_utils import VideoMetadata

from oracles import every_row
from oracles import smolvlm as oracle
from vidsme_jax import models
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.models import generation, random, smolvlm
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.models.smolvlm import modeling
from vidsme_jax.run import signals

QUESTION, ANSWER = "what happens in this video?", "it rains; größer, 17 times"
ASKED = Asked(key="", question=QUESTION, answer=ANSWER)
# Frames, their places in the video, the video's frames, and its average rate.
CLIPS = {
    "one": ((0,), 1, 24.0),
    "even": ((0, 8, 17, 25), 30, 30.0),
    "odd": ((1, 2, 61, 62, 1100), 1800, 30000 / 1001),
    "almost two seconds": ((0, 46), 47, 24.0),
    "over an hour": ((0, 3599, 3600, 4503), 90_061, 1.0),
}


def _shown(clip) -> Shown:
    places, total, rate = CLIPS[clip]
    return Shown(len(places), tuple(k / rate for k in places), total / rate)


def _frames(count, shape=(60, 80), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape, 3), np.uint8)


def _smooth(count, shape) -> np.ndarray:
    """Frames whose resampled values are not clipped, as those of a camera's."""
    frames = _frames(count, shape)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in frames])


def _normalised(frames) -> torch.Tensor:
    pixels = torch.tensor(frames.astype(np.float32)).permute(0, 3, 1, 2)
    return (pixels / 255 - 0.5) / 0.5


def _sequence(text: Text, around: Text, rows=oracle.ROWS) -> list[int]:
    """The ids of the whole: the prompt with the rows' tokens, then a text."""
    ids = list(around.before)
    for between in around.frames:
        ids += [oracle.IMAGE_TOKEN] * rows + list(between)
    return [*ids, *text.after, *text.answer]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = oracle.make_model()
    return model, oracle.save(model, tmp_path_factory.mktemp("smolvlm"))


@pytest.fixture(scope="module")
def loaded(saved):
    return models.load(str(saved[1]), dtype="float32")


@pytest.mark.parametrize("clip", CLIPS)
def test_tokens_equal_the_processors(loaded, clip):
    """Times at a constant and at a variable rate, and text in front of each frame."""
    places, total, rate = CLIPS[clip]
    shown, plan = _shown(clip), loaded.model
    turn = {"role": "user", "content": [{"type": "video"}, _part(QUESTION)]}
    said = {"role": "assistant", "content": [_part(ANSWER)]}
    processor = oracle.processor()
    metadata = VideoMetadata(
        total_num_frames=total,
        fps=rate,
        duration=total / rate,
        frames_indices=list(places),
    )
    inputs = processor(
        text=[processor.apply_chat_template([turn, said])],
        videos=[_frames(len(places))],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
    )
    expected = inputs["input_ids"][0].tolist()
    assert plan.timed and plan.prompt == "<|im_start|>User: <video>"
    around = plan.tokenise(None, shown)
    found = _sequence(plan.tokenise(ASKED), around)
    assert oracle.TOKENIZER.decode(expected[len(found) :]) == "\n"
    assert found == expected[: len(found)]
    text = plan.tokenise(ASKED)
    assert oracle.TOKENIZER.decode(text.answer) == f" {ANSWER}<end_of_utterance>"
    assert plan.ends == (oracle.TOKENIZER.eos_token_id,)
    assert len(around.frames) == len(places)


def _part(text):
    return {"type": "text", "text": text}


def test_a_tokenizer_that_begins_texts_adds_nothing(saved, tmp_path):
    """The prompt begins with `<|im_start|>`; so `apply_chat_template` has it."""
    shutil.copytree(saved[1], tmp_path, dirs_exist_ok=True)
    adding = transformers.AutoTokenizer.from_pretrained(saved[1])
    first, begin = adding.bos_token, adding.bos_token_id
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, begin)]
    )
    adding.save_pretrained(tmp_path)
    shown, found = _shown("even"), []
    for folder in (saved[1], tmp_path):
        plan = models.inspect(str(folder), dtype="float32")
        around = plan.tokenise(None, shown)
        found.append((around.before, around.frames, plan.tokenise(ASKED)))
    assert adding("a")["input_ids"][0] == begin
    assert found[0] == found[1] and found[0][0].count(begin) == 1


def test_a_system_turn_is_as_the_template_has_it(saved):
    """`<|im_start|>` stands in front of the first turn alone."""
    plan = models.inspect(str(saved[1]), dtype="float32", prompt="mcq")
    system = {"role": "system", "content": [_part("Say it.")]}
    turn = {"role": "user", "content": [{"type": "video"}, _part("")]}
    text = oracle.processor().apply_chat_template([system, turn])
    before, _, after = plan.prompt.partition("Carefully")
    assert text.startswith(before + "Say it.<end_of_utterance>\nUser: <video>")
    assert after.endswith("<end_of_utterance>\nUser: <video>")


@pytest.mark.parametrize("shape", [(144, 81), (81, 144), (70, 70), (51, 80)])
def test_pixels_equal_the_processors(saved, shape):
    """Pillow's form, and within two grey levels torchvision's."""
    plan, pillow = models.inspect(str(saved[1]), dtype="float32"), oracle.pillow()
    for frames in (_frames(2, (240, 37)), _frames(2, shape), _smooth(2, shape)):
        ours = _normalised(plan.prepare(frames)).numpy()
        theirs = pillow([list(frames)], return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    videos = oracle.processor().video_processor
    found = videos([frames], return_tensors="np", do_sample_frames=False)
    assert found["pixel_attention_mask"].all(), "a part of the square is padding"
    _close(ours, found["pixel_values"][0])


def _close(ours, theirs):
    """Within two grey levels, 0.2 on average."""
    levels = np.abs(ours - theirs) * 127.5
    assert levels.max() < 2.01 and levels.mean() < 0.2


def test_pixels_that_are_not_resampled_are_equal(tmp_path):
    settings = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}
    videos = transformers.SmolVLMVideoProcessor(**settings)
    folder = oracle.save(oracle.make_model(), tmp_path)
    _change(folder, "processor_config.json", "video_processor", settings)
    frames = _frames(2, (64, 64))
    made = models.inspect(str(folder), dtype="float32").prepare(frames)
    np.testing.assert_array_equal(made, frames)
    found = videos([frames], return_tensors="np", do_sample_frames=False)
    np.testing.assert_allclose(_normalised(made), found["pixel_values"][0], atol=1e-6)


def test_published_files_are_read_as_transformers_reads_them(tmp_path):
    """Images' `size` is the first resize of a video too; the report says so."""
    folder = oracle.save_as_published(oracle.make_model(), tmp_path)
    plan, frames = models.inspect(str(folder), dtype="float32"), _smooth(2, (90, 50))
    videos = transformers.SmolVLMVideoProcessor.from_pretrained(folder)
    assert videos.size == {"longest_edge": 128}
    found = videos([frames], return_tensors="np", do_sample_frames=False)
    ours = _normalised(plan.prepare(frames)).numpy()
    _close(ours, found["pixel_values"][0])
    most, sizes = plan.remarks
    assert "at most 64 frames of a video, 1 a second" in most
    assert "'longest_edge': 128}, as transformers 5 does, not to the video" in sizes


@pytest.mark.parametrize("size", ["256m", "2.2b"])
def test_published_sizes_have_the_parameters_of_transformers(size):
    raw = dict(smolvlm.FAMILY.sizes[f"smolvlm-{size}"]["config.json"])
    raw.pop("model_type")
    with torch.device("meta"):
        config = transformers.SmolVLMConfig(**raw)
        model = transformers.SmolVLMForConditionalGeneration(config)
    count = sum(x.numel() for x in model.parameters())
    plan = random.describe(f"smolvlm-{size}", dtype="bfloat16")
    assert plan.num_bytes == 2 * count


@pytest.mark.parametrize("side", [27, 32])
def test_positions_of_published_towers_are_the_table_in_order(side):
    config = transformers.models.smolvlm.SmolVLMVisionConfig(
        hidden_size=4, image_size=2 * side, patch_size=2
    )
    tower = SmolVLMVisionEmbeddings(config)
    with torch.no_grad():
        tower.patch_embedding.weight.zero_()
        tower.patch_embedding.bias.zero_()
        found = tower(
            torch.zeros(1, 3, 2 * side, 2 * side),
            torch.ones(1, side, side, dtype=torch.bool),
        )
    torch.testing.assert_close(found[0], tower.position_embedding.weight)


def test_pixel_shuffle_equals_transformers():
    features = torch.randn(2, 36, 5)
    model = oracle.make_model()
    expected = model.model.connector.pixel_shuffle(features, 3)
    found = modeling.pixel_shuffle(jnp.asarray(features.numpy()), 3)
    np.testing.assert_array_equal(found, expected.numpy())


def _logits(loaded, frames, around: Text, text: Text) -> np.ndarray:
    """The package's logits of all rows: the prompt around a clip, then a text."""
    plan, order = loaded.model, np.arange(len(frames))
    around = around._replace(after=(*text.after, *text.answer))
    rows = every_row(plan.lay_out(Shown(len(frames)), around, order))
    batch = stack([[rows]], frames[None, None], Shape.of(rows))

    @jax.jit
    def run(state, batch):
        model = nnx.merge(loaded.graphdef, state)
        hidden, _ = model.read(model.see(batch.pixels), batch)
        return hidden[0, 0] @ model.head.T

    return np.asarray(run(loaded.state, jax.tree.map(jnp.asarray, batch)))


@pytest.mark.parametrize(
    ("clip", "kv_heads", "tied", "published"),
    [
        ("one", 4, False, False),
        ("even", 2, True, False),
        ("odd", 1, False, True),
    ],
)
def test_logits_of_all_rows_equal_transformers(
    tmp_path, clip, kv_heads, tied, published
):
    model = oracle.make_model(kv_heads=kv_heads, tied=tied)
    save = oracle.save_as_published if published else oracle.save
    loaded = models.load(str(save(model, tmp_path)), dtype="float32")
    plan, shown = loaded.model, _shown(clip)
    frames = plan.prepare(_frames(shown.num_frames))
    around, text = plan.tokenise(None, shown), plan.tokenise(ASKED)
    ids = _sequence(text, around)
    expected = oracle.logits(model, ids, _normalised(frames)).numpy()
    assert expected.std() > 0.5, "weights too small for errors to show"
    found = _logits(loaded, frames, around, text)
    assert len(found) == len(ids)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_both_directions_equal_torch(saved, loaded):
    """Frames change places; the text between them stays, with its times."""
    model, plan = saved[0], loaded.model
    frames, shown = _frames(3, (80, 50)), Shown(3, (0.0, 0.5, 1.0), 1.5)
    found = signals.compute(loaded, frames, rate=2.0).signals
    assert found.gap.shape == (2, plan.num_rows(3)) == (2, 3 * oracle.ROWS)
    small = plan.prepare(frames)
    ids = np.array(_sequence(Text(()), plan.tokenise(None, shown)))
    for direction, order in enumerate((small, small[::-1])):
        logits = oracle.logits(model, ids, _normalised(order))
        logits = logits[torch.tensor(ids == oracle.IMAGE_TOKEN)]
        log_p = torch.log_softmax(logits.double(), -1).numpy()
        shannon = -(np.exp(log_p) * log_p).sum(-1)
        np.testing.assert_allclose(found.renyi[direction, :, 1], shannon, rtol=2e-4)


def test_texts_as_segments_equal_the_whole_sequence(saved, loaded):
    """Two texts about one clip, each seen by its own rows alone; both orders."""
    model, plan, shown = saved[0], loaded.model, _shown("even")
    frames = plan.prepare(_frames(shown.num_frames))
    texts = [plan.tokenise(ASKED), plan.tokenise(Asked(key="", answer="a dog runs"))]
    natural = np.arange(4)
    orders = natural, natural[::-1]
    rows = [
        plan.lay_out(shown, plan.tokenise(None, shown), order, texts, ("response",))
        for order in orders
    ]
    batch = stack([rows], frames[None, None], Shape.of(rows[0]), TextShape.of(rows[0]))

    @jax.jit
    def run(state, batch):
        module = nnx.merge(loaded.graphdef, state)
        _, states = module.read(module.see(batch.pixels), batch)
        return states @ module.head.T

    states = np.asarray(run(loaded.state, jax.tree.map(jnp.asarray, batch)))
    for number, text in enumerate(texts):
        ids = _sequence(text, plan.tokenise(None, shown))
        start = len(ids) - len(text.answer) - 1
        for d, order in enumerate(orders):
            expected = oracle.logits(model, ids, _normalised(frames[order]))
            expected = expected[start:-1].numpy()
            kept = np.flatnonzero(rows[0].text == number + 1)
            np.testing.assert_allclose(states[0, d, kept], expected, atol=1e-4)


def test_greedy_answers_equal_transformers(saved, loaded):
    model, plan, shown = saved[0], loaded.model, _shown("odd")
    frames = plan.prepare(_frames(shown.num_frames, seed=3))
    around = plan.tokenise(None, shown)
    text = plan.tokenise(Asked(key="", question=QUESTION))
    ids = torch.tensor([_sequence(text, around)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=_normalised(frames)[None],
        do_sample=False,
        max_new_tokens=6,
        pad_token_id=0,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    two = torch.cat(out.logits).topk(2, dim=-1).values
    assert (two[:, 0] - two[:, 1]).min() > 1e-3, "this fixture's steps are unclear"
    order = np.arange(shown.num_frames, dtype=np.int32)
    rows = plan.lay_out(shown, around, order, [text])
    batch = stack([[rows]], frames[None, None], Shape.of(rows), TextShape.of(rows))
    step = generation.greedy(loaded.graphdef, limit=6, ends=())
    found = jax.jit(step)(loaded.state, jax.tree.map(jnp.asarray, batch))
    ((told, _),) = generation.answers(jax.tree.map(np.asarray, found), 0, 1)
    assert list(told) == out.sequences[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model.vision_model.post_layernorm.weight": None}, "missing: no tensor for"),
        ({"model.vision_model.head.weight": (3,)}, "surplus"),
        ({"model.connector.modality_projection.proj.weight": (48, 32)}, "(48, 32)"),
        ({"lm_head.weight": None}, "no lm_head.weight, and tie_word_embeddings"),
    ],
)
def test_tensors_that_are_not_the_models(tmp_path, change, text):
    folder = oracle.save(oracle.make_model(), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = np.zeros(shape, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert text in str(caught.value).replace("[", "(").replace("]", ")")


def test_an_output_layer_that_is_absent_is_no_tie_by_default(tmp_path):
    folder = oracle.save(oracle.make_model(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    models.inspect(str(folder), dtype="float32")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AuditError, match=r"no lm_head\.weight"):
        models.inspect(str(folder), dtype="float32")


def _change(folder, where, key, change):
    """Merges a change into a part of a JSON file; None removes the part."""
    path = folder / where
    raw = json.loads(path.read_text())
    if change is None:
        del raw[key]
    elif key is None:
        raw |= change
    else:
        raw[key] |= change
    path.write_text(json.dumps(raw))


CONFIG, PROCESSOR = "config.json", "processor_config.json"
VIDEO, VISION, TEXT = "video_processor", "vision_config", "text_config"


@pytest.mark.parametrize(
    ("where", "key", "change", "text"),
    [
        (CONFIG, VISION, {"model_type": "clip_vision_model"}, "built for 'smolvlm_v"),
        (CONFIG, VISION, {"hidden_act": "gelu"}, "hidden_act is 'gelu'; built for"),
        (CONFIG, VISION, {"novel": 1}, "vision_config: unknown key 'novel'"),
        (CONFIG, VISION, {"image_size": [64, 64]}, "image_size is [64, 64]"),
        (CONFIG, VISION, None, "vision_config is missing"),
        (CONFIG, TEXT, {"qk_layer_norms": True}, "qk_layer_norms is True; built for"),
        (CONFIG, TEXT, {"use_resampler": True}, "use_resampler is True; built for"),
        (CONFIG, TEXT, {"model_type": "mistral"}, "built for 'llama'"),
        (CONFIG, None, {"scale_factor": 3}, "does not divide the 8 patches"),
        (CONFIG, None, {"image_token_id": 5}, "has the video token 5 0 times"),
        (CONFIG, None, {"novel": 1}, "config.json: unknown key 'novel'"),
        (
            PROCESSOR,
            None,
            {"image_seq_len": 169},
            "image_seq_len is 169, but by config.json it is",
        ),
        (PROCESSOR, VIDEO, None, "it has an image_processor but no video_processor"),
        (PROCESSOR, VIDEO, {"do_resize": False}, "do_resize"),
        (PROCESSOR, VIDEO, {"do_center_crop": True}, "do_center_crop is True"),
        (PROCESSOR, VIDEO, {"size": {"shortest_edge": 9}}, "expected longest_edge, or"),
        (
            PROCESSOR,
            VIDEO,
            {"max_image_size": {"longest_edge": 32}},
            "the tower takes 64 x 64; expected longest_edge 64",
        ),
        (PROCESSOR, VIDEO, {"do_normalize": False}, "takes for padding and leaves out"),
        (PROCESSOR, VIDEO, {"novel": 1}, "unknown key 'novel'"),
        (
            PROCESSOR,
            VIDEO,
            {"video_sampling": {"max_frames": 0, "fps": 1}},
            "max_frames is 0, expected 1 to",
        ),
    ],
)
def test_what_is_refused(saved, tmp_path, where, key, change, text):
    for path in saved[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    _change(tmp_path, where, key, change)
    with pytest.raises(AuditError) as caught:
        models.inspect(str(tmp_path), dtype="float32")
    assert text in str(caught.value)


def test_clips_that_the_context_does_not_hold(loaded):
    """The text between frames counts."""
    plan = loaded.model
    most = plan.max_frames
    length = len(_sequence(Text(()), plan.tokenise(None, Shown(most + 1))))
    assert length > plan.max_rows == 512 and most < 512 // oracle.ROWS // 2
