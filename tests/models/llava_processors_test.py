"""Video-LLaVA and LLaVA-NeXT-Video-32K with transformers' models and processors."""

import json
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from oracles import llava_hf as oracle
from oracles import our_logits, texts
from vidsme_jax import models
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.models import generation, prompts, random
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.rows import Shown
from vidsme_jax.run import signals

QUESTION, ANSWER = "what happens in this video?", "a red ball rolls down"
ROWS = {"video_llava": 17, "llava_next_video-32k": 4}
# Three aspect ratios, and frames that need no resampling.
SHAPES = ((60, 80), (90, 60), (56, 200), (56, 56), (56, 61))


class Made(NamedTuple):
    """A checkpoint, and what it is for transformers and for us."""

    name: str
    model: torch.nn.Module
    processor: Any
    folder: str
    loaded: LoadedModel


@pytest.fixture(scope="module", params=oracle.NAMES)
def made(request, tmp_path_factory):
    """Returns each of the two checkpoints."""
    name, processor = request.param, oracle.make_processor(request.param)
    model = oracle.make_model(name, processor.tokenizer)
    folder = oracle.save(model, processor, tmp_path_factory.mktemp(name))
    loaded = models.load(folder, dtype="float32")
    return Made(name, model, processor, folder, loaded)


def _frames(count, height=60, width=80):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def _processed(processor, frames, turns):
    text = processor.apply_chat_template(
        turns, add_generation_prompt=turns[-1]["role"] == "user", tokenize=False
    )
    out = processor(text=text, videos=[torch.tensor(frames)], return_tensors="pt")
    return out["input_ids"][0].tolist(), out["pixel_values_videos"]


def test_all_rows_equal_transformers(made):
    name, model, processor, _, ours = made
    frames = _frames(1 if name == "video_llava" else 4)
    ids, pixels = _processed(
        processor, frames, texts.conversation("", QUESTION, ANSWER)
    )
    token = processor.video_token_id
    assert ids.count(token) == ROWS[name] * len(frames)
    first, last = ids.index(token), len(ids) - ids[::-1].index(token)
    expected = oracle.logits(model, ids, pixels).numpy()
    assert expected.std() > 0.5, "weights too small for errors to show"
    found = our_logits(ours, pixels[0], ids[:first], ids[last:])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("prompt", ["family", "mcq"])
