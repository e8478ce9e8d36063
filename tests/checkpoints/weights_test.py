"""Which weight files count, held against what transformers loads."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from oracles import llava_next_video
from oracles import llava_onevision as oracle
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import opening, weights
from vidsme_jax.run import asking

NORM = "language_model.model.norm.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def first():
    """The tensors of the model; those of another are twice as large."""
    model = oracle.make_model()
    return model, llava_next_video.tensors(model, "A")


def _write(folder, named, *names):
    """Writes tensors under each name; of an index, in two shards that it names."""
    for name in names:
        if name.endswith(".index.json"):
            form = name.removesuffix(".index.json")
            stem, suffix = form.split(".")
            files = [f"{stem}-0000{k}-of-00002.{suffix}" for k in (1, 2)]
            parts = [dict(list(named.items())[k::2]) for k in (0, 1)]
            for file, part in zip(files, parts, strict=True):
                _write(folder, part, file)
            where = {n: f for f, part in zip(files, parts, strict=True) for n in part}
            text = json.dumps({"metadata": {}, "weight_map": where})
            (folder / name).write_text(text)
        elif name.endswith(".bin"):
            torch.save(named, folder / name)
        else:
            save_file(named, folder / name, metadata={"format": "pt"})


def _theirs(folder):
    """The norm that transformers loads, None if it loads nothing."""
    try:
        model = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
            folder
        )
    except OSError:
        return None
    return model.model.language_model.norm.weight.detach().numpy()


def _ours(folder):
    try:
        opened = opening.open_checkpoint(str(folder), allow_pickle=True)
    except AuditError as error:
        assert len(error.problems) == 1
        return None, error.problems[0]
    return opened.tensors[NORM].read(), "".join(opened.remarks)


OTHERS = (
    *("consolidated.safetensors", "model.fp16.safetensors"),
    *("diffusion_pytorch_model.safetensors", "adapter_model.safetensors"),
)


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        (
            ("model.safetensors",),
            (INDEX,),
            "model.safetensors is read, as transformers does; not read: "
            "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, "
            "model.safetensors.index.json",
        ),
        (("model.safetensors",), OTHERS, "not read: adapter_model.safetensors, con"),
        ((INDEX,), OTHERS, f"{INDEX} is read, as transformers does; not read: "),
        (("model.safetensors",), ("pytorch_model.bin",), ""),
        ((INDEX,), ("pytorch_model.bin",), ""),
        (("pytorch_model.bin",), ("pytorch_model.bin.index.json",), ""),
        (("pytorch_model.bin",), ("pytorch_model.fp16.bin", *OTHERS), ""),
        (("pytorch_model.bin.index.json",), OTHERS, ""),
        (
            (),
            OTHERS[:3],
            "found consolidated.safetensors, diffusion_pytorch_model.safetensors, "
            "model.fp16.safetensors, which transformers does not read by these names "
            "either: if it is this model's, rename it to model.safetensors",
        ),
        ((), ("pytorch_model.fp16.bin",), "rename it to model.safetensors"),
    ],
)
def test_what_transformers_loads_is_loaded(tmp_path, first, right, wrong, text):
    model, named = first
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    _write(tmp_path, {name: 2 * value for name, value in named.items()}, *wrong)
    _write(tmp_path, named, *right)
    ours, said = _ours(tmp_path)
    theirs = _theirs(tmp_path)
    assert text in said
    if theirs is None:
        assert ours is None
    else:
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, named[NORM].numpy())


def test_files_that_were_left_aside_are_named_with_what_is_missing(tmp_path, first):
    model, named = first
    folder = oracle.save(model, tmp_path)
    part = {name: value for name, value in named.items() if "layers.1" not in name}
    _write(folder, named, INDEX)
    _write(folder, part, "model.safetensors")
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert "missing: no tensor for" in caught.value.problems[0]
    assert "not read: model-00001-of-00002" in caught.value.problems[-1]


def test_a_left_over_adapter(tmp_path, first):
    """What transformers does with it depends on whether PEFT is installed."""
    model, named = first
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    _write(tmp_path, {"a": torch.ones(2)}, "adapter_model.safetensors")
    for name in ("model.safetensors", INDEX, "pytorch_model.bin"):
        _write(tmp_path, named, name)
        for adapter in (True, False):
            with pytest.raises(AuditError) as caught:
                opening.open_checkpoint(str(tmp_path), adapter=adapter)
            (problem,) = caught.value.problems
            assert f"{name} and adapter_config.json are in one folder" in problem
            assert "if it is merged already, move adapter_config.json away" in problem
        for path in tmp_path.glob("*model*"):
            path.unlink() if not path.name.startswith("adapter") else None
    # Without weights of its own it is an adapter, a config.json beside it or not.
    with pytest.raises(AuditError, match=r"adapter_config\.json: r is None"):
        opening.open_checkpoint(str(tmp_path))


def test_shards_that_are_missing_are_one_line(tmp_path, first):
    model, _ = first
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    files = [f"model-{k:05}-of-00030.safetensors" for k in range(1, 31)]
    for k, file in enumerate(files[:5]):
        _write(tmp_path, {f"t{k}": torch.ones(2)}, file)
    where = {f"t{k}": file for k, file in enumerate(files)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": where}))
    _, said = _ours(tmp_path)
    assert f"25 of the 30 files that {INDEX} names are missing: {files[5]}, " in said
    assert f"{files[24]} and 5 more; fetch them" in said
    (tmp_path / INDEX).unlink()
    _, said = _ours(tmp_path)
    assert "25 of 30 shards are missing (number 6, 7, " in said
    assert f"and there is no {INDEX}" in said


def test_a_whole_set_of_shards_needs_no_index(tmp_path, first):
    model, named = first
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    _write(tmp_path, named, INDEX)
    (tmp_path / INDEX).unlink()
    np.testing.assert_array_equal(_ours(tmp_path)[0], named[NORM].numpy())
    _write(tmp_path, named, "model-00001-of-00001.safetensors")
    assert "shards of several sets" in _ours(tmp_path)[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q4.gguf", "found q4.gguf: GGUF, the form of llama.cpp: give the safetensors"),
        ("model.pt", "found model.pt: a torch file under a name of its own"),
        ("last.ckpt", "save the model with save_pretrained"),
        ("tf_model.h5", "weights of TensorFlow: load them with transformers 4"),
        ("flax_model.msgpack", "weights of Flax: load them with transformers 4"),
        ("model.onnx", "ONNX: give the safetensors it was exported from"),
        ("mm_projector.bin", "a projector alone, as the first stage of a LLaVA"),
        ("non_lora_trainables.bin", "one half of a LoRA training"),
        ("adapter_model.safetensors", "an adapter without its adapter_config.json"),
        ("zero_to_fp32.py", "python zero_to_fp32.py . ."),
        ("__0_0.distcp", "`accelerate merge-weights` joins them"),
        ("checkpoint-1000/config.json", "found a checkpoint in checkpoint-1000: give"),
    ],
)
def test_other_forms_are_named_with_the_way_out(tmp_path, name, text):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    _, said = _ours(tmp_path)
    assert "no model.safetensors in" in said and text in said


def test_a_checkpoint_further_down(tmp_path):
    for inner in ("checkpoint-200", "checkpoint-1000", "snapshots/0123abc"):
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / "config.json").write_text("{}")
    _, said = _ours(tmp_path)
    assert "found a checkpoint in checkpoint-200, checkpoint-1000, snapshots/01" in said
    assert said.endswith(f"give {tmp_path / 'snapshots/0123abc'}")
    with pytest.raises(AuditError, match=f"expected a folder: give {tmp_path}"):
        opening.open_checkpoint(str(tmp_path / "checkpoint-200" / "config.json"))


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module._orig_mod."],
)
def test_the_prefixes_of_wrappers(tmp_path, first, prefix):
    model, named = first
    folder = oracle.save(model, tmp_path)
    named = {prefix + name: value for name, value in named.items()}
    inside = "layers.0._checkpoint_wrapped_module._orig_mod.mlp."
    named = {n.replace("layers.0.mlp.", inside): v for n, v in named.items()}
    for name in ("model.safetensors", INDEX):
        (folder / "model.safetensors").unlink()
        _write(folder, named, name)
        loaded = models.load(str(folder), dtype="float32")
        found = loaded.state["language_model"]["norm"]["weight"][...]
        np.testing.assert_array_equal(found, named[prefix + NORM].numpy())
        _write(folder, named, "model.safetensors")


def test_a_tensor_with_and_without_a_prefix(tmp_path, first):
    model, named = first
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    _write(tmp_path, named | {f"module.{NORM}": named[NORM] + 1}, "model.safetensors")
    _, said = _ours(tmp_path)
    assert f"{NORM}: stored twice, as " in said and f"module.{NORM}" in said


def test_plain_names():
    assert weights.plain("module.model._orig_mod.norm.weight") == "model.norm.weight"
    assert weights.plain("a.modules.b_module.c") == "a.modules.b_module.c"


def test_the_forms_that_are_read_and_what_was_found(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    _, said = _ours(tmp_path)
    for part in (
        f"no model.safetensors in {tmp_path}, no model.safetensors.index.json with",
        "no pytorch_model.bin or shards of it",
        "; found config.json",
    ):
        assert part in said
    with pytest.raises(AuditError, match=r"with --config\.model\.allow_pickle=true"):
        opening.open_checkpoint(str(tmp_path))


def test_pickled_weights_are_not_said_to_be_absent(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(AuditError, match=r"allow_pickle=true reads") as caught:
        opening.open_checkpoint(str(tmp_path))
    assert "no pytorch_model.bin" not in str(caught.value)


@pytest.mark.parametrize("base", ["owner/name", "../no-such-base"])
def test_early_only_local_files_are_looked_at(tmp_path, base, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: 1 / 0)
    folder = tmp_path / "adapter"
    folder.mkdir()
    about = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": "x"}
    about["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(about))
    if base == "owner/name":
        asking.find_local(str(folder))  # Of the hub: later.
        return
    with pytest.raises(AuditError, match=r"\.\./no-such-base.*no such folder"):
        asking.find_local(str(folder))
    asking.find_local(str(folder), weights=False)
