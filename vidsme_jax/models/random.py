"""Models with random weights: tiny checkpoints for trials, full sizes for timing.

`config.model.checkpoint = "random:NAME"` audits a tiny checkpoint that is written, with
its tokenizer, to a temporary folder and read like any other. Benchmarks draw a model of
any size directly on devices. Weights are large enough that every part of the network
affects its output: kernels scaled by their fan-in, an output layer whose logits have
deviation 3, norms and biases that differ from their neutral values.
"""

import atexit
import dataclasses
import functools
import json
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from vidsme_jax import models
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.checkpoints import loading, trees, writing
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models.interface import Family, LoadedModel, Model, Options
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.wording import nearest

SCHEME = "random:"
_TINY = "-tiny"  # The suffix of models that can be written to a folder.
_PREFIX = 30  # Tokens before the video of a model without a tokenizer.
_SMALL = 2**24  # Parameters below which drawing on the host is faster than compiling.


def sizes() -> dict[str, Family]:
    """Returns the family of each model by the model's name."""
    return {name: family for family in models.FAMILIES for name in family.sizes}


def draw(
    name: str,
    *,
    dtype: str = "bfloat16",
    seed: int = 0,
    shardings: loading.Shardings | None = None,
    files: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Draws a model of any size on its devices; see `describe`.

    Args:
      name: A key of `sizes`.
      dtype: "bfloat16" or "float32".
      seed: The seed of the weights.
      shardings: Places each parameter; by default on the first device.
      files: See `describe`.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    model = describe(name, dtype=dtype, seed=seed, files=files)
    return model.load(shardings or (lambda *_: device))


def describe(
    name: str,
    *,
    dtype: str = "bfloat16",
    seed: int = 0,
    files: Mapping[str, Any] | None = None,
) -> Model:
    """Returns a model whose weights are drawn when it is loaded, without a tokenizer.

    Args:
      name: A key of `sizes`.
      dtype: "bfloat16" or "float32".
      seed: The seed of the weights.
      files: The JSON files; by default those of `Family.sizes`.

    Raises:
      AuditError: There is no such name.
    """
    family, problems = _family(name), []
    files = family.sizes[name] if files is None else files
    with tempfile.TemporaryDirectory() as folder:
        where = pathlib.Path(folder)
        _write_json(where, files)
        opened = Checkpoint(f"{SCHEME}{name}", (where,), dict(files["config.json"]), {})
        model, _ = family.open(opened, Options(dtype), problems)
    assert not problems, problems
    ids = np.random.default_rng(seed).integers(model.vocab_size, size=_PREFIX + 1)
    text = Text(tuple(ids[:_PREFIX].tolist()), tuple(ids[_PREFIX:].tolist()))

    def tokenise(asked: Asked | None = None, shown: Shown | None = None) -> Text:
        return text._replace(frames=model.tokenise(None, shown).frames)

    return dataclasses.replace(
        model,
        fingerprint=f"{SCHEME}{name}:{seed}",
        fill=functools.partial(_random_state, seed),
        tokenise=tokenise,
        flops=functools.partial(model.flops, text=len(ids)),
    )


@functools.lru_cache(maxsize=8)
def folder(name: str) -> pathlib.Path:
    """Writes a tiny checkpoint, always the same bytes, and returns its folder.

    The folder is removed when the process ends.

    Raises:
      AuditError: There is no such tiny model. Larger ones have no tokenizer here; see
        `draw`.
    """
    family_of_tiny(name)
    target = pathlib.Path(tempfile.mkdtemp(prefix="vidsme-random-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    write(target, name)
    return target


def family_of_tiny(name: str) -> Family:
    """Returns the family of a tiny model, which can be written with a tokenizer.

    Raises:
      AuditError: There is no such tiny model.
    """
    known = sizes()
    return _family(name, {each: known[each] for each in known if each.endswith(_TINY)})


def write(
    target: pathlib.Path,
    name: str,
    *,
    seed: int = 0,
    files: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint with config, tokenizer and weights.

    Args:
      target: The folder, created if it does not exist.
      name: A key of `sizes`.
      seed: The seed of the weights.
      files: See `describe`.
    """
    from vidsme_jax.demo import drawing

    family = _family(name)
    files = family.sizes[name] if files is None else files
    drawn = draw(name, dtype="float32", seed=seed, files=files)
    drawing.tokenizer_files(target, chat=family.chat, special=family.special)
    _write_json(target, files)
    writing.save(target / "model.safetensors", drawn.state, drawn.model.names)


def _family(name: str, known: Mapping[str, Family] | None = None) -> Family:
    known = sizes() if known is None else known
    if name not in known:
        near = nearest(name, list(known))
        problem = f"no such random model{near}; known: {', '.join(known)}"
        raise AuditError([f"checkpoint {SCHEME}{name}: {problem}"])
    return known[name]


def _write_json(target: pathlib.Path, files: Mapping[str, Any]) -> None:
    for path, content in files.items():
        (target / path).parent.mkdir(exist_ok=True, parents=True)
        (target / path).write_text(json.dumps(content, indent=1))


def _random_state(
    seed: int, abstract: nnx.State, shardings: loading.Shardings
) -> nnx.State:
    """Draws every parameter: of small models on the host, of large ones on devices."""
    shapes = trees.flat(abstract)
    small = sum(leaf.size for leaf in shapes.values()) < _SMALL
    filled = {}
    for place, (path, leaf) in enumerate(shapes.items()):
        scale, offset = _moments(path, leaf.shape)
        where = shardings(path, leaf.shape)
        if small:
            rng = np.random.default_rng([seed, place])
            drawn = scale * rng.standard_normal(leaf.shape, np.float32) + offset
            filled[path] = jax.device_put(drawn.astype(leaf.dtype), where)
        else:
            key = jax.random.fold_in(jax.random.key(seed), place)
            make = _maker(leaf.shape, leaf.dtype, where)
            filled[path] = make(key, *(np.float32(x) for x in (scale, offset)))
    return trees.fill(abstract, filled)


@functools.lru_cache(maxsize=64)
def _maker(
    shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.Sharding
) -> Callable[..., Array]:
    """Returns a compiled function that draws a parameter of one shape."""

    def make(
        key: Array, scale: Float32[Array, ""], offset: Float32[Array, ""]
    ) -> Float[Array, "..."]:
        noise = jax.random.normal(key, shape, dtype)
        return noise * scale.astype(dtype) + offset.astype(dtype)

    return jax.jit(make, out_shardings=sharding)


def _moments(path: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Returns the standard deviation and the mean of a parameter."""
    if path.endswith(("lm_head/weight", "embed_tokens/weight")):
        return 3 / math.sqrt(shape[-1]), 0.0
    if "norm" in path and path.endswith("weight"):
        return 0.1, 1.0
    if path.endswith("kernel"):
        return 1 / math.sqrt(shape[-2]), 0.0
    if path.endswith("bias"):
        return 0.1, 0.0
    return 0.3, 0.0  # Positions, the class token, the newline.
