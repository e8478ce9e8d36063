"""Finds checkpoints and reads their configs and the headers of their weights.

`loading` reads the tensors. A folder holds a whole model (`config.json`, `.safetensors`
or, if allowed, pickled `.bin` files) or a LoRA adapter: see `adapters`.
"""

import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from safetensors import SafetensorError

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content, headers, pickled, quantised, weights
from vidsme_jax.checkpoints.content import read_json
from vidsme_jax.checkpoints.tensors import TensorInfo
from vidsme_jax.store import regular
from vidsme_jax.wording import nearest

_LONGEST_NAME = 1024  # Characters of a tensor's name.
_MOST_FOLDERS = 10_000  # Searched for a similar name.
_BLOCK = 2**20  # Bytes of a small file that are read at a time.
_SAMPLES, _SAMPLE_BYTES = 64, 65_536  # Of each weight file, for the fingerprint.
_WEIGHTS = ("*.safetensors", "*.bin")
SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its config and the headers of its tensors.

    Attributes:
      name: The path or hub id that it was opened by.
      folders: Searched for its small files, in order.
      config: Its `config.json`.
      tensors: By name.
      remarks: Sentences for the report.
      adapter: Returns the tensors merged with an adapter, given these and a
        `loading.Names`; None if there is no adapter, or it is merged.
    """

    name: str
    folders: tuple[pathlib.Path, ...]
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    remarks: tuple[str, ...] = ()
    adapter: Callable[[dict[str, TensorInfo], Any], dict[str, TensorInfo]] | None = None

    @property
    def folder(self) -> pathlib.Path:
        """The folder of `config.json`."""
        for folder in self.folders:
            if (folder / "config.json").is_file():
                return folder
        return self.folders[0]

    def merged(self, names: Any) -> "Checkpoint":
        """Returns the checkpoint with its adapter merged, if it has one.

        Args:
          names: Of the model's tensors, a `loading.Names`.

        Raises:
          AuditError: Lists the adapter's tensors that do not fit.
        """
        if self.adapter is None:
            return self
        tensors = self.adapter(self.tensors, names)
        return dataclasses.replace(self, tensors=tensors, adapter=None)

    def small_files(self, *names: str) -> list[pathlib.Path]:
        """Returns the named small files that exist, in order of precedence.

        The order is by name, then by folder: a base's `video_preprocessor_config.json`
        precedes an adapter's `preprocessor_config.json`, and of one name the adapter's
        file precedes the base's.
        """
        paths = (folder / name for name in names for folder in self.folders)
        return [path for path in paths if path.is_file()]

    def json(self, *names: str) -> dict[str, Any] | None:
        """Returns the first of `small_files`, parsed, or None."""
        paths = self.small_files(*names)
        return read_json(paths[0]) if paths else None

    def error(self, *problems: str) -> AuditError:
        """Returns an error that lists problems, each with the checkpoint's name."""
        named = (
            p if p.startswith("config.model.") else f"checkpoint {self.name}: {p}"
            for p in problems
        )
        return AuditError(list(named))

    def fingerprint(self) -> str:
        """Returns a SHA-256 over the small files and samples of the large ones.

        Samples are taken of weight files, and of JSON files over 128 MiB: the size and
        65 blocks of 64 KiB at equal distances, the first of which has the header. This
        distinguishes checkpoints, and is fast.
        """
        digest = hashlib.sha256()
        for folder in self.folders:
            for path in sorted(p for p in folder.glob("*.json") if p.is_file()):
                digest.update(path.name.encode(errors="surrogateescape") + b"\0")
                whole = path.stat().st_size <= content.LARGEST_JSON
                (_digest_all if whole else _digest_samples)(digest, path)
        used = (info.files for info in self.tensors.values())
        for path in sorted(frozenset[pathlib.Path]().union(*used)):
            _digest_samples(digest, path)
        return digest.hexdigest()


def _digest_all(digest: Any, path: pathlib.Path) -> None:
    with regular.opened(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)


