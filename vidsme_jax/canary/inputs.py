"""The clips that canary sets are made of, as far as that takes no decoder."""

import os
import pathlib
from typing import NamedTuple

from vidsme_jax.base import AuditError
from vidsme_jax.canary import key
from vidsme_jax.data import names, sources
from vidsme_jax.data.manifest_rows import Row


class InputClip(NamedTuple):
    """A clip.

    Attributes:
      name: Of its set; unique.
      path: Of the file.
      rows: That ask about it.
    """

    name: str
    path: pathlib.Path
    rows: tuple[Row, ...]


def check_folder(out: pathlib.Path) -> None:
    """Refuses a folder that holds anything.

    Raises:
      AuditError: It does, or is no folder.
    """
    if (out / key.FILE).exists():
        held = "holds the key of a canary set, which is never written over"
        raise AuditError([f"{out} {held}; take another --out"])
    if out.exists() and not out.is_dir():
        raise AuditError([f"{out} is no folder; take another --out"])
    if out.exists() and any(out.iterdir()):
        held = "is not empty and holds no key, so that no canary set was finished in it"
        raise AuditError([f"{out} {held}; delete it, or take another --out"])


def find(source: str, number: int) -> list[InputClip]:
    """Returns the clips of a manifest, a folder, a pattern or one file.

    Args:
      source: As an audit takes it.
      number: Of variants of each.

    Raises:
      AuditError: There is none, some are not there or not whole files, or they are too
        many; lists every problem.
    """
    found = sources.read(source, None, ())
    problems, by_path = list(found.problems), dict[pathlib.Path, list[Row]]()
    if sources.is_address(source):
        raise AuditError([f"{source}: a prepared corpus has no files to mark"])
    for row in found.rows:
        path = pathlib.Path(os.path.abspath(row.folder / row.video))
        if row.segment is not None:
            problems.append(f"{row.where}: a part of a video; cut it out first")
        elif not path.is_file():
            problems.append(f"{row.where}: no such file: {path}{names.near(path)}")
        else:
            by_path.setdefault(path, []).append(row)
    if number * len(by_path) > key.MOST:
        made = f"{len(by_path)} clips of {number} variants"
        problems.append(f"{made}: a key holds {key.MOST} variants at most")
    if problems:
        raise AuditError(problems)
    taken = set[str]()
    return [InputClip(_name(p.stem, taken), p, tuple(x)) for p, x in by_path.items()]


def _name(stem: str, taken: set[str]) -> str:
    """Returns a name that no other set has, also where case does not count."""
    name, count = stem, 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}"
    taken.add(name.casefold())
    return name
