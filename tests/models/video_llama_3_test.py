"""VideoLLaMA3 against transformers' torch class and its processor."""

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

from asked_test import score
from data.numbered import make
from oracles import config_of, every_row
from oracles import video_llama_3 as oracle
from oracles.texts import conversation
from vidsme_jax import models, settings
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import generation, random, video_llama_3
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.interface import Options
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.run import signals, stacking

QUESTION, ANSWER = "what happens in this video?", "it rains; größer, 17 times"
ASKED = Asked(key="", question=QUESTION, answer=ANSWER)
# Places of frames in the video, the video's frames, its average rate, their size.
CLIPS = {
    "one": ((0,), 1, 24.0, (60, 80)),
    "even": ((0, 17), 30, 30.0, (90, 50)),
    "odd": ((1, 2, 61, 62, 1100), 1800, 30000 / 1001, (60, 80)),
    "eight": (tuple(range(0, 56, 7)), 60, 10.0, (70, 150)),
    "over an hour": ((0, 999, 1000, 9999, 36000), 90_061, 7.5, (56, 84)),
}


def _shown(plan, cut, clip) -> Shown:
    places, total, rate, _ = CLIPS[clip]
    shown = Shown(len(places), tuple(k / rate for k in places), total / rate)
    return stacking.seen(plan, cut, shown)


def _frames(clip, seed=0):
    """Noise; the right half never changes, and the last frame is the one before."""
    places, *_, shape = CLIPS[clip]
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (len(places), *shape, 3), np.uint8)
    frames[1:, :, shape[1] // 2 :] = frames[:1, :, shape[1] // 2 :]
    frames[-1] = frames[-2:][0]
    return frames


def _smooth(count, shape) -> np.ndarray:
    """Frames whose resampled values are not clipped, as those of a camera's."""
    frames = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in frames])


def _patches(plan, cut) -> np.ndarray:
    """What the processor gives of frames that were cut so: normalised patches."""
    size = plan.tiling.patch_size
    tiles = cut.reshape(*cut.shape[:3], plan.tiling.block, size, size, 3)
    tiles = tiles.transpose(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * size**2)
    return (tiles.astype(np.float32) / np.float32(255) - 0.5) / np.float32(0.5)


def _grid(cut) -> tuple[int, int, int]:
    return len(cut), *(side * oracle.MERGE for side in cut.shape[1:3])


def _kept(shown: Shown) -> np.ndarray:
    size = shown.num_frames, shown.grid[0] * shown.grid[1]
    if not shown.kept:
        return np.ones(size, bool)
    return np.frombuffer(shown.kept, bool).reshape(size)


def _sequence(text: Text, around: Text, shown: Shown) -> list[int]:
    """The ids of the whole: the prompt with the rows' tokens, then a text."""
    ids = list(around.before)
    for rows, between in zip(_kept(shown), around.frames, strict=True):
        ids += [oracle.VIDEO_TOKEN] * int(rows.sum()) + list(between)
    return [*ids, *text.after, *text.answer]


def _expected(model, plan, ids, cut, shown) -> np.ndarray:
    kept = torch.tensor(_kept(shown).ravel()) if shown.kept else None
    return oracle.logits(model, ids, _patches(plan, cut), _grid(cut), kept).numpy()


