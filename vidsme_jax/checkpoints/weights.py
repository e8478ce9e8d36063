"""Finds the weight files of a folder, or describes what is missing.

The order is that of `transformers`: `model.safetensors`, else the files that
`model.safetensors.index.json` names, else `pytorch_model.bin`, else the files that
`pytorch_model.bin.index.json` names. Other files (variants, forms of other
programs, a left-over adapter) are not read.
"""

import dataclasses
import pathlib
import re

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.content import listed, read_json

_LONGEST_FILE = 255  # Bytes of a file's name.
# Parts of names that wrappers of torch add: compile, DataParallel and DeepSpeed, FSDP,
# activation checkpointing.
_WRAPPERS = frozenset(
    "_orig_mod module _fsdp_wrapped_module _fpw_module _checkpoint_wrapped_module "
    "_forward_module".split()
)
# Other forms of weights by the pattern of their files, each with the remedy.
_FORMS = {
    "*.gguf": "GGUF, the form of llama.cpp: give the safetensors it was made from",
    "mm_projector.bin": "a projector alone, as the first stage of a LLaVA training "
    "leaves it: give the folder of the whole model",
    "non_lora_trainables.bin": "one half of a LoRA training: adapter_config.json and "
    "adapter_model.safetensors are missing",
    "adapter_model.*": "an adapter without its adapter_config.json: copy it from the "
    "training",
    "zero_to_fp32.py": "a DeepSpeed checkpoint: `python zero_to_fp32.py . .` there "
    "writes pytorch_model.bin",
    "*.distcp": "shards of FSDP: `accelerate merge-weights` joins them",
    "pytorch_model_fsdp_0": "shards of FSDP: `accelerate merge-weights` joins them",
    "tf_model.h5": "weights of TensorFlow: load them with transformers 4 "
    "(from_tf=True) and save them with save_pretrained",
    "flax_model*.msgpack": "weights of Flax: load them with transformers 4 "
    "(from_flax=True) and save them with save_pretrained",
    "*.onnx": "ONNX: give the safetensors it was exported from",
    "onnx": "ONNX: give the safetensors it was exported from",
    "*.pth": "a torch file under a name of its own: save the model with "
    "save_pretrained",
    "*.pt": "a torch file under a name of its own: save the model with save_pretrained",
    "*.ckpt": "a torch file under a name of its own: save the model with "
    "save_pretrained",
}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The weight files of one folder.

    Attributes:
      files: In the order of their names.
      promised: The index, {tensor: file}; empty without one.
      index: The name of the index, "" without one.
      aside: Names of weight files of the same form that are not read.
    """

    files: tuple[pathlib.Path, ...]
    promised: dict[str, str]
    index: str = ""
    aside: tuple[str, ...] = ()

    @property
    def remark(self) -> str:
        """The sentence for the report about files that are not read, "" for none."""
        if not self.aside:
            return ""
        read = self.index or ", ".join(path.name for path in self.files)
        return (
            f"weights: {read} {'is' if self.index or len(self.files) == 1 else 'are'} "
            f"read, as transformers does; not read: {listed(self.aside)}"
        )


def plain(name: str) -> str:
    """Returns the name of a tensor without the parts that wrappers of torch add.

    Example:
      >>> plain("module._orig_mod.model.layers.0._orig_mod.mlp.up_proj.weight")
      'model.layers.0.mlp.up_proj.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def choose(folder: pathlib.Path, stem: str, suffix: str) -> Chosen | None:
    """Returns the weight files of one form, or None if there are none.

    Shards without an index are read if they are complete.

    Args:
      folder: Of the files.
      stem: Beginning of their names: "model" or "pytorch_model".
      suffix: "safetensors" or "bin".

    Raises:
      AuditError: The index names no files, or shards without one are incomplete.
    """
    single, index = f"{stem}.{suffix}", f"{stem}.{suffix}.index.json"
    if (folder / single).is_file():
        files, promised, read = [single], {}, ""
    elif (folder / index).is_file():
        promised = _weight_map(folder / index, suffix)
        files, read = sorted(set(promised.values())), index
    else:
        files, promised, read = _shards(folder, stem, suffix), {}, ""
    if not files:
        return None
    present = {path.name for path in folder.glob(f"*.{suffix}") if path.is_file()}
    if (folder / index).is_file():
        present.add(index)
    aside = sorted(present - {*files, read}) if suffix == "safetensors" else []
    paths = tuple(folder / name for name in files)
    return Chosen(paths, promised, read, tuple(aside))


