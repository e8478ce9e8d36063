"""The files that training writes: which, from where, and what a full disk leaves."""

import dataclasses
import json
import pathlib
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import exporting
from exporting import Clip, assert_equal, exported, in_torch
from oracles import llava_next_video, llava_qwen, our_logits
from oracles import qwen_vl as qwen
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import trees
from vidsme_jax.demo import drawing
from vidsme_jax.finetune import export
from vidsme_jax.models.preprocessing import CLIP_MEAN, CLIP_STD

pytestmark = pytest.mark.long

TINY = "random:qwen3_vl-tiny"
BEFORE, AFTER = (1, 5, 9), (7, 8)
torch.set_num_threads(1)


def _stored(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the tensors of all weight files of a folder."""
    out = {}
    for path in folder.glob("*.safetensors"):
        found = load_file(path)
        assert not out.keys() & found.keys()
        out |= found
    return out


def _names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _load_original(model, found: dict[str, np.ndarray]) -> None:
    """Puts a file's tensors into the oracle of the original format; strict."""
    left = {name: torch.tensor(value) for name, value in found.items()}

    def take(module: torch.nn.Module, prefix: str, absent: str = "") -> None:
        own = module.state_dict()
        new = {
            k: v if absent and absent in k else left.pop(prefix + k)
            for k, v in own.items()
        }
        module.load_state_dict(new)

    cut = f"layers.{llava_qwen.DEPTH - 1}." * (model.kind == "llava_video")
    take(model.decoder, "")
    take(model.tower, llava_qwen.TOWER, cut)
    take(model.mm_projector, "model.mm_projector.")
    if model.kind == "llava_video":
        model.image_newline.data.copy_(left.pop("model.image_newline"))
    assert not left


@pytest.mark.parametrize("kind", ["longva", "llava_video"])
def test_the_original_format_is_that_of_llavas_code(tmp_path, kind):
    """All tensors of its model, the vocabulary's padding among them, and no other."""
    model = llava_qwen.make_model(kind, newline="frame")
    source = llava_qwen.save(model, tmp_path / "source")
    before = _stored(source)
    made = exported(str(source), tmp_path / "out")
    found = _stored(tmp_path / "out")
    assert found.keys() == before.keys()
    rows = made.loaded.model.vocab_size
    assert rows == len(before["lm_head.weight"]) - llava_qwen.PADDED
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        assert (found[name][:rows] != before[name][:rows]).any()
        np.testing.assert_array_equal(found[name][rows:], before[name][rows:])
    _load_original(model, found)
    size = 56 if kind == "longva" else 70
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected = model(BEFORE, pixels, AFTER).numpy()
    ours = our_logits(made.loaded, pixels, BEFORE, AFTER)
    assert expected.std() > 0.5, "weights too small for errors to show"
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    raw = json.loads((source / "config.json").read_text())
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == raw
    again = models.load(str(tmp_path / "out"), dtype="float32")
    assert_equal(again.state, made.loaded.state)


def test_a_tower_that_lies_outside_is_named_by_its_path(tmp_path):
    model = llava_qwen.make_model()
    source = llava_qwen.save(model, tmp_path / "a" / "source", mm_vision_tower="../t")
    shutil.move(source / "tower", tmp_path / "a" / "t")
    made = exported(str(source), tmp_path / "b" / "c" / "out")
    again = models.load(str(made.folder), dtype="float32")
    assert_equal(again.state, made.loaded.state)


@pytest.mark.parametrize("dialect", ["A", "B", "C"])
def test_names_and_unread_tensors_are_the_sources(tmp_path, dialect):
    model = llava_next_video.make_model()
    model.config.video_token_index = drawing.TOKENS.index("<video>")
    source = llava_next_video.save(model, tmp_path / "source", dialect)
    drawing.tokenizer_files(source)
    made = exported(str(source), tmp_path / "out")
    before, found = _stored(source), _stored(tmp_path / "out")
    assert found.keys() == before.keys()
    same = {name for name in found if np.array_equal(found[name], before[name])}
    unread = {name for name in found if "newline" in name or "post_layern" in name}
    unread |= {name for name in found if "tower" in name and "layers.2." in name}
    assert same == unread and len(same) > 10
    in_torch(tmp_path / "out", made.loaded.model.family)
    # The source says nothing of pixels; what the package does is what is written.
    theirs = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path / "out")
    frames = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8)
    found = theirs(list(frames), return_tensors="np")["pixel_values"]
    ours = made.loaded.model.prepare(frames).transpose(0, 3, 1, 2) / 255
    mean, std = (np.reshape(x, (3, 1, 1)) for x in (CLIP_MEAN, CLIP_STD))
    np.testing.assert_allclose(found, (ours - mean) / std, atol=1e-5)


