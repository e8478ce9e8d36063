"""Reads the tokenizer of a checkpoint, from checked copies of its files.

transformers and tokenizers read a temporary folder with only the files that they need:
no code, no chat template (prompts are this package's), from `config.json` only the keys
that select a tokenizer, and from `tokenizer_config.json` no key that names a file.
"""

import importlib.util
import json
import math
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import MAX_SIZE
from vidsme_jax.store import regular

# Bytes of a file that is not JSON: the largest in use have 5 MB.
_LARGEST = 2**26
_LONGEST_TEXT = 1e31  # transformers writes 1e30 for no limit.
_OTHERS = ("tokenizer.model", "spiece.model", "merges.txt", "vocab.txt")
_OBJECTS = ("special_tokens_map.json", "added_tokens.json", "vocab.json")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model")
_VOCABULARIES += ("vocab.json", "vocab.txt")
# Keys of `config.json` that select the tokenizer's class.
_CHOSEN_BY = ("model_type", "model_name", "tokenizer_class", "auto_map")
_CHOSEN_BY += ("_name_or_path", "transformers_version", "architectures")
# Keys of `tokenizer_config.json` that name files or replace their content.
_LEFT_OUT = frozenset(
    """chat_template fast_tokenizer_files gguf_file init_inputs merges name_or_path
    post_processor tokenizer_file tokenizer_object tokenizer_padding
    tokenizer_truncation vocab""".split()
)
# Limits of a `tokenizer.json`, far beyond any in use: added tokens; characters of a
# token; values of the post-processor, and tokens that it adds to a text; the factor by
# which replacements may lengthen a text.
_MOST_ADDED, _LONGEST_TOKEN = 2**16, 2**12
_LARGEST_MAP = 2**20  # Bytes of a `precompiled_charsmap`.
_MOST_PARTS, _MOST_PIECES, _MOST_GROWTH = 2**10, 64, 64

_Result = TypeVar("_Result")


@runtime_checkable
class Tokenizer(Protocol):
    """The members of a tokenizer of transformers that are used."""

    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    unk_token: str | None
    unk_token_id: int | None
    is_fast: bool

    def __call__(self, text: str, /, **options: bool) -> Mapping[str, Any]: ...
    def __len__(self) -> int: ...
    def get_vocab(self) -> dict[str, int]: ...
    def get_added_vocab(self) -> dict[str, int]: ...
    def convert_tokens_to_ids(self, token: str, /) -> Any: ...
    def decode(self, ids: Sequence[int], /, **options: bool) -> Any: ...


def read(folder: pathlib.Path) -> Tokenizer:
    """Reads the tokenizer of a folder with transformers.

    Raises:
      AuditError: The folder has none, or it cannot be used.
    """
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        known = ", ".join(_VOCABULARIES)
        raise AuditError([f"{folder} has none of {known}: fetch the whole folder"])
    with tempfile.TemporaryDirectory(prefix="vidsme-tokenizer-") as staged:
        target = pathlib.Path(staged)
        try:
            _stage(folder, target)
        except RecursionError as error:
            raise AuditError([f"{folder}: a file is nested too deeply"]) from error
        tokenizer = guarded(lambda: _loaded(target), staged, str(folder))
    if problem := guarded(lambda: _problem(tokenizer)):
        raise AuditError([problem])
    return tokenizer


def guarded(call: Callable[[], _Result], path: str = "", shown: str = "") -> _Result:
    """Returns the result of a call of transformers or tokenizers.

    Raises:
      AuditError: It raises any exception; `shown` replaces `path` in its message.
    """
    try:
        return call()
    except AuditError:
        raise
    except BaseException as error:  # tokenizers' own panics are no `Exception`.
        kind = type(error).__name__
        if not isinstance(error, Exception) and kind != "PanicException":
            raise
        cause = (str(error).strip() or "?").splitlines()[0]
        cause = cause.replace(path, shown) if path else cause
        raise AuditError([f"{kind}: {content.name(cause)}"]) from error


def _loaded(folder: pathlib.Path) -> Any:
    """Reads a tokenizer with transformers, without its warnings."""
    hide_broken_torchvision()
    # transformers would warn that PyTorch is not installed.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer, logging

    # It warns of models without a class, and of old keys in configs.
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
    finally:
        logging.set_verbosity(before)


def hide_broken_torchvision() -> None:
    """Makes a torchvision that cannot be imported appear as not installed.

    transformers imports an installed torchvision with the configs of tokenizers and
    fails with it, for example PyPI's torchvision with a torch that is built for CPUs.
    """
    if "torchvision" in sys.modules or not importlib.util.find_spec("torchvision"):
        return
    try:
        importlib.import_module("torchvision")
    except Exception:  # Its operators and torch's libraries raise various ones.
        sys.modules["torchvision"] = None  # type: ignore[assignment]