def has_model(folder: pathlib.Path) -> str:
    """Returns the name of a weight file of a whole model in a folder, or ""."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        for name in (f"{stem}.{suffix}", f"{stem}.{suffix}.index.json"):
            if (folder / name).is_file():
                return name
        for path in sorted(folder.glob(f"{stem}-*-of-*.{suffix}")):
            return path.name
    return ""


def left_over_adapter(folder: pathlib.Path) -> str:
    """Returns the problem of a folder with a whole model and an adapter, or ""."""
    model = has_model(folder)
    if not model or not (folder / "adapter_config.json").is_file():
        return ""
    return (
        f"{model} and adapter_config.json are in one folder, {folder}: transformers "
        "adds the adapter to this model if PEFT is installed, and ignores it if not; "
        "if it is merged already, move adapter_config.json away; if not, move it and "
        "the adapter's weights to another folder, with this one as "
        "base_model_name_or_path"
    )


def missing(chosen: Chosen) -> str:
    """Returns the problem of missing files that the index names, or ""."""
    absent = [path.name for path in chosen.files if not path.is_file()]
    if not absent:
        return ""
    total = len(chosen.files)
    return (
        f"{len(absent)} of the {total} files that {chosen.index} names "
        f"{'is' if len(absent) == 1 else 'are'} missing: {listed(absent)}; fetch "
        f"{'it' if len(absent) == 1 else 'them'} (`hf download` resumes)"
    )


def nothing(folder: pathlib.Path, allow_pickle: bool) -> str:
    """Returns the problem of a folder without weight files that are read.

    Args:
      folder: In which `choose` found nothing.
      allow_pickle: Whether pickled weights may be read.
    """
    wanted = "model.safetensors"
    hints = []
    pickled = sorted(p.name for p in folder.glob("pytorch_model*.bin"))
    if pickled and not allow_pickle:
        hints.append(
            f"found pickled weights ({listed(pickled)}), which "
            "--config.model.allow_pickle=true reads"
        )
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    if allow_pickle:
        others += pickled
    adapters = [name for name in others if name.startswith("adapter_model")]
    if others and not adapters:
        hints.append(
            f"found {listed(others)}, which transformers does not read by "
            f"{'this name' if len(others) == 1 else 'these names'} either: if it is "
            f"this model's, rename it to {wanted}"
        )
    for pattern, what in _FORMS.items():
        found = sorted(path.name for path in folder.glob(pattern))
        if found and not hints:
            hints.append(f"found {listed(found)}: {what}")
    hints += [hint] if (hint := deeper(folder)) else []
    if not hints:
        present = sorted(path.name for path in folder.iterdir())
        hints.append(f"found {listed(present)}" if present else "the folder is empty")
    lacking = f"no {wanted} in {folder}, no {wanted}.index.json with its shards"
    if allow_pickle or not pickled:  # Else a hint names them and their remedy.
        needed = "" if allow_pickle else " (with --config.model.allow_pickle=true)"
        lacking += f", and no pytorch_model.bin or shards of it{needed}"
    return "; ".join([lacking, *hints])


def deeper(folder: pathlib.Path) -> str:
    """Returns a hint at checkpoints in folders inside a folder, or ""."""
    names = ("config.json", "adapter_config.json")
    found = []
    for pattern in ("*", "snapshots/*"):
        for inner in sorted(folder.glob(pattern), key=_by_number):
            if inner.is_dir() and any((inner / name).is_file() for name in names):
                found.append(str(inner.relative_to(folder)))
    if not found:
        return ""
    return f"found a checkpoint in {listed(found)}: give {folder / found[-1]}"


def _by_number(path: pathlib.Path) -> tuple[int, str]:
    """Returns a key that sorts `checkpoint-1000` after `checkpoint-200`."""
    number = re.search(r"(\d+)$", path.name)
    return int(number[1]) if number and len(number[1]) < 16 else -1, path.name


def _shards(folder: pathlib.Path, stem: str, suffix: str) -> list[str]:
    """Returns the names of a complete set of shards; [] if there are none."""
    pattern = re.compile(rf"{re.escape(stem)}-(\d{{1,5}})-of-(\d{{1,5}})\.{suffix}")
    matches = [m for p in folder.iterdir() if (m := pattern.fullmatch(p.name))]
    if not matches:
        return []
    totals = sorted({int(match[2]) for match in matches})
    numbers = {int(match[1]) for match in matches}
    names = sorted(match[0] for match in matches)
    index = f"{stem}.{suffix}.index.json"
    if len(totals) > 1 or len(numbers) < len(names):
        problem = f"shards of several sets ({listed(names)}) and no {index}"
        raise AuditError([f"{folder}: {problem}; fetch the index"])
    if lost := sorted(set(range(1, totals[0] + 1)) - numbers):
        problem = (
            f"{len(lost)} of {totals[0]} shards are missing (number "
            f"{listed([str(k) for k in lost])}), and there is no {index}"
        )
        raise AuditError([f"{folder}: {problem}; fetch them"])
    return names


def _weight_map(index: pathlib.Path, suffix: str) -> dict[str, str]:
    """Returns the file of each tensor; files must be in the folder itself."""
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        problem = f"weight_map is {content.shown(found)}, expected {{tensor: file}}"
        raise AuditError([f"{index}: {problem}; fetch it again"])
    strange = [
        name
        for name in dict.fromkeys(map(str, found.values()))
        if name != pathlib.PurePath(name).name
        or not name.endswith(f".{suffix}")
        or len(name.encode(errors="replace")) > _LONGEST_FILE
    ]
    if strange:
        problem = f"is not the name of a .{suffix} file in the same folder"
        found = [f"{index}: {content.shown(name)} {problem}" for name in strange]
        raise AuditError(content.limited(found, "such names"))
    return found
