"""What training writes: models that were changed, clips, and factors of adapters."""

import copy
import json
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx

from oracles import every_row
from tiled import placed
from vidsme_jax import models
from vidsme_jax.checkpoints import files, layouts, trees
from vidsme_jax.finetune import export
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.rows import Rows, Shown
from vidsme_jax.run.stacking import seen

RANK, ALPHA, FRAMES = 3, 6, 3


class Exported(NamedTuple):
    """A model that was changed and written.

    Attributes:
      source: What it began from.
      loaded: The changed model.
      folder: Where it was written.
    """

    source: files.Checkpoint
    loaded: LoadedModel
    folder: pathlib.Path


def changed(state: nnx.State, scale: float = 0.1) -> nnx.State:
    """Returns parameters with noise of a tenth of their size and more."""
    out = {}
    for place, (path, leaf) in enumerate(trees.flat(state).items()):
        rng, value = np.random.default_rng([7, place]), np.asarray(leaf)
        size = scale * max(0.2, float(np.abs(value).mean()))
        out[path] = jnp.asarray(value + size * rng.standard_normal(leaf.shape, "f4"))
    return trees.fill(copy.deepcopy(state), out)


def exported(
    name: str, folder: pathlib.Path, *, dtype: str = "float32", **more: Any
) -> Exported:
    """Loads a checkpoint, changes it and writes it."""
    source = models.open_checkpoint(name)
    model = models.describe(source, dtype="float32")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    loaded = model.load(lambda *_: device)
    state = changed(loaded.state)
    export.whole(folder, source, model, state, dtype=dtype, **more)
    return Exported(source, LoadedModel(model, loaded.graphdef, state), folder)


def assert_equal(one: nnx.State, other: nnx.State) -> None:
    """Compares parameters bit by bit."""
    one_flat, other_flat = trees.flat(one), trees.flat(other)
    assert one_flat.keys() == other_flat.keys()
    for path, value in one_flat.items():
        np.testing.assert_array_equal(value, other_flat[path], err_msg=path)


class Clip:
    """A clip of noise as a model is shown it, and its logits of all rows."""

    def __init__(self, loaded: LoadedModel):
        """Prepares it and compiles the model."""
        model = self.model = loaded.model
        rng = np.random.default_rng(0)
        frames = rng.integers(0, 256, (FRAMES, 60, 80, 3), np.uint8)
        self.cut, order = model.prepare(frames), np.arange(FRAMES)
        times = tuple(0.5 * k for k in range(FRAMES))
        known = Shown(FRAMES, times, 0.5 * FRAMES) if model.timed else Shown(FRAMES)
        self.shown = seen(model, self.cut, known)
        prompt = model.tokenise(None, self.shown)
        self.rows: Rows = every_row(model.lay_out(self.shown, prompt, order))
        shape = Shape.of(self.rows)
        batch = stack(*placed(model, [self.rows], self.cut, [order]), shape)
        self._batch = jax.tree.map(jnp.asarray, batch)

        @jax.jit
        def run(state, batch):
            module = nnx.merge(loaded.graphdef, state)
            hidden, _ = module.read(module.see(batch.pixels), batch)
            return hidden[0, 0] @ module.head.T

        self._run = run

    def ours(self, state: nnx.State) -> np.ndarray:
        """Returns the package's logits."""
        return np.asarray(self._run(state, self._batch))[: len(self.rows.feature)]

    def theirs(self, model: Any) -> np.ndarray:
        """Returns those of a model of transformers, or of PEFT around one."""
        config = model.config
        images = self.model.family in ("internvl", "smolvlm")
        kind = "image" if images else "video"
        token = getattr(config, f"{kind}_token_id", None)
        token = config.video_token_index if token is None else token
        ids = np.where(self.rows.feature >= 0, token, self.rows.token).tolist()
        if self.model.tiling is not None:
            given = self._patches()
        else:
            module = nnx.eval_shape(lambda: self.model.make(nnx.Rngs(0)))
            mean, std = module.config.image_mean, module.config.image_std
            pixels = (self.cut / np.float32(255) - np.float32(mean)) / np.float32(std)
            pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
            pixels = pixels if self.model.family == "internvl" else pixels[None]
            given = {"pixel_values" + "_videos" * (not images): pixels}
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids]), **given).logits[0].numpy()

    def _patches(self) -> dict[str, Any]:
        """Returns the clip as the classes of Qwen's kind take it."""
        tiling, single = self.model.tiling, self.model.family == "video_llama_3"
        assert tiling is not None
        group, size = 1 if single else 2, tiling.patch_size
        cut = np.pad(self.cut, [(0, len(self.cut) % group)] + [(0, 0)] * 3, "edge")
        cut = cut.reshape(-1, group, *self.shown.grid, 4, size, size, 3)
        cut = cut.transpose(0, 2, 3, 4, 7, 1, 5, 6).astype(np.float32) / np.float32(255)
        config = nnx.eval_shape(lambda: self.model.make(nnx.Rngs(0))).config
        shape = 3, 1, 1, 1
        mean, std = (
            np.asarray(x, np.float32).reshape(shape)
            for x in (config.image_mean, config.image_std)
        )
        pixels = torch.tensor(((cut - mean) / std).reshape(-1, 3 * group * size**2))
        grid = torch.tensor([[len(cut), *(2 * side for side in self.shown.grid)]])
        given: dict[str, Any] = {"pixel_values_videos": pixels}
        given["video_grid_thw"] = grid
        if single:
            return given | {"video_merge_sizes": torch.tensor([2])}
        places = torch.from_numpy(np.asarray(self.rows.position.T, np.int64))
        return given | {"position_ids": places[:, None]}


