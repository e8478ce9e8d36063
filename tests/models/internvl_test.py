"""InternVL against transformers' torch class and its own processor."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file

from oracles import every_row
from oracles import internvl as oracle
from vidsme_jax import models
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.checkpoints import trees
from vidsme_jax.models import generation, prompts
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.interface import Options
from vidsme_jax.models.internvl import modeling, processing, tower
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.run import signals

QUESTION, ANSWER = "What happens in the video?", "A red ball rolls."
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
# Of InternVL3, of its largest towers, and of InternVL3.5.
KINDS = {
    "qwen2": {},
    "llama": {
        "norm_type": "rms_norm",
        "use_qk_norm": True,
        "attention_bias": False,
        "tied": True,
    },
    "qwen3": {"use_mean_pooling": False},
}


@pytest.fixture(scope="module")
def made():
    return {kind: oracle.make_model(kind, **more) for kind, more in KINDS.items()}


@pytest.fixture(scope="module")
def folders(made, tmp_path_factory):
    return {
        kind: oracle.save(model, tmp_path_factory.mktemp(kind))
        for kind, model in made.items()
    }


@pytest.fixture(scope="module")
def loaded(folders):
    return {
        kind: models.load(str(folder), dtype="float32")
        for kind, folder in folders.items()
    }


def _frames(count, height=oracle.SIDE, width=oracle.SIDE):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def _pixels(frames):
    scaled = frames.astype(np.float32).transpose(0, 3, 1, 2) / 255
    return torch.tensor((scaled - MEAN) / STD)


def _ids(rows):
    """The ids of all rows, with the token of the pixels where a frame is shown."""
    return np.where(rows.feature >= 0, oracle.CONTEXT, rows.token)


def _logits(loaded, rows, pixels):
    rows = every_row(rows)
    batch = stack([[rows]], pixels[None, None], Shape.of(rows))

    @jax.jit
    def run(state, batch):
        model = nnx.merge(loaded.graphdef, state)
        hidden, _ = model.read(model.see(batch.pixels), batch)
        return hidden[0, 0] @ model.head.T

    return np.asarray(run(loaded.state, jax.tree.map(jnp.asarray, batch)))


@pytest.mark.parametrize(
    ("kind", "count"), [("qwen2", 3), ("qwen2", 1), ("llama", 2), ("qwen3", 2)]
)
def test_logits_of_all_rows_equal_transformers(made, loaded, kind, count):
    model, frames = loaded[kind].model, _frames(count)
    prompt = model.tokenise(None, Shown(count))._replace(after=(7, 8))
    rows = model.lay_out(Shown(count), prompt, np.arange(count))
    expected = oracle.logits(made[kind], _ids(rows), _pixels(frames)).numpy()
    assert expected.std() > 0.5, "weights too small for errors to show"
    assert (rows.feature >= 0).sum() == oracle.ROWS * count == model.num_rows(count)
    actual = _logits(loaded[kind], rows, frames)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_both_directions_equal_torch(made, loaded):
    """The frames change their places, their numbers stay."""
    frames, model = _frames(3, 80, 50), loaded["qwen2"].model
    found = signals.compute(loaded["qwen2"], frames).signals
    assert found.gap.shape == (2, 12)
    small, shown = model.prepare(frames), Shown(3)
    rows = model.lay_out(shown, model.tokenise(None, shown), np.arange(3))
    visual = np.flatnonzero(rows.feature >= 0)
    for direction, order in enumerate((small, small[::-1].copy())):
        logits = oracle.logits(made["qwen2"], _ids(rows), _pixels(order))[visual]
        log_p = torch.log_softmax(logits.double(), -1).numpy()
        shannon = -(np.exp(log_p) * log_p).sum(-1)
        np.testing.assert_allclose(found.renyi[direction, :, 1], shannon, rtol=2e-4)


@pytest.mark.parametrize("count", [1, 2, 11])
@pytest.mark.parametrize("prompt", ["family", "mcq"])
def test_tokens_equal_the_processors(folders, count, prompt):
    model = models.inspect(str(folders["qwen2"]), dtype="float32", prompt=prompt)
    video, text = (
        {"type": "video", "video": _frames(count, 60, 80)},
        {"type": "text", "text": QUESTION},
    )
    turns = [{"role": "user", "content": [video, text]}]
    if prompt == "mcq":
        turns.insert(0, {"role": "system", "content": models.prompts.SYSTEM["mcq"]})
    said = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    shown = Shown(count)
    rows = _ids(model.lay_out(shown, model.tokenise(None, shown), np.arange(count)))
    first = rows[: len(rows) - len(model.tokenise().after)].tolist()
    close = oracle.TOKENIZER.convert_tokens_to_ids("</img>")
    assert model.tokenise(None, shown).frames[-1] == (close,)
    for asked, answered in (("", turns), (ANSWER, [*turns, said])):
        theirs = oracle.processor().apply_chat_template(
            answered,
            add_generation_prompt=not asked,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )["input_ids"][0]
        item = Asked(
            key="", question=QUESTION, answer=asked, ended="end" if asked else ""
        )
        ours = model.tokenise(item)
        assert close not in ours.after  # It belongs to the video.
        whole = [*first, *ours.after, *ours.answer]
        assert whole == theirs.tolist()[: len(whole)]
        # Behind an answer the template puts a line's end.
        assert len(theirs) - len(whole) == bool(asked)


@pytest.mark.parametrize(
    ("shape", "mean"),
    [((160, 102), 0.2), ((90, 160), 0.2), ((120, 120), 0.2), ((56, 56), 0)],
)
def test_pixels_are_those_of_the_video_processor(folders, shape, mean):
    """Pillow's bicubic filter in place of torch's; equal where nothing is resized."""
    model = models.inspect(str(folders["qwen2"]), dtype="float32")
    frames = 64 + _frames(2, *shape) // 2
    theirs = oracle.processor().video_processor([frames], return_tensors="np")
    theirs = (theirs["pixel_values_videos"][0] * STD + MEAN) * 255
    ours = model.prepare(frames).transpose(0, 3, 1, 2).astype(np.float32)
    difference = np.abs(ours - theirs)
    assert difference.max() < (2.01 if mean else 1e-4)
    assert difference.mean() < (mean or 1e-4)
    prepared = model.prepare
    np.testing.assert_allclose(prepared.mean, MEAN.ravel(), rtol=1e-6)
    np.testing.assert_allclose(prepared.std, STD.ravel(), rtol=1e-6)


def test_greedy_tokens_equal_generate(made, loaded):
    limit, question, shown = 6, (7, 8, 30, 31), Shown(3)
    model, frames = loaded["qwen3"].model, _frames(3)
    rows = model.lay_out(
        shown,
        model.tokenise(None, shown)._replace(after=()),
        np.arange(3),
        [Text((), question)],
        ("response",),
    )
    ids = torch.tensor([_ids(rows).tolist()])
    expected = (
        made["qwen3"]
        .generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=_pixels(frames),
            do_sample=False,
            max_new_tokens=limit,
            pad_token_id=0,
        )[0, ids.shape[1] :]
        .tolist()
    )
    batch = stack([[rows]], frames[None, None], Shape.of(rows), TextShape.of(rows))
    step = generation.greedy(loaded["qwen3"].graphdef, limit=limit, ends=model.ends)
    found = jax.jit(step)(loaded["qwen3"].state, jax.tree.map(jnp.asarray, batch))
    (told,) = generation.answers(jax.tree.map(np.asarray, found), 0, 1)
    assert list(told.ids) == expected and len(set(expected)) > 1


def test_names_in_memory_are_those_of_the_files(made, folders, loaded, tmp_path):
    shutil.copytree(folders["qwen2"], tmp_path, dirs_exist_ok=True)
    named = {k: v.contiguous() for k, v in made["qwen2"].state_dict().items()}
    assert "model.language_model.norm.weight" in named
    safetensors.torch.save_file(named, tmp_path / "model.safetensors")
    other = models.load(str(tmp_path), dtype="float32")
    for path, leaf in trees.flat(loaded["qwen2"].state).items():
        np.testing.assert_array_equal(leaf, trees.flat(other.state)[path])


def test_the_tie_is_by_default(made, folders, tmp_path):
    shutil.copytree(folders["llama"], tmp_path, dirs_exist_ok=True)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw.pop("tie_word_embeddings") is True
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    models.inspect(str(tmp_path), dtype="float32")


def test_epsilons_that_no_config_says(made):
    """Those of norms whose inputs are too large here for them to show."""
    whole = made["llama"].model
    of = whole.vision_tower.encoder.layer[0].attention
    assert of.q_norm.variance_epsilon == of.k_norm.variance_epsilon == tower._QK_EPS
    projector = whole.multi_modal_projector
    assert projector.layer_norm.eps == modeling._PROJECTOR_EPS


CONFIGS = {
    "an original's": ({"model_type": "internvl_chat"}, "internvl_chat"),
    "no squares": (
        {"vision_config": {"image_size": [56, 70]}},
        "image_size is [56, 70]; built for squares",
    ),
    "another tower": (
        {"vision_config": {"model_type": "siglip_vision_model"}},
        "model_type is 'siglip_vision_model'; built for 'internvl_vision'",
    ),
    "experts": (
        {"text_config": {"model_type": "qwen3_moe"}},
        "model_type is 'qwen3_moe'; built for 'qwen2' or 'qwen3' or 'llama'",
    ),
    "another layer": ({"vision_feature_layer": -2}, "vision_feature_layer is -2"),
    "a ratio that is no fraction": (
        {"downsample_ratio": 0.3},
        "downsample_ratio is 0.3; expected one over a whole number that divides the 4",
    ),
    "a grid that it does not divide": (
        {"vision_config": {"image_size": [70, 70]}},
        "downsample_ratio is 0.5; expected one over a whole number that divides the 5",
    ),
    "an unknown key": ({"novel": 1}, "unknown key 'novel'"),
    "another token": ({"image_token_id": 5}, "has the video token 5 0 times"),
    "fewer embeddings than tokens": (
        {"text_config": {"vocab_size": 100}},
        "and the model 100 embeddings: is it another model's tokenizer?",
    ),
    "other rows than the processor's": (
        {"downsample_ratio": 0.25},
        "image_seq_length is 4, but by config.json it is 1",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_refused(folders, tmp_path, name):
    changes, expected = CONFIGS[name]
    shutil.copytree(folders["qwen2"], tmp_path, dirs_exist_ok=True)
    oracle.change(tmp_path, "config.json", **changes)
    assert expected in _problems(tmp_path)


def _problems(folder) -> str:
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    return str(caught.value)


def test_processor_files_that_are_refused(folders, tmp_path):
    shutil.copytree(folders["qwen2"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "processor_config.json"
    oracle.change(tmp_path, path.name, video_processor={"size": {"height": 42}})
    assert "size is {'height': 42" in _problems(tmp_path)
    size = {"height": 42, "width": 42}
    oracle.change(tmp_path, path.name, video_processor={"size": size})
    assert "without a crop, but the tower takes 56 x 56" in _problems(tmp_path)
    oracle.change(tmp_path, path.name, video_processor=None)
    assert "an image_processor but no video_processor" in _problems(tmp_path)
    path.unlink()
    assert "save the model's InternVLVideoProcessor there" in _problems(tmp_path)
    image = {"image_processor_type": "CLIPImageProcessor", "crop_size": 224}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(image))
    assert "the tower takes 56 x 56" in _problems(tmp_path)


def test_the_file_of_images_says_what_is_done_to_frames(folders, tmp_path):
    """As in repositories that are older than the class's video processor."""
    shutil.copytree(folders["qwen2"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "processor_config.json").unlink()
    images = oracle.processor().image_processor
    images.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert {"crop_to_patches", "max_patches", "min_patches"} <= set(raw)
    made = models.inspect(str(tmp_path), dtype="float32").prepare
    expected = models.inspect(str(folders["qwen2"]), dtype="float32").prepare
    assert made == expected


def test_one_number_is_a_square_as_the_class_has_it(folders, tmp_path):
    shutil.copytree(folders["qwen2"], tmp_path, dirs_exist_ok=True)
    settings = {"size": 70, "do_center_crop": True, "crop_size": 56}
    oracle.change(tmp_path, "processor_config.json", video_processor=settings)
    videos = transformers.InternVLVideoProcessor.from_pretrained(tmp_path)
    assert videos.size == {"height": 70, "width": 70}
    made = models.inspect(str(tmp_path), dtype="float32").prepare
    assert made.resize.to_json() == {"height": 70, "width": 70}


def test_a_tokenizer_without_the_markers_is_refused():
    problems: list[str] = []
    options = Options("float32", oracle.TOKENIZER)
    framing = processing.framing(oracle.TOKENIZER)._replace(close="</none>")
    prompts.around_video(
        options, prompts.CHATML, problems, video_token=oracle.CONTEXT, framing=framing
    )
    assert problems == [
        "tokenizer: </none>, which ends a frame, is not a special token"
    ]


def test_clips_are_bounded_by_the_context(loaded):
    model = loaded["qwen2"].model
    assert model.max_rows == 512
    for frames, fits in ((model.max_frames, True), (model.max_frames + 1, False)):
        shown = Shown(frames)
        prompt = model.tokenise(None, shown)
        rows = model.lay_out(shown, prompt, np.arange(frames))
        assert (len(rows.feature) <= model.max_rows) == fits


def test_surplus_missing_and_misshaped_tensors_are_all_said(folders, tmp_path):
    shutil.copytree(folders["qwen2"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.safetensors"
    named = safetensors.torch.load_file(path)
    prefix = next(k for k in named if "lambda_2" in k).rsplit(".", 3)[0]
    del named[f"{prefix}.layer.1.lambda_2"]
    named[f"{prefix}.layer.1.lambda_3"] = torch.zeros(32)
    named[f"{prefix}.layer.0.lambda_1"] = torch.zeros(16)
    safetensors.torch.save_file(named, path)
    text = _problems(tmp_path)
    assert "missing: no tensor for vision_tower/layers/lambda_2, layer 1" in text
    assert "lambda_3: surplus" in text
    assert "lambda_1: shape [16]" in text


# Parameters of the whole model, as counted on the hub.
PUBLISHED = {"internvl3-1b": 0.94e9, "internvl3-8b": 7.94e9, "internvl3_5-8b": 8.53e9}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    model = models.random.describe(name)
    shapes = trees.flat(model.abstract()[1]).values()
    count = sum(int(np.prod(x.shape)) for x in shapes)
    assert count == pytest.approx(PUBLISHED[name], rel=0.02)
    assert model.rows_per_frame == 256
