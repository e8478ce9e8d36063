"""Hostile checkpoints: config, tokenizer, processor, headers, pickles, adapters.

A case passes a folder. Its base is the demo's checkpoint, whose weights are linked.
"""

import json
import os
import pathlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from generators import EITHER, HONEST, REFUSED, Case, damaged, pickles, rng_of
from vidsme_jax import settings

BASE = settings.DEMO / "checkpoint"
_SMALL = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
# What stands where a number, a text, a list or an object should.
WRONG = (
    *(None, True, -1, 0, 2**31, 10**30, 1e300, float("nan"), float("inf"), 1.5),
    *("", "x", "~nosuchuser/x", "\ud800", "\0", "\x1b[2J", "a" * 5000),
    *([], [1, 2], [[]], ["a", 1, 2], [0, 0, 0], {}, {"a": 1}, {"height": [1]}),
)


def base(folder: pathlib.Path) -> pathlib.Path:
    """Writes the demo's checkpoint, with links to its large files."""
    made = folder / "model"
    made.mkdir()
    for path in BASE.iterdir():
        if path.name in _SMALL:
            (made / path.name).write_bytes(path.read_bytes())
        elif path.name != "training.json":
            (made / path.name).symlink_to(path)
    return made


Change = Callable[[pathlib.Path], None]


def _with(change: Change) -> Callable[[pathlib.Path], pathlib.Path]:
    def build(folder: pathlib.Path) -> pathlib.Path:
        made = base(folder)
        change(made)
        return made

    return build


def _set(name: str, path: tuple[str, ...], value: Any) -> Change:
    """Sets one value of a JSON file."""

    def change(made: pathlib.Path) -> None:
        raw = json.loads((made / name).read_text())
        node = raw
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        _replace(name, json.dumps(raw))(made)

    return change


