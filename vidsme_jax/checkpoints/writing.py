"""Writes parameters under a checkpoint's names and layouts; inverts `loading`."""

import collections
import contextlib
import functools
import json
import math
import os
import pathlib
import re
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from vidsme_jax.checkpoints import layouts, trees
from vidsme_jax.checkpoints.loading import Names, Rule
from vidsme_jax.checkpoints.tensors import TensorInfo
from vidsme_jax.store.files import replacing

SHARD_BYTES = 5_000_000_000  # Most bytes of a file, as in transformers.
_CODES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
# Reasons of ignored tensors that are not written: they are recomputed or replaced.
_IMPLIED = ("0, 1, 2, ...", "follows from the config", "tied to the embeddings")


class Piece(NamedTuple):
    """A tensor to be written.

    Attributes:
      name: In the file.
      shape: In the file.
      dtype: A key of `_CODES`, such as "float32".
      read: Returns the values; called while writing, so that few are in memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


def save(path: pathlib.Path, state: nnx.State, names: Names) -> None:
    """Writes one safetensors file under canonical names.

    Args:
      path: The file; its folder must exist.
      state: The model's parameters.
      names: The patterns of the rules must be plain names with at most one group, the
        layer.
    """
    tensors = named(state, names)
    dtype = next(iter(tensors.values())).dtype
    unused = {name: value.astype(dtype) for name, value in names.unused().items()}
    save_file(unused | tensors, path, metadata={"format": "pt"})


def named(state: nnx.State, names: Names) -> dict[str, np.ndarray]:
    """Returns the parameters under canonical names, in the layouts of a checkpoint.

    Args:
      state: As for `save`.
      names: As for `save`.
    """
    return {piece.name: piece.read() for piece in pieces(state, names)}


def pieces(state: nnx.State, names: Names, dtype: str | None = None) -> list[Piece]:
    """Returns the parameters under canonical names, layer by layer, not yet read.

    Args:
      state: The model's parameters.
      names: As for `save`.
      dtype: They are cast to it on their device; None keeps their dtypes.

    Raises:
      ValueError: A parameter has no rule.
    """
    leaves = trees.flat(state)
    if lost := sorted(set(leaves) - {rule.path for rule in names.rules}):
        raise ValueError(f"Parameters without a rule: {', '.join(lost)}.")
    out = []
    for rule in names.rules:
        if rule.path not in leaves:
            continue
        leaf: Any = leaves[rule.path]
        shape = rule.layout.disk_shape(leaf.shape[1:] if rule.stacked else leaf.shape)
        kind = dtype or jnp.dtype(leaf.dtype).name
        for layer in range(leaf.shape[0]) if rule.stacked else (None,):
            name, read = tensor_name(rule, layer), _reader(leaf, layer, rule, kind)
            out.append(Piece(name, shape, kind, read))
    return out


def tensor_name(rule: Rule, layer: int | None = None) -> str:
    r"""Returns the canonical name of a rule's tensor.

    Args:
      rule: Its pattern must be a plain name with at most one group.
      layer: Of a stacked parameter.

    Example:
      >>> tensor_name(Rule(r"layers\.(\d+)\.norm\.weight", "layers/norm/weight"), 3)
      'layers.3.norm.weight'
    """
    return rule.pattern.replace(r"(\d+)", str(layer)).replace("\\.", ".")


def _reader(
    leaf: Any, layer: int | None, rule: Rule, dtype: str
) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        value = leaf if layer is None else leaf[layer]
        value = np.asarray(value.astype(jnp.dtype(dtype)))
        return np.ascontiguousarray(rule.layout.write(value))

    return read


def completed(
    own: Sequence[Piece], source: Mapping[str, TensorInfo], names: Names, dtype: str
) -> list[Piece]:
    """Returns a model's tensors, with those of its source that it does not read.

    Written under the source's names are: the parameters; rows of the vocabulary after
    those that the model reads; and tensors of the source that the model ignores (a
    tower of still images, layers after the last one that is run). `names.unused` adds
    tensors that the source lacks and other libraries expect.

    Args:
      own: The parameters, from `pieces`.
      source: The tensors of the checkpoint that training began from; may be empty.
      names: Of the model's tensors.
      dtype: Of the tensors that are added.
    """
    sources = {names.canonical(name): name for name in source}
    longer = {tensor_name(r) for r in names.rules if r.layout is layouts.ROWS}
    out: dict[str, Piece] = {}
    for piece in own:
        name = sources.get(piece.name, piece.name)
        whole = piece
        if piece.name in longer and name in source:
            whole = _lengthened(piece, source[name])
        out[piece.name] = whole._replace(name=name)
    for clean, name in sources.items():
        if clean not in out and _is_kept(clean, names):
            shape, read = tuple(source[name].shape), source[name].read
            out[clean] = Piece(name, shape, dtype, _cast(read, dtype))
    for clean, value in names.unused().items():
        if clean not in out:
            read = _cast(functools.partial(np.asarray, value), dtype)
            out[clean] = Piece(clean, value.shape, dtype, read)
    return list(out.values())


def _is_kept(clean: str, names: Names) -> bool:
    """Returns whether an ignored tensor is written again."""
    reasons = [why for what, why in names.ignored.items() if re.fullmatch(what, clean)]
    return bool(reasons) and not any(reason in _IMPLIED for reason in reasons)


def _lengthened(piece: Piece, info: TensorInfo) -> Piece:
    """Returns a tensor with the source's rows after the model's added."""
    rows, total = piece.shape[0], info.shape[0]
    if total <= rows:
        return piece

    def read() -> np.ndarray:
        part = (slice(rows, total), *(slice(None) for _ in info.shape[1:]))
        value = piece.read()
        return np.concatenate([value, info.read(part).astype(value.dtype)])

    return piece._replace(shape=(total, *piece.shape[1:]), read=read)


def _cast(read: Callable[[], np.ndarray], dtype: str) -> Callable[[], np.ndarray]:
    return lambda: np.ascontiguousarray(read().astype(jnp.dtype(dtype)))


@contextlib.contextmanager
def replacing_weights(
    folder: pathlib.Path,
    tensors: Sequence[Piece],
    *,
    stem: str = "model",
    shard_bytes: int = SHARD_BYTES,
) -> Generator[None, None, None]:
    """Writes weight files, which appear when the block of the context ends.

    The context is entered when all bytes are on the disk; one tensor at a time is in
    memory. The block must delete the folder's previous weights (`remove_weights`). The
    last file to appear is the one that makes the others a model. If anything raises, no
    new file is left that could be read as weights.

    Args:
      folder: Of the files: STEM.safetensors or, of several, STEM-*-of-*.safetensors and
        STEM.safetensors.index.json.
      tensors: In the order of the files.
      stem: Beginning of the files' names.
      shard_bytes: Most bytes of a file; a larger tensor gets its own file.

    Raises:
      OSError: A file cannot be written; names it.
      ValueError: Two tensors have one name, or values exceed the dtype's.
    """
    shards = _shards(tensors, shard_bytes)
    names = [f"{stem}.safetensors"]
    if len(shards) > 1:
        total = len(shards)
        names = [
            f"{stem}-{k:05}-of-{total:05}.safetensors" for k in range(1, total + 1)
        ]
    with contextlib.ExitStack() as stack:
        if len(shards) > 1:  # Entered first, so that it appears last.
            index = f"{stem}.safetensors.index.json"
            file = stack.enter_context(replacing(folder / index))
            file.write(_index(names, shards))
        for name, shard in zip(names, shards, strict=True):
            file = stack.enter_context(replacing(folder / name))
            _write(file, shard)
            file.flush()
            os.fsync(file.fileno())
        yield


def remove_weights(folder: pathlib.Path, stem: str = "model") -> None:
    """Deletes a folder's safetensors of one stem, sharded or not, and their index."""
    name = f"{stem}.safetensors"
    for pattern in (name, f"{name}.index.json", f"{stem}-*-of-*.safetensors"):
        for path in folder.glob(pattern):
            path.unlink()


