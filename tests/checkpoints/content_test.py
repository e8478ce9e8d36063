"""Files that are not what their names say."""

import json

import pytest
import transformers

from oracles import llava_onevision as oracle
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content, opening

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\n"
    "size 4943178720\n"
)


@pytest.fixture
def folder(tmp_path):
    return oracle.save(oracle.make_model(), tmp_path / "model")


def _refused(folder, **kwargs):
    with pytest.raises(AuditError) as caught:
        opening.open_checkpoint(str(folder), **kwargs)
    (problem,) = caught.value.problems
    return problem


def test_weights_that_git_lfs_did_not_fetch(folder):
    (folder / "model.safetensors").write_text(POINTER)
    said = _refused(folder)
    assert "model.safetensors is a git-lfs pointer, not the content of the file" in said
    assert f"run `git lfs pull` in {folder}, or fetch the model with `hf dow" in said
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    said = _refused(folder, allow_pickle=True)
    assert "pytorch_model.bin is a git-lfs pointer" in said


def test_shards_that_git_lfs_did_not_fetch_are_one_line(folder):
    (folder / "model.safetensors").unlink()
    files = [f"model-{k:05}-of-00025.safetensors" for k in range(1, 26)]
    for file in files:
        (folder / file).write_text(POINTER)
    index = {"weight_map": {f"t{k}": file for k, file in enumerate(files)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = _refused(folder)
    assert f"{files[19]} and 5 more are git-lfs pointers, not the content of" in said


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer.model", "preprocessor_config.json"],
)
def test_small_files_that_git_lfs_did_not_fetch(folder, name):
    """The weights are then none either, which is said in the same line."""
    (folder / name).write_text(POINTER)
    assert f"{name} is a git-lfs pointer" in _refused(folder)
    (folder / "model.safetensors").write_text(POINTER)
    assert f"{name}, model.safetensors are git-lfs pointers" in _refused(folder)


def test_pointers_that_nothing_reads_are_no_matter(folder):
    alone = opening.open_checkpoint(str(folder)).tensors
    (folder / "pytorch_model.bin").write_text(POINTER)
    (folder / "consolidated.safetensors").write_text(POINTER)
    found = opening.open_checkpoint(str(folder), allow_pickle=True).tensors
    assert alone and found.keys() == alone.keys()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_json(folder, encoding):
    path = folder / "preprocessor_config.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert models.inspect(str(folder), dtype="float32").family == "llava_onevision"


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe"])
def test_marks_that_transformers_refuses(folder, mark):
    files = ("config.json", "tokenizer.json", "tokenizer_config.json")
    for name in files[::-1]:
        (folder / name).write_bytes(mark + (folder / name).read_bytes())
    said = _refused(folder)
    assert f"{', '.join(files)} begin with a byte-order mark" in said
    assert "which transformers does not read: save as UTF-8 without one" in said
    with pytest.raises((OSError, ValueError)):
        transformers.AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("name", "begin", "text"),
    [
        ("model.safetensors", b"", "damaged (it is empty); fetch it again"),
        ("model.safetensors", b"<!DOCTYPE html>", "damaged (it is a web page); fetch"),
        ("model.safetensors", b"PK\x03\x04", "pickled by torch, not safetensors: re"),
        ("model.safetensors", None, "fetch it again, it may be cut short"),
        ("pytorch_model.bin", b"", "damaged (it is empty)"),
        ("pytorch_model.bin", b"\x10" + bytes(7) + b'{"a"', "safetensors, not pickled"),
        ("config.json", b"", "not readable as JSON (it is empty)"),
        ("config.json", b"<html>", "not readable as JSON (it is a web page)"),
        ("config.json", b"[]", "expected an object, found list"),
    ],
)
def test_what_a_download_can_leave(folder, name, begin, text):
    whole = folder / "model.safetensors"
    content = whole.read_bytes()[:-1] if begin is None else begin
    if name.endswith(".bin"):
        whole.unlink()
    (folder / name).write_bytes(content)
    assert text in _refused(folder, allow_pickle=True)


def test_no_more_than_twenty_of_a_kind():
    names = [str(k) for k in range(21)]
    assert content.limited(names, "files") == [*names[:20], "and 1 more files"]
    assert content.limited(names[:20], "files") == names[:20]
    assert content.listed(names[:20]) == ", ".join(names[:20])
