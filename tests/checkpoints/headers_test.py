"""Headers of safetensors that lie, and files that are no files."""

import json
import os
import pathlib
import shutil
import struct
import time

import pytest

from vidsme_jax import models, settings
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content, files, headers, opening

DEMO = settings.DEMO / "checkpoint"


@pytest.fixture
def folder(tmp_path):
    return pathlib.Path(shutil.copytree(DEMO, tmp_path / "demo"))


def _write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", length or len(text)) + text + data)
    return path


def _tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "length", "text"),
    [
        ({}, 1 << 63, "its header claims 9223372036854775808 bytes, the file has"),
        (
            {"a": _tensor([1], 0, 4)},
            None,
            "its tensors have 4 bytes, and",
        ),
        ({"a": _tensor([2], 0, 8), "b": _tensor([1], 4, 8)}, None, "begins at byte 4"),
        ({"a": _tensor([1], 4, 8)}, None, "a begins at byte 4 of the data, and the"),
        ({"a": _tensor([1 << 62, 4], 0, 0)}, None, "0 bytes for F32"),
        (
            {"a": _tensor([1 << 64, 0], 0, 0)},
            None,
            "shape is .*, expected at most 16 sizes",
        ),
        (
            {"a": _tensor([1.0], 0, 4)},
            None,
            "shape is .1.0., expected at most 16 sizes",
        ),
        (
            {"a": _tensor([True], 0, 4)},
            None,
            "shape is .True., expected at most 16 sizes",
        ),
        (
            {"a": _tensor([1] * 17, 0, 4)},
            None,
            "shape is .*, expected at most 16 sizes",
        ),
        ({"a": _tensor([1], 4, 0)}, None, r"data_offsets is \[4, 0\]"),
        ({"a": _tensor([1], 0, 4, "F33")}, None, "dtype is 'F33', expected F64, "),
        ({"a": _tensor([1], 0, 4, ["F32"])}, None, "dtype is .'F32'., expected F64, "),
        ({"a": 7}, None, "dtype is None, expected F64, "),
        ([], None, "its header is no object but"),
        ({"__metadata__": {"a": [1]}}, None, "__metadata__ of its header is no object"),
        (b'{"a": {}, "a": {}}', None, "it names the key 'a' twice"),
        (b'{"a":' * 5000, None, "nested too deeply"),
        (b"[" + b"[]," * 2_200_000, None, "about 4400001 values, at most 4194304"),
    ],
    ids=range(18),
)
def test_headers_that_lie(tmp_path, header, length, text):
    path = _write(tmp_path / "a.safetensors", header, b"\0" * 8, length)
    with pytest.raises(ValueError, match=text):
        headers.read(path)


def test_a_header_of_another_size_than_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "LARGEST", 10)
    path = _write(tmp_path / "a.safetensors", {"a": _tensor([1], 0, 4)}, bytes(4))
    with pytest.raises(ValueError, match="at most 10 are read: save fewer tensors"):
        headers.read(path)


def test_what_the_library_writes_is_read():
    found = headers.read(DEMO / "model.safetensors")
    assert found["language_model.lm_head.weight"][1] in ("BF16", "F32")


def test_many_surplus_tensors_are_counted(folder):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:end])
    header |= {f"novel.{k}.weight": _tensor([0], 0, 0) for k in range(20_000)}
    _write(path, header, raw[end:])
    begun = time.process_time()
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert time.process_time() - begun < 30  # 1 s without the checks of types.
    assert len(caught.value.problems) == 21
    assert "and 19980 more surplus tensors" in caught.value.problems[-1]


def test_names_that_are_too_long(tmp_path):
    path = _write(
        tmp_path / "a.safetensors", {"x" * 2000: _tensor([1], 0, 4)}, bytes(4)
    )
    problems: list[str] = []
    assert files.open_file(path, False, problems) == {}
    assert "a tensor has 2000 characters, at most 1024 are read" in problems[0]


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"),
        *("notes.json", "merges.txt", "tokenizer.model", "pytorch_model.bin"),
    ],
)
@pytest.mark.parametrize("kind", ["a FIFO", "a device"])
def test_only_regular_files_are_opened(folder, name, kind):
    (folder / name).unlink(missing_ok=True)
    if kind == "a FIFO":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(AuditError, match=f"{name} is {kind}, not a regular file"):
        opening.open_checkpoint(str(folder))


def test_links_to_files_are_read(folder):
    """As in the hub's cache."""
    for path in list(folder.iterdir()):
        path.rename(folder.parent / path.name)
        path.symlink_to(folder.parent / path.name)
    models.inspect(str(folder), dtype="float32")


def test_json_of_any_size_and_form(folder):
    config = folder / "config.json"
    for text, problem in (
        (b"[" + b"[]," * 2_200_000, "about 4400001 values, at most 4194304 are read"),
        (b'{"a": 1, "a": 2}', "it names the key 'a' twice: take one out"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not readable as JSON"),
        (b'{"a":' * 50_000, "it is nested too deeply"),
    ):
        config.write_bytes(text)
        with pytest.raises(AuditError, match=problem):
            content.read_json(config)
    with config.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(AuditError, match="5368709120 bytes, at most 128 MiB"):
        content.read_json(config)


def test_an_unused_file_of_any_size_costs_no_memory(folder):
    first = opening.open_checkpoint(str(folder)).fingerprint()
    with (folder / "zz.json").open("wb") as file:
        file.truncate(1 << 40)  # A terabyte of nothing: a sparse file.
    opened = opening.open_checkpoint(str(folder))
    begun = time.process_time()
    assert opened.fingerprint() != first
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 5000, "a/" + "b" * 300])
def test_names_of_no_folder(name):
    with pytest.raises(AuditError) as caught:
        files.find(name, ())
    assert len(str(caught.value)) < 1500


def test_an_index_whose_names_are_too_long(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "x" * 300 + ".safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(AuditError, match=r"is not the name of a \.safetensors file"):
        opening.open_checkpoint(str(folder))