def _logits(loaded, cut, shown: Shown, around: Text, texts=(), slices=None):
    """The package's logits in a padded room, in both orders where there are two.

    Of all rows of the prompt, or of the kept ones of several texts.
    """
    plan, natural = loaded.model, np.arange(len(cut))
    orders = [natural] if plan.prune else [natural, natural[::-1]]
    rows = [
        plan.lay_out(shown, around, order, texts, *([slices] if slices else []))
        for order in orders
    ]
    if not texts:
        rows = [every_row(each) for each in rows]
    room = plan.tiling.room(shown.grid)
    assert room.rows > shown.grid[0] * shown.grid[1], "nothing is padded"
    tiles = plan.tiling.stack([cut], [(natural,)], len(cut), room)
    rows = [stacking.place(each, shown.grid, room) for each in rows]
    of_texts = TextShape.of(rows[0]) if texts else None
    batch = stack([rows], tiles, Shape.of(rows[0]), of_texts)

    @jax.jit
    def run(state, batch):
        model = nnx.merge(loaded.graphdef, state)
        of_trunk, of_text = model.read(model.see(batch.pixels), batch)
        return (of_text if texts else of_trunk)[0] @ model.head.T

    return np.asarray(run(loaded.state, jax.tree.map(jnp.asarray, batch))), rows[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = oracle.make_model()
    return model, oracle.save(model, tmp_path_factory.mktemp("video_llama_3"))


@pytest.fixture(scope="module")
def pruned(saved, tmp_path_factory):
    """The same checkpoint, whose processor leaves out rows."""
    folder = tmp_path_factory.mktemp("pruned")
    return oracle.save(saved[0], folder, prunes=True)


@pytest.fixture(scope="module")
def loaded(saved):
    return models.load(str(saved[1]), dtype="float32")


@pytest.mark.parametrize("prunes", [False, True])
@pytest.mark.parametrize("clip", CLIPS)
def test_tokens_equal_the_processors(saved, pruned, clip, prunes):
    """Times of any rate; and which rows are left out."""
    places, total, rate, _ = CLIPS[clip]
    plan = models.inspect(str(pruned if prunes else saved[1]), dtype="float32")
    frames = _frames(clip)
    shown = _shown(plan, plan.prepare(frames), clip)
    turns = conversation("", QUESTION, ANSWER)
    inputs = oracle.inputs(frames, list(places), total, rate, turns, prunes=prunes)
    expected = inputs["input_ids"][0].tolist()
    mask = inputs["video_compression_mask"].numpy()
    np.testing.assert_array_equal(_kept(shown).ravel(), mask)
    assert mask.all() == (not prunes or len(places) == 1)
    around, text = plan.tokenise(None, shown), plan.tokenise(ASKED)
    found = _sequence(text, around, shown)
    assert oracle.TOKENIZER.decode(expected[len(found) :]) == "\n"
    assert found == expected[: len(found)]
    assert oracle.TOKENIZER.decode(text.answer) == f"{ANSWER}<|im_end|>"
    rows = plan.lay_out(shown, around, np.arange(len(places)))
    assert (rows.slice == 0).sum() == mask.sum()
    assert plan.ends == (oracle.TOKENIZER.eos_token_id,) and plan.timed
    if clip == "over an hour":
        assert ",Time 4800.0s:" in oracle.TOKENIZER.decode(found)


def test_a_system_turn_is_as_the_template_has_it(saved):
    plan = models.inspect(str(saved[1]), dtype="float32", prompt="mcq")
    said = plan.prompt.partition("system\n")[2].partition("<|im_end|>")[0]
    assert said
    shown = Shown(1, grid=(2, 3))
    text = Asked(key="", question=QUESTION, ended="")
    found = _sequence(plan.tokenise(text), plan.tokenise(None, shown), shown)
    frame = np.zeros((1, 56, 84, 3), np.uint8)
    inputs = oracle.inputs(frame, [0], 1, 1.0, conversation(said, QUESTION, None))
    assert found == inputs["input_ids"][0].tolist()


@pytest.mark.parametrize("shape", [(144, 81), (81, 144), (70, 150)])
def test_pixels_equal_the_processors(saved, shape):
    """Within two grey levels of torchvision's, as a camera's frames are resized."""
    plan, frames = models.inspect(str(saved[1]), dtype="float32"), _smooth(3, shape)
    inputs = oracle.inputs(frames, [0, 1, 2], 3, 1.0, conversation("", "", ""))
    cut = plan.prepare(frames)
    assert inputs["video_grid_thw"][0].tolist() == list(_grid(cut))
    away = np.abs(_patches(plan, cut) - inputs["pixel_values_videos"].numpy()) * 127.5
    assert away.max() < 2.01 and away.mean() < 0.3


def test_pixels_that_are_not_resampled_are_equal(saved):
    plan = models.inspect(str(saved[1]), dtype="float32")
    frames = _frames("over an hour")
    inputs = oracle.inputs(frames, list(range(5)), 5, 1.0, conversation("", "", ""))
    ours = _patches(plan, plan.prepare(frames))
    np.testing.assert_allclose(ours, inputs["pixel_values_videos"], atol=1e-6)


@pytest.mark.parametrize(
    ("clip", "kv_heads", "tied", "save"),
    [
        ("one", 4, False, "saved"),
        ("even", 2, True, "saved"),
        ("odd", 1, False, "saved"),
        ("eight", 2, True, "published"),
    ],
)
def test_logits_of_all_rows_equal_transformers(tmp_path, clip, kv_heads, tied, save):
    """Ties of the whole or of the decoder alone; in both orders."""
    model = oracle.make_model(kv_heads=kv_heads, tied=tied)
    published = save == "published"
    (oracle.save_as_published if published else oracle.save)(model, tmp_path)
    if tied:
        raw = json.loads((tmp_path / "config.json").read_text())
        assert published == ("tie_word_embeddings" not in raw)
        if not published:
            raw["text_config"].pop("tie_word_embeddings", None)
            (tmp_path / "config.json").write_text(json.dumps(raw))
    loaded = models.load(str(tmp_path), dtype="float32")
    plan = loaded.model
    assert config_of(plan).text.tie_word_embeddings == tied
    assert (plan.prune is not None) == published
    cut = plan.prepare(_frames(clip))
    shown = _shown(plan, cut, clip)
    around, text = plan.tokenise(None, shown), plan.tokenise(ASKED)
    ids = _sequence(text, around, shown)
    whole = around._replace(after=(*text.after, *text.answer))
    found, _ = _logits(loaded, cut, shown, whole)
    assert found.shape[:2] == (2 - published, len(ids))
    assert _kept(shown).all() == (not published)
    for direction, its in zip(found, (cut, cut[::-1]), strict=False):
        expected = _expected(model, plan, ids, its, shown)
        assert expected.std() > 0.5, "weights too small for errors to show"
        np.testing.assert_allclose(direction, expected, atol=1e-4)


def test_both_directions_equal_torch(saved, loaded):
    """Frames change places; the text between them stays, with its times."""
    model, plan = saved[0], loaded.model
    frames, shown = _frames("odd")[:3], Shown(3, (0.0, 0.5, 1.0), 1.5)
    found = signals.compute(loaded, frames, rate=2.0).signals
    cut = plan.prepare(frames)
    shown = stacking.seen(plan, cut, shown)
    ids = np.array(_sequence(Text(()), plan.tokenise(None, shown), shown))
    assert found.gap.shape == (2, (ids == oracle.VIDEO_TOKEN).sum())
    for direction, its in enumerate((cut, cut[::-1])):
        logits = _expected(model, plan, ids, its, shown)[ids == oracle.VIDEO_TOKEN]
        log_p = torch.log_softmax(torch.tensor(logits).double(), -1).numpy()
        shannon = -(np.exp(log_p) * log_p).sum(-1)
        np.testing.assert_allclose(found.renyi[direction, :, 1], shannon, rtol=2e-4)
    assert np.abs(found.renyi[0] - found.renyi[1]).max() > 1e-2


def test_reversal_permutes_features(loaded):
    plan, natural = loaded.model, np.arange(3)
    assert len(plan.views(natural[::-1])) == 1
    shown = Shown(3, (0.0, 3.3, 10.0), 12.0, (2, 3))
    prompt = plan.tokenise(None, shown)
    one, other = (plan.lay_out(shown, prompt, x) for x in (natural, natural[::-1]))
    np.testing.assert_array_equal(one.feature < 0, other.feature < 0)
    np.testing.assert_array_equal(one.token, other.token)
    np.testing.assert_array_equal(one.position, other.position)
    seen = [x.feature[x.feature >= 0].reshape(3, 6) for x in (one, other)]
    np.testing.assert_array_equal(seen[0], seen[1][::-1])


def test_texts_as_segments_equal_the_whole_sequence(saved, loaded):
    """Two texts about one clip, each seen by its own rows alone; both orders."""
    model, plan = saved[0], loaded.model
    cut = plan.prepare(_frames("even"))
    shown = _shown(plan, cut, "even")
    around = plan.tokenise(None, shown)
    texts = [plan.tokenise(ASKED), plan.tokenise(Asked(key="", answer="a dog runs"))]
    states, rows = _logits(loaded, cut, shown, around, texts, ("response",))
    for number, text in enumerate(texts):
        ids = _sequence(text, around, shown)
        start = len(ids) - len(text.answer) - 1
        mine = np.flatnonzero(rows.text == number + 1)
        for d, its in enumerate((cut, cut[::-1])):
            expected = _expected(model, plan, ids, its, shown)[start:-1]
            np.testing.assert_allclose(states[d, mine], expected, atol=1e-4)


@pytest.mark.parametrize("prunes", [False, True])
def test_greedy_answers_equal_transformers(saved, pruned, loaded, prunes):
    if prunes:
        loaded = models.load(str(pruned), dtype="float32")
    model, plan = saved[0], loaded.model
    cut = plan.prepare(_frames("odd", seed=3))
    shown = _shown(plan, cut, "odd")
    around = plan.tokenise(None, shown)
    text = plan.tokenise(Asked(key="", question=QUESTION, ended=""))
    ids = torch.tensor([_sequence(text, around, shown)])
    more = {}
    if prunes:
        more["video_compression_mask"] = torch.tensor(_kept(shown).ravel())
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=torch.tensor(_patches(plan, cut)),
        video_grid_thw=torch.tensor([_grid(cut)]),
        video_merge_sizes=torch.tensor([oracle.MERGE]),
        **more,
        do_sample=False,
        max_new_tokens=6,
        pad_token_id=0,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    two = torch.cat(out.logits).topk(2, dim=-1).values
    assert (two[:, 0] - two[:, 1]).min() > 1e-3, "this fixture's steps are unclear"
    stacker = stacking.Stacker(plan, num_frames=5, slices=(), against=None)
    asked = (stacking.Tokenised(Asked(key="", question=QUESTION, ended=""), text),)
    clip = stacking.Input(None, cut, asked, False, shown)
    batch, _ = stacker.batch(stacking.Group(stacker.shape(clip), [clip]), 1)
    step = generation.greedy(loaded.graphdef, limit=6, ends=())
    found = jax.jit(step)(loaded.state, jax.tree.map(jnp.asarray, batch))
    ((told, _),) = generation.answers(jax.tree.map(np.asarray, found), 0, 1)
    assert list(told) == out.sequences[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("size", ["2b", "7b"])
def test_published_sizes_have_the_parameters_of_transformers(size):
    raw = dict(video_llama_3.FAMILY.sizes[f"video_llama_3-{size}"]["config.json"])
    raw.pop("model_type")
    raw["tie_word_embeddings"] = raw["text_config"].get("tie_word_embeddings", False)
    with torch.device("meta"):
        config = transformers.VideoLlama3Config(**raw)
        model = transformers.VideoLlama3ForConditionalGeneration(config)
    count = sum(x.numel() for x in model.parameters())
    plan = random.describe(f"video_llama_3-{size}", dtype="bfloat16")
    assert plan.num_bytes == 2 * count


def test_what_the_report_should_say_of_published_files(tmp_path):
    folder = oracle.save_as_published(oracle.make_model(), tmp_path)
    (said,) = models.inspect(str(folder), dtype="float32").remarks
    assert "the natural order of the frames alone is scored" in said


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model.vision_model.post_layernorm.weight": None}, "missing: no tensor for"),
        ({"model.vision_model.head.weight": (3,)}, "surplus"),
        ({"model.projector.readout.0.weight": (64, 48)}, "(64, 48)"),
        ({"model.vision_model.encoder.layers.1.mlp.fc1.bias": None}, "missing"),
        ({"lm_head.weight": None}, "no lm_head.weight, and tie_word_embeddings"),
    ],
)
def test_tensors_that_are_not_the_models(saved, tmp_path, change, text):
    shutil.copytree(saved[1], tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = np.zeros(shape, np.float32)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AuditError) as caught:
        models.inspect(str(tmp_path), dtype="float32")
    assert text in str(caught.value).replace("[", "(").replace("]", ")")


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
        (CONFIG, VISION, {"model_type": "siglip"}, "built for 'video_llama_3_vision'"),
        (CONFIG, VISION, {"hidden_act": "gelu"}, "hidden_act is 'gelu'; built for"),
        (CONFIG, VISION, {"num_channels": 1}, "num_channels is 1; built for 3"),
        (CONFIG, VISION, {"novel": 1}, "vision_config: unknown key 'novel'"),
        (CONFIG, VISION, {"num_attention_heads": 5}, "tower has the size 32 / 5"),
        (CONFIG, VISION, None, "patch_size is 14, but by config.json it is 16"),
        (CONFIG, TEXT, {"use_mrope": True}, "use_mrope is True; built for False"),
        (CONFIG, TEXT, {"model_type": "llama"}, "built for 'qwen2'"),
        (CONFIG, TEXT, {"novel": 1}, "text_config: unknown key 'novel'"),
        (CONFIG, None, {"video_token_id": 5}, "has the video token 5 0 times"),
        (CONFIG, None, {"novel": 1}, "config.json: unknown key 'novel'"),
        (PROCESSOR, VIDEO, {"merge_size": 1}, "merge_size is 1, but by config.json"),
        (PROCESSOR, VIDEO, {"patch_size": 16}, "patch_size is 16, but by config.json"),
        (PROCESSOR, VIDEO, {"temporal_patch_size": 2}, "temporal_patch_size is 2, but"),
        (PROCESSOR, VIDEO, {"do_resize": False}, "do_resize is False"),
        (PROCESSOR, VIDEO, {"do_center_crop": True}, "do_center_crop is True"),
        (PROCESSOR, VIDEO, {"use_token_compression": 3}, "use_token_compression"),
        (PROCESSOR, VIDEO, {"novel": 1}, "unknown key 'novel'"),
        (PROCESSOR, VIDEO, {"size": {"shortest_edge": 9}}, "size"),
    ],
)
def test_what_is_refused(saved, tmp_path, where, key, change, text):
    shutil.copytree(saved[1], tmp_path, dirs_exist_ok=True)
    _change(tmp_path, where, key, change)
    with pytest.raises(AuditError) as caught:
        models.inspect(str(tmp_path), dtype="float32")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("where", "key"),
    [(CONFIG, None), (CONFIG, VISION), (CONFIG, TEXT), (PROCESSOR, VIDEO)],
)
def test_no_value_of_another_type_is_a_traceback(saved, tmp_path, where, key):
    for name in (CONFIG, PROCESSOR):
        shutil.copy(saved[1] / name, tmp_path)
    raws = {x: json.loads((saved[1] / x).read_text()) for x in (CONFIG, PROCESSOR)}
    of, options = raws[where], Options("float32", oracle.TOKENIZER)
    of, refused = (of[key] if key else of), 0
    for name, before in list(of.items()):
        for value in (None, [None], {}):
            of[name] = value
            (tmp_path / where).write_text(json.dumps(raws[where]))
            opened, problems = Checkpoint("", (tmp_path,), raws[CONFIG], {}), []
            try:
                video_llama_3.FAMILY.open(opened, options, problems)
            except AuditError as error:
                problems += error.problems
            assert all(x and len(x) < 1000 for x in problems), name
            refused += bool(problems)
        of[name] = before
    assert refused > 10


