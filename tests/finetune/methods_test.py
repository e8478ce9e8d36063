"""What learns: all parameters, low-rank updates, the projector; the tower or not."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trainings import Stopping, changed, weights
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import trees
from vidsme_jax.finetune import preparing, training

LORA = {"train__method": "lora", "train__rank": 3, "train__alpha": 6.0}


@pytest.fixture(scope="module")
def tuned(config, trained):
    """The configuration of a short training that begins from a trained model."""
    return changed(
        config,
        model__checkpoint=str(trained[0]),
        model__init="checkpoint",
        train__epochs=3,
    )


@pytest.fixture(scope="module")
def adapter(tuned, tmp_path_factory):
    """(folder, record) of low-rank updates."""
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    return folder, training.run(changed(tuned, **LORA), folder)


def _leaves(folder):
    return trees.flat(models.load(str(folder), dtype="float32").state)


def _moved(folder, base):
    """Returns the parts of the module, one level deep, that are not the base's."""
    one, other = _leaves(folder), _leaves(base)
    away = {p: np.abs(np.asarray(one[p]) - np.asarray(other[p])).max() for p in one}
    return {path for path, most in away.items() if most > 1e-6}, set(away)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes, prefixes",
    [
        ({"train__method": "projector"}, ("multi_modal_projector/",)),
        ({"train__tower": "frozen"}, ("multi_modal_projector/", "language_model/")),
    ],
)
def test_what_is_not_trained_keeps_its_bits(
    tuned, trained, tmp_path, changes, prefixes
):
    record = training.run(changed(tuned, **changes), tmp_path)
    moved, every = _moved(tmp_path, trained[0])
    assert moved == {path for path in every if path.startswith(prefixes)}
    assert record["trained parameters"] < record["parameters"]
    kept = [path for path in every if path not in moved]
    one, other = _leaves(tmp_path), _leaves(trained[0])
    assert all((np.asarray(one[p]) == np.asarray(other[p])).all() for p in kept)
    assert record["losses"]["members"] < trained[1]["losses"]["members"]


@pytest.mark.long
def test_low_rank_updates_are_written_as_an_adapter(adapter, trained):
    folder, record = adapter
    moved, every = _moved(folder, trained[0])
    assert moved == {
        path
        for path in every
        if path.startswith("language_model/layers") and path.endswith("_proj/kernel")
    }
    assert record["losses"]["members"] < trained[1]["losses"]["members"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 6.0)
    assert config["base_model_name_or_path"] == str(trained[0])
    factors = load_file(folder / "adapter_model.safetensors")
    assert {x.shape[0] for n, x in factors.items() if "lora_A" in n} == {3}
    assert not (folder / "model.safetensors").exists()


def test_an_adapter_finds_a_base_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert training._absolute("base") == str(tmp_path / "base")
    assert training._absolute("owner/name") == "owner/name"


@pytest.mark.long
def test_merged_updates_are_the_adapters_on_its_base(tuned, adapter, tmp_path):
    record = training.run(changed(tuned, **LORA, train__merged=True), tmp_path)
    assert record["curve"] == adapter[1]["curve"]
    one, other = _leaves(tmp_path), _leaves(adapter[0])
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_alpha_and_rank_scale_the_updates(tuned, adapter, tmp_path):
    """With rsLoRA alpha is divided by the root of the rank: here by as much."""
    by_root = {"train__rslora": True, "train__alpha": 6 / 3**0.5}
    record = training.run(changed(tuned, **(LORA | by_root)), tmp_path / "a")
    np.testing.assert_allclose(record["curve"], adapter[1]["curve"], atol=2e-4)
    record = training.run(
        changed(tuned, **LORA | {"train__alpha": 60.0}), tmp_path / "b"
    )
    assert np.abs(np.subtract(record["curve"], adapter[1]["curve"])).max() > 1e-2


@pytest.mark.long
def test_updates_continue_bit_for_bit(tuned, adapter, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training.run(changed(tuned, **LORA), tmp_path, Stopping(3))
    record = training.run(changed(tuned, **LORA), tmp_path)
    assert record["curve"] == adapter[1]["curve"]
    name = "adapter_model.safetensors"
    assert (tmp_path / name).read_bytes() == (adapter[0] / name).read_bytes()


@pytest.mark.long
def test_updates_on_a_mesh_are_those_of_one_device(tuned, adapter, tmp_path):
    mesh = {"parallel__mode": "mesh", "parallel__data": 3, "parallel__model": 2}
    record = training.run(changed(tuned, **LORA, **mesh), tmp_path)
    np.testing.assert_allclose(record["curve"], adapter[1]["curve"], atol=2e-3)


@pytest.mark.long
def test_what_is_frozen_is_in_the_type_of_the_products(tuned, tmp_path):
    prepared = preparing.prepare(
        changed(tuned, **LORA, train__dtype="bfloat16"), tmp_path / "out"
    )
    where = prepared.devices.shardings(prepared.trainee.form.split)
    trained, frozen = prepared.trainee.start(where, 0)
    assert {x.dtype for x in trained.values()} == {jnp.dtype("float32")}
    assert {x.dtype for x in frozen.values()} == {jnp.dtype("bfloat16")}
    b = [x for path, x in trained.items() if path.endswith("lora_b")]
    assert not any(np.asarray(x).any() for x in b) and len(b) == 7
    held = sum(x.nbytes for x in jax.tree.leaves(frozen))
    held += 4 * sum(x.nbytes for x in trained.values())
    assert prepared.trainee.num_bytes == held


@pytest.mark.long
def test_a_folder_of_another_kind_is_refused_before_the_training(
    tuned, adapter, trained, tmp_path
):
    over = {"overwrite": True, "train__max_steps": 1}
    with pytest.raises(AuditError, match="the training writes a whole model"):
        training.run(changed(tuned, **over), adapter[0])
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(AuditError, match="the training writes an adapter"):
        training.run(changed(tuned, **LORA, **over), tmp_path)
    again = changed(tuned, **LORA, **over, model__checkpoint=str(adapter[0]))
    with pytest.raises(AuditError, match=r"is an adapter itself.*train\.merged = true"):
        training.run(again, tmp_path / "out")
    merged = changed(again, train__merged=True)
    training.run(merged, tmp_path / "out")
    assert weights(tmp_path / "out") != weights(trained[0])
