"""LoRA and its relatives against PEFT, and tensors that are refused."""

import re
import shutil

import numpy as np
import pytest
import torch

from oracles import adapters as oracle
from oracles import our_logits
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import opening
from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.models.llava_hf import params

Q = r".*(language_model|decoder)\.(.*\.)?(q_proj|down_proj)"  # Of the decoder.


def _is_peft(made):
    """Runs the merged tensors in the oracle: quicker than compiling each model."""
    checkpoint = opening.open_checkpoint(str(made.folder))
    merged = checkpoint.merged(Names(params.canonical, (), {})).tensors
    named = {params.canonical(name): info for name, info in merged.items()}
    assert len(named) == len(merged)
    model = made.fresh()
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    if tied and params.HEAD in named:
        assert not checkpoint.config["text_config"]["tie_word_embeddings"]
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            info = named.pop(params.canonical(name))
            value = info.read()
            parameter.copy_(torch.tensor(value))
            part = tuple(slice(n // 3, n - n // 4) for n in info.shape)
            np.testing.assert_allclose(info.read(part), value[part], atol=1e-6)
    assert not named
    expected = made.logits()
    assert expected.std() > 0.5, "weights too small for errors to show"
    assert np.abs(expected - made.logits(made.fresh())).max() > 0.05
    np.testing.assert_allclose(made.logits(model), expected, atol=1e-4)
    return checkpoint


FAMILIES = ("llava_next_video", "llava_onevision")
PATTERNS = {
    "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 3, "1.self_attn": 5},
    "alpha_pattern": {"layers.0.self_attn.q_proj": 3.5, ".*down_proj": 9},
}
SAVED = ["multi_modal_projector"]
TOWER = r".*vision_tower.*(q_proj|fc1|patch_embedding)|.*projector\.linear_1"
DECODER = "language_model"
HEAD = ["embed_tokens", "lm_head"]
ORIGINAL = {"modules_to_save": ["mm_projector"], "bias": "lora_only", **PATTERNS}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dialect", ["A", "B", "C"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dialect_of_base_and_adapter(tmp_path, family, dialect, old):
    """Adapters of today's trainers on published bases, and the other way round."""
    lora = {"target_modules": Q, "modules_to_save": SAVED}
    found = _is_peft(oracle.make(family, tmp_path, dialect=dialect, old=old, **lora))
    assert "LoRA: 4 weights of " in found.remarks[0]
    assert "low-rank updates, 4 tensors are replaced" in found.remarks[0]


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": Q, "use_rslora": True, **PATTERNS},
        {"target_modules": "all-linear", "modules_to_save": SAVED},
        {"target_modules": Q, "modules_to_save": SAVED, "bias": "all"},
        {"target_modules": Q, "bias": "lora_only", "fan_in_fan_out": True},
        {
            "target_modules": ["q_proj", "up_proj"],
            "layers_to_transform": [1],
            "layers_pattern": "layers",
        },
        {"target_modules": TOWER},
        {"target_modules": TOWER, "use_dora": True},
        {"target_modules": [*HEAD, "k_proj"], "modules_to_save": ["norm"]},
        {"target_modules": ["embed_tokens", "o_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "lora_bias": True},
        {"target_modules": Q, "modules_to_save": HEAD},
        {"target_modules": ["o_proj"], "velora_config": {"num_groups": 4}},
        {"target_modules": Q, "save": {"save_embedding_layers": True}},
    ],
    ids=lambda lora: "-".join(lora),
)
def test_what_peft_knows(tmp_path, lora):
    _is_peft(oracle.make("llava_onevision", tmp_path, **lora))


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": HEAD, "use_dora": True},
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": Q, "modules_to_save": ["embed_tokens"]},
        {"target_modules": Q, "modules_to_save": ["lm_head"]},
        {
            "target_modules": Q,
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
    ],
    ids=lambda lora: "-".join(str(v) for v in lora.values()),
)
def test_tied_heads(tmp_path, lora):
    """PEFT changes the module that it names; the other keeps the base's values."""
    _is_peft(oracle.make("llava_onevision", tmp_path, tied=True, **lora))


def test_a_base_of_which_the_head_alone_is_stored(tmp_path):
    lora = {"target_modules": ["embed_tokens"], "tied": True}
    made = oracle.make("llava_onevision", tmp_path, **lora)
    old, new = f"{DECODER}.model.embed_tokens.weight", f"{DECODER}.lm_head.weight"

    def rename(found):
        return {new if key == old else key: value for key, value in found.items()}

    oracle.tensors(tmp_path / "base", rename, "model.safetensors")
    models.inspect(str(tmp_path / "base"), dtype="float32")
    oracle.tensors(made.folder, lambda f: {k: f[k] for k in f if "base_layer" not in k})
    _is_peft(made)


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("llava_next_video", {"target_modules": Q, "modules_to_save": SAVED}),
        ("llava_onevision", {"target_modules": ["embed_tokens"], "tied": True}),
        ("llava_qwen", {"target_modules": Q, "use_dora": True, **ORIGINAL}),
    ],
)
def test_through_the_loader(tmp_path, family, lora):
    made = oracle.make(family, tmp_path, **lora)
    loaded = models.load(str(made.folder), dtype="float32")
    actual = our_logits(loaded, made.pixels, oracle.BEFORE, oracle.AFTER)
    np.testing.assert_allclose(actual, made.logits(), atol=1e-4)
    assert "LoRA: " in loaded.model.remarks[0]