def test_clips_that_cannot_be_shown_fail_by_name(saved, tmp_path):
    """One that is larger than the context, and one without a rate."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(saved[1], folder)
    _change(folder, CONFIG, TEXT, {"max_position_embeddings": 64})
    stamps = [0, 40, 900, 4000, 4040, 9000]
    videos = [
        make(tmp_path / "small.mp4", 6, 96, 64),
        make(tmp_path / "large.mp4", 6, 224, 224),
        make(tmp_path / "without.ts", 6, milliseconds=stamps),
    ]
    config = settings.default()
    config.model.checkpoint, config.model.dtype = str(folder), "float32"
    rows = [json.dumps({"video": str(path)}) for path in videos]
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    config.corpus.suspects = (str(tmp_path / "manifest.jsonl"),)
    config.slices, config.scores, config.headline = ("video",), "vid_sme", "vid_sme"
    config.motion.bounds = (0.0, 1e3, 0.0, 1e3)
    config.video.num_frames, config.batch_size, config.compile_cache = 3, 1, ""
    config.parallel.mode, config.parallel.data = "pmap", 1
    _, scored = score(config, tmp_path / "run")
    causes = {x.video.rsplit("/")[-1]: x.cause for x in scored.failures}
    assert causes.keys() == {"large.mp4", "without.ts"}
    assert "3 frames of 224x224 pixels are" in causes["large.mp4"]
    assert "the model has 64 positions: take fewer frames" in causes["large.mp4"]
    assert "its frames a second are not known" in causes["without.ts"]
    (key,) = scored.runs[0].store.finished
    assert key.endswith("small.mp4")
