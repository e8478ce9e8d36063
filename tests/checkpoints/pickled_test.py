"""Pickled torch weights are read without torch, and nothing of them is run."""

import collections
import io
import os
import pickle
import resource
import time
import zipfile

import numpy as np
import pytest
import torch

from vidsme_jax.checkpoints import descriptions, pickled


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_tensors_of_every_type_and_layout(tmp_path, kind):
    torch.manual_seed(0)
    base = torch.randn(6, 5)
    tensors = {
        "float32": base,
        "float64": base.double(),
        "float16": base.half(),
        "bfloat16": base.bfloat16(),
        "int64": torch.arange(4),
        "int32": torch.arange(4, dtype=torch.int32),
        "bytes": torch.arange(4, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "transposed": base.T,
        "part of a storage": base[1:4, 2:],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base + 1),
    }
    path = tmp_path / "weights.bin"
    torch.save(kind(tensors), path)
    found = pickled.headers(path)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        value = pickled.read(path, found[name])
        assert value.shape == tuple(tensor.shape)
        expected = tensor.detach()
        if name == "bfloat16":
            assert value.dtype.name == "bfloat16"
            value, expected = value.astype(np.float32), expected.float()
        np.testing.assert_array_equal(value, expected.numpy())


def test_views_that_change_values(tmp_path):
    """The sign of the imaginary part of a conjugate is kept beside its values."""
    value = torch.conj(torch.randn(3, dtype=torch.complex64)).imag
    assert value.is_neg()
    path = tmp_path / "weights.bin"
    torch.save({"weight": value}, path)
    with pytest.raises(ValueError, match=r"with \{'neg': True\}; refused.*resolve_neg"):
        pickled.headers(path)
    torch.save({"weight": value.resolve_neg()}, path)
    found = pickled.headers(path)["weight"]
    np.testing.assert_array_equal(pickled.read(path, found), value.numpy(force=True))


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _archive(path, content: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return path


def test_code_is_refused_not_run(tmp_path):
    made = tmp_path / "made"
    content = pickle.dumps({"x": _Payload(made)}, protocol=2)
    path = _archive(tmp_path / "evil.bin", content)
    with pytest.raises(ValueError, match=r"it calls \w+\.mkdir, which no tensor needs"):
        pickled.headers(path)
    assert not made.exists()
    pickle.loads(content)  # It would have been run by an ordinary reader.
    assert made.exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (pickle.dumps([1, 2], protocol=2), "holds a list"),
        (pickle.dumps({"x": 3}, protocol=2), "x: not a tensor but a value of type int"),
        (b"", "cannot be read"),
        (b"\x80\x02X\xff\xff\xff\x7f", "cannot be read"),
    ],
)
def test_what_is_no_set_of_tensors(tmp_path, content, text):
    with pytest.raises(ValueError, match=text):
        pickled.headers(_archive(tmp_path / "odd.bin", content))


def test_what_is_no_archive_of_torch(tmp_path):
    path = tmp_path / "plain.bin"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match="no zip archive"):
        pickled.headers(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"has 0 data\.pkl"):
        pickled.headers(path)


def test_a_tensor_that_reaches_beyond_its_storage(tmp_path):
    path = tmp_path / "weights.bin"
    torch.save({"x": torch.ones(4, 4)}, path)
    with zipfile.ZipFile(path) as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    root = next(n for n in names if n.endswith("data.pkl"))
    # The first 4 of the shape becomes 64.
    names[root] = names[root].replace(b"K\x04K\x04\x86", b"K\x40K\x04\x86", 1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="x: does not fit its storage"):
        pickled.headers(path)


def test_a_compressed_storage(tmp_path):
    path = tmp_path / "weights.bin"
    torch.save({"x": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="is compressed"):
        pickled.headers(path)


def test_damage_is_reported_in_little_time_and_memory(tmp_path):
    path, rng = tmp_path / "weights.bin", np.random.default_rng(0)
    torch.save({"x": torch.ones(6, 5), "y": torch.arange(4)}, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    root = next(n for n in names if n.endswith("data.pkl"))
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for number in range(600):
        whole = bytearray(data if number % 2 else names[root])
        for _ in range(rng.integers(1, 4)):
            whole[rng.integers(len(whole))] = rng.integers(256)
        if number % 2:
            path.write_bytes(whole)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in (names | {root: bytes(whole)}).items():
                    archive.writestr(name, content)
        begun = time.process_time()
        try:
            for tensor in pickled.headers(path).values():
                pickled.read(path, tensor)
        except ValueError:
            refused += 1
        assert time.process_time() - begun < 2, number
    assert 200 < refused < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", "holds a list"),
        (b"\x80\x02" + b"}0" * 10, "has the opcode POP, which"),
        (b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".", "refused|expected"),
        (b"\x80\x02" + b"(" * 10 + b"c\xffos\nx\n.", "cannot be read"),
    ],
)
def test_descriptions_that_ask_for_memory(tmp_path, content, text):
    with pytest.raises(ValueError, match=text):
        pickled.headers(_archive(tmp_path / "greedy.bin", content))


