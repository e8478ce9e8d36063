"""PerceptionLM against transformers' torch class, timm's tower and its processor."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx

from oracles import every_row
from oracles import perception_lm as oracle
from vidsme_jax import models
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.checkpoints import files, trees
from vidsme_jax.models import generation
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.interface import Options
from vidsme_jax.models.perception_lm import FAMILY, processing, sizes
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.run import signals

QUESTION, ANSWER = "What happens in the video?", "A red ball rolls."
MOST = 4  # Frames of a clip.
# Height and width of frames in three aspects.
LARGER = ((160, 102), (90, 160), (120, 120))


@pytest.fixture(scope="module")
def made():
    """A model with a class token, and one without and with tied embeddings."""
    one = oracle.make_model(class_token=True, kv_heads=2)
    return one, oracle.make_model(class_token=False, kv_heads=1, tied=True)


@pytest.fixture(scope="module")
def folders(made, tmp_path_factory):
    return [oracle.save(model, tmp_path_factory.mktemp("plm")) for model in made]


@pytest.fixture(scope="module")
def loaded(folders):
    return [models.load(str(folder), dtype="float32") for folder in folders]


def _frames(count, height=oracle.SIDE, width=oracle.SIDE):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def _pixels(frames):
    return torch.tensor(frames.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture(scope="module")
def run(loaded):
    """The package's logits of all rows of a clip of at most `MOST` frames."""

    def step(graphdef, state, batch):
        model = nnx.merge(graphdef, state)
        hidden, _ = model.read(model.see(batch.pixels), batch)
        return hidden[0, 0] @ model.head.T

    step = jax.jit(step, static_argnums=0)

    def logits(which, frames, before, after):
        plan, text = loaded[which].model, Text(tuple(before), tuple(after))
        longest, rows = (
            every_row(plan.lay_out(Shown(count), text, np.arange(count)))
            for count in (MOST, len(frames))
        )
        padded = np.pad(frames, [(0, MOST - len(frames))] + [(0, 0)] * 3)
        batch = stack([[rows]], padded[None, None], Shape.of(longest))
        batch = jax.tree.map(jnp.asarray, batch)
        found = step(loaded[which].graphdef, loaded[which].state, batch)
        return np.asarray(found)[: len(rows.feature)]

    return logits


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_logits_of_all_rows_equal_transformers(made, loaded, run, which, count):
    frames = _frames(count)
    before = loaded[which].model.tokenise().before
    expected = oracle.logits(made[which], before, _pixels(frames), (7, 8)).numpy()
    assert expected.std() > 0.5, "weights too small for errors to show"
    assert len(expected) == len(before) + 4 * count + 2
    actual = run(which, frames, before, (7, 8))
    np.testing.assert_allclose(actual, expected, atol=1e-4)


# Of timm's arguments: what the tower does, and what is left out of it.
TOWERS = {
    "gigantic, with pixels beyond the last patch": {
        "class_token": False,
        "img_size": (60, 60),
        "rope_grid_offset": 0.5,
    },
    "a norm that the pooled output would have alone": {
        "global_pool": "avg",
        "use_post_transformer_norm": None,
    },
    "rows before columns, another grid, a norm behind it": {
        "global_pool": "map",
        "init_values": None,
        "ref_feat_shape": (5, 7),
        "rope_grid_indexing": "ij",
        "use_post_transformer_norm": None,
    },
}


@pytest.mark.parametrize("name", TOWERS)
def test_the_tower_equals_timms(tmp_path, name):
    args = dict(TOWERS[name])
    large = args.pop("class_token", True)
    model = oracle.make_model(class_token=large, **args)
    side = args.get("img_size", (oracle.SIDE,))[0]
    size = {"height": side, "width": side}
    oracle.change(
        oracle.save(model, tmp_path),
        "processor_config.json",
        video_processor={"size": size},
    )
    loaded = models.load(str(tmp_path), dtype="float32")
    torch.manual_seed(1)
    pixels = torch.randn(3, 3, side, side)
    with torch.no_grad():
        expected = model.model.vision_tower(pixels).last_hidden_state.numpy()
    run = jax.jit(lambda s, x: nnx.merge(loaded.graphdef, s).vision_tower(x))
    actual = run(loaded.state, jnp.asarray(pixels.numpy()))
    assert expected.std() > 0.5, "weights too small for errors to show"
    np.testing.assert_allclose(actual, expected[:, int(large) :], atol=1e-5)


