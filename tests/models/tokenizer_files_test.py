"""Tokenizers that somebody else wrote, with the worst intentions."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

from vidsme_jax import models, settings
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.models import tokenizer_files

DEMO = settings.DEMO / "checkpoint"


@pytest.fixture
def folder(tmp_path):
    return pathlib.Path(shutil.copytree(DEMO, tmp_path / "demo"))


def _change(folder, name, **changes):
    raw = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(raw | changes))


def _tokens(count):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
        {"id": k, "content": f"<{k}>", "special": True} | flags for k in range(count)
    ]


def _vocabulary(**more):
    model = json.loads((DEMO / "tokenizer.json").read_text())["model"]
    return model | {"vocab": model["vocab"] | more}


def _post(count):
    post = json.loads((DEMO / "tokenizer.json").read_text())["post_processor"]
    first, *rest = post["single"]
    return post | {"single": [first] * count + rest}


_GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
_SLOW = {"Regex": "(x+x+)+y"}  # The time doubles with each x that no y follows.


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"post_processor": _post(3000)}, "post_processor has "),
        ({"post_processor": _post(100)}, "the text 'a' has 101 tokens, at most 64"),
        ({"added_tokens": _tokens(2**16 + 1)}, "a list of at most 65536 tokens"),
        ({"added_tokens": 7}, "a list of at most 65536 tokens"),
        ({"model": _vocabulary(zzz=2**32 - 1)}, "has the id 4294967295, expected"),
        ({"model": _vocabulary(zzz="x")}, "has the id 'x', expected 0 to"),
        ({"model": _vocabulary(zzz=4000)}, "a token of number 4000, and the model 128"),
        ({"model": _vocabulary(zzz=128)}, "a token of number 128, and the model 128"),
        ({"model": _vocabulary(**{"z" * 5000: 99})}, "a token has 5000 characters"),
        ({"model": _vocabulary() | {"dropout": 0.5}}, "model.dropout is 0.5"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [_GROWING] * 9}},
            "normalizer can lengthen a text 1000000000 times",
        ),
        (
            {"decoder": {"type": "Sequence", "decoders": [_GROWING] * 9}},
            "decoder can lengthen a text 1000000000 times",
        ),
        ({"model": None}, "no usable tokenizer ("),
    ],
    ids=range(13),
)
def test_numbers_of_a_tokenizer_have_ranges(folder, changes, text):
    _change(folder, "tokenizer.json", **changes)
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert text in str(caught.value)


def test_a_folder_without_a_vocabulary_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert f"{folder} has none of tokenizer.json, tokenizer.model" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model_max_length": "x"}, "model_max_length is 'x', expected a number from"),
        ({"model_max_length": -1}, "model_max_length is -1"),
        ({"added_tokens_decoder": {"-1": {"content": "a"}}}, "names token '-1'"),
        ({"added_tokens_decoder": {"9" * 30: {"content": "a"}}}, "names token '999"),
        ({"added_tokens_decoder": 7}, "added_tokens_decoder must be an object"),
        ({"bos_token": {"a": [1]}}, "no usable tokenizer ("),
        ({"unk_token": ""}, "unk_token is '', which the vocabulary does not have"),
    ],
    ids=str,
)
def test_numbers_of_its_config_have_ranges(folder, changes, text):
    _change(folder, "tokenizer_config.json", **changes)
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert text in str(caught.value)


def test_a_tokenizer_need_not_know_an_unknown_token(folder):
    _change(folder, "tokenizer_config.json", unk_token=None)
    models.inspect(str(folder), dtype="float32")


@pytest.mark.parametrize("value", [[10**30], -1, list(range(1000)), "x", [1.0]])
def test_ends_of_answers_are_numbers_of_tokens(folder, value):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(AuditError, match=r"eos_token_id is .* expected a token's id"):
        models.inspect(str(folder), dtype="float32")


def test_padding_and_truncation_are_no_matter(folder):
    plain = models.inspect(str(DEMO), dtype="float32").tokenise()
    padding = dict.fromkeys(("pad_id", "pad_type_id"), 0) | {"pad_token": "<s>"}
    padding |= {"strategy": {"Fixed": 300_000_000}, "direction": "Right"}
    truncation = {"max_length": 1, "strategy": "LongestFirst", "stride": 0}
    truncation |= {"direction": "Right"}
    padding["pad_to_multiple_of"] = None
    _change(folder, "tokenizer.json", padding=padding, truncation=truncation)
    assert models.inspect(str(folder), dtype="float32").tokenise() == plain


def test_no_other_file_is_read_and_no_template_is_run(folder, monkeypatch):
    """Not what a config names, not over the network; a FIFO would hold it for ever."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    names = "vocab merges tokenizer_file vocab_file merges_file gguf_file spm_file"
    named = dict.fromkeys(names.split(), str(fifo))
    endless = "{% for i in range(10**9) %}{{ i }}{% endfor %}"
    named |= {
        "fast_tokenizer_files": ["../tokenizer.9.json"],
        "init_inputs": [str(fifo)],
    }
    _change(folder, "tokenizer_config.json", chat_template=endless, **named)
    (folder / "chat_template.jinja").write_text(endless)
    (folder / "additional_chat_templates").mkdir()
    os.mkfifo(folder / "additional_chat_templates" / "a.jinja")
    os.mkfifo(folder.parent / "tokenizer.9.json")

    def refuse(*args, **kwargs):
        raise AssertionError("a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    begun = time.monotonic()
    tokenizer = tokenizer_files.read(folder)
    assert time.monotonic() - begun < 60
    assert tokenizer("a")["input_ids"] and tokenizer.chat_template is None


def test_a_pattern_that_never_ends_is_a_sentence(folder):
    """Oniguruma gives up, and tokenizers panics: that is no `Exception`."""
    split = {"type": "Split", "pattern": _SLOW, "behavior": "Isolated", "invert": False}
    _change(folder, "tokenizer.json", pre_tokenizer=split)
    model = models.inspect(str(folder), dtype="float32")
    with pytest.raises(AuditError, match=r"PanicException: .*retry-limit"):
        model.tokenise(Asked(key="", question="x" * 60))
    with pytest.raises(AuditError, match=r"PanicException: .*retry-limit"):
        models.inspect(str(folder), dtype="float32", prompt="x" * 60 + "<video>")


def test_an_interrupt_is_not_held_back():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenizer_files.guarded(interrupted)


@pytest.mark.parametrize("name", ["tokenizer.model", "merges.txt"])
def test_a_file_that_is_too_large(folder, name):
    with (folder / name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(AuditError, match="1099511627776 bytes, at most 67108864 are"):
        models.inspect(str(folder), dtype="float32")


@pytest.mark.long
def test_a_torchvision_that_cannot_be_imported_counts_as_absent(tmp_path):
    """Transformers imports it with the config of a Llama's tokenizer."""
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('no such operator')")
    program = "from vidsme_jax.models import tokenizer_files as t; import pathlib, sys;"
    program += "print(len(t.read(pathlib.Path(sys.argv[1]))))"
    folders = [str(tmp_path), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", program, str(DEMO)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 90
