"""What checkpoints of Qwen-VL are refused for, and what older files may say."""

import copy
import json
import shutil

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from oracles import qwen_vl as oracle
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.models.qwen_vl import params

KINDS = oracle.KINDS
TWO, HALF, THREE = KINDS
CONFIG, PROCESSOR = "config.json", "processor_config.json"
VISION, TEXT, ROPE = ("vision_config",), ("text_config",), ("text_config", "rope")
VIDEO = ("video_processor",)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for kind in KINDS:
        model = oracle.make_model(kind)
        own, hub = (tmp_path_factory.mktemp(f"{kind}-{x}") for x in ("own", "hub"))
        made[kind] = oracle.save(model, kind, own)
        made[kind, "hub"] = oracle.save_as_published(model, kind, hub)
    return made


def _change(folder, where, path, change):
    """Merges a change into a part of a JSON file; None removes a key."""
    raw = json.loads((folder / where).read_text())
    part = raw
    for key in path:
        part = part["rope_parameters" if key == "rope" else key]
    for key, value in change.items():
        if value is ...:
            del part[key]
        else:
            part[key] = value
    (folder / where).write_text(json.dumps(raw))


def _problems(folder) -> str:
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    return str(caught.value)


CHANGES = [
    (TWO, ROPE, {"mrope_section": [2, 3, 2]}, "that add up to 8, half of"),
    (HALF, ROPE, {"mrope_section": [4, 4]}, "mrope_section is [4, 4]; expected three"),
    (HALF, ROPE, {"mrope_section": [9, 0, -1]}, "mrope_section is [9, 0, -1]"),
    (THREE, ROPE, {"mrope_section": [2, 3, 3]}, "the last two at most a third"),
    (THREE, ROPE, {"mrope_interleaved": False}, "mrope_interleaved is False"),
    (TWO, VISION, {"embed_dim": 72}, "a head of the tower has the size 72 / 4"),
    (HALF, VISION, {"num_heads": 5}, "a head of the tower has the size 32 / 5"),
    (TWO, VISION, {"hidden_size": 48}, "hidden_size is 48, but a row of the decoder"),
    (HALF, VISION, {"out_hidden_size": 32}, "out_hidden_size is 32, but a row of"),
    (THREE, VISION, {"out_hidden_size": 32}, "a row of the decoder has 64"),
    (HALF, VISION, {"fullatt_block_indexes": [1, 4]}, "blocks of the tower, 0 to 3"),
    (HALF, VISION, {"fullatt_block_indexes": [3, 1]}, "in ascending order"),
    (HALF, VISION, {"fullatt_block_indexes": ...}, "(the default); expected blocks"),
    (THREE, VISION, {"deepstack_visual_indexes": [-1, 2]}, "is [-1, 2]; expected"),
    (THREE, VISION, {"deepstack_visual_indexes": [2, 0]}, "in ascending order"),
    (THREE, VISION, {"deepstack_visual_indexes": [0, 0]}, "in ascending order"),
    (THREE, VISION, {"deepstack_visual_indexes": [0, 1, 2, 3]}, "names 4 blocks, but"),
    (TWO, VISION, {"depth": 1 << 24}, "depth is 16777216, expected 1 to 1024"),
    (THREE, VISION, {"deepstack_visual_indexes": ["0"]}, "expected blocks of the"),
    (HALF, VISION, {"window_size": 27}, "window_size is 27, expected at least the 28"),
    (THREE, VISION, {"num_position_embeddings": 35}, "is 35; expected the square"),
    (TWO, VISION, {"temporal_patch_size": 3}, "temporal_patch_size is 3; built for 2"),
    (TWO, VISION, {"patch_size": 16}, "but by config.json it is 16"),
    (THREE, VISION, {"spatial_merge_size": 3}, "but by config.json it is 3"),
    (TWO, VISION, {"hidden_act": "silu"}, "hidden_act is 'silu'; built for"),
    (HALF, VISION, {"tokens_per_second": -1}, "tokens_per_second is -1"),
    (HALF, VISION, {"tokens_per_second": 0}, "tokens_per_second is 0"),
    (TWO, VISION, {"novel": 1}, "vision_config: unknown key 'novel'"),
    (HALF, TEXT, {"novel": 1}, "text_config: unknown key 'novel'"),
    (THREE, (), {"novel": 1}, "config.json: unknown key 'novel'"),
    (THREE, (), {"video_token_id": 5}, "has the video token 5 0 times"),
    (TWO, VISION, {"model_type": "siglip"}, "model_type is 'siglip'; built for"),
    (HALF, TEXT, {"model_type": "llama"}, "model_type is 'llama'; built for"),
]


