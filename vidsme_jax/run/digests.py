"""Writes and checks the digest of a work directory: the SHA-256 of each file of a run.

`digests.json` is written last, and deleted before any file that it lists is replaced,
so that a folder either matches it or was changed by another program. Its own digest
covers the whole folder: kept in another place, in a filing or with a notary, it proves
that nothing was changed since.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.run import sealed
from vidsme_jax.store import files, regular
from vidsme_jax.wording import printable

FILE = "digests.json"
_RESULTS = ("report.html", "metrics.json", "scores.csv", "scores.parquet")
_OTHERS = ("config.json", "declaration.json", "verdict.json", "failures.jsonl")
_FOLDERS = ("figures", "signals", "signals-reference", "answers", "tables", "shares")
_RUNS = (".lock", ".process-")  # Begin the names of what runs need while they go on.
_SHOWN = 5  # Names in a sentence.
_FIELDS: dict[str, sealed.Test] = {
    "files": lambda value: (
        bool(value) and sealed.values_of(sealed.having(sha256=sealed.is_digest))(value)
    )
}


def write(
    workdir: pathlib.Path, hashed: Callable[[pathlib.Path], str] = regular.sha256
) -> str:
    """Writes the digest of a work directory, and returns it.

    Args:
      workdir: The folder of a finished run.
      hashed: Returns the SHA-256 of a file, such as `Hashes.of`.

    Raises:
      OSError: A file cannot be read, or the digest cannot be written.
    """
    found = {name: {"sha256": hashed(workdir / name)} for name in _names(workdir)}
    return sealed.write(workdir / FILE, {"files": found})["digest"]


def withdraw(workdir: pathlib.Path) -> None:
    """Deletes the digest before files that it lists are replaced.

    Raises:
      OSError: It cannot be deleted.
    """
    (workdir / FILE).unlink(missing_ok=True)


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the content of `digests.json`.

    Raises:
      AuditError: It is not there, or was changed.
    """
    found = sealed.read(workdir / FILE, _FIELDS)
    if found is None:
        problem = f"no {FILE}, so that no report was finished there"
        raise AuditError([f"{printable(str(workdir))}: {problem}"])
    if (workdir / FILE).read_bytes() != sealed.text(found):
        problem = "it says the same, but is not as it was written"
        raise AuditError([f"{printable(str(workdir / FILE))}: {problem}"])
    return found


def differences(workdir: pathlib.Path, record: dict[str, Any]) -> list[str]:
    """Returns a sentence for each file that is not as a digest says.

    Args:
      workdir: The folder of a finished run.
      record: The result of `read`.
    """
    listed, there = record["files"], _names(workdir)
    found: list[str] = []
    for name in sorted({*listed, *there}):
        shown = printable(name)
        if name not in there:
            found.append(f"{shown} is missing")
        elif name not in listed:
            found.append(f"{shown} was added since the digest was written")
        else:
            try:
                same = regular.sha256(workdir / name) == listed[name]["sha256"]
            except OSError as error:
                found.append(f"{shown} cannot be read ({printable(str(error), 100)})")
                continue
            if not same:
                found.append(f"{shown} is not as it was written")
    return found


def check_results(workdir: pathlib.Path) -> None:
    """Raises an `AuditError` if results that would be replaced were changed.

    A folder without a digest, and files that were deleted, raise nothing.
    """
    if not (workdir / FILE).exists():
        return
    listed = read(workdir)["files"]
    own = (x for x in listed if x in _RESULTS or x.startswith("figures/"))
    changed = [name for name in own if _is_other(workdir / name, listed[name])]
    if changed:
        more = len(changed) - _SHOWN
        names = ", ".join(map(printable, changed[:_SHOWN]))
        names += f" and {more} more" if more > 0 else ""
        raise AuditError(
            [
                f"{printable(str(workdir))}: {names}: changed since the run wrote "
                "them, and a new report would overwrite that; move them elsewhere, "
                "or delete them"
            ]
        )


def fit(workdir: pathlib.Path, folder: str) -> bool:
    """Returns whether the files of a folder are those that the digest lists.

    Nothing can be said where there is no digest: then they are.
    """
    if not (workdir / FILE).exists():
        return True
    try:
        listed = read(workdir)["files"]
    except AuditError:
        return False
    own = {name for name in listed if name.startswith(f"{folder}/")}
    if (workdir / folder).is_symlink():
        return False
    there = {f"{folder}/{path.name}" for path in (workdir / folder).glob("*")}
    return own == there and not any(_is_other(workdir / x, listed[x]) for x in own)


def _is_other(path: pathlib.Path, its: dict[str, str]) -> bool:
    """Returns whether a file is there and has another content than was listed."""
    try:
        return regular.sha256(path) != its["sha256"]
    except FileNotFoundError:
        return False
    except OSError:  # A folder or a link in its place, say.
        return True


def _names(workdir: pathlib.Path) -> list[str]:
    """Returns the files of runs in a work directory, relative to it, sorted."""

    def found() -> Iterator[pathlib.Path]:
        yield from (workdir / name for name in (*_RESULTS, *_OTHERS))
        for name in _FOLDERS:
            yield workdir / name  # A link in its place is an entry, a folder none.
            yield from (workdir / name).rglob("*")

    return sorted(
        path.relative_to(workdir).as_posix()
        for path in found()
        if _is_entry(path) and not files.is_partial(path.name)
    )


def others(workdir: pathlib.Path) -> list[str]:
    """Returns the other files of a work directory, such as notes of its owner."""
    own = {FILE, *_RESULTS, *_OTHERS, *_FOLDERS}
    names = (path.name for path in workdir.iterdir() if path.name not in own)
    return sorted(printable(x) for x in names if not x.startswith(_RUNS))


def _is_entry(path: pathlib.Path) -> bool:
    """Returns whether there is anything but a folder; links are not followed."""
    return path.is_symlink() or (path.exists() and not path.is_dir())
