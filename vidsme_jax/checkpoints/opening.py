"""Opens a checkpoint of any form: a whole model, or a LoRA adapter and its base."""

from collections.abc import Callable, Mapping
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import adapters, files, refused, weights


def open_checkpoint(
    name: str,
    *,
    allow_pickle: bool = False,
    adapter: bool = True,
    refuse: Callable[[Mapping[str, Any]], str] = refused.reason,
) -> files.Checkpoint:
    """Opens a local folder, or a hub id after fetching it into the hub's cache.

    Args:
      name: A folder, `OWNER/NAME`, or `OWNER/NAME/FOLDER` inside a hub repository.
      allow_pickle: Whether `.bin` files may be read, with `pickled`.
      adapter: Whether a LoRA adapter is merged: its low-rank updates and the modules
        that it saved in full. If False, the checkpoint must have an adapter;
        `non_lora_trainables.bin` is read in both cases.
      refuse: Returns why a model is not read, by its `config.json`; "" if it is.

    Raises:
      AuditError: Lists every problem: there is no such checkpoint, or its config or
        weights cannot be read. Weights of a refused model are not fetched.
    """
    small = files.find(name, files.SMALL_FILES)  # Weights may be hundreds of gigabytes.
    if (small / "config.json").is_file():
        if why := refuse(files.read_config(name, small)):
            raise AuditError([f"checkpoint {name}: {why}"])
    folder = files.find(name, files.patterns(allow_pickle))
    if problem := weights.left_over_adapter(folder):
        raise AuditError([f"checkpoint {name}: {problem}"])
    if (folder / "adapter_config.json").is_file():
        return adapters.open_adapter(name, folder, allow_pickle, merged=adapter)
    if not adapter:
        problem = f"no LoRA adapter to leave out (no adapter_config.json in {folder})"
        raise AuditError([f"checkpoint {name}: {problem}"])
    config = files.read_config(name, folder)
    remarks: list[str] = []
    tensors = files.read_tensors(
        name, folder, allow_pickle=allow_pickle, remarks=remarks
    )
    return files.Checkpoint(name, (folder,), config, tensors, tuple(remarks))
