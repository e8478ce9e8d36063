"""Finds the clips of canary sets, without decoding them."""

import os
import pathlib
from typing import NamedTuple

from vidsme_jax.base import AuditError
from vidsme_jax.canary import key
from vidsme_jax.data import names, sources
from vidsme_jax.data.manifest_rows import Row


class InputClip(NamedTuple):
    """A clip to make a canary set of.

    Attributes:
      name: The name of its set; unique.
      path: Its file.
      rows: Its rows in the manifest.
    """

    name: str
    path: pathlib.Path
    rows: tuple[Row, ...]


def check_folder(out: pathlib.Path) -> None:
    """Checks that a folder is empty or missing.

    Raises:
      AuditError: It is neither.
    """
    if (out / key.FILE).exists():
        problem = "holds the key of a canary set, which is never overwritten"
        raise AuditError([f"--out: {out} {problem}; take another folder"])
    if out.exists() and not out.is_dir():
        raise AuditError([f"--out: {out} is not a folder; take another one"])
    if out.exists() and any(out.iterdir()):
        problem = "is not empty and holds no key: no canary set was finished in it"
        raise AuditError([f"--out: {out} {problem}; delete it, or take another folder"])


def find(source: str, number: int) -> list[InputClip]:
    """Returns the clips of a manifest, a folder, a pattern or one file.

    Args:
      source: A source as in `corpus.members`.
      number: The number of variants of each clip.

    Raises:
      AuditError: There are none or too many, or some are missing or parts of files;
        lists every problem.
    """
    found = sources.read(source, None, ())
    problems, by_path = list(found.problems), dict[pathlib.Path, list[Row]]()
    if sources.is_address(source):
        problem = "a dataset or a URL has no files to mark"
        raise AuditError([f"--clips: {source}: {problem}; take a manifest or a folder"])
    for row in found.rows:
        path = pathlib.Path(os.path.abspath(row.folder / row.video))
        if row.segment is not None:
            problem = "is a part of a video; cut it out first"
            problems.append(f"{row.where}: {row.video} {problem}")
        elif not path.is_file():
            problems.append(f"{row.where}: no such file: {path}{names.near(path)}")
        else:
            by_path.setdefault(path, []).append(row)
    if number * len(by_path) > key.MOST:
        made = f"{len(by_path)} clips with --variants {number}"
        most = f"a key holds at most {key.MOST} variants"
        problems.append(f"{made}: {most}; take fewer of either")
    if problems:
        raise AuditError(problems)
    taken = set[str]()
    return [InputClip(_name(p.stem, taken), p, tuple(x)) for p, x in by_path.items()]


def _name(stem: str, taken: set[str]) -> str:
    """Returns a name that no other set has, also if case is ignored."""
    name, count = stem, 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}"
    taken.add(name.casefold())
    return name
