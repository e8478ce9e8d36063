"""Adapters that PEFT made on tiny random models, and PEFT's own logits."""

import copy
import functools
import json
import pathlib
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from oracles import llava_next_video, llava_onevision, llava_qwen
from vidsme_jax.checkpoints import opening
from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.demo import drawing
from vidsme_jax.models.llava_hf import params

BEFORE, AFTER = (1, 5, 9), (7, 8)
SIZES = {"llava_next_video": 56, "llava_onevision": 70, "llava_qwen": 56}
# The names of the oracle's parts in the original format.
_ORIGINAL = (
    (r"^decoder\.", ""),
    (r"^mm_projector\.", "model.mm_projector."),
    (r"^tower\.", llava_qwen.TOWER),
)
# Names in the memory of transformers before 4.52, which are those of its files.
_OLD = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head", "language_model.lm_head"),
    (r"^model\.vision_tower\.", "vision_tower.vision_model."),
    (r"^model\.", ""),
)
_PREFIX = "base_model.model."
_HEAD = "language_model.lm_head.weight"  # Its canonical name.
torch.set_num_threads(1)  # On tiny models more only wait for one another.


class Made(NamedTuple):
    """An adapter's folder, and the model that PEFT trained."""

    folder: pathlib.Path
    model: Any
    family: str
    fresh: Callable[[], Any]  # Returns the model before the training.

    @property
    def pixels(self) -> torch.Tensor:
        """Two frames, normalised."""
        size = SIZES[self.family]
        return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))

    def logits(self, model: Any = None) -> np.ndarray:
        """Returns a model's logits of all rows (text, a video, text); PEFT's."""
        model = self.model if model is None else model
        if self.family == "llava_qwen":
            with torch.no_grad():
                return model(BEFORE, self.pixels, AFTER).numpy()
        run = _MODULES[self.family].logits
        return run(model, BEFORE, self.pixels, AFTER).numpy()


_MODULES: dict[str, Any] = {
    "llava_next_video": llava_next_video,
    "llava_onevision": llava_onevision,
}


def base(family: str, folder: pathlib.Path, dialect: str = "A", **made) -> Any:
    """Writes a tiny model with a tokenizer and returns it."""
    if family == "llava_qwen":
        model = llava_qwen.make_model(**made)
        llava_qwen.save(model, folder)
    elif family == "llava_onevision":
        model = llava_onevision.make_model(**made)
        llava_onevision.save(model, folder, dialect)
    else:
        model = llava_next_video.make_model(**made)
        model.config.video_token_index = drawing.TOKENS.index("<video>")
        llava_next_video.save(model, folder, dialect)
        drawing.tokenizer_files(folder)
    return model


def make(
    family: str,
    folder: pathlib.Path,
    *,
    dialect: str = "A",
    old: bool = False,
    tied: bool = False,
    prepare: Callable[[Any], Any] = lambda model: None,
    start: Callable[[Any], Any] = lambda trained: None,
    save: dict[str, Any] | None = None,
    **lora,
) -> Made:
    """Trains an adapter for a step of noise and saves it with PEFT.

    Args:
      family: Of the base.
      folder: Receives the folders "base" and "adapter".
      dialect: Of the base's names.
      old: Whether the adapter's names are those of transformers before 4.52.
      tied: Whether the base's output layer is its embedding.
      prepare: What is done to the base's model before PEFT sees it.
      start: What is done to PEFT's model before the training.
      save: Arguments of PEFT's `save_pretrained`.
      lora: Arguments of `LoraConfig`.
    """
    import peft

    kind = {"tied": True} if tied else {}
    model = base(family, folder / "base", dialect, **kind)
    known = {"r": 4, "lora_alpha": 6, "init_lora_weights": False}
    config = peft.LoraConfig(**(known | lora))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That embeddings are tied, or saved.
        prepare(model)
        before = copy.deepcopy(model)
        torch.manual_seed(3)
        trained = peft.get_peft_model(model, config).eval()
        trained.peft_config["default"].base_model_name_or_path = str(folder / "base")
        start(trained)
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        trained.save_pretrained(folder / "adapter", **(save or {}))
    _rename(folder / "adapter", family, old)
    return Made(
        folder / "adapter", trained, family, functools.partial(copy.deepcopy, before)
    )


def change(folder: pathlib.Path, **keys) -> None:
    """Changes keys of an `adapter_config.json`."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def tensors(
    folder: pathlib.Path,
    changes: Callable[[dict], dict],
    name: str = "adapter_model.safetensors",
) -> None:
    """Changes the tensors of an adapter, or of another file."""
    file = folder / name
    save_file(changes(load_file(file)), file, metadata={"format": "pt"})


def compare(made: Made) -> Any:
    """Holds the merged tensors, run in the oracle, against PEFT's model.

    That is quicker than compiling each model. Returns the checkpoint, not yet merged.
    """
    checkpoint = opening.open_checkpoint(str(made.folder))
    merged = checkpoint.merged(Names(params.canonical, (), {})).tensors
    named = {params.canonical(name): info for name, info in merged.items()}
    assert len(named) == len(merged)
    model = made.fresh()
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    if tied and _HEAD in named:
        assert not checkpoint.config["text_config"]["tie_word_embeddings"]
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            info = named.pop(params.canonical(name))
            value = info.read()
            parameter.copy_(torch.tensor(value))
            part = tuple(slice(n // 3, n - n // 4) for n in info.shape)
            np.testing.assert_allclose(info.read(part), value[part], atol=1e-6)
    assert not named
    expected = made.logits()
    assert expected.std() > 0.5, "weights too small for errors to show"
    assert np.abs(expected - made.logits(made.fresh())).max() > 0.05
    np.testing.assert_allclose(made.logits(model), expected, atol=1e-4)
    return checkpoint


def tower_elsewhere(made: Made) -> None:
    """Moves the tower's tensors of the original format into the tower's own folder."""
    base = made.folder.parent / "base"
    tensors(
        base,
        lambda found: {k: found[k] for k in found if "vision_tower" not in k},
        "model.safetensors",
    )
    llava_qwen.tower_files(made.fresh(), base / "tower", weights=True)


def _rename(folder: pathlib.Path, family: str, old: bool) -> None:
    renames = _ORIGINAL if family == "llava_qwen" else _OLD if old else ()

    def renamed(key: str) -> str:
        key = key.removeprefix(_PREFIX)
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        return _PREFIX + key

    tensors(folder, lambda found: {renamed(k): t for k, t in found.items()})