@pytest.mark.parametrize("options", [(), ("a dog runs", "it rains")])
def test_ids_are_those_of_the_processor(made, prompt, options):
    processor = made.processor
    plan = models.inspect(made.folder, dtype="float32", prompt=prompt)
    asked = Asked(key="k", question=QUESTION, answer=ANSWER, candidates=options)
    found = plan.tokenise(asked)
    lines = [f"{m}. {x}" for m, x in zip("AB", options, strict=False)]
    question = "\n".join([QUESTION, *lines])
    system = prompts.SYSTEM.get(prompt, "")
    answer = ANSWER if "32k" in made.name else f"{ANSWER}</s>"
    ids, _ = _processed(
        processor, _frames(3), texts.conversation(system, question, answer)
    )
    token = processor.video_token_id
    first, last = ids.index(token), len(ids) - ids[::-1].index(token)
    assert list(found.before) == ids[:first]
    own = [*found.after, *found.answer]
    assert own == ids[last:][: len(own)]
    assert processor.tokenizer.decode(found.answer) == f"{ANSWER}</s>"
    given, _ = _processed(
        processor, _frames(3), texts.conversation(system, question, None)
    )
    assert list(found.after) == given[last:]


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_the_processors(made, shape):
    """Of the torchvision form to two grey levels, of the PIL form to rounding."""
    processor, ours = made.processor, made.loaded
    frames = _frames(2, *shape)
    mean, std = (
        np.asarray(getattr(processor.video_processor, key))
        for key in ("image_mean", "image_std")
    )
    mine = ours.model.prepare(frames)
    found = ((mine / 255 - mean) / std).transpose(0, 3, 1, 2)
    pil = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": oracle.SIDE},
        crop_size={"height": oracle.SIDE, "width": oracle.SIDE},
    )
    theirs = pil(list(frames), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    theirs = processor.video_processor(
        [torch.tensor(frames).permute(0, 3, 1, 2)], return_tensors="np"
    )["pixel_values_videos"][0]
    grey = (theirs.transpose(0, 2, 3, 1) * std + mean) * 255
    apart = np.abs(grey - mine)
    if min(shape) == oracle.SIDE:  # Nothing is resampled.
        assert apart.max() < 1e-3
    else:
        assert apart.max() <= 2.01 and apart.mean() < 0.2


def test_greedy_tokens_equal_transformers(made):
    _, model, processor, _, ours = made
    frames = _frames(3, oracle.SIDE, oracle.SIDE)
    turns = texts.conversation("", QUESTION, None)
    ids, pixels = _processed(processor, frames, turns)
    out = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        pixel_values_videos=pixels,
        do_sample=False,
        max_new_tokens=6,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    two = torch.cat(out.logits).topk(2, dim=-1).values
    assert (two[:, 0] - two[:, 1]).min() > 1e-3, "this fixture's steps are unclear"
    plan = ours.model
    asked = plan.tokenise(Asked(key="k", question=QUESTION, ended=""))
    rows = plan.lay_out(Shown(3), plan.tokenise(), np.arange(3), [asked])
    batch = stack(
        [[rows]], plan.prepare(frames)[None, None], Shape.of(rows), TextShape.of(rows)
    )
    step = jax.jit(generation.greedy(ours.graphdef, limit=6, ends=()))
    found = step(ours.state, jax.tree.map(jnp.asarray, batch))
    assert found.ids[0, 0].tolist() == out.sequences[0, len(ids) :].tolist()


def test_what_is_written_is_whole_for_transformers(tmp_path):
    """Of a random Video-LLaVA: the tower of images and unused layers are there."""
    random.write(tmp_path, "video_llava-tiny")
    kind = transformers.VideoLlavaForConditionalGeneration
    model, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ours = models.load(str(tmp_path), dtype="float32")
    pixels = torch.randn(1, 2, 3, 56, 56)
    token = model.config.video_token_index
    expected = oracle.logits(model.eval(), [1, 4, *[token] * 34, 5, 6], pixels)
    found = our_logits(ours, pixels[0], (1, 4), (5, 6))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_published_sizes():
    """Sixteen frames of Video-LLaVA are more rows than its positions."""
    video = random.describe("video_llava-7b")
    assert (video.rows_per_frame, video.max_frames, video.max_rows) == (257, 15, 4096)
    longer = random.describe("llava_next_video-7b-32k")
    assert (longer.rows_per_frame, longer.max_rows) == (144, 32768)
    for model, count in ((video, 7.06e9), (longer, 7.57e9)):
        assert model.num_bytes / 2 == pytest.approx(count, rel=0.01)


@pytest.mark.parametrize(
    ("where", "change", "text"),
    [
        (
            "vision_config",
            {"model_type": "siglip_vision_model"},
            "vision_config: model_type is 'siglip_vision_model'; built for 'clip_vis",
        ),
        (
            "text_config",
            {"model_type": "gemma"},
            "text_config: model_type is 'gemma'; built for",
        ),
    ],
)
def test_another_config_is_refused(made, tmp_path, where, change, text):
    raw = _copy(made, tmp_path)
    raw[where] |= change
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(AuditError) as caught:
        models.inspect(str(tmp_path), dtype="float32")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"video_processor": {"size": {"height": 56}}},
            "video_processor: size is",
        ),
        (
            {"video_processor": {"crop_size": {"height": 70, "width": 70}}},
            "crop_size is {'height': 70, 'width': 70}, the tower takes 56 x 56",
        ),
        (
            {"video_processor": {"do_resize": False, "do_center_crop": False}},
            "do_resize and do_center_crop are both false",
        ),
        (
            {"video_processor": None},
            "it has an image_processor but no video_processor",
        ),
    ],
)
def test_another_processor_is_refused(made, tmp_path, change, text):
    raw = _copy(made, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    file = tmp_path / "processor_config.json"
    given = json.loads(file.read_text())
    for key, value in change.items():
        given[key] = None if value is None else given[key] | value
    file.write_text(json.dumps(given))
    with pytest.raises(AuditError) as caught:
        models.inspect(str(tmp_path), dtype="float32")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "key", "value", "right"),
    [
        ("video_llava", "patch_size", 7, 14),
        ("video_llava", "num_additional_image_tokens", 0, 1),
        ("llava_next_video", "patch_size", 28, 14),
        ("llava_onevision", "num_image_tokens", 24, 25),
    ],
)
def test_a_processor_of_other_counts_is_refused(tmp_path, name, key, value, right):
    random.write(tmp_path, f"{name}-tiny")
    for given in (right, None, value):
        path = tmp_path / "processor_config.json"
        path.write_text(json.dumps({key: given}))
        if given != value:
            models.inspect(str(tmp_path), dtype="float32")
            continue
        with pytest.raises(AuditError) as caught:
            models.inspect(str(tmp_path), dtype="float32")
        (problem,) = caught.value.problems
        assert f"{key} is {value}, but by config.json it is {right}" in problem


def test_a_video_llava_without_a_processor_is_refused(tmp_path):
    random.write(tmp_path, "video_llava-tiny")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(AuditError) as caught:
        models.inspect(str(tmp_path), dtype="float32")
    (problem,) = caught.value.problems
    assert "no video_preprocessor_config.json and no preprocessor_config" in problem
    assert "save the model's VideoLlavaVideoProcessor there" in problem


def _copy(made, folder):
    """Copies a checkpoint, and returns its config."""
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    return json.loads((folder / "config.json").read_text())


def test_both_directions_equal_transformers(made):
    """The signals of both directions, from one look at each frame."""
    _, model, processor, _, ours = made
    frames = _frames(3, oracle.SIDE, oracle.SIDE)
    found = signals.compute(ours, frames).signals
    token, before = processor.video_token_id, ours.model.tokenise().before
    for direction, shown in enumerate((frames, frames[::-1].copy())):
        _, pixels = _processed(processor, shown, texts.conversation("", "x", None))
        ids = [*before, *[token] * (3 * ROWS[made.name])]
        logits = oracle.logits(model, ids, pixels)[len(before) :]
        log_p = torch.log_softmax(logits.double(), -1).numpy()
        shannon = -(np.exp(log_p) * log_p).sum(-1)
        np.testing.assert_allclose(found.renyi[direction, :, 1], shannon, rtol=2e-4)


def test_more_frames_than_positions(made):
    name, ours = made.name, made.loaded
    assert ours.model.max_rows == 512
    prompt = len(ours.model.tokenise().before)
    assert ours.model.max_frames == (512 - prompt) // ROWS[name]