def _digest_samples(digest: Any, path: pathlib.Path) -> None:
    with regular.opened(path) as file:
        size = file.seek(0, 2)
        name = path.name.encode(errors="surrogateescape")
        digest.update(name + f"\0{size}\0".encode())
        for k in range(_SAMPLES + 1):
            file.seek(max(0, (size - _SAMPLE_BYTES) * k // _SAMPLES))
            digest.update(file.read(_SAMPLE_BYTES))


def patterns(allow_pickle: bool) -> tuple[str, ...]:
    """Returns the patterns of the files to fetch from a hub repository."""
    return (*SMALL_FILES, "*.safetensors", *(("*.bin",) if allow_pickle else ()))


def find(
    name: str,
    wanted: Iterable[str],
    near: pathlib.Path | None = None,
    revision: str | None = None,
) -> pathlib.Path:
    """Returns a local folder, or that of a hub repository after fetching it.

    Args:
      name: A path, or a hub id.
      wanted: Patterns of the files to fetch from a repository.
      near: A folder that a relative path is resolved against first.
      revision: Branch, tag or commit of a hub repository; None: its main branch.

    Raises:
      AuditError: There is no such folder or repository, or a small file is no regular
        file, a pointer of git-lfs or has a byte-order mark.
    """
    try:
        tried = [pathlib.Path(name).expanduser()]
        if near is not None:
            tried.insert(0, near / tried[0])
        for folder in tried:
            if folder.is_dir():
                return _checked(name, folder.resolve())
            if folder.exists():
                problem = f"a file, expected a folder: give {folder.parent}"
                raise AuditError([f"checkpoint {name}: {problem}"])
    except (OSError, RuntimeError) as error:  # Unknown user, or too long a name.
        problem = f"no such folder ({content.name(str(error))})"
        raise AuditError([f"checkpoint {content.name(name)}: {problem}"]) from error
    parts = name.rstrip("/").split("/")
    if len(parts) not in (2, 3) or name.startswith((".", "/", "~")):
        problem = "no such folder, and not a Hugging Face id (OWNER/NAME)"
        raise AuditError([f"checkpoint {name}: {problem}{_similar(tried)}"])
    from huggingface_hub import snapshot_download

    # A third part is a folder inside the repository.
    repository, inside = "/".join(parts[:2]), parts[2:]
    chosen = [f"{inside[0]}/{p}" for p in wanted] if inside else list(wanted)
    try:
        root = snapshot_download(repository, revision=revision, allow_patterns=chosen)
    except Exception as error:  # The hub client raises many kinds.
        cause = str(error).strip().splitlines()[0] if str(error).strip() else ""
        problem = (
            f"checkpoint {name}: no such folder, and the hub did not give it "
            f"({type(error).__name__}: {cause}){_similar(tried)}"
        )
        raise AuditError([problem]) from error
    folder = pathlib.Path(root, *inside)
    if not folder.is_dir():
        problem = f"{repository} has no folder {'/'.join(inside)}"
        raise AuditError([f"checkpoint {name}: {problem}"])
    return _checked(name, folder)


def _similar(tried: Iterable[pathlib.Path]) -> str:
    """Returns a hint at a folder with a name similar to one that does not exist."""
    for path in tried:
        siblings = itertools.islice(path.parent.glob("*"), _MOST_FOLDERS)
        folders = [p.name for p in siblings if p.is_dir()]
        if hint := nearest(path.name, folders):
            return hint
    return ""


def _checked(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns a folder; raises an `AuditError` if its small files cannot be read.

    If one is a pointer of git-lfs, so are the weights: the error names all.
    """
    small = [p for pattern in SMALL_FILES for p in sorted(folder.glob(pattern))]
    heavy = [p for pattern in _WEIGHTS for p in sorted(folder.glob(pattern))]
    if problem := regular.problem([*small, *heavy]):
        raise AuditError([f"checkpoint {name}: {problem}"])
    problem = content.mark_problem(small)
    if any(map(content.is_pointer, small)):
        problem = content.pointer_problem(
            [p for p in (*small, *heavy) if content.is_pointer(p)]
        )
    if problem:
        raise AuditError([f"checkpoint {name}: {problem}"])
    return folder


def read_config(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Reads the `config.json` of a folder.

    Args:
      name: Of the checkpoint, for messages.
      folder: Of the file.

    Raises:
      AuditError: There is none, or as of `content.read_json`.
    """
    if not (folder / "config.json").is_file():
        hint = weights.deeper(folder)
        problem = f"no config.json in {folder}" + (f"; {hint}" if hint else "")
        raise AuditError([f"checkpoint {name}: {problem}"])
    return read_json(folder / "config.json")


def read_tensors(
    name: str,
    folder: pathlib.Path,
    *,
    allow_pickle: bool,
    remarks: list[str] | None = None,
) -> dict[str, TensorInfo]:
    """Reads the headers of the weight files that `weights` chooses.

    Args:
      name: Of the checkpoint.
      folder: Of the files.
      allow_pickle: Whether pickled weights may be read.
      remarks: Receives sentences for the report.

    Returns:
      The tensors by their names as of `weights.plain`.

    Raises:
      AuditError: Files are missing, damaged or no weights at all; tensors are stored
        twice, absent, or quantised.
    """
    try:
        chosen = weights.choose(folder, "model", "safetensors")
        if chosen is None and allow_pickle:
            chosen = weights.choose(folder, "pytorch_model", "bin")
    except AuditError as error:
        raise AuditError([f"checkpoint {name}: {p}" for p in error.problems]) from error
    if chosen is None:
        problem = weights.nothing(folder, allow_pickle)
        raise AuditError([f"checkpoint {name}: {problem}"])
    if remarks is not None and chosen.remark:
        remarks.append(chosen.remark)
    pointers = [path for path in chosen.files if content.is_pointer(path)]
    damaged, twice = [], []
    tensors: dict[str, TensorInfo] = {}
    stored: set[str] = set()
    for file in chosen.files:
        if not file.is_file() or file in pointers:
            continue
        for key, info in open_file(file, allow_pickle, damaged).items():
            stored.add(key)
            clean = weights.plain(key)
            if clean in tensors:
                other = tensors[clean]
                named, one, two = map(content.name, (clean, other.name, key))
                twice.append(
                    f"{named}: stored twice, as {one} in {other.file.name} and as "
                    f"{two} in {file.name}"
                )
            tensors[clean] = info
    problems = [problem] if (problem := weights.missing(chosen)) else []
    problems += [content.pointer_problem(pointers)] if pointers else []
    problems += content.limited(damaged, "damaged files")
    problems += content.limited(twice, "tensors that are stored twice")
    if not problems:
        lost = sorted(set(chosen.promised) - stored)
        lost = [f"{key}: in the index, but not in its file" for key in lost]
        problems += content.limited(lost, "tensors that the index promises")
        if not tensors:
            names = content.listed([file.name for file in chosen.files])
            problems.append(f"no tensor in {names}: fetch the weights again")
    if problems:
        raise AuditError([f"checkpoint {name}: {problem}" for problem in problems])
    quantised.refuse(name, folder, tensors)
    return tensors


def open_file(
    file: pathlib.Path, allow_pickle: bool, problems: list[str]
) -> dict[str, TensorInfo]:
    """Reads the header of one weight file; returns the tensors by their names there.

    Args:
      file: A `.safetensors`, or a `.bin` that torch wrote.
      allow_pickle: Whether pickled weights may be read.
      problems: Receives the problem of a file that cannot be read.
    """
    if file.suffix == ".bin" and not allow_pickle:
        problems.append(
            f"{file.name} is pickled; --config.model.allow_pickle=true reads it "
            "(without running any of its code)"
        )
        return {}
    try:
        if file.suffix == ".bin":
            found = {
                key: TensorInfo(file, key, tensor.shape, tensor.dtype, tensor)
                for key, tensor in pickled.headers(file).items()
            }
        else:
            found = {
                key: TensorInfo(file, key, shape, dtype)
                for key, (shape, dtype) in headers.read(file).items()
            }
        if long := next((key for key in found if len(key) > _LONGEST_NAME), ""):
            raise ValueError(
                f"the name of a tensor has {len(long)} characters, at most "
                f"{_LONGEST_NAME} are read: {content.name(long)}"
            )
        return found
    except (SafetensorError, OSError, ValueError) as error:
        problems.append(content.damage(file, error))
        return {}