def _stage(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Writes checked copies of a tokenizer's files to a folder."""
    for name in _OTHERS:
        if (folder / name).is_file():
            (target / name).write_bytes(_bytes(folder / name))
    contents = {name: _object(folder / name) for name in _OBJECTS}
    config = _object(folder / "config.json")
    if config is not None:
        contents["config.json"] = {k: config[k] for k in _CHOSEN_BY if k in config}
    settings = _object(folder / "tokenizer_config.json")
    if settings is not None:
        _check_settings(settings)
        contents["tokenizer_config.json"] = {
            key: value
            for key, value in settings.items()
            if key not in _LEFT_OUT and not key.endswith("_file") and key[:1] != "_"
        }
    serialized = _object(folder / "tokenizer.json")
    if serialized is not None:
        _check_serialized(serialized)
        contents["tokenizer.json"] = serialized | {"truncation": None, "padding": None}
    for name, value in contents.items():
        if value is not None:
            (target / name).write_text(json.dumps(value), encoding="utf-8")


def _object(path: pathlib.Path) -> dict[str, Any] | None:
    return content.read_json(path) if path.is_file() else None


def _bytes(path: pathlib.Path) -> bytes:
    with regular.opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > _LARGEST:
            raise AuditError(
                [f"{path}: {size} bytes, at most {_LARGEST} are read: fetch it again"]
            )
        return file.read(_LARGEST)


def _check_settings(raw: dict[str, Any]) -> None:
    """Checks the used keys of a `tokenizer_config.json`."""
    where, problems = "tokenizer_config.json", []
    longest: Any = raw.get("model_max_length")
    number = type(longest) in (int, float) and 1 <= longest <= _LONGEST_TEXT
    number = number or longest == math.inf  # No limit.
    if longest is not None and not number:
        problems.append(
            f"{where}: model_max_length is {content.shown(longest)}, expected a number "
            "from 1"
        )
    decoder = raw.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict) or len(decoder) > _MOST_ADDED:
        problems.append(
            f"{where}: added_tokens_decoder must be an object of at most {_MOST_ADDED} "
            "tokens"
        )
    elif strange := [key for key in decoder if not _is_token(_integer(key))]:
        problems.append(
            f"{where}: added_tokens_decoder names token {content.shown(strange[0])}, "
            f"expected 0 to {MAX_SIZE}"
        )
    if problems:
        raise AuditError(problems)


def _check_serialized(raw: dict[str, Any]) -> None:
    """Checks the sizes and numbers in a `tokenizer.json`."""
    where, problems = "tokenizer.json", []
    model = raw.get("model")
    model = model if isinstance(model, dict) else {}
    if model.get("dropout") not in (None, 0):
        problems.append(
            f"{where}: model.dropout is {content.shown(model['dropout'])}; expected "
            "null, because with dropout the tokens of a text are random"
        )
    vocabulary = model.get("vocab")
    ids = vocabulary.values() if isinstance(vocabulary, dict) else ()
    added = raw.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > _MOST_ADDED:
        problems.append(
            f"{where}: added_tokens must be a list of at most {_MOST_ADDED} tokens"
        )
        added = []
    more = [token.get("id") for token in added if isinstance(token, dict)]
    if strange := [each for each in (*ids, *more) if not _is_token(each)]:
        problems.append(
            f"{where}: a token has the id {content.shown(strange[0])}, expected 0 "
            f"to {MAX_SIZE}"
        )
    names = vocabulary if isinstance(vocabulary, dict) else ()
    if (longest := max(map(len, names), default=0)) > _LONGEST_TOKEN:
        problems.append(
            f"{where}: a token has {longest} characters, at most {_LONGEST_TOKEN} are "
            "allowed"
        )
    pieces = _count(raw.get("post_processor"))
    if pieces > _MOST_PARTS:
        problems.append(
            f"{where}: post_processor has {pieces} parts, at most {_MOST_PARTS} are "
            "allowed"
        )
    for part in ("normalizer", "decoder"):
        if (growth := _growth(raw.get(part))) > _MOST_GROWTH:
            problems.append(
                f"{where}: {part} can lengthen a text {growth} times, at most "
                f"{_MOST_GROWTH} times is allowed"
            )
    if problems:
        raise AuditError(problems)


def _growth(value: Any) -> int:
    """Returns the largest factor by which replacements can lengthen a text."""
    if isinstance(value, list):
        product = 1
        for part in value:
            product = min(product * _growth(part), 2**60)
        return product
    if not isinstance(value, dict):
        return 1
    texts = [value.get(key) for key in ("content", "prepend", "precompiled_charsmap")]
    if isinstance(texts[2], str):  # A letter becomes a few; all of Unicode is 0.3 MB.
        texts[2] = texts[2][_LARGEST_MAP:]
    longest = max(len(text) for text in (*texts, "x") if isinstance(text, str))
    nested = [part for part in value.values() if isinstance(part, list)]
    return min(longest * _growth(nested), 2**60)


def _count(value: Any) -> int:
    """Returns how many values there are at all depths."""
    inner = value.values() if isinstance(value, dict) else value
    return 1 + sum(map(_count, inner)) if isinstance(value, dict | list) else 1


def _problem(tokenizer: Any) -> str:
    """Returns what is wrong with a tokenizer that was read, or ""."""
    if (count := len(tokenizer("a")["input_ids"])) > _MOST_PIECES:
        return (
            f"tokenizer.json: the text 'a' has {count} tokens, at most {_MOST_PIECES} "
            "are expected: is it another model's tokenizer?"
        )
    for text in ("<video>", " ", ""):
        tokenizer(text)
    vocabulary = tokenizer.get_vocab()
    unknown = tokenizer.unk_token  # Without an id transformers takes one of its own.
    if unknown is not None and unknown not in vocabulary:
        return (
            f"tokenizer_config.json: unk_token is {content.shown(unknown)}, which the "
            "vocabulary does not have; expected one of its tokens, or null"
        )
    if (largest := max(vocabulary.values(), default=0)) > MAX_SIZE:
        return f"a token has the id {largest}, expected 0 to {MAX_SIZE}"
    return ""


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