def _replace(name: str, data: bytes | str) -> Change:
    def change(made: pathlib.Path) -> None:
        (made / name).unlink(missing_ok=True)
        (made / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return change


def cases(seed: int = 0, random: int = 10, values: int = 3) -> Iterator[Case]:
    """Yields cases; `random` of each kind of damage, and `values` for each key."""
    yield Case("honest", base, HONEST)
    yield Case("honest, pickled", _with(_pickled()), HONEST)
    yield from _files()
    yield from _values(seed, random, values)
    yield from _headers()
    yield from _pickles()
    yield from _indices()
    yield from _tokenizers()
    yield from _adapters()


def _files() -> Iterator[Case]:
    """Files that are not what their names say."""
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        for what, data in {
            "is empty": b"",
            "is a list": b"[]",
            "is a number": b"1",
            "is NUL": b"\0" * 100,
            "is nested": b"[" * 200_000,
            "is nested objects": b'{"a":' * 100_000,
            "is no UTF-8": b'{"\xff": 1}',
            "is UTF-16": '{"a": 1}'.encode("utf-16"),
            "has a number of 5000 digits": b'{"hidden_size": %s}' % (b"9" * 5000),
            "is a page": b"<!DOCTYPE html>",
            "is a pointer": b"version https://git-lfs.github.com/spec/v1\n",
            "has 3,000 unknown keys": json.dumps(
                json.loads((BASE / name).read_text())
                | {f"unknown_{n}": n for n in range(3000)}
            ).encode(),
        }.items():
            kind = EITHER if name.startswith("token") else REFUSED
            yield Case(f"{name} {what}", _with(_replace(name, data)), kind)

    def sparse(name: str) -> Change:
        def change(made: pathlib.Path) -> None:
            (made / name).unlink(missing_ok=True)
            with (made / name).open("wb") as file:
                file.truncate(5 << 30)

        return change

    for name in ("config.json", "tokenizer.json", "model.safetensors", "zz.json"):
        kind = EITHER if name == "zz.json" else REFUSED
        yield Case(f"{name} of 5 GiB", _with(sparse(name)), kind)

    def special(name: str, make: Change) -> Change:
        def change(made: pathlib.Path) -> None:
            (made / name).unlink(missing_ok=True)
            make(made / name)

        return change

    for name in ("config.json", "zz.json", "tokenizer.json", "model.safetensors"):
        kind = EITHER if name == "zz.json" else REFUSED
        yield Case(f"{name} is a FIFO", _with(special(name, os.mkfifo)), kind)
        yield Case(
            f"{name} is a folder", _with(special(name, pathlib.Path.mkdir)), kind
        )
        yield Case(
            f"{name} is a link to /dev/zero",
            _with(special(name, lambda path: path.symlink_to("/dev/zero"))),
            kind,
        )
        yield Case(
            f"{name} is a link to itself",
            _with(special(name, lambda path: path.symlink_to(path.name))),
            kind,
        )
    for name in (b"\xff.json", b"\n.json", b"\x1b[2J.json", b"n" * 250 + b".json"):
        yield Case(
            f"a file named {name[:9]!r}",
            _with(_replace(os.fsdecode(name), "{}")),
            EITHER,
        )


def _values(seed: int, random: int, values: int) -> Iterator[Case]:
    """Every key of the small files with a few wrong values."""
    for name in _SMALL:
        raw = json.loads((BASE / name).read_text())
        for path in _paths(raw):
            shown = ".".join(path)
            rng = rng_of(seed, f"{name} {shown}")
            for k in rng.choice(len(WRONG), size=values, replace=False):
                value = WRONG[k]
                yield Case(
                    f"{name}: {shown} is value {k}",
                    _with(_set(name, path, value)),
                    EITHER,
                )
        for k in range(random):
            title = f"{name}: damage {k}"
            data = damaged((BASE / name).read_bytes(), rng_of(seed, title))
            yield Case(title, _with(_replace(name, data)), EITHER)
    for what, key, value in (
        ("a text", "size", {"shortest_edge": "x"}),
        ("infinite", "size", {"shortest_edge": float("inf")}),
        ("huge", "size", {"shortest_edge": 2 * 10**7}),
        ("lists", "crop_size", {"height": [1], "width": [2]}),
        ("texts", "image_mean", ["a", 1, 2]),
        ("a million", "image_mean", [0.5] * 1_000_000),
        ("zeros", "image_std", [0, 0, 0]),
        ("zero", "rescale_factor", 0),
        ("no filter", "resample", 10**9),
    ):
        name = "preprocessor_config.json"
        yield Case(f"{name}: {key}, {what}", _with(_set(name, (key,), value)))


def _paths(node: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from _paths(value, (*before, key))


def header(value: Any, size: int | None = None, data: bytes = b"") -> bytes:
    """Returns a safetensors file whose header is a value, and may lie of its size."""
    encoded = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(encoded) if size is None else size) + encoded + data


def headers() -> dict[str, bytes]:
    """Returns safetensors files by name."""
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return {
        "honest": header({"a": one}, data=bytes(4)),
        "empty": b"",
        "seven bytes": bytes(7),
        "no tensors": header({}),
        "of 2^40": header({}, size=1 << 40),
        "of 2^64": header({}, size=(1 << 64) - 1),
        "a shape of 2^40": header({"a": one | {"shape": [1 << 40]}}, data=bytes(4)),
        "a shape of 2^62, 8": header({"a": one | {"shape": [1 << 62, 8]}}),
        "offsets beyond": header({"a": one | {"data_offsets": [0, 1 << 50]}}),
        "offsets backwards": header({"a": one | {"data_offsets": [4, 0]}}),
        "a negative shape": header({"a": one | {"shape": [-1]}}),
        "an unknown type": header({"a": one | {"dtype": "EVIL"}}, data=bytes(4)),
        "overlapping": header({"a": one, "b": one}, data=bytes(4)),
        "a hole": header({"a": one | {"data_offsets": [4, 8]}}, data=bytes(8)),
        "rank 10,000": header({"a": one | {"shape": [1] * 10_000}}, data=bytes(4)),
        "nested": header(b"[" * 100_000),
        "twice": header(b'{"a":%s,"a":%s}' % ((json.dumps(one).encode(),) * 2)),
        "metadata": header({"__metadata__": {"a": 1}, "a": one}, data=bytes(4)),
        "a surrogate": header(b'{"\\ud800": {}}'),
        "escapes": header({"\x1b]0;owned\x07": one}, data=bytes(4)),
        "a long name": header({"a" * 10_000: one}, data=bytes(4)),
        "pickled": b"PK\3\4" + bytes(60),
        "4-bit": header({"a": one | {"dtype": "F4", "shape": [8]}}, data=bytes(4)),
    }


def _headers() -> Iterator[Case]:
    for what, data in headers().items():
        yield Case(f"headers: {what}", _with(_replace("model.safetensors", data)))
    none = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = header({f"tensor {n}": none for n in range(5000)})
    yield Case("headers: 5,000 surplus", _with(_replace("model.safetensors", many)))


def _pickled() -> Change:
    """The honest weights, as torch would write them."""

    def change(made: pathlib.Path) -> None:
        from safetensors import safe_open

        entries, stored = {}, {}
        with safe_open(BASE / "model.safetensors", framework="numpy") as opened:
            for k, name in enumerate(opened.keys()):
                value = opened.get_tensor(name)
                kind = {"bfloat16": "BFloat16Storage", "float32": "FloatStorage"}
                entries[name] = pickles.tensor(
                    f"{k}", value.shape, kind=kind[value.dtype.name]
                )
                stored[f"{k}"] = value.tobytes()
        (made / "model.safetensors").unlink()
        data = pickles.archive(pickles.dictionary(entries), stored)
        (made / "pytorch_model.bin").write_bytes(data)

    return change


def _binary(data: bytes) -> Change:
    def change(made: pathlib.Path) -> None:
        (made / "model.safetensors").unlink()
        (made / "pytorch_model.bin").write_bytes(data)

    return change


def _pickles() -> Iterator[Case]:
    for what, description in pickles.descriptions():
        data = pickles.archive(description)
        yield Case(f"pickle: {what}", _with(_binary(data)))
    whole = pickles.archive(dict(pickles.descriptions())["honest"])
    for at in range(0, len(whole), 60):
        yield Case(f"pickle: cut at {at}", _with(_binary(whole[:at])))


def _indices() -> Iterator[Case]:
    names = ("../secret.safetensors", "/etc/passwd", "a" * 300 + ".safetensors")
    for name in (
        *names,
        "",
        7,
        None,
        [],
        "\0",
        "\ud800.safetensors",
        "model.safetensors",
    ):
        shown = str(name)[:12].encode("ascii", "backslashreplace").decode()
        index = json.dumps({"weight_map": {"a": name}})
        change = _replace("model.safetensors.index.json", index)
        yield Case(f"index: {shown!r}", _with(change), EITHER)
    for what, text in {
        "no map": '{"weight_map": []}',
        "nothing": "{}",
        "nested": '{"weight_map":' + "[" * 100_000,
        "100,000 files": json.dumps(
            {"weight_map": {f"{n}": f"{n}.safetensors" for n in range(100_000)}}
        ),
    }.items():
        yield Case(
            f"index: {what}",
            _with(_replace("model.safetensors.index.json", text)),
            EITHER,
        )


def _tokenizers() -> Iterator[Case]:
    raw = json.loads((BASE / "tokenizer.json").read_text())

    def changed(**keys: Any) -> Callable[[pathlib.Path], pathlib.Path]:
        return _with(_replace("tokenizer.json", json.dumps(raw | keys)))

    for what, keys in {
        "no model": {"model": None},
        "a model of another type": {"model": {"type": "BPE"}},
        "an id of 2^60": {"added_tokens": [{"id": 2**60, "content": "a"}]},
        "ids below 0": {"added_tokens": [{"id": -1, "content": "a"}]},
        "a template": {"post_processor": {"type": "TemplateProcessing", "single": []}},
        "padding of 3e8": {"padding": {"strategy": {"Fixed": 300_000_000}}},
        "a regular expression": {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(a+)+$"},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        "a broken regular expression": {
            "normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}
        },
    }.items():
        yield Case(f"tokenizer: {what}", changed(**keys), EITHER)
    for what, data in {
        "empty": "",
        "nested": "[" * 100_000,
        "a list": "[]",
        "a surrogate": '{"version": "\\ud800"}',
    }.items():
        change = _replace("tokenizer.json", data)
        yield Case(f"tokenizer: {what}", _with(change))
    for key, value in (
        ("auto_map", {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}),
        ("chat_template", "{{ cycler.__init__.__globals__.os.system('true') }}"),
        ("chat_template", "{% for a in range(10**9) %}{% endfor %}"),
        ("bos_token", {"content": "x" * 100_000}),
        ("added_tokens_decoder", {"a": 1}),
        ("model_max_length", -1),
        ("tokenizer_class", "os.system"),
        ("extra_special_tokens", ["a"] * 1000),
    ):
        name = f"tokenizer_config: {key} {str(value)[:20]!r}"
        change = _set("tokenizer_config.json", (key,), value)
        yield Case(name, _with(change), EITHER)


ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": str(BASE),
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
}


