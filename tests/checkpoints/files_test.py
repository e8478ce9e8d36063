"""Finding checkpoints, and what is wrong with their files."""

import json

import pytest

from oracles import llava_next_video as oracle
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import opening


@pytest.fixture
def folder(tmp_path):
    return oracle.save(oracle.make_model(), tmp_path / "model", shards=2)


def test_headers(folder):
    checkpoint = opening.open_checkpoint(str(folder))
    assert len({info.file for info in checkpoint.tensors.values()}) == 2
    info = checkpoint.tensors["language_model.lm_head.weight"]
    assert info.shape == (128, 32) and info.dtype == "F32"
    assert checkpoint.json("nowhere.json", "config.json") == checkpoint.config


def test_the_fingerprint_follows_weights_and_config(folder):
    first = opening.open_checkpoint(str(folder)).fingerprint()
    assert opening.open_checkpoint(str(folder)).fingerprint() == first
    part = sorted(folder.glob("*.safetensors"))[0]
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    second = opening.open_checkpoint(str(folder)).fingerprint()
    raw = json.loads((folder / "config.json").read_text())
    raw["spatial_pool_stride"] = 1
    (folder / "config.json").write_text(json.dumps(raw))
    third = opening.open_checkpoint(str(folder)).fingerprint()
    assert len({first, second, third}) == 3


def test_no_folder(tmp_path):
    with pytest.raises(AuditError, match=r"and not a Hugging Face id \(OWNER/NAME\)$"):
        opening.open_checkpoint(str(tmp_path / "nowhere"))
    (tmp_path / "ck").mkdir()
    with pytest.raises(AuditError, match=r"\(OWNER/NAME\); did you mean 'ck'\?$"):
        opening.open_checkpoint(str(tmp_path / "ckk"))
    with pytest.raises(AuditError, match="the hub did not give it"):
        opening.open_checkpoint("nobody/nothing-at-all")
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="a file, expected a folder"):
        opening.open_checkpoint(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["owner/name", "owner/name/"])
def test_a_hub_id_may_end_in_a_slash(folder, monkeypatch, name):
    fetched = []

    def fetch(repository, **kwargs):
        fetched.append(repository)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert opening.open_checkpoint(name).folder == folder
    assert fetched == ["owner/name"] * 2  # Small files first, then weights.


def test_no_config(tmp_path):
    with pytest.raises(AuditError, match=r"no config\.json"):
        opening.open_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AuditError, match="not readable as JSON"):
        opening.open_checkpoint(str(tmp_path))


def test_pickled_weights_only(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(AuditError, match=r"found pickled weights \(pytorch_model\.bin"):
        opening.open_checkpoint(str(tmp_path))


def test_every_damaged_or_absent_file_is_named(folder):
    first, second = sorted(folder.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    with pytest.raises(AuditError) as caught:
        opening.open_checkpoint(str(folder))
    assert len(caught.value.problems) == 2
    assert f"{first.name}: damaged" in str(caught.value)
    lost = "1 of the 2 files that model.safetensors.index.json names is missing: "
    assert lost + second.name in str(caught.value)


def test_a_tensor_that_the_index_promises(folder):
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["extra"] = next(iter(raw["weight_map"].values()))
    index.write_text(json.dumps(raw))
    with pytest.raises(AuditError, match="extra: in the index, but not in its file"):
        opening.open_checkpoint(str(folder))