def _shards(tensors: Sequence[Piece], most: int) -> list[list[Piece]]:
    """Divides tensors, in their order, into files."""
    counts = collections.Counter(piece.name for piece in tensors)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"Two tensors of one name: {', '.join(twice)}.")
    out: list[list[Piece]] = [[]]
    size = 0
    for piece in tensors:
        if out[-1] and size + piece.num_bytes > most:
            out.append([])
            size = 0
        out[-1].append(piece)
        size += piece.num_bytes
    return out


def _index(names: Sequence[str], shards: Sequence[Sequence[Piece]]) -> bytes:
    """Returns the content of the index: the file of each tensor."""
    files = zip(names, shards, strict=True)
    weight_map = {piece.name: name for name, shard in files for piece in shard}
    size = sum(piece.num_bytes for shard in shards for piece in shard)
    index = {
        "metadata": {"total_size": size},
        "weight_map": dict(sorted(weight_map.items())),
    }
    return json.dumps(index, indent=2).encode() + b"\n"


def _write(file: BinaryIO, tensors: Sequence[Piece]) -> None:
    """Writes one safetensors file, a tensor at a time; see `headers`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for piece in tensors:
        place = [at, at := at + piece.num_bytes]
        header[piece.name] = {
            "dtype": _CODES[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": place,
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # Values begin at a multiple of eight.
    file.write(struct.pack("<Q", len(text)) + text)
    for piece in tensors:
        value = piece.read()
        assert value.shape == piece.shape and value.dtype.name == piece.dtype
        if value.dtype == np.float16 and not np.isfinite(value).all():
            raise ValueError(
                f"{piece.name} holds NaN, or values beyond those of float16; write "
                "bfloat16 or float32."
            )
        file.write(value.reshape(-1).view(np.uint8).data)
