"""Finds the files of `hf:` sources: saved datasets, and Parquet as on the hub.

`hf:PATH` is a folder that `datasets` has saved or cached, a folder of Parquet in the
layout of the Hugging Face hub (`data/train-00000-of-00002.parquet`), one file of either
kind, or a pattern; `hf:PATH/SPLIT` is a split of a folder. The files themselves are not
read here.
"""

import glob
import json
import os
import pathlib
import re
from typing import Any, NamedTuple

from vidsme_jax.base import AuditError
from vidsme_jax.data import dataset_folders, folders, names
from vidsme_jax.wording import nearest, printable

SCHEME = "hf:"
SUFFIXES = (".parquet", ".arrow")
_SHOWN = 20  # Splits in a message.
_MOST_FILES = 100_000  # Of a split.
# The suffix after the split in a file's name: number, total, hash.
_NUMBERED = re.compile(r"[-_.]?\d+(-of-\d+)?(-[0-9a-f]{16})?$")
_TRANSFORMED = ("cache-", "tmp")  # Prefixes of derived files in the cache.


class Located(NamedTuple):
    """The files of one split.

    Attributes:
      name: The name in a report: FOLDER/SPLIT.
      folder: The base of relative paths of videos.
      files: In order, of one kind.
    """

    name: str
    folder: pathlib.Path
    files: list[pathlib.Path]


def find(source: str) -> Located:
    """Returns the files of a source.

    Args:
      source: `hf:PATH` or `hf:PATH/SPLIT`.

    Raises:
      AuditError: There is no such dataset or split, or PATH has several splits.
    """
    given = source.removeprefix(SCHEME)
    if not given.strip() or "\0" in given:
        raise AuditError(["it must be hf:PATH or hf:PATH/SPLIT, such as hf:films/test"])
    path = names.configured(given)
    if os.path.isdir(path):
        if (path.parent / "dataset_dict.json").exists():
            return _located(path.parent, path.name, _of_split(path.parent, path.name))
        found = splits(path)
        if len(found) == 1:
            ((name, files),) = found.items()
            return _located(path, name, files)
        raise AuditError([_choose(path, found) if found else _nothing_in(path)])
    if os.path.isfile(path):
        if path.suffix.lower() not in SUFFIXES:
            raise AuditError([f"no Parquet or Arrow file ({', '.join(SUFFIXES)})"])
        return _located(path.parent, path.stem, [path])
    if glob.has_magic(given):
        matches = map(pathlib.Path, folders.Search().matches(str(path)))
        files = [each for each in matches if each.suffix.lower() in SUFFIXES]
        if not files:
            raise AuditError(["the pattern matches no Parquet or Arrow file"])
        return _located(files[0].parent, path.stem, files)
    if os.path.isdir(path.parent):
        files = _of_split(path.parent, path.name)
        return _located(path.parent, path.name, files)
    why = names.why_missing(path.absolute()) or names.near(path)
    raise AuditError([f"no such folder, file or split: {path}{why}"])


def short_name(source: str) -> str:
    """Returns the last two parts of a source's path, without its suffix.

    Example:
      >>> short_name("hf:/data/films/test"), short_name("hf:a.parquet")
      ('films/test', 'a')
    """
    parts = pathlib.PurePath(source.removeprefix(SCHEME)).with_suffix("").parts
    return "/".join(parts[-2:])


def is_row(key: str) -> bool:
    """Returns whether the key of a clip is the address of a row."""
    return key.startswith(SCHEME)


def file_of(address: str) -> pathlib.Path:
    """Returns the file of a row's dataset."""
    return pathlib.Path(address.removeprefix(SCHEME).rpartition("/")[0])


