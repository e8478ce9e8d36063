"""The files of adapters: what is refused, and how folders and names may differ."""

import re
import shutil

import pytest
import torch

from oracles import adapters as oracle
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import opening
from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.models.llava_hf import params

PREFIX = "base_model.model.model.language_model"
BIAS = "base_model.model.model.multi_modal_projector.linear_1.bias"
WRAPPER = "base_model.model."
OLD = "base_model.model.language_model.model"
Q_PROJ = f"{PREFIX}.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    lora = {"target_modules": ["q_proj"], "modules_to_save": ["multi_modal_projector"]}
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
            r"q_proj.weight: factors \[48, 4\] x \[3, 48\] do not fit .* with r = 4",
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
            "q_proj.weight: neither a low-rank fact",
        ),
        ({f"{Q_PROJ}.lora_E": torch.ones(4)}, "lora_E: neither a low-rank factor"),
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
            r"layers.9.self_attn.q_proj.weight: the adapter has low-rank factors, the "
            r"base no such weight; did you mean '.*q_proj.weight'",
        ),
        (
            {BIAS: torch.ones(3)},
            r"linear_1.bias: the adapter's full copy has shape \[3\], the base's w",
        ),
        (
            {
                f"{Q_PROJ}.lora_{k}.weight".replace(PREFIX, OLD): torch.ones(
                    (4, 48) if k == "A" else (48, 4)
                )
                for k in "AB"
            },
            r"0.self_attn.q_proj.weight: the adapter holds it under two names",
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


def _lacking(made, folder, *ends):
    """Copies an adapter without the tensors whose names end so."""
    shutil.copytree(made.folder, folder)

    def without(found):
        kept = {key: value for key, value in found.items() if not key.endswith(ends)}
        assert len(kept) < len(found)
        return kept

    oracle.tensors(folder, without)
    return folder


SAVED = "modules_to_save names 'multi_modal_projector', and the files hold"


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (("",), "holds no low-rank factors.*again, in full.*give .*base"),
        (("lora_A.weight", "lora_B.weight"), "holds no low-rank factors"),
        (
            tuple(
                f"language_model.layers.1.self_attn.q_proj.lora_{k}.weight"
                for k in "AB"
            ),
            "1 weights that target_modules chooses have no .*: "
            r"language_model.model.layers.1.self_attn.q_proj.weight; save the adap",
        ),
        (("linear_1.weight", "r.linear_1.bias"), f"{SAVED} only a part.*linear_1.bias"),
        (
            ("linear_1.bias", "linear_2.bias"),
            f"{SAVED} only a part.*, .*linear_2.bias;",
        ),
        (("linear_2.weight",), f"{SAVED} only a part of it, without .*2.weight; save"),
        (
            tuple(f"linear_{k}.{part}" for k in "12" for part in ("weight", "bias")),
            f"{SAVED} no tensor of it: .*linear_1.bias, .*; save the adapter again",
        ),
    ],
    ids=range(7),
)
def test_tensors_that_are_missing(made, tmp_path, ends, message):
    folder = _lacking(made, tmp_path / "adapter", *ends)
    with pytest.raises(AuditError, match=message):
        models.inspect(str(folder), dtype="float32")


@pytest.mark.parametrize("module", ["model.multi_modal_projector", "a.b.linear_1"])
def test_a_module_that_is_missing_by_the_trainers_name(made, tmp_path, module):
    folder = _lacking(
        made, tmp_path / "adapter", ".bias", "linear_1.weight", "2.weight"
    )
    oracle.change(folder, modules_to_save=[module])
    with pytest.raises(AuditError, match=f"names '{module}'.* no tensor of it"):
        models.inspect(str(folder), dtype="float32")


def test_biases_as_older_versions_name_them(tmp_path):
    """Without the adapter's name anywhere, those of a saved module beside its own."""
    lora = {"modules_to_save": ["multi_modal_projector"], "bias": "all"}
    made = oracle.make("llava_onevision", tmp_path, target_modules=["q_proj"], **lora)

    def nameless(found):
        shorter = {key.replace(".default", ""): t for key, t in found.items()}
        wrapped = {
            key.replace("r.linear", "r.modules_to_save.linear"): value.clone()
            for key, value in shorter.items()
            if re.search(r"projector\.linear_\d\.bias", key)
        }
        assert len(wrapped) == 2
        return shorter | wrapped

    oracle.tensors(made.folder, nameless)
    oracle.compare(made)