@pytest.mark.parametrize(("kind", "path", "change", "text"), CHANGES)
def test_configs_that_are_refused(folders, tmp_path, kind, path, change, text):
    shutil.copytree(folders[kind], tmp_path, dirs_exist_ok=True)
    _change(tmp_path, CONFIG, path, change)
    assert text in _problems(tmp_path)


@pytest.mark.parametrize("kind", [TWO, HALF])
def test_flat_configs_that_are_refused(folders, tmp_path, kind):
    shutil.copytree(folders[kind, "hub"], tmp_path, dirs_exist_ok=True)
    wrong = {"type": "mrope", "mrope_section": [8, 4, 4]}
    _change(tmp_path, CONFIG, (), {"novel": 1, "rope_scaling": wrong})
    text = _problems(tmp_path)
    assert "config.json: unknown key 'novel'" in text
    assert "mrope_section is [8, 4, 4]" in text


def test_a_kind_of_positions_may_have_its_older_name_with_the_newer(folders, tmp_path):
    shutil.copytree(folders[HALF, "hub"], tmp_path, dirs_exist_ok=True)
    sections = {"mrope_section": [2, 3, 3]}
    _change(tmp_path, CONFIG, (), {"rope_scaling": sections | {"type": "mrope"}})
    newer = {"rope_parameters": sections | {"rope_type": "default"}}
    _change(tmp_path, CONFIG, (), newer)
    assert models.inspect(str(tmp_path), dtype="float32").family == HALF


@pytest.mark.parametrize("kind", [TWO, HALF])
def test_a_flat_config_may_have_a_null_text_config(folders, tmp_path, kind):
    shutil.copytree(folders[kind, "hub"], tmp_path, dirs_exist_ok=True)
    _change(tmp_path, CONFIG, (), {"text_config": None})
    plan = models.inspect(str(tmp_path), dtype="float32")
    own = models.inspect(str(folders[kind, "hub"]), dtype="float32")
    assert plan.num_bytes == own.num_bytes and plan.max_rows == own.max_rows


SETTINGS = [
    (TWO, {"patch_size": 16}, "patch_size is 16, but by config.json it is 14"),
    (HALF, {"merge_size": 1}, "merge_size is 1, but by config.json it is 2"),
    (THREE, {"temporal_patch_size": 1}, "temporal_patch_size is 1, but by config"),
    (TWO, {"do_resize": False}, "do_resize is False"),
    (HALF, {"cap_pixels_per_frame": False}, "trained with a cap"),
    (TWO, {"size": {"height": 56, "width": 56}}, "expected shortest_edge and longest"),
    (
        THREE,
        {"size": {"shortest_edge": 9000, "longest_edge": 5000}},
        "the least pixels, 9000, are more than the most, 5000",
    ),
    (THREE, {"novel": 1}, "unknown key 'novel'"),
    (THREE, {"video_processor_type": "Qwen2VLVideoProcessor"}, "built for 'Qwen3VLV"),
]


@pytest.mark.parametrize(("kind", "change", "text"), SETTINGS)
def test_processor_files_that_are_refused(folders, tmp_path, kind, change, text):
    shutil.copytree(folders[kind], tmp_path, dirs_exist_ok=True)
    _change(tmp_path, PROCESSOR, VIDEO, change)
    assert text in _problems(tmp_path)