def test_descriptions_of_too_many_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptions, "_MOST_STEPS", 1000)
    for count, text in ((998, "holds a list"), (999, "over 1000")):
        content = b"\x80\x02" + b"]" * count + b"."
        with pytest.raises(ValueError, match=text):
            pickled.headers(_archive(tmp_path / "greedy.bin", content))


_TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n(("
    b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}tR"
)


def _described(path, content: bytes, storage: bytes = bytes(16)):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", storage)
    return path


def _dictionary(value: bytes) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00x" + value + b"s."


def test_a_description_by_hand(tmp_path):
    path = _described(tmp_path / "a.bin", _dictionary(_TENSOR), np.ones(4, "f4"))
    found = pickled.headers(path)["x"]
    np.testing.assert_array_equal(pickled.read(path, found), np.ones(4, "f4"))


@pytest.mark.parametrize(
    "state",
    [
        b"}X\x05\x00\x00\x00dtypeX\x04\x00\x00\x00EVILs",
        b"N}X\x05\x00\x00\x00startK\x07s\x86",
    ],
    ids=["fields", "slots"],
)
@pytest.mark.parametrize(
    "value",
    [
        _TENSOR,
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"}",
        b"]",
    ],
    ids=str,
)
def test_nothing_but_an_ordered_dictionary_has_a_state(tmp_path, value, state):
    path = _described(tmp_path / "a.bin", _dictionary(value + state + b"b"))
    with pytest.raises(ValueError, match=r"takes a .* for a OrderedDict"):
        pickled.headers(path)
    whole = b"\x80\x02ccollections\nOrderedDict\n)R" + state + b"b."
    assert pickled.headers(_described(path, whole)) == {}


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b"K\x04t", b"J\xff\xff\xff\x7ft", "has 16 bytes, and its description claims"),
        (b"K\x04t", b"J\xff\xff\xff\xfft", "has 16 bytes, and its description claims"),
        (b"K\x04t", b"\x8a\xff" + b"\x7f" * 255 + b"t", "its description claims"),
        (b"K\x04\x85K\x01\x85", b"K\x05\x85K\x01\x85", "does not fit its storage"),
        (
            b"K\x04\x85K\x01\x85",
            b"J\xff\xff\xff\x7f\x85K\x00\x85",
            "does not fit its storage",
        ),
        (b"K\x04\x85K\x01\x85", b"K\x04\x85J\xff\xff\xff\xff\x85", "strides"),
        (b"K\x04\x85K\x01\x85", b"K\x04\x85)", "shape .4,., strides"),
        (
            b"K\x04\x85K\x01\x85",
            b"(" + b"K\x01" * 9 + b"t" + b"(" + b"K\x01" * 9 + b"t",
            "shape",
        ),
        (
            b"K\x04\x85K\x01\x85",
            b"K\x00\x8a\x08" + b"\x7f" * 8 + b"\x86K\x01K\x01\x86",
            "shape",
        ),
        (b"K\x04\x85", b"X\x01\x00\x00\x00a", "without a storage or a shape"),
        (b"QK\x00", b"QK\x05", "does not fit its storage"),
        (b"QK\x00", b"QG" + bytes(8), "shape"),
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001", "unknown storage"),
        (b"FloatStorage", b"EvilStorage", "calls torch.EvilStorage, which"),
    ],
    ids=str,
)
def test_sizes_are_bounded_by_the_bytes_that_are_there(tmp_path, old, new, text):
    assert _TENSOR.count(old) == 1
    content = _dictionary(_TENSOR.replace(old, new))
    with pytest.raises(ValueError, match=text):
        pickled.headers(_described(tmp_path / "a.bin", content))


def test_a_tuple_in_itself_many_times_takes_no_time(tmp_path):
    """To hash, compare or show it would take as many steps as it has ends."""
    deep = b"K\x01" + b"q\x00h\x00\x86" * 200
    begun = time.process_time()
    for content, text in (
        (b"\x80\x02}" + deep + b"K\x01s.", "keys are neither"),
        (_dictionary(deep), "x: not a tensor but a value of type tuple"),
        (_dictionary(_TENSOR.replace(b"K\x04\x85", deep)), "shape"),
        (_dictionary(_TENSOR.replace(b"\x89}t", b"\x89}" + deep + b"t")), "a view of"),
        (b"\x80\x02" + deep + b"Q.", "names no storage"),
    ):
        with pytest.raises(ValueError, match=text):
            pickled.headers(_described(tmp_path / "a.bin", content))
    assert time.process_time() - begun < 1


def test_archives_that_unfold(tmp_path):
    path = tmp_path / "bomb.bin"
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"}" * 50_000_000)
    with pytest.raises(ValueError, match="is compressed, expected stored"):
        pickled.headers(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"}" * 5_000_000)
    with pytest.raises(ValueError, match="has 5000000 bytes, at most 4194304 are"):
        pickled.headers(path)
    entry = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"x"
    count = 300_000
    sizes = b"\xff\xff"
    end = b"PK\5\6" + bytes(4) + sizes * 2
    end += (len(entry) * count).to_bytes(4, "little") + bytes(6)
    path.write_bytes(entry * count + end)
    with pytest.raises(ValueError, match="over 4 MiB"):
        pickled.headers(path)
    assert time.process_time() - begun < 5
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 200 * 1024
