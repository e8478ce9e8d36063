"""Where the TFDS datasets on disk are; nothing here imports TFDS."""

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
_SHOWN = 20
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}")


def root() -> pathlib.Path:
    """Where TFDS keeps datasets; read anew, since the environment may be set late."""
    given = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(given).expanduser()


def parse(source: str) -> tuple[str, str]:
    """NAME[/CONFIG][/VERSION] and the split of `tfds:NAME[:CONFIG][:VERSION]/SPLIT`."""
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
    """Raises a ValueError unless what describes a dataset is a file of some size."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path.name} is no regular file")
    if about.st_size > _MOST_BYTES:
        raise ValueError(
            f"{path.name} has {about.st_size} bytes; at most {_MOST_BYTES} are read"
        )


def check_lengths(files: Sequence[pathlib.Path], lengths: Sequence[int]) -> None:
    """Checks how many records files should have against the bytes that are there.

    Raises:
      ValueError: Some should have more records than bytes; names the first.
    """
    for path, count in zip(files, lengths, strict=True):
        size = path.stat().st_size if path.is_file() else 0
        if not 0 <= count <= size:
            raise ValueError(
                f"dataset_info.json claims {count} examples in {path.name}, which has "
                f"{size} bytes"
            )