def splits(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the files of each split of a folder by name; "" for an unnamed split.

    Raises:
      AuditError: The description of the dataset is damaged, or names files elsewhere.
    """
    try:
        if (folder / "state.json").exists():
            return {"": _saved(folder)}
        if (folder / "dataset_dict.json").exists():
            about = _json(folder / "dataset_dict.json")
            listed = [_plain(name) for name in _list_of(about, "splits")]
            return {name: _saved(folder / name) for name in listed}
        for place in (folder, folder / "data"):
            if found := _by_name(place):
                return found
        return _in_folders(folder)
    except (OSError, ValueError) as error:
        raise AuditError([f"{folder}: {error}"]) from error


def _of_split(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
    """Returns the files of a split; raises an `AuditError` if there is none."""
    there = splits(folder)
    if split in there:
        return there[split]
    if there and list(there) != [""]:
        near = nearest(split, list(there)) or names.near(folder / split)
        raise AuditError(
            [f"no split {split!r} in {folder}; it has {_listed(there)}{near}"]
        )
    path = folder / split
    why = names.why_missing(path.absolute()) or names.near(path)
    raise AuditError([f"no such folder, file or split: {path}{why}"])


def _located(folder: pathlib.Path, split: str, files: list[pathlib.Path]) -> Located:
    if len(files) > _MOST_FILES:
        raise AuditError([f"{len(files)} files; at most {_MOST_FILES} are read"])
    name = pathlib.Path(os.path.abspath(folder)).name
    return Located(f"{name}/{split}" if split else name, folder, files)


def _saved(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that `Dataset.save_to_disk` has written."""
    about = _json(folder / "state.json")
    if about.get("_indices_data_files") or about.get("_indices_files"):
        raise ValueError(
            "state.json selects rows by a file of indices, as `datasets` before 2.0 "
            "wrote it; save it again with a newer version, which stores the selection"
        )
    found = []
    for each in _list_of(about, "_data_files"):
        name = each.get("filename") if isinstance(each, dict) else None
        found.append(folder / _plain(name))
    if not found:
        raise ValueError("state.json names no data file; save the dataset again")
    if missing := [path.name for path in found if not path.is_file()]:
        raise ValueError(
            f"state.json names files that are missing: {names.some(missing, 3)}"
        )
    return found


def _by_name(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the files in a folder by the split in their names."""
    if not folder.is_dir():
        return {}
    there = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for suffix in SUFFIXES:
        found: dict[str, list[pathlib.Path]] = {}
        for path in there:
            if path.suffix.lower() != suffix or not path.is_file():
                continue
            split = _NUMBERED.sub("", path.stem)
            if suffix == ".arrow":  # NAME-train, as in the cache.
                if path.name.startswith(_TRANSFORMED):
                    continue
                split = split.rpartition("-")[2]
            found.setdefault(split, []).append(path)
        if found:
            return found
    return {}


def _in_folders(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the files of the subfolders, each of them a split."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        if (path / "state.json").exists():
            found[path.name] = _saved(path)
        elif files := _by_name(path):
            found |= {
                f"{path.name}/{split}" if len(files) > 1 else path.name: listed
                for split, listed in files.items()
            }
    return found


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        dataset_folders.check_size(path)
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent.name} has no {path.name}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is damaged (it is not a JSON object)")
    return found


def _list_of(about: dict[str, Any], key: str) -> list[Any]:
    found = about.get(key)
    if not isinstance(found, list) or len(found) > _MOST_FILES:
        raise ValueError(f"{key!r} is not a list of at most {_MOST_FILES} entries")
    return found


def _plain(name: Any) -> str:
    """Returns a name if it is that of a direct child of a folder, else raises."""
    is_name = isinstance(name, str) and "\0" not in name
    is_name = is_name and name == os.path.basename(name)
    if not is_name or name in ("", os.curdir, os.pardir) or names.unencodable(name):
        shown = printable(repr(name), 80)
        raise ValueError(f"{shown} is not the name of a file in the folder")
    return name


def _choose(folder: pathlib.Path, found: dict[str, list[pathlib.Path]]) -> str:
    first = next(iter(found))
    return f"it has several splits: {_listed(found)}; name one: hf:{folder}/{first}"


def _listed(found: dict[str, list[pathlib.Path]]) -> str:
    return printable(names.some(found, _SHOWN), 1000)


def _nothing_in(folder: pathlib.Path) -> str:
    return (
        f"{folder} has no dataset: neither the files of `Dataset.save_to_disk` "
        "(state.json, dataset_dict.json) nor .parquet or .arrow files, in it or in its "
        "folder data"
    )
