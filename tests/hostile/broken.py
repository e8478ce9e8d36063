"""Cases that a reader or a command does not stand yet, by kind and pattern of name.

Tests leave them out. Each is a test of its own in `broken_test.py`, which is expected
to fail and fails where it does not: then its line here goes.
"""

import fnmatch
from collections.abc import Iterable, Iterator

from generators import Case

BROKEN: dict[str, dict[str, str]] = {
    "manifests": {
        "parquet: * holds durations of days": "OverflowError of pyarrow's as_py",
        "parquet: * holds days beyond Python's": "OverflowError of pyarrow's as_py",
        "json: the video tfds:*": "a row names an example of any dataset",
    },
    "clips": {
        "hls, *, named .m3u8": "the playlist's files are opened",
        "ffconcat, a neighbour, *": "the neighbour is scored",
        "ffconcat, a link, *": "what the link leads to is scored",
        "a pattern of pictures": "pictures that are links outside are scored",
        "a pattern with zeros": "pictures that are links outside are scored",
        "a playlist over a FIFO": "blocks for ever in open(2)",
    },
    "commands": {
        "named in *": "no UTF-8: UnicodeEncodeError as signals are written",
        "named with *": "prepare prints the name as it is",
        "named backwards": "prepare prints the name as it is",
        "no end of nothing": "prepare hashes what is no video to its end, unlimited",
    },
    "checkpoints": {
        "tokenizer.json of 5 GiB": "read whole: 5 GB resident, 28 s",
        "zz.json of 5 GiB": "hashed whole, 8 s; of 1 TiB, half an hour",
        "a file named b'?xff.json'": "UnicodeEncodeError in the fingerprint",
        "config.json: architectures is value 5": "TypeError: an int is not iterable",
        "tokenizer_config.json: model_max_length is value *": "TypeError",
        "headers: no tensors": "AssertionError when it is loaded",
        "pickle: empty": "AssertionError when it is loaded",
        "pickle: state on a tensor": "KeyError",
        "pickle: a shape set later": "TypeError",
        "pickle: a start set later": "the tensor begins before its storage",
        "pickle: slots on a tensor": "the tensor begins before its storage",
        "pickle: a key that is a tuple": "AttributeError",
        "adapter: base_model_name_or_path is value 12": "RuntimeError of expanduser",
        "adapter: base_model_name_or_path is value 16": "OSError: name too long",
        "adapter: a base of 5000 characters": "OSError: name too long",
        "adapter: 3,000 unknown keys": "3,000 problems",
    },
    "configs": {"3,000 unknown keys": "3,001 problems, 1.8 s"},
    "prepared": {
        "features: code by pythonClassName": "the code is run",
        "features: code by python_class_name": "the code is run",
        "info: a template that is none": "IndexError of TFDS",
        "info: a FIFO": "blocks for ever",
        "settings: num_shards is 1000000000": "a look for each of 10^9 shards",
        "settings: num_shards is 10000000000000000000": "the same",
        "settings: num_shards is 'x'": "TypeError",
        "settings: num_shards is None": "TypeError",
        "settings: num_shards is []": "TypeError",
        "settings: num_shards is 1.5": "TypeError",
        "settings: nested": "RecursionError",
        "settings: a FIFO": "blocks for ever",
        "a version that is no number": "ValueError of int('\u00b2')",
        "index: a column *": "TypeError",
        "index: rows that are numbers": "TypeError",
        "index: rows that are null": "TypeError",
        "index: rows nested deeply": "RecursionError",
        "index: digests that are empty": "ValueError",
        "index: digests that are numbers": "TypeError",
        "index: an unknown *": "TypeError, ValueError",
        "index: an id that is null": "taken as it is",
        "index: a question that is a list": "taken as it is",
        "index: a role that is a list": "ValueError",
        "index: a clip that is a number": "TypeError",
        "index: candidates that are a number": "TypeError",
        "index: its facts are a list": "TypeError",
        "index: its facts are an empty object": "KeyError",
        "index: its facts are a number": "TypeError",
        "index: its facts are nested": "RecursionError",
        "records: a FIFO": "blocks for ever",
    },
    "tfds_folders": {
        "*json: a FIFO": "blocks for ever",
        "info: 10^12 examples": "a row for each",
        "info: 10^7 examples": "a row for each",
        "info: 10^5 shards": "42 s",
    },
    "workdirs": {
        "config.json: nested": "RecursionError",
        "config.json: a FIFO": "blocks for ever",
        "config.json: a link to /dev/zero": "reads without end",
        "signals/run.json: nested": "RecursionError",
        "signals/run.json: a FIFO": "blocks for ever",
        "signals/run.json: a folder": "IsADirectoryError",
        "signals/run.json: a link to /dev/zero": "reads without end",
        "signals/part-000000.parquet: a FIFO": "blocks for ever, in a thread",
        "failures.jsonl: a *": "TypeError, ValueError, blocks for ever",
        "failures.jsonl: n*": "TypeError, RecursionError, UnicodeDecodeError",
        "failures.jsonl: NUL": "JSONDecodeError",
        "failures: a failure without fields": "TypeError",
        "failures: a failure with more": "TypeError",
        "failures: a line that is none": "JSONDecodeError",
        "config: 3,000 unknown keys": "3,000 problems",
        "failures: a failure of numbers": "taken as it is, against its annotation",
        "part: * that are null": "taken as they are, TypeError later",
        "part: motion that is null": "taken as it is, TypeError later",
        "part: signals cut short": "ValueError",
        "part: holds null": "TypeError",
        "part: another text": "TypeError",
        "a folder named a.tmp": "IsADirectoryError",
    },
}


def matches(name: str, pattern: str) -> bool:
    """Returns whether a name is of a pattern, in which [ is itself."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def is_broken(kind: str, name: str) -> bool:
    """Returns whether a case is among the broken ones."""
    return any(matches(name, pattern) for pattern in BROKEN.get(kind, ()))


def without(kind: str, cases: Iterable[Case]) -> Iterator[Case]:
    """Yields the cases that are not broken."""
    return (case for case in cases if not is_broken(kind, case.name))
