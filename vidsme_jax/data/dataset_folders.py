"""Finds TFDS datasets on disk, without importing TFDS."""

import os
import pathlib
import re
import stat
from collections.abc import Sequence

from vidsme_jax.base import AuditError
from vidsme_jax.wording import nearest

_INFO = "**/dataset_info.json"
_NUMBER = r"(0|[1-9]\d*)"
_MOST_BYTES = 1 << 24  # Of a file that describes a dataset.
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}")


def root() -> pathlib.Path:
    """Returns the folder of TFDS's datasets, from the environment at the call."""
    given = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(given).expanduser()


def parse(source: str) -> tuple[str, str]:
    """Returns the dataset's path and the split of a source.

    Raises:
      AuditError: It is not of the form `tfds:NAME[:CONFIG][:VERSION]/SPLIT`.

    Example:
      >>> parse("tfds:a:small/train[:10%]")
      ('a/small', 'train[:10%]')
    """
    name, _, split = source.removeprefix("tfds:").rpartition("/")
    if not name or not split:
        raise AuditError(["it must be tfds:NAME[:CONFIG]/SPLIT, such as tfds:a/train"])
    return name.replace(":", "/"), split


def find(source: str) -> pathlib.Path:
    """Returns the folder of the newest version of a source's dataset.

    Raises:
      AuditError: There is none, or it needs a config.
    """
    name, folder = parse(source)[0], root() / parse(source)[0]
    while folder.is_dir() and not (folder / "dataset_info.json").is_file():
        inside = [path for path in folder.iterdir() if any(path.glob(_INFO))]
        numbered = [path for path in inside if _VERSION.fullmatch(path.name)]
        if numbered:
            folder = max(numbered, key=_numbers)
        elif len(inside) == 1:
            folder = inside[0]
        else:
            known = ", ".join(sorted(path.name for path in inside)) or "nothing"
            raise AuditError([f"{folder} needs a config; it has {known}"])
    if not folder.is_dir():
        found = sorted({path.parent for path in root().glob(f"*/{_INFO}")})
        known = [path.relative_to(root()).parts[0] for path in found]
        names = ", ".join(dict.fromkeys(known)) or "nothing"
        hint = nearest(name.split("/")[0], known)
        where = f"{root()} (TFDS_DATA_DIR), which has {names}{hint}"
        raise AuditError([f"no dataset {name!r} in {where}"])
    return folder


def _numbers(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split(".")))


def check_size(path: pathlib.Path) -> None:
    """Checks a file that describes a dataset: regular, at most 16 MiB.

    Raises:
      ValueError: It is not.
      OSError: It cannot be read.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    if about.st_size > _MOST_BYTES:
        raise ValueError(
            f"{path.name} has {about.st_size} bytes; at most {_MOST_BYTES} are read"
        )


def check_lengths(files: Sequence[pathlib.Path], lengths: Sequence[int]) -> None:
    """Checks the claimed number of records of each file against its size in bytes.

    Raises:
      ValueError: A file would have more records than bytes; names the first.
    """
    for path, count in zip(files, lengths, strict=True):
        size = path.stat().st_size if path.is_file() else 0
        if not 0 <= count <= size:
            raise ValueError(
                f"dataset_info.json claims {count} examples in {path.name}, which has "
                f"{size} bytes"
            )