def test_another_module_of_the_same_layers(tmp_path):
    lora = {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]}
    made = oracle.make("llava_onevision", tmp_path, modules_to_save=["norm"], **lora)
    models.inspect(str(made.folder), dtype="float32")
    folder = _lacking(
        made, tmp_path / "a", "up_proj.lora_A.weight", "up_proj.lora_B.weight"
    )
    with pytest.raises(AuditError, match=r"no low-rank.*layers.1.mlp.up_proj.weight; "):
        models.inspect(str(folder), dtype="float32")
    folder = _lacking(made, tmp_path / "b", "0.input_layernorm.weight")
    with pytest.raises(
        AuditError, match=r"'norm'.*without .*0.input_layernorm.weight;"
    ):
        models.inspect(str(folder), dtype="float32")


def test_saved_modules_that_the_model_has_not(tmp_path):
    """PEFT takes no notice of them; a parameter of the model is no module, either."""
    unknown = ["image_newline", "nothing_there"]
    lora = {"target_modules": ["q_proj"], "modules_to_save": [*unknown, "linear_1"]}
    found = oracle.compare(oracle.make("llava_onevision", tmp_path, **lora))
    assert found.remarks[1] == (
        f"modules_to_save names {', '.join(unknown)}: no such module, left out as PEFT "
        "does"
    )


def test_never_more_than_twenty_problems(made, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "adapter")
    surplus = {f"{PREFIX}.norm{k}.weight": torch.ones(3) for k in range(30)}
    oracle.tensors(folder, lambda found: found | surplus)
    with pytest.raises(AuditError, match="more problems of this adapter") as caught:
        opening.open_checkpoint(str(folder))
    assert len(caught.value.problems) <= 21


def test_the_trainers_own_file(tmp_path):
    """LLaVA's trainer keeps the projector in a file beside; its names vary, too."""
    made = oracle.make("llava_onevision", tmp_path, target_modules=["q_proj"])
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
    made = oracle.make("llava_next_video", tmp_path, target_modules=["fc1", "q_proj"])
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
    oracle.compare(made._replace(folder=folder))


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
    with pytest.raises(AuditError, match=r"no such folder.*; set it to the base"):
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


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: key.replace(WRAPPER, f"{WRAPPER}_orig_mod."),
        lambda key: f"module.{key}",
        lambda key: key.replace("layers.0.", "layers.0._fsdp_wrapped_module."),
    ],
)
def test_names_that_wrappers_of_torch_change(made, tmp_path, wrap):
    folder = shutil.copytree(made.folder, tmp_path / "adapter")
    changed = []

    def renamed(found):
        changed.extend(key for key in found if wrap(key) != key)
        return {wrap(key): value for key, value in found.items()}

    oracle.tensors(folder, renamed)
    assert changed
    oracle.compare(made._replace(folder=folder))


@pytest.mark.parametrize(
    ("key", "other"),
    [
        (f"{Q_PROJ}.lora_A.weight", f"{Q_PROJ}.lora_A.weight".removeprefix(WRAPPER)),
        (f"{Q_PROJ}.lora_A.weight", f"module.{Q_PROJ}.lora_A.weight"),
        (BIAS, BIAS.removeprefix(WRAPPER)),
        (BIAS, BIAS.replace("r.linear_1", "r.modules_to_save.default.linear_1")),
        (BIAS, BIAS.replace("linear_1", "linear_1.modules_to_save")),
    ],
)
def test_one_tensor_under_two_keys(made, tmp_path, key, other):
    folder = shutil.copytree(made.folder, tmp_path / "adapter")
    oracle.tensors(folder, lambda found: found | {other: found[key].clone()})
    oracle.compare(made._replace(folder=folder))  # As PEFT writes some, with bias=all.
    oracle.tensors(folder, lambda found: found | {other: found[key] + 1})
    first, second = map(re.escape, (key, other))
    with pytest.raises(
        AuditError,
        match=rf"({first} and {second}|{second} and {first}) are one tensor of the m",
    ):
        opening.open_checkpoint(str(folder))


def test_saved_modules_of_several_adapters(made, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "adapter")

    def named(key):
        name = "first" if "linear_1" in key else "second"
        return key.replace("projector.", f"projector.modules_to_save.{name}.")

    oracle.tensors(folder, lambda found: {named(k): t for k, t in found.items()})
    with pytest.raises(AuditError, match=r"several adapters \(.*first, .*second\)"):
        opening.open_checkpoint(str(folder))