def _adapters() -> Iterator[Case]:
    def adapter(raw: Any) -> Callable[[pathlib.Path], pathlib.Path]:
        def build(folder: pathlib.Path) -> pathlib.Path:
            made = folder / "adapter"
            made.mkdir()
            text = raw if isinstance(raw, str) else json.dumps(raw)
            (made / "adapter_config.json").write_text(text)
            (made / "adapter_model.safetensors").write_bytes(headers()["honest"])
            return made

        return build

    for key in (*ADAPTER, "rank_pattern", "modules_to_save", "revision", "use_rslora"):
        for k, value in enumerate(WRONG):
            yield Case(f"adapter: {key} is value {k}", adapter(ADAPTER | {key: value}))
    for what, changes in {
        "a rank of 4001 digits": {"r": 10**4000, "use_rslora": True},
        "a base of 5000 characters": {"base_model_name_or_path": "a/" + "b" * 5000},
        "a base that is itself": {"base_model_name_or_path": "."},
        "a pattern that is none": {"rank_pattern": {"(": 1}},
        "10,000 patterns": {"rank_pattern": {f"{n}": 1 for n in range(10_000)}},
        "a pattern of many groups": {"rank_pattern": {"(" * 90 + ")" * 90: 1}},
        "3,000 unknown keys": {f"unknown_{n}": n + 1 for n in range(3000)},
    }.items():
        yield Case(f"adapter: {what}", adapter(ADAPTER | changes))
    yield Case("adapter: a list", adapter("[]"))
    yield Case("adapter: nested", adapter("[" * 100_000))