def test_a_vocabulary_that_grew(tmp_path):
    """Its embeddings are in the adapter; the base has none for the new tokens."""

    def grow(model):
        model.resize_token_embeddings(140)

    made = oracle.make(
        "llava_onevision",
        tmp_path,
        prepare=grow,
        target_modules=Q,
        save={"save_embedding_layers": True},
    )
    assert _is_peft(made).config["text_config"]["vocab_size"] == 140
    assert models.inspect(str(made.folder), dtype="float32").vocab_size == 140
    with pytest.raises(AuditError, match=r"grew to 140 tokens.*checkpoint=.*base$"):
        opening.open_checkpoint(str(made.folder), adapter=False)


def test_without_the_adapter(tmp_path):
    """As PEFT's disable_adapter: the modules that were saved are those of the base."""
    lora = {"target_modules": Q, "modules_to_save": SAVED}
    made = oracle.make("llava_onevision", tmp_path, **lora)
    found = models.inspect(str(made.folder), dtype="float32", adapter=False)
    assert found.remarks == (
        f"LoRA: weights of {tmp_path / 'base'} are read without low-rank updates and "
        "without its copies of multi_modal_projector, 0 tensors are replaced",
    )
    checkpoint = opening.open_checkpoint(str(made.folder), adapter=False)
    tensors = checkpoint.merged(found.names).tensors
    base = opening.open_checkpoint(str(tmp_path / "base")).tensors
    assert tensors == base
    whole = models.inspect(str(made.folder), dtype="float32")
    assert whole.fingerprint != found.fingerprint
    with made.model.disable_adapter():
        np.testing.assert_allclose(made.logits(), made.logits(made.fresh()), atol=1e-6)


def test_a_pissa_that_peft_converted(tmp_path):
    """PiSSA moves weight into its factors; PEFT can move it back when saving."""
    folder = tmp_path / "start"

    def start(trained):
        trained.peft_config["default"].init_lora_weights = True
        trained.save_pretrained(folder)
        trained.peft_config["default"].init_lora_weights = "pissa"

    lora = {"target_modules": Q, "init_lora_weights": "pissa"}
    convert = {"save": {"path_initial_model_for_weight_conversion": folder}}
    made = oracle.make(
        "llava_onevision", tmp_path / "a", start=start, **lora, **convert
    )
    _is_peft(made)
    made = oracle.make("llava_onevision", tmp_path / "b", **lora)
    with pytest.raises(AuditError, match=r"init_lora_weights is 'pissa': it changes"):
        opening.open_checkpoint(str(made.folder))


