"""Tokenizers that are trained on a manifest: any text, on every family's tiny model."""

import json
import pathlib
import subprocess
import sys

import pytest
import tokenizers

from vidsme_jax import models
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.demo import drawing
from vidsme_jax.finetune import words
from vidsme_jax.models import random

TINY = [name for name in random.sizes() if name.endswith("-tiny")]
TEXTS = [
    "What happens?",
    "A door opens.",
    "A man opens the door.",
    "Ποιος ανοίγει;",
] * 9
ANSWERS = (
    "Ένας άνδρας ανοίγει την πόρτα 🎬👩‍👩‍👧",
    "  two  spaces,\ttabs\n\nand lines ",
    "日本語 한국어 العربية עברית हिन्दी ไทย",
    "".join(map(chr, [*range(1, 128), 0x10FFFF, 0xFEFF, 0x301, 0])),
)


def _tokenizer(found: words.Words) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(found.files["tokenizer.json"])


@pytest.mark.parametrize("name", TINY)
def test_every_family_takes_it(name, tmp_path):
    words.write(tmp_path, name, TEXTS, 0)
    family, plan = random.sizes()[name], models.inspect(tmp_path, dtype="float32")
    for answer in ANSWERS[:3]:
        asked = Asked(key="", question="Γιατί; 🎥", answer=answer, ended="given")
        text = plan.tokenise(asked)
        assert len(text.answer) > 5
        assert plan.tokenise.decode(text.answer) == answer.strip()
        assert "Γιατί; 🎥" in plan.tokenise.decode(text.after)
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    drawing.tokenizer_files(tmp_path / "w", chat=family.chat, special=family.special)
    before = json.loads((tmp_path / "w" / "tokenizer.json").read_text())
    special = [token for token in found["added_tokens"] if token["special"]]
    assert special == before["added_tokens"]
    assert found["post_processor"] == before["post_processor"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == family.sizes[name]["config.json"]
    size = len(found["model"]["vocab"])
    assert sorted(found["model"]["vocab"].values()) == [*range(size)]
    assert 264 < size <= 512


@pytest.mark.parametrize("name", ["llava_qwen-tiny", "qwen3_vl-tiny", "smolvlm-tiny"])
@pytest.mark.parametrize("size", [10, 600])
def test_the_model_has_room_for_the_tokens(name, size, tmp_path):
    texts = [f"{word} {k}" for k in range(99) for word in drawing.VOCABULARY]
    words.write(tmp_path, name, texts, 0, size=size)
    config = json.loads((tmp_path / "config.json").read_text())
    section = config.get("text_config", config)
    count = max(512, size)
    assert section["vocab_size"] == count
    models.load(tmp_path, dtype="float32")
    plan = models.inspect(tmp_path, dtype="float32")
    text = plan.tokenise(Asked(key="", answer="a door", ended="given"))
    assert max(text.answer) < count
    assert words.train(texts, size, chat=True).size == (600 if size == 600 else 266)


@pytest.mark.parametrize("chat", [True, False])
def test_any_text_comes_back(chat):
    found = words.train(TEXTS, 512, chat=chat, special=("<a>", "</a>"))
    tokenizer = _tokenizer(found)
    for text in ANSWERS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text and max(ids) < found.size
        assert tokenizer.token_to_id("<unk>") not in ids
    assert tokenizer.encode("A door opens.").ids[-1] < found.size
    assert len(tokenizer.encode("A door opens.").ids) <= 6  # It was seen nine times.
    first = tokenizer.encode("a").tokens[0]
    assert (first == "<s>") != chat


def test_texts_may_hold_special_tokens_and_half_of_a_pair():
    texts = ["<s> USER: </s> <video> <pad>ASSISTANT: <|im_end|>"] * 9 + ["a\ud800b"] * 9
    found = words.train(texts, 512, chat=True)
    tokenizer = _tokenizer(found)
    marks = (*drawing.TOKENS[:3], *drawing.TOKENS[-3:], "<|im_start|>", "<|im_end|>")
    places = [*range(3), *range(97, 102)]
    assert [tokenizer.token_to_id(mark) for mark in marks] == places
    assert tokenizer.token_to_id("USER:") == 4
    assert sorted(tokenizer.get_vocab().values()) == [*range(found.size)]
    assert tokenizer.encode("<s>USER:</s>").ids == [1, 4, 2]


def test_without_texts_there_are_bytes():
    found = words.train([], 512, chat=False)
    assert found.size == 256 + 8
    ids = _tokenizer(found).encode("é", add_special_tokens=False).ids
    assert len(ids) == 2


def test_tokens_are_not_endless():
    found = words.train(["a" * 5_000] * 3, 512, chat=False)
    assert max(map(len, _tokenizer(found).get_vocab())) <= 32


def test_the_same_texts_give_the_same_bytes(tmp_path):
    script = (
        "import json, sys; from vidsme_jax.finetune import words;"
        "texts = json.loads(sys.argv[1]);"
        "print(words.train(texts, 400, chat=True).files['tokenizer.json'], end='')"
    )
    texts = [*TEXTS, *(f"{a} {b}" for a in drawing.LETTERS for b in drawing.NUMBERS)]
    given = [sys.executable, "-c", script, json.dumps(texts)]
    root = pathlib.Path(__file__).parents[1]
    other = subprocess.run(given, cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout == words.train(texts, 400, chat=True).files["tokenizer.json"]


def test_models_of_other_sizes_have_no_tokenizer_here(tmp_path):
    with pytest.raises(AuditError, match="no such random model"):
        words.write(tmp_path, "llava_qwen-7b", TEXTS, 0)
    assert not any(tmp_path.iterdir())


def test_checkpoints_with_the_words_of_the_demo_stay_as_they_are(tmp_path):
    random.write(tmp_path, "internvl-tiny")
    files = random.sizes()["internvl-tiny"].sizes["internvl-tiny"]
    assert json.loads((tmp_path / "config.json").read_text()) == files["config.json"]
    drawing.tokenizer_files(
        tmp_path / "w", chat=True, special=random.sizes()["internvl-tiny"].special
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "w" / name).read_bytes()
