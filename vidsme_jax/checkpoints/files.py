"""Finding a checkpoint and reading what its files say about themselves.

Only headers are read here; `loading` reads the tensors. A folder holds a whole model
(`config.json`, `.safetensors` or, if allowed, pickled `.bin` files) or what a LoRA
training left: see `adapters`.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from safetensors import SafetensorError, safe_open

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import pickled
from vidsme_jax.checkpoints.tensors import TensorInfo

_SAMPLES, _SAMPLE_BYTES = 64, 65_536  # Of each weight file, for the fingerprint.
_SHOWN = 5  # Faulty names in a message.
_SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
_LARGEST_JSON = 2**27


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its config and the headers of its tensors.

    Attributes:
      name: As asked for.
      folders: Where its small files are looked for, the nearest first.
      config: Its `config.json`.
      tensors: By name.
      remarks: What a reader should know.
      adapter: Returns the tensors with those of an adapter, given the names of the
        model's tensors; None: there is none, or it is merged.
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
        """Returns the checkpoint with its adapter on its tensors, if it has one.

        Args:
          names: Of the model's tensors, a `loading.Names`.

        Raises:
          AuditError: Lists what of the adapter does not fit.
        """
        if self.adapter is None:
            return self
        tensors = self.adapter(self.tensors, names)
        return dataclasses.replace(self, tensors=tensors, adapter=None)

    def json(self, *names: str) -> dict[str, Any] | None:
        """Returns the first of the named JSON files that exists, parsed, or None."""
        for folder in self.folders:
            for name in names:
                if (folder / name).is_file():
                    return read_json(folder / name)
        return None

    def error(self, *problems: str) -> AuditError:
        """Returns the error that lists problems, each with the checkpoint's name."""
        named = (
            p if p.startswith("config.model.") else f"checkpoint {self.name}: {p}"
            for p in problems
        )
        return AuditError(list(named))

    def fingerprint(self) -> str:
        """Returns a SHA-256 over the small files and samples of the weight files.

        Of each weight file: its size, its first 64 KiB (the header) and 64 blocks of
        64 KiB at equal distances: enough to tell checkpoints apart, and quick.
        """
        digest = hashlib.sha256()
        for folder in self.folders:
            for path in sorted(p for p in folder.glob("*.json") if p.is_file()):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
        used = (info.files for info in self.tensors.values())
        for path in sorted(frozenset[pathlib.Path]().union(*used)):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                for k in range(_SAMPLES + 1):
                    file.seek(max(0, (size - _SAMPLE_BYTES) * k // _SAMPLES))
                    digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()


def patterns(allow_pickle: bool) -> tuple[str, ...]:
    """What to fetch of a hub repository."""
    return (*_SMALL_FILES, "*.safetensors", *(("*.bin",) if allow_pickle else ()))


def find(
    name: str,
    wanted: Iterable[str],
    near: pathlib.Path | None = None,
    revision: str | None = None,
) -> pathlib.Path:
    """Returns a local folder, or that of a hub repository after fetching it.

    Args:
      name: A path, or a hub id.
      wanted: Patterns of what to fetch of a repository.
      near: A folder that a relative path is tried against first.
      revision: Branch, tag or commit of a hub repository; None: its main branch.

    Raises:
      AuditError: There is no such thing.
    """
    tried = [pathlib.Path(name).expanduser()]
    if near is not None:
        tried.insert(0, near / tried[0])
    for folder in tried:
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
    chosen = [f"{inside[0]}/{p}" for p in wanted] if inside else list(wanted)
    try:
        root = snapshot_download(repository, revision=revision, allow_patterns=chosen)
    except Exception as error:  # The hub client raises many kinds; all mean "not had".
        cause = str(error).strip().splitlines()[0] if str(error).strip() else ""
        problem = (
            f"checkpoint {name}: no such folder, and the hub did not give it "
            f"({type(error).__name__}: {cause})"
        )
        raise AuditError([problem]) from error
    folder = pathlib.Path(root, *inside)
    if not folder.is_dir():
        raise AuditError([f"checkpoint {name}: {repository} has no such folder"])
    return folder


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file that must hold an object."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"over {_LARGEST_JSON >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AuditError([f"{path}: not readable as JSON ({error})"]) from error
    if not isinstance(value, dict):
        raise AuditError([f"{path}: expected an object, found {type(value).__name__}"])
    return value


def read_config(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Reads the `config.json` of a folder; `name` is for messages."""
    if not (folder / "config.json").is_file():
        raise AuditError([f"checkpoint {name}: no config.json in {folder}"])
    return read_json(folder / "config.json")


def read_tensors(
    name: str,
    folder: pathlib.Path,
    *,
    allow_pickle: bool,
    stems: tuple[str, str] = ("model", "pytorch_model"),
) -> dict[str, TensorInfo]:
    """Reads the header of every weight file that the index (if any) names.

    Args:
      name: Of the checkpoint.
      folder: Of the files.
      allow_pickle: Whether pickled weights may be read.
      stems: How names of files begin: of safetensors, and of pickled ones.
    """
    problems: list[str] = []
    files, promised = _weight_files(folder, stems[0], "safetensors")
    if not files and allow_pickle:
        files, promised = _weight_files(folder, stems[1], "bin")
    if not files:
        found = ", ".join(p.name for p in sorted(folder.glob("*.bin")))
        hint = f"; found pickled weights ({found})" if found else ""
        if found and not allow_pickle:
            hint += ", which --config.model.allow_pickle=true admits"
        problems.append(f"no .safetensors file in {folder}{hint}")
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        if not file.is_file():
            problems.append(f"{file.name}: named by the index but not there")
            continue
        for key, info in open_file(file, allow_pickle, problems).items():
            if key in tensors:
                problems.append(f"{key}: in {tensors[key].file.name} too")
            tensors[key] = info
    if not problems:
        for key in sorted(set(promised) - set(tensors)):
            problems.append(f"{key}: promised by the index, absent from its file")
    if problems:
        raise AuditError([f"checkpoint {name}: {problem}" for problem in problems])
    return tensors


def _weight_files(
    folder: pathlib.Path, stem: str, suffix: str
) -> tuple[list[pathlib.Path], dict[str, str]]:
    """Returns the weight files of one format and what an index promises of them."""
    index = folder / f"{stem}.{suffix}.index.json"
    if index.is_file():
        promised = _weight_map(index, suffix)
        return [folder / name for name in sorted(set(promised.values()))], promised
    pattern = "*.safetensors" if suffix == "safetensors" else f"{stem}*.bin"
    return sorted(folder.glob(pattern)), {}


def _weight_map(index: pathlib.Path, suffix: str) -> dict[str, str]:
    """Which file has which tensor; files must be in the folder itself."""
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        problem = "weight_map is no object that names the file of each tensor"
        raise AuditError([f"{index}: {problem}"])
    strange = [
        name
        for name in dict.fromkeys(map(str, found.values()))
        if name != pathlib.PurePath(name).name or not name.endswith(f".{suffix}")
    ]
    what = f"is no name of a .{suffix} file beside it"
    if strange:
        raise AuditError([f"{index}: {name!r} {what}" for name in strange[:_SHOWN]])
    return found


def open_file(
    file: pathlib.Path, allow_pickle: bool, problems: list[str]
) -> dict[str, TensorInfo]:
    if file.suffix == ".bin" and not allow_pickle:
        problems.append(
            f"{file.name} is pickled; --config.model.allow_pickle=true admits it (its "
            "tensors are read without running anything of it)"
        )
        return {}
    try:
        if file.suffix == ".bin":
            return {
                key: TensorInfo(file, key, found.shape, found.dtype, found)
                for key, found in pickled.headers(file).items()
            }
        with safe_open(file, framework="numpy") as opened:
            pieces = {key: opened.get_slice(key) for key in opened.keys()}
            return {
                key: TensorInfo(file, key, tuple(piece.get_shape()), piece.get_dtype())
                for key, piece in pieces.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        problems.append(f"{file.name}: damaged ({error})")
        return {}