def in_torch(folder: pathlib.Path, family: str, dtype: Any = torch.float32) -> Any:
    """Loads a folder in transformers, which may find nothing missing or left over."""
    kind = getattr(transformers, export.CLASSES[family])
    raw = json.loads((folder / "config.json").read_text())
    assert raw["architectures"] == [kind.__name__] and "torch_dtype" not in raw
    model, info = kind.from_pretrained(folder, output_loading_info=True, dtype=dtype)
    assert not any(info.values()), info
    return model.eval()


def factors_of(model: Model, only: str = "") -> dict[str, tuple[np.ndarray, ...]]:
    """Returns noise for all linear layers but those of other paths."""
    leaves, rng = trees.flat(model.abstract()[1]), np.random.default_rng(3)
    out = {}
    for rule in model.names.rules:
        if rule.path not in leaves or rule.layout is not layouts.LINEAR:
            continue
        *stack_, inputs, outputs = leaves[rule.path].shape
        if only in rule.path:
            a = rng.standard_normal((*stack_, inputs, RANK), np.float32)
            b = rng.standard_normal((*stack_, RANK, outputs), np.float32)
            out[rule.path.removesuffix("/kernel")] = (a / inputs**0.5, b / 10)
    return out


def merged(state: nnx.State, factors, scale: float) -> nnx.State:
    """Returns parameters with the products of the factors added."""
    out = dict(trees.flat(state))
    for path, (a, b) in factors.items():
        out[f"{path}/kernel"] = out[f"{path}/kernel"] + jnp.asarray(scale * (a @ b))
    return trees.fill(copy.deepcopy(state), out)


def write_adapter(
    made: Exported, folder: pathlib.Path, factors, rslora: bool = False
) -> nnx.State:
    """Writes an adapter of a model that was written; returns the merged parameters."""
    base = models.open_checkpoint(str(made.folder))
    known = dict(rank=RANK, alpha=ALPHA, rslora=rslora, base=str(made.folder))
    export.adapter(folder, base, made.loaded.model, factors, **known)
    scale = ALPHA / (math.sqrt(RANK) if rslora else RANK)
    return merged(made.loaded.state, factors, scale)


def assert_merged(one: nnx.State, other: nnx.State, base: nnx.State, factors) -> None:
    """Compares parameters, of which those with factors alone are not the base's."""
    flat = [trees.flat(state) for state in (one, other, base)]
    for path, value in flat[0].items():
        np.testing.assert_allclose(value, flat[1][path], rtol=1e-5, atol=1e-6)
        away = np.abs(np.asarray(value) - np.asarray(flat[2][path])).max()
        assert (away > 1e-3) == (path.removesuffix("/kernel") in factors), path


def unchanged(made: Exported) -> nnx.State:
    """Returns the parameters before the change."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return made.loaded.model.load(lambda *_: device).state