def test_both_directions_equal_torch(made, loaded):
    frames = _frames(3, 80, 50)
    found = signals.compute(loaded[0], frames).signals
    plan = loaded[0].model
    assert found.gap.shape == (2, plan.num_rows(3)) == (2, 12)
    small, prefix = plan.prepare(frames), plan.tokenise().before
    for direction, order in enumerate((small, small[::-1].copy())):
        logits = oracle.logits(made[0], prefix, _pixels(order), (7,))
        log_p = torch.log_softmax(logits[len(prefix) : -1].double(), -1).numpy()
        shannon = -(np.exp(log_p) * log_p).sum(-1)
        np.testing.assert_allclose(found.renyi[direction, :, 1], shannon, rtol=2e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("prompt", "adds"), [("family", True), ("mcq", True), ("mcq", False)]
)
def test_tokens_equal_the_processors(folders, tmp_path, count, prompt, adds):
    """The template's first token stands there once, whatever the tokenizer adds."""
    shutil.copytree(folders[0], tmp_path, dirs_exist_ok=True)
    processor = oracle.processor(adds)
    processor.tokenizer.save_pretrained(tmp_path)
    plan = models.inspect(str(tmp_path), dtype="float32", prompt=prompt)
    frames = _frames(count, 60, 80)
    video, text = {"type": "video", "video": frames}, {"type": "text", "text": QUESTION}
    turns = [{"role": "user", "content": [video, text]}]
    if prompt == "mcq":
        system = models.prompts.SYSTEM["mcq"]
        turns.insert(0, {"role": "system", "content": system})
    said = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    token = processor.tokenizer.convert_tokens_to_ids("<|video|>")
    rows = [token] * (plan.rows_per_frame * count)
    before = list(plan.tokenise(None, Shown(count)).before)
    for asked, answered in (("", turns), (ANSWER, [*turns, said])):
        theirs = processor.apply_chat_template(
            answered,
            add_generation_prompt=not asked,
            tokenize=True,
            return_dict=True,
            return_tensors="np",
        )["input_ids"][0]
        ended = "end" if asked else ""
        item = Asked(key="", question=QUESTION, answer=asked, ended=ended)
        ours = plan.tokenise(item)
        assert [*before, *rows, *ours.after, *ours.answer] == theirs.tolist()
        assert list(ours.before) == before and bool(ours.answer) == bool(asked)
    assert before.count(processor.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("shape", "mean"),
    [*((shape, 0.2) for shape in LARGER), ((51, 80), 0.3), ((oracle.SIDE,) * 2, 1e-5)],
)
def test_pixels_are_those_of_the_video_processor(folders, shape, mean):
    """Pillow's bicubic filter in place of torch's; equal where nothing is resized.

    Pillow rounds after each of its two passes, and cuts off where the filter
    overshoots.
    """
    plan = models.inspect(str(folders[0]), dtype="float32")
    frames = 64 + _frames(2, *shape) // 2
    theirs = oracle.processor().video_processor([frames], return_tensors="np")
    theirs = (theirs["pixel_values_videos"][0] + 1) * 127.5
    ours = plan.prepare(frames).transpose(0, 3, 1, 2).astype(np.float32)
    difference = np.abs(ours - theirs)
    assert difference.max() < 2.01
    assert difference.mean() < mean


def test_greedy_tokens_equal_generate(made, loaded):
    limit, question = 6, (7, 8, 30, 31)
    model, plan = made[0], loaded[0].model
    frames, before = _frames(3), plan.tokenise().before
    ids = torch.tensor([[*before, *[model.config.video_token_id] * 12, *question]])
    expected = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=_pixels(frames)[None],
        do_sample=False,
        max_new_tokens=limit,
        pad_token_id=0,
    )[0, ids.shape[1] :].tolist()
    rows = plan.lay_out(
        Shown(3), plan.tokenise(), np.arange(3), [Text((), question)], ("response",)
    )
    batch = stack([[rows]], frames[None, None], Shape.of(rows), TextShape.of(rows))
    step = generation.greedy(loaded[0].graphdef, limit=limit, ends=plan.ends)
    found = jax.jit(step)(loaded[0].state, jax.tree.map(jnp.asarray, batch))
    (told,) = generation.answers(jax.tree.map(np.asarray, found), 0, 1)
    assert list(told.ids) == expected and len(set(expected)) > 1