def _source(folder: pathlib.Path, **changes) -> pathlib.Path:
    """Copies the tiny checkpoint and changes its config."""
    shutil.copytree(models.locate(TINY), folder)
    raw = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


UNREAD = {  # What no pass reads of a tower, and transformers' classes have.
    "llava_next_video-tiny": {"image_newline"},
    "llava_onevision-tiny": {"vision_tower.vision_model.post_layernorm.bias"},
    "video_llava-tiny": {"image_tower.vision_model.encoder.layers.0.mlp.fc1.bias"},
    "llava_qwen-tiny": {f"{llava_qwen.TOWER}encoder.layers.3.mlp.fc1.bias"},
    "llava_video-tiny": {f"{llava_qwen.TOWER}post_layernorm.bias"},
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_model_that_began_from_no_tensors_is_whole(tmp_path, name):
    made = exported(f"random:{name}", tmp_path / "first")
    source = dataclasses.replace(made.source, tensors={})
    parts = made.loaded.model, made.loaded.state
    export.whole(tmp_path / "out", source, *parts, dtype="float32")
    assert _stored(tmp_path / "out").keys() >= UNREAD[name]
    family = made.loaded.model.family
    if family == "llava_qwen":
        raw = json.loads((tmp_path / "out" / "config.json").read_text())
        rows = len(_stored(tmp_path / "out")["model.embed_tokens.weight"])
        assert raw["vocab_size"] == rows < made.source.config["vocab_size"]
    else:
        in_torch(tmp_path / "out", family)
    again = models.load(str(tmp_path / "out"), dtype="float32")
    assert_equal(again.state, made.loaded.state)


@pytest.mark.parametrize("heads", ["absent", "equal", "other"])
def test_ties_are_those_of_the_parameters(tmp_path, heads):
    """The source's config says that there is one; two that differ are none."""
    source = _source(tmp_path / "source", tie_word_embeddings=True)
    tensors = load_file(source / "model.safetensors")
    if heads == "absent":
        del tensors["lm_head.weight"]
    elif heads == "equal":
        tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    made = exported(str(source), tmp_path / "out")
    tied = heads != "other"
    assert ("lm_head.weight" in _stored(made.folder)) != tied
    theirs = in_torch(made.folder, "qwen3_vl")
    assert theirs.config.tie_word_embeddings == tied
    assert (theirs.lm_head.weight is theirs.get_input_embeddings().weight) == tied
    head = trees.flat(made.loaded.state)[
        f"language_model/{'embed_tokens' if tied else 'lm_head'}/weight"
    ]
    np.testing.assert_array_equal(theirs.lm_head.weight.detach().numpy(), head)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrower_dtype(tmp_path, dtype):
    source = _source(tmp_path / "source", torch_dtype="float32", dtype="float32")
    raw = json.loads((source / "config.json").read_text())
    raw["text_config"]["torch_dtype"] = "float32"
    (source / "config.json").write_text(json.dumps(raw))
    made = exported(str(source), tmp_path / "out", dtype=dtype)
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    assert raw["dtype"] == raw["text_config"]["dtype"] == dtype
    assert "torch_dtype" not in raw and "torch_dtype" not in raw["text_config"]
    theirs = in_torch(made.folder, "qwen3_vl", "auto")
    assert {x.dtype for x in theirs.parameters()} == {getattr(torch, dtype)}
    again = models.load(str(tmp_path / "out"), dtype=dtype)
    cast = {k: v.astype(dtype) for k, v in trees.flat(made.loaded.state).items()}
    for path, value in trees.flat(again.state).items():
        np.testing.assert_array_equal(value, cast[path], err_msg=path)


def test_values_beyond_the_dtype_are_refused(tmp_path):
    made = exported(TINY, tmp_path)
    before = _stored(tmp_path)
    flat = trees.flat(made.loaded.state)
    flat["merger/fc1/bias"] = flat["merger/fc1/bias"] + 1e5
    state = trees.fill(made.loaded.state, flat)
    with pytest.raises(
        ValueError, match=r"merger\.linear_fc1\.bias holds NaN, or values beyond"
    ):
        export.whole(tmp_path, made.source, made.loaded.model, state, dtype="float16")
    assert _stored(tmp_path).keys() == before.keys()
    assert not list(tmp_path.glob("*.tmp"))


def test_shards_and_no_shards_take_each_others_place(tmp_path):
    made = exported(TINY, tmp_path, shard_bytes=200_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert files == {path.name for path in tmp_path.glob("*.safetensors")}
    assert len(files) > 4 and "model.safetensors" not in files
    sizes = [(tmp_path / name).stat().st_size for name in files]
    begins = [(tmp_path / name).read_bytes()[:8] for name in files]
    assert not any(int.from_bytes(begin, "little") % 8 for begin in begins)
    largest = max(x.nbytes for x in _stored(tmp_path).values())
    assert max(sizes) < max(largest, 200_000) + 20_000
    total = sum(x.nbytes for x in _stored(tmp_path).values())
    assert index["metadata"]["total_size"] == total
    clip = Clip(made.loaded)
    theirs = clip.theirs(in_torch(tmp_path, "qwen3_vl"))
    np.testing.assert_allclose(clip.ours(made.loaded.state), theirs, atol=1e-4)
    assert_equal(models.load(str(tmp_path), dtype="float32").state, made.loaded.state)
    # Another model, in one file.
    first = models.load(TINY, dtype="float32")
    parts = (made.source, made.loaded.model, first.state)
    export.whole(tmp_path, *parts, dtype="float32")
    assert not any("-of-" in name or "index" in name for name in _names(tmp_path))
    assert_equal(models.load(str(tmp_path), dtype="float32").state, first.state)
    parts = (*parts[:2], made.loaded.state)
    export.whole(tmp_path, *parts, dtype="float32", shard_bytes=400_000)
    assert "model.safetensors" not in _names(tmp_path)
    assert_equal(models.load(str(tmp_path), dtype="float32").state, made.loaded.state)
    assert not (set(files) & _names(tmp_path)), "shards of the first export are left"


@pytest.fixture
def full_disk():
    """Returns a function after which files can have so many bytes and no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, kept)


@pytest.mark.parametrize("shard_bytes", [10**9, 100_000])
@pytest.mark.parametrize("held", ["nothing", "a model"])
def test_a_full_disk_leaves_what_was_there(tmp_path, full_disk, shard_bytes, held):
    made, folder = exported(TINY, tmp_path / "first"), tmp_path / "out"
    parts = made.source, made.loaded.model
    if held == "a model":
        before = models.load(TINY, dtype="float32").state
        export.whole(folder, *parts, before, dtype="float32")
    there = _names(folder) if folder.exists() else set()
    full_disk(120_000)
    with pytest.raises(OSError) as caught:
        export.whole(
            folder,
            *parts,
            made.loaded.state,
            dtype="float32",
            shard_bytes=shard_bytes,
        )
    full_disk(resource.RLIM_INFINITY)
    assert str(caught.value.filename).startswith(f"{folder}/model")
    assert str(caught.value.filename).endswith(".safetensors")
    assert _names(folder) == there
    if held == "a model":
        assert_equal(models.load(str(folder), dtype="float32").state, before)
        return
    with pytest.raises(AuditError):
        models.inspect(str(folder), dtype="float32")


def test_a_small_file_that_cannot_be_written_leaves_no_model(tmp_path):
    """The weights get their names last; those of before are gone by then."""
    made = exported(TINY, tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(OSError, match=r"config\.json"):
        parts = made.source, made.loaded.model, made.loaded.state
        export.whole(tmp_path, *parts, dtype="float32", shard_bytes=300_000)
    assert not [name for name in _names(tmp_path) if "model" in name]


def test_the_files_of_a_processor_come_along(tmp_path):
    """The nearest of each; those of an adapter's own are left out, so are others'."""
    base = qwen.save(qwen.make_model("qwen3_vl"), "qwen3_vl", tmp_path / "base")
    (base / "README.md").write_text("not a part of the model")
    opened = models.open_checkpoint(str(base))
    model = models.describe(opened, dtype="float32")
    factors = exporting.factors_of(model, "self_attn/q_proj")
    known = dict(rank=exporting.RANK, alpha=3, rslora=False, base="../base")
    export.adapter(tmp_path / "adapter", opened, model, factors, **known)
    videos = json.loads((base / "processor_config.json").read_text())["video_processor"]
    videos["size"]["longest_edge"] = videos["size"]["shortest_edge"]
    nearer = tmp_path / "adapter" / "video_preprocessor_config.json"
    nearer.write_text(json.dumps(videos))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "adapter")
    (base / "special_tokens_map.json").write_text("{}")  # Of another tokenizer.
    (tmp_path / "adapter" / "chat_template.jinja").write_text("{{ 'nearer' }}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "vocab.txt").write_text("of an earlier export")
    (tmp_path / "out" / "training.json").write_text("{}")
    made = exported(str(tmp_path / "adapter"), tmp_path / "out")
    copied = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    for name in copied:
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    written = {"config.json", "model.safetensors", "processor_config.json"}
    written |= {"video_preprocessor_config.json", "chat_template.jinja"}
    assert _names(tmp_path / "out") == copied | written | {"training.json"}
    again = models.load(str(tmp_path / "out"), dtype="float32")
    assert_equal(again.state, made.loaded.state)
    frames = np.zeros((2, 600, 800, 3), np.uint8)
    cut = made.loaded.model.prepare(frames)
    assert cut.shape == again.model.prepare(frames).shape
    assert cut.shape != model.prepare(frames).shape
    theirs = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert theirs.chat_template == "{{ 'nearer' }}"
    assert theirs.video_processor.size["longest_edge"] == videos["size"]["longest_edge"]


def test_an_adapter_or_a_model_of_its_own(tmp_path):
    """Neither is written where the other lies, nor an adapter of an adapter."""
    made = exported(TINY, tmp_path / "whole")
    factors = exporting.factors_of(made.loaded.model, "self_attn/q_proj")
    with pytest.raises(ValueError, match=r"holds a whole model \(model\.safetensors\)"):
        exporting.write_adapter(made, tmp_path / "whole", factors)
    exporting.write_adapter(made, tmp_path / "adapter", factors)
    parts = made.source, made.loaded.model, made.loaded.state
    with pytest.raises(ValueError, match="holds an adapter"):
        export.whole(tmp_path / "adapter", *parts, dtype="float32")
    again = made._replace(folder=tmp_path / "adapter")
    with pytest.raises(ValueError, match="is an adapter itself"):
        exporting.write_adapter(again, tmp_path / "second", factors)
    assert not (tmp_path / "second").exists()


def test_factors_that_cannot_be_written_are_reported_together(tmp_path):
    made = exported(TINY, tmp_path / "whole")
    one = np.zeros((3, 4), np.float32)
    factors = {
        "visual/patch_embedding": (one, one),
        "language_model/embed_tokens": (one, one),
        "merger/fc1": (one, one),
        "merger/fc9": (one, one),
    }
    with pytest.raises(ValueError) as caught:
        exporting.write_adapter(made, tmp_path / "adapter", factors)
    text = str(caught.value)
    assert "visual/patch_embedding is no linear layer in transformers" in text
    assert "language_model/embed_tokens is no layer with a kernel" in text
    assert "merger/fc1 has factors [3, 4] and [3, 4], expected [128, 3] and [3" in text
    assert "merger/fc9 is no layer with a kernel" in text
    assert not (tmp_path / "adapter").exists()


def test_a_full_disk_leaves_the_adapter_that_was_there(tmp_path, full_disk):
    made, folder = exported(TINY, tmp_path / "whole"), tmp_path / "adapter"
    few = exporting.factors_of(made.loaded.model, "self_attn/q_proj")
    state = exporting.write_adapter(made, folder, few)
    full_disk(2_000)
    with pytest.raises(OSError, match=r"adapter_model\.safetensors"):
        more = exporting.factors_of(made.loaded.model)
        exporting.write_adapter(made, folder, more)
    full_disk(resource.RLIM_INFINITY)
    assert _names(folder) == {"adapter_config.json", "adapter_model.safetensors"}
    again = models.load(str(folder), dtype="float32")
    exporting.assert_merged(again.state, state, made.loaded.state, few)