PREFIX = "base_model.model.model"
Q_PROJ = f"{PREFIX}.language_model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    lora = {"target_modules": ["q_proj"], "modules_to_save": SAVED}
    return oracle.make("llava_onevision", folder, **lora)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {f"{Q_PROJ}.lora_B.weight": None},
            "0.self_attn.q_proj.weight: lora_B is miss",
        ),
        (
            {f"{Q_PROJ}.lora_A.weight": None},
            "0.self_attn.q_proj.weight: lora_A is miss",
        ),
        (
            {f"{Q_PROJ}.lora_A.weight": torch.ones(3, 48)},
            r"q_proj.weight: factors \[48, 4\] x \[3, 48\] for \[48, 48\], r 4",
        ),
        (
            {f"{Q_PROJ}.lora_A.weight": torch.ones(0)},
            r"factors \[48, 4\] x \[0\] .* without gathering the shards of DeepSpeed",
        ),
        (
            {f"{Q_PROJ}.lora_magnitude_vector": torch.ones(48)},
            "q_proj.weight: a lora_magnitude_vector, but use_dora is false",
        ),
        (
            {f"{Q_PROJ}.weight": torch.ones(48, 48)},
            "q_proj.weight: not a low-rank fact",
        ),
        ({f"{Q_PROJ}.lora_E": torch.ones(4)}, "lora_E: not a low-rank factor"),
        (
            {f"{Q_PROJ}.lora_A.weight": torch.ones(4, 48, dtype=torch.int8)},
            "q_proj.lora_A.weight: dtype I8, expected F64",
        ),
        (
            {f"{Q_PROJ}.lora_A.other.weight": torch.ones(4, 48)},
            r"several adapters \(one without a name, other\).*selected_adapters",
        ),
        (
            {
                f"{Q_PROJ.replace('.0.', '.9.')}.lora_{k}.weight": torch.ones(4, 4)
                for k in "AB"
            },
            r"layers.9.self_attn.q_proj.weight: has low-rank factors, but the base no "
            r"such weight; did you mean '.*q_proj.weight'",
        ),
        (
            {f"{PREFIX}.multi_modal_projector.linear_1.bias": torch.ones(3)},
            r"linear_1.bias: a full copy \[3\] for \[48\] of the base",
        ),
        (
            {f"{Q_PROJ}.lora_B.bias": torch.ones(3)},
            r"q_proj.bias: lora_B.bias \[3\], expected \[48\]",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_tensors_that_are_refused(made, tmp_path, tensors, message):
    folder = tmp_path / "adapter"
    shutil.copytree(made.folder, folder)
    gone = [key for key, value in tensors.items() if value is None]
    new = {key: value for key, value in tensors.items() if value is not None}
    oracle.tensors(folder, lambda found: {**found, **new})
    oracle.tensors(folder, lambda found: {k: found[k] for k in found if k not in gone})
    with pytest.raises(AuditError, match=message):
        models.inspect(str(folder), dtype="float32")


def test_saved_modules_that_are_missing(made, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "adapter")
    oracle.change(folder, modules_to_save=["lm_heads"])
    with pytest.raises(
        AuditError, match="names 'lm_heads', and the files hold no tens"
    ):
        opening.open_checkpoint(str(folder))


def test_never_more_than_twenty_problems(made, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "adapter")
    surplus = {f"{PREFIX}.norm{k}.weight": torch.ones(3) for k in range(30)}
    oracle.tensors(folder, lambda found: found | surplus)
    with pytest.raises(AuditError, match="more problems of this adapter") as caught:
        opening.open_checkpoint(str(folder))
    assert len(caught.value.problems) <= 21


def test_the_trainers_own_file(tmp_path):
    """LLaVA's trainer keeps the projector in a file beside; its names vary, too."""
    made = oracle.make("llava_onevision", tmp_path, target_modules=Q)
    projector = made.fresh().model.multi_modal_projector
    full = {
        f"base_model.model.model.multi_modal_projector.{name}": value + 0.5
        for name, value in projector.state_dict().items()
    }
    torch.save(full, made.folder / "non_lora_trainables.bin")
    for adapter in (True, False):
        known = {"allow_pickle": True, "adapter": adapter}
        checkpoint = opening.open_checkpoint(str(made.folder), **known)
        merged = checkpoint.merged(Names(params.canonical, (), {})).tensors
        found = {params.canonical(n): info.file.name for n, info in merged.items()}
        assert len(found) == len(merged)
        for name in projector.state_dict():
            file = found[f"multi_modal_projector.{name}"]
            assert file == "non_lora_trainables.bin"
        assert "4 tensors are replaced" in checkpoint.remarks[0]


def test_factors_of_weights_that_no_pass_needs(tmp_path):
    """The tower's last layer is unused, and some checkpoints leave it out."""
    made = oracle.make("llava_next_video", tmp_path, target_modules=TOWER)
    cut = "encoder.layers.2."
    base = tmp_path / "base"
    oracle.tensors(
        base, lambda f: {k: f[k] for k in f if cut not in k}, "model.safetensors"
    )
    models.inspect(str(made.folder), dtype="float32")


def test_whose_small_files_count(made, tmp_path):
    """The adapter's, such as its tokenizer; a better name comes before the folder."""
    folder = shutil.copytree(made.folder, tmp_path / "adapter")
    checkpoint, base = opening.open_checkpoint(str(folder)), made.folder.parent / "base"
    assert checkpoint.folders == (folder, base)
    assert checkpoint.folder == base  # That of config.json.
    (folder / "image.json").write_text('{"of": "adapter"}')
    assert checkpoint.json("preprocessor_config.json", "image.json")["do_resize"]
    (folder / "preprocessor_config.json").write_text('{"of": "adapter"}')
    assert checkpoint.json("preprocessor_config.json")["of"] == "adapter"


def test_names_inside_keys(made, tmp_path):
    """Files that PEFT did not write itself keep the adapter's name in every key."""
    folder = shutil.copytree(made.folder, tmp_path / "adapter")

    def named(key):
        key = re.sub(r"(lora_[AB])", r"\1.video", key)
        return key.replace("projector.", "projector.modules_to_save.video.")

    oracle.tensors(folder, lambda found: {named(k): t for k, t in found.items()})
    _is_peft(made._replace(folder=folder))


def test_several_adapters(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made.folder, folder / "second")
    with pytest.raises(AuditError, match=r"found a checkpoint in second: give "):
        opening.open_checkpoint(str(folder))
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    assert "are not read: second" in opening.open_checkpoint(str(folder)).remarks[1]


def test_what_an_adapter_stands_on(made, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "adapter")
    oracle.change(folder, base_model_name_or_path=str(made.folder))
    with pytest.raises(AuditError, match=r"base_model_name_or_path.*an adapter itself"):
        opening.open_checkpoint(str(folder))
    oracle.change(folder, base_model_name_or_path="/nowhere/base")
    with pytest.raises(AuditError, match=r"no such folder.*; write there where"):
        opening.open_checkpoint(str(folder))
    shutil.copytree(made.folder.parent / "base", folder, dirs_exist_ok=True)
    with pytest.raises(AuditError, match=r"model.safetensors and adapter_config"):
        opening.open_checkpoint(str(folder))


def test_the_bases_revision(made, tmp_path, monkeypatch):
    folder, asked = shutil.copytree(made.folder, tmp_path / "adapter"), {}

    def download(repository, **known):
        asked.update(known, repository=repository)
        return str(made.folder.parent / "base")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    oracle.change(folder, base_model_name_or_path="some/base", revision="v2")
    opening.open_checkpoint(str(folder))
    assert (asked["repository"], asked["revision"]) == ("some/base", "v2")