def test_what_ends_an_answer(loaded):
    words = oracle.tokenizer()
    end, last = words.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>"])
    assert loaded[0].model.ends == (end, last)


def test_clips_are_bounded_by_the_context(loaded):
    plan = loaded[0].model
    room = plan.max_rows - len(plan.tokenise().before)
    assert plan.max_rows == 512 and plan.max_frames == room // 4 < 128
    assert plan.num_rows(plan.max_frames) == 4 * plan.max_frames


def _args(**args):
    return {"vision_config": {"model_args": args}}


REFUSED = {
    "another tower": (
        {"vision_config": {"architecture": "resnet50"}},
        "architecture is 'resnet50'; built for vit_pe_core_large_patch14_336, vit_pe",
    ),
    "a tower of another class": (
        {"vision_config": {"model_type": "clip_vision_model"}},
        "vision_config: model_type is 'clip_vision_model'; built for 'timm_wrapper'",
    ),
    "no square": (_args(img_size=[56, 70]), "img_size is [56, 70]; built for squares"),
    "no size": (_args(img_size=[56]), "img_size is [56], expected a whole number"),
    "separate projections": (
        _args(qkv_fused=False),
        "vision_config.model_args: qkv_fused is False; built for True",
    ),
    "an unknown argument": (
        _args(depths=3),
        "model_args: unknown key 'depths'; did you mean 'depth'?",
    ),
    "heads that cannot turn": (_args(num_heads=16), "must be a multiple of 4"),
    "an unknown key": ({"novel": 1}, "unknown key 'novel'"),
    "a class token that is not there": (
        {"vision_use_cls_token": False},
        "vision_use_cls_token is False, but the tower of vision_config has a class",
    ),
    "a pooling that leaves patches over": (
        {"projector_pooling_ratio": 3},
        "projector_pooling_ratio is 3; built for a divisor of the tower's grid of 4 x",
    ),
    "another pooling than the processor's": (
        {"projector_pooling_ratio": 4},
        "processor_config.json: pooling_ratio is 2, but by config.json it is 4",
    ),
    "another video token": (
        {"video_token_id": 5},
        "the video token 5 0 times, expected once (the tokenizer's <|video|> is",
    ),
    "no id": (
        {"video_token_id": -1},
        "video_token_id is -1, expected the id of",
    ),
    "fewer embeddings than tokens": (
        {"text_config": {"vocab_size": 100}},
        "and the model 100 embeddings: is it another model's tokenizer?",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_configs_that_are_refused(folders, tmp_path, name):
    changes, expected = REFUSED[name]
    _copy(folders[0], tmp_path)
    oracle.change(tmp_path, "config.json", **changes)
    assert expected in _problems(tmp_path)


def _copy(source, target):
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def _problems(folder) -> str:
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    return str(caught.value)


def test_processor_files_that_are_refused(folders, tmp_path):
    _copy(folders[0], tmp_path)
    change = functools.partial(oracle.change, tmp_path, "processor_config.json")
    change(patch_size=16)
    assert "patch_size is 16, but by config.json it is 14" in _problems(tmp_path)
    change(patch_size=14, video_processor={"size": {"height": 42, "width": 42}})
    assert "without a crop, but the tower takes 56 x 56" in _problems(tmp_path)
    change(video_processor=None)
    assert "an image_processor but no video_processor" in _problems(tmp_path)
    image = {"image_processor_type": "CLIPImageProcessor", "crop_size": 224}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(image))
    assert "the tower takes 56 x 56" in _problems(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").unlink()
    expected = "frames is unknown; save the model's PerceptionLMVideo"
    assert expected in _problems(tmp_path)


def test_the_class_says_what_its_file_leaves_out(folders, tmp_path):
    """The published file names the size; mean and deviation are the class's."""
    _copy(folders[0], tmp_path)
    (tmp_path / "processor_config.json").unlink()
    raw = sizes.SIZES["perception_lm-tiny"]["video_preprocessor_config.json"]
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(raw))
    first, second = (
        models.inspect(str(x), dtype="float32") for x in (*folders[:1], tmp_path)
    )
    assert first.prepare == second.prepare
    assert first.prepare.mean == (0.5, 0.5, 0.5)


def test_every_tensor_problem_is_in_one_error(made, folders, tmp_path):
    _copy(folders[0], tmp_path)
    named = safetensors.torch.load_file(tmp_path / "model.safetensors")
    tower = "model.vision_tower.timm_model."
    del named[f"{tower}blocks.1.gamma_2"]
    del named[f"{tower}cls_token"]
    named[f"{tower}blocks.1.ls_2.gamma"] = torch.zeros(32)
    named[f"{tower}pos_embed"] = torch.zeros(1, 16, 32)
    named[f"{tower}rope.bands"] = torch.zeros(2)
    safetensors.torch.save_file(named, tmp_path / "model.safetensors")
    text = _problems(tmp_path)
    assert "missing: no tensor for vision_tower/layers/gamma_2, layer 1" in text
    assert "missing: no tensor for vision_tower/cls_token" in text
    assert f"{tower}blocks.1.ls_2.gamma: surplus" in text
    assert f"{tower}pos_embed: shape [1, 16, 32], expected [1, 17, 32] by" in text
    assert "bands" not in text


# Rows of a frame; parameters; size of a head of the tower; operations of a frame.
PUBLISHED = {
    "perception_lm-1b": (1.56e9, 64, 0.706e12),
    "perception_lm-3b": (3.54e9, 64, 0.719e12),
    "perception_lm-8b": (9.82e9, 96, 3.910e12),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    count, head_dim, flops = PUBLISHED[name]
    plan = models.random.describe(name)
    shapes = {p: x.shape for p, x in trees.flat(plan.abstract()[1]).items()}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == pytest.approx(
        count, rel=0.02
    )
    assert plan.rows_per_frame == 256 and plan.max_rows == 11520
    module = nnx.eval_shape(lambda: plan.make(nnx.Rngs(0)))
    assert module.config.vision.head_dim == head_dim
    assert processing.vision_flops(module.config) == pytest.approx(flops, rel=1e-3)
    assert plan.flops(8).vision == 8 * processing.vision_flops(module.config)
    assert ("vision_tower/cls_token" in shapes) == (name != "perception_lm-8b")


def test_the_published_form_of_the_config(tmp_path):
    """As the conversion wrote it: timm's own keys are around the arguments."""
    raw = json.loads(json.dumps(sizes.SIZES["perception_lm-8b"]))
    raw["config.json"]["vision_config"] |= {
        "do_pooling": True,
        "global_pool": "map",
        "initializer_range": 0.02,
        "label_names": ["LABEL_0", "LABEL_1"],
        "num_classes": 2,
        "num_features": 1536,
        "pretrained_cfg": {"input_size": [3, 448, 448], "tag": "fb"},
        "torch_dtype": "bfloat16",
    }
    raw["config.json"] |= {
        "architectures": ["PerceptionLMForConditionalGeneration"],
        "image_token_id": 128002,
        "transformers_version": "4.54.0.dev0",
        "video_token_id": 128003,
    }
    for name, content in raw.items():
        (tmp_path / name).write_text(json.dumps(content))
    problems: list[str] = []
    opened = files.Checkpoint("", (tmp_path,), raw["config.json"], {})
    FAMILY.open(opened, Options("bfloat16"), problems)
    assert not problems


def test_the_tiny_model_is_read_from_its_folder():
    plan = models.inspect("random:perception_lm-tiny", dtype="float32")
    assert plan.prompt.endswith("<|end_header_id|>\n\n<video>")
    asked = Asked(key="", question="describe the video", answer="red", ended="end")
    text = plan.tokenise(asked)
    assert len(text.answer) == 2 and text.answer[-1] == plan.ends[0]