TENSORS = [
    (TWO, "model.visual.patch_embed.proj.weight", (64, 3, 1, 14, 14), "[64, 3, 1, 14"),
    (TWO, "model.visual.patch_embed.proj.bias", (64,), "surplus"),
    (HALF, "model.visual.blocks.2.mlp.up_proj.weight", None, "missing: no tensor for"),
    (HALF, "model.visual.blocks.4.mlp.up_proj.weight", (40, 32), "surplus"),
    (HALF, "model.visual.merger.ln_q.weight", (128,), "shape [128]"),
    (HALF, "model.visual.merger.ln_q.bias", (32,), "surplus"),
    (THREE, "model.visual.pos_embed.weight", None, "missing: no tensor for"),
    (THREE, "model.visual.pos_embed.weight", (25, 32), "shape [25, 32]"),
    (
        THREE,
        "model.visual.deepstack_merger_list.1.linear_fc1.weight",
        None,
        "missing: no tensor for deep_merger_1",
    ),
    (THREE, "model.visual.deepstack_merger_list.2.norm.weight", (128,), "surplus"),
    (THREE, "model.visual.deepstack_merger_list.0.norm.weight", (32,), "shape [32]"),
    (THREE, "model.visual.merger.norm.weight", (128,), "shape [128]"),
    (THREE, "lm_head.weight", None, "no lm_head.weight"),
]


@pytest.mark.parametrize(("kind", "name", "shape", "text"), TENSORS)
def test_tensors_that_are_not_the_models(folders, tmp_path, kind, name, shape, text):
    shutil.copytree(folders[kind], tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    own = next((x for x in tensors if x in (name, name.removeprefix("model."))), name)
    tensors.pop(own, None)
    if shape is not None:
        tensors[own] = np.zeros(shape, np.float32)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert text in _problems(tmp_path)


@pytest.mark.parametrize("kind", [TWO, HALF])
def test_null_tokens_of_an_older_text_config_are_accepted(folders, tmp_path, kind):
    """As transformers 4.53 wrote them."""
    shutil.copytree(folders[kind], tmp_path, dirs_exist_ok=True)
    null = dict.fromkeys(("image_token_id", "video_token_id", "vision_token_id"))
    null |= dict.fromkeys(("vision_start_token_id", "vision_end_token_id"))
    _change(tmp_path, CONFIG, TEXT, null)
    plan = models.inspect(str(tmp_path), dtype="float32")
    own = models.inspect(str(folders[kind]), dtype="float32")
    assert plan.tokenise() == own.tokenise() and plan.num_bytes == own.num_bytes


def _parts(raw, path=()):
    """The paths of all keys of a JSON object."""
    for key, value in raw.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from _parts(value, (*path, key))


@pytest.mark.parametrize("form", ["own", "hub"])
@pytest.mark.parametrize("kind", KINDS)
def test_strange_values_of_any_key_are_read_or_refused(folders, kind, form):
    """Without another error, whatever stands in a config."""
    source, refused = folders[kind] if form == "own" else folders[kind, "hub"], 0
    raw = json.loads((source / CONFIG).read_text())
    for path in _parts(raw):
        for value in (None, [], {}, "x", -1, [1, None]):
            changed = copy.deepcopy(raw)
            part = changed
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = value
            problems: list[str] = []
            params.read_config(changed, kind, np.float32, problems)
            refused += bool(problems)
    assert refused > 100


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_config_does_not_say_is_the_classes(kind):
    """Files that transformers wrote before version 5 leave its defaults out."""
    made = transformers.AutoConfig.for_model(kind)
    vision, text = made.vision_config.to_dict(), made.text_config
    config, token = params.read_config({"model_type": kind}, kind, np.float32, [])
    assert token == made.video_token_id
    assert config.tokens_per_second == vision.get("tokens_per_second", 0)
    own = config.vision
    hidden = vision.get("embed_dim", vision["hidden_size"])
    inside = vision.get("intermediate_size", hidden * vision.get("mlp_ratio", 0))
    assert (own.depth, own.num_heads) == (vision["depth"], vision["num_heads"])
    assert (own.hidden_size, own.intermediate_size) == (hidden, inside)
    assert own.patch_size == vision["patch_size"]
    assert own.merge == vision["spatial_merge_size"]
    assert own.table**2 == vision.get("num_position_embeddings", 0)
    assert own.window * own.patch_size * own.merge == vision.get("window_size", 0)
    assert list(own.whole) == vision.get("fullatt_block_indexes", [])
    assert list(own.taps) == vision.get("deepstack_visual_indexes", [])
    for key in (
        "hidden_size",
        "num_hidden_layers",
        "num_key_value_heads",
        "vocab_size",
    ):
        assert getattr(config.text, key) == getattr(text, key)
    assert config.text.rms_norm_eps == text.rms_norm_eps
    assert config.text.rope.theta == text.rope_parameters["rope_theta"]
    assert config.text.max_positions == text.max_position_embeddings
