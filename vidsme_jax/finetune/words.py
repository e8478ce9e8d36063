"""Trains tokenizers on any texts, for tiny models of random weights.

The tokenizer of `random:` checkpoints knows only the words of the demo's captions
(`demo.drawing`). This one is trained on the texts of a manifest: byte-level BPE as
GPT-2's [1], whose first 256 tokens are the bytes, so that it encodes every text in
UTF-8 without loss. Templates, special tokens and their ids, which `config.json` names,
are those of the demo's tokenizer.

[1] Radford et al., 2019. Language Models are Unsupervised Multitask Learners.
"""

import copy
import dataclasses
import itertools
import json
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from vidsme_jax.demo import drawing
from vidsme_jax.models import random
from vidsme_jax.store.files import write_atomically

_ROLES = ("USER:", "ASSISTANT:")  # Words of prompts that are one token each.
_LONGEST = 32  # Characters of a token.
_LEAST = 2  # Least occurrences of a pair of tokens that is merged.
_PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


@dataclasses.dataclass(frozen=True)
class Words:
    """A trained tokenizer.

    Attributes:
      files: Content of `tokenizer.json` and `tokenizer_config.json`, by name.
      size: Tokens of the vocabulary; a model's `vocab_size` must not be smaller.
    """

    files: Mapping[str, str]
    size: int


def train(
    texts: Iterable[str], size: int, *, chat: bool, special: tuple[str, ...] = ()
) -> Words:
    """Trains a tokenizer; the same texts in the same order give the same bytes.

    Args:
      texts: Questions, options and answers. Half of a surrogate pair, which has no
        encoding, counts as a question mark.
      size: Most tokens; the 256 bytes and about ten special tokens are always there.
      chat: Whether it is like Qwen2's, else like Llama's: see
        `drawing.tokenizer_files`.
      special: Further special tokens of the family.
    """
    with tempfile.TemporaryDirectory() as written:
        folder = pathlib.Path(written)
        drawing.tokenizer_files(folder, chat=chat, special=special)
        raw = json.loads((folder / "tokenizer.json").read_text())
        settings = (folder / "tokenizer_config.json").read_text()
    fixed = {token["content"]: token["id"] for token in raw["added_tokens"]}
    fixed |= {word: raw["model"]["vocab"][word] for word in _ROLES}
    letters = pre_tokenizers.ByteLevel.alphabet()
    merges = _merges(texts, max(0, size - len(fixed) - len(letters)))
    # Merges may give a special token, or the same token in two ways.
    tokens = dict.fromkeys([*sorted(letters), *map("".join, merges)])
    free = (number for number in itertools.count() if number not in fixed.values())
    ids = dict(zip((x for x in tokens if x not in fixed), free, strict=False)) | fixed
    model = tokenizers.Tokenizer(BPE(ids, merges))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    raw |= {
        key: json.loads(model.to_str())[key]
        for key in ("model", "pre_tokenizer", "decoder")
    }
    added = [
        {"id": fixed[word], "content": word, "special": False} | _PLAIN
        for word in _ROLES
    ]
    raw["added_tokens"] = sorted([*raw["added_tokens"], *added], key=lambda x: x["id"])
    whole = tokenizers.Tokenizer.from_str(json.dumps(raw))
    files = {
        "tokenizer.json": whole.to_str(pretty=True),
        "tokenizer_config.json": settings,
    }
    return Words(files, whole.get_vocab_size())


def write(
    folder: pathlib.Path,
    name: str,
    texts: Iterable[str],
    seed: int,
    *,
    size: int | None = None,
) -> None:
    """Writes a checkpoint of random weights whose tokenizer is trained on texts.

    Args:
      folder: Made if need be.
      name: Of a tiny model: see `random.sizes`.
      texts: See `train`.
      seed: Of the weights.
      size: Most tokens; None: the model's `vocab_size`, which is raised if the
        tokenizer has more.

    Raises:
      AuditError: There is no tiny model of this name.
    """
    family = random.family_of_tiny(name)
    files = copy.deepcopy(dict(family.sizes[name]))
    config: dict[str, Any] = files["config.json"]
    section = config.get("text_config", config)
    most = section["vocab_size"] if size is None else size
    words = train(texts, most, chat=family.chat, special=family.special)
    section["vocab_size"] = max(section["vocab_size"], words.size)
    random.write(folder, name, seed=seed, files=files)
    for file, content in words.files.items():
        write_atomically(folder / file, content.encode())


def _merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """Returns the pairs of tokens that are merged, in order; at most `count`."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    learner = tokenizers.Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + count,
        min_frequency=_LEAST,
        initial_alphabet=letters,
        max_token_length=_LONGEST,
        show_progress=False,
    )
    proper = (text.encode("utf-8", "replace").decode() for text in texts)
    learner.train_from_iterator(proper, trainer)
    return [(a, b) for a, b in json.loads(learner.to_str())["model"]["merges"]]
