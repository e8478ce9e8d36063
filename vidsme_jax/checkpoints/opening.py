"""Opens a checkpoint, whatever form it has: a whole model, or a LoRA on top of one."""

import dataclasses
import pathlib

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import adapters, files


def open_checkpoint(
    name: str, *, allow_pickle: bool = False, adapter: bool = True
) -> files.Checkpoint:
    """Opens a local folder, or a hub id after fetching it into the hub's cache.

    Args:
      name: A folder, `OWNER/NAME`, or `OWNER/NAME/FOLDER` inside a hub repository.
      allow_pickle: Whether `.bin` files may be read, with `pickled`.
      adapter: Whether the adapter of a LoRA training counts: its low-rank updates and
        the modules that it saved in full. Without it the checkpoint must have one; what
        `non_lora_trainables.bin` holds is kept.

    Raises:
      AuditError: Nothing is there, or its config or weights cannot be read; lists every
        problem.
    """
    folder = files.find(name, files.patterns(allow_pickle))
    others = sorted(p.parent.name for p in folder.glob("*/adapter_config.json"))
    if (folder / "adapter_config.json").is_file():
        _check_alone(name, folder)
        found = adapters.open_adapter(name, folder, allow_pickle, merged=adapter)
        remark = f"adapters in folders inside it are not read: {', '.join(others)}"
        remarks = found.remarks + ((remark,) if others else ())
        return dataclasses.replace(found, remarks=remarks)
    if not adapter:
        problem = "no LoRA adapter to leave out (no adapter_config.json)"
        raise AuditError([f"checkpoint {name}: {problem}"])
    if others and not (folder / "config.json").is_file():
        listed = ", ".join(others)
        problem = f"no config.json in {folder}, but adapters in its folders ({listed})"
        raise AuditError([f"checkpoint {name}: {problem}; give {name}/{others[0]}"])
    config = files.read_config(name, folder)
    tensors = files.read_tensors(name, folder, allow_pickle=allow_pickle)
    return files.Checkpoint(name, (folder,), config, tensors)


def _check_alone(name: str, folder: pathlib.Path) -> None:
    """Refuses an adapter beside a whole model: which of the two is meant is open."""
    patterns = ("model*.safetensors", "pytorch_model*.bin")
    whole = sorted(p.name for pattern in patterns for p in folder.glob(pattern))
    if whole:
        problem = (
            f"{folder} holds a whole model ({whole[0]}) and an adapter "
            "(adapter_config.json); if the adapter is merged into the model already, "
            "move adapter_config.json away, else the model"
        )
        raise AuditError([f"checkpoint {name}: {problem}"])
