"""Opens a checkpoint, whatever form it has: a whole model, or a LoRA on top of one."""

from collections.abc import Callable, Mapping
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import adapters, files, refused, weights


def open_checkpoint(
    name: str,
    *,
    allow_pickle: bool = False,
    adapter: bool = True,
    judge: Callable[[Mapping[str, Any]], str] = refused.reason,
) -> files.Checkpoint:
    """Opens a local folder, or a hub id after fetching it into the hub's cache.

    Args:
      name: A folder, `OWNER/NAME`, or `OWNER/NAME/FOLDER` inside a hub repository.
      allow_pickle: Whether `.bin` files may be read, with `pickled`.
      adapter: Whether the adapter of a LoRA training counts: its low-rank updates and
        the modules that it saved in full. Without it the checkpoint must have one; what
        `non_lora_trainables.bin` holds is kept.
      judge: Returns of a `config.json` why the model is not read, "" if it may be.

    Raises:
      AuditError: Nothing is there, or its config or weights cannot be read; lists every
        problem. Of a model that is judged unreadable no weights are fetched.
    """
    small = files.find(name, files.SMALL_FILES)  # Weights may be hundreds of gigabytes.
    if (small / "config.json").is_file():
        if why := judge(files.read_config(name, small)):
            raise AuditError([f"checkpoint {name}: {why}"])
    folder = files.find(name, files.patterns(allow_pickle))
    if problem := weights.left_over_adapter(folder):
        raise AuditError([f"checkpoint {name}: {problem}"])
    if (folder / "adapter_config.json").is_file():
        return adapters.open_adapter(name, folder, allow_pickle, merged=adapter)
    if not adapter:
        problem = "no LoRA adapter to leave out (no adapter_config.json)"
        raise AuditError([f"checkpoint {name}: {problem}"])
    config = files.read_config(name, folder)
    remarks: list[str] = []
    tensors = files.read_tensors(
        name, folder, allow_pickle=allow_pickle, remarks=remarks
    )
    return files.Checkpoint(name, (folder,), config, tensors, tuple(remarks))
