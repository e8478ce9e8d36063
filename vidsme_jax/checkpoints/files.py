"""Finding a checkpoint and reading what its files say about themselves.

Only headers are read here; `loading` reads the tensors.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from safetensors import SafetensorError, safe_open

from vidsme_jax.base import AuditError

_SAMPLES, _SAMPLE_BYTES = 64, 65_536  # Of each weight file, for the fingerprint.
_SHOWN = 5  # Faulty names that are told.
_MAX_JSON = 1 << 26  # Bytes of a config or an index: 64 MiB.
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and what its header says."""

    file: pathlib.Path
    shape: tuple[int, ...]
    dtype: str  # As safetensors names it: "F32", "BF16", "F16", ...


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder: its config and the headers of its tensors."""

    name: str  # As asked for.
    folder: pathlib.Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def json(self, *names: str) -> dict[str, Any] | None:
        """Returns the first of the named JSON files that exists, parsed, or None."""
        for name in names:
            if (self.folder / name).is_file():
                return _read_json(self.folder / name)
        return None

    def fingerprint(self) -> str:
        """Returns a SHA-256 over the small files and samples of the weight files.

        Of each weight file: its size, its first 64 KiB (the header) and 64 blocks of
        64 KiB at equal distances: enough to tell checkpoints apart, and quick.
        """
        digest = hashlib.sha256()
        small = [p for p in self.folder.glob("*.json") if p.is_file()]
        for path in sorted(small):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        for path in sorted({info.file for info in self.tensors.values()}):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                for k in range(_SAMPLES + 1):
                    file.seek(max(0, (size - _SAMPLE_BYTES) * k // _SAMPLES))
                    digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()


def open_checkpoint(name: str) -> Checkpoint:
    """Opens a local folder, or a hub id after fetching it into the hub's cache.

    Raises:
      AuditError: Nothing is there, or its config or weights cannot be read; lists every
        problem.
    """
    folder = _folder(name)
    if not (folder / "config.json").is_file():
        raise AuditError([f"checkpoint {name}: no config.json in {folder}"])
    config = _read_json(folder / "config.json")
    problems: list[str] = []
    tensors = _headers(folder, problems)
    if problems:
        raise AuditError([f"checkpoint {name}: {problem}" for problem in problems])
    return Checkpoint(name, folder, config, tensors)


def _folder(name: str) -> pathlib.Path:
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise AuditError([f"checkpoint {name}: a file, expected a folder"])
    parts = name.split("/")
    if len(parts) not in (2, 3) or name.startswith((".", "/", "~")):
        raise AuditError([f"checkpoint {name}: no such folder, and no hub id"])
    from huggingface_hub import snapshot_download

    # A third part is a folder inside the repository.
    repository, inside = "/".join(parts[:2]), parts[2:]
    patterns = [f"{inside[0]}/{p}" for p in _HUB_FILES] if inside else _HUB_FILES
    try:
        root = snapshot_download(repository, allow_patterns=patterns)
    except Exception as error:  # The hub client raises many kinds; all mean "not had".
        cause = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise AuditError(
            [
                f"checkpoint {name}: no such folder, and the hub did not give it "
                f"({type(error).__name__}: {cause})"
            ]
        ) from error
    return pathlib.Path(root, *inside)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > _MAX_JSON:
            raise ValueError(f"{size} bytes; at most {_MAX_JSON} are read")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AuditError([f"{path}: not readable as JSON ({error})"]) from error
    if not isinstance(value, dict):
        raise AuditError([f"{path}: expected an object, found {type(value).__name__}"])
    return value


def _weight_map(index: pathlib.Path, problems: list[str]) -> dict[str, str]:
    """Which file has which tensor; files must be in the folder itself."""
    found = _read_json(index).get("weight_map", {})
    if not isinstance(found, dict):
        problems.append(f"{index.name}: weight_map must be an object")
        return {}
    strange = [
        name
        for name in dict.fromkeys(map(str, found.values()))
        if name != pathlib.PurePath(name).name or not name.endswith(".safetensors")
    ]
    for name in strange[:_SHOWN]:
        problems.append(
            f"{index.name}: {name!r} is no name of a .safetensors file beside it"
        )
    return {} if strange else found


def _headers(folder: pathlib.Path, problems: list[str]) -> dict[str, TensorInfo]:
    """Reads the header of every weight file that the index (if any) names."""
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    promised: dict[str, str] = {}
    if index.is_file():
        promised = _weight_map(index, problems)
        files = [folder / name for name in sorted(set(promised.values()))]
    if not files:
        pickled = [p.name for p in sorted(folder.glob("*.bin"))]
        found = f"; found pickled weights ({', '.join(pickled)})" if pickled else ""
        problems.append(f"no .safetensors file in {folder}{found}")
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        if not file.is_file():
            problems.append(f"{file.name}: named by the index but not there")
            continue
        try:
            with safe_open(file, framework="numpy") as opened:
                for name in opened.keys():
                    if name in tensors:
                        problems.append(f"{name}: in {tensors[name].file.name} too")
                    piece = opened.get_slice(name)
                    shape = tuple(piece.get_shape())
                    tensors[name] = TensorInfo(file, shape, piece.get_dtype())
        except (SafetensorError, OSError) as error:
            problems.append(f"{file.name}: damaged ({error})")
    if not problems:
        for name in sorted(set(promised) - set(tensors)):
            problems.append(f"{name}: promised by the index, absent from its file")
    return tensors
