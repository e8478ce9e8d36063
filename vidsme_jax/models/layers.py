"""Dense layers, norms, embeddings and stacks of layers, shared by all backbones."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from vidsme_jax import parallel
from vidsme_jax.checkpoints.trees import State
from vidsme_jax.models import gradients

# Layers that `project` may join, if k and v are smaller than q: slicing a v of equal
# size out of a joined result costs more than joining saves.
_PROJECTED = ("q_proj", "k_proj", "v_proj")
_Module = TypeVar("_Module", bound=nnx.Module)


@runtime_checkable
class Dense(Protocol):
    """`nnx.Linear`, or the layer that finetuning replaces it by."""

    out_features: int

    @property
    def kernel(self) -> nnx.Param: ...

    def __call__(self, x: Array, /) -> Array: ...


def linear(
    inputs: int, outputs: int, *, bias: bool, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    """Makes a dense layer; in float32 its product has full precision."""
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        dtype=dtype,
        param_dtype=dtype,
        precision=precision,
        dot_general=_dot_general,
        rngs=rngs,
    )


def _dot_general(
    lhs: Array,
    rhs: Array,
    dimensions: jax.lax.DotDimensionNumbers,
    *,
    precision: jax.lax.Precision | None,
    out_sharding: NamedSharding | PartitionSpec | None = None,
) -> Array:
    """Returns a product in the operands' type, accumulated in float32."""
    if parallel.platform() == "cpu":
        return gradients.product(lhs, rhs, precision)
    return jax.lax.dot_general(
        lhs, rhs, dimensions, precision=precision, out_sharding=out_sharding
    )


class RmsNorm(nnx.Module):
    """Root-mean-square norm; the scale multiplies after the cast, as in transformers.

    Zhang and Sennrich, 2019. https://arxiv.org/abs/1910.07467
    """

    def __init__(self, size: int, *, eps: float, dtype: DTypeLike):
        self.weight = nnx.Param(jnp.ones((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        wide = x.astype(jnp.float32)
        variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = (wide * jax.lax.rsqrt(variance + self.eps)).astype(x.dtype)
        return _along(self.weight[...], x) * normed


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias, statistics in float32."""

    def __init__(self, size: int, *, eps: float, dtype: DTypeLike):
        self.weight = nnx.Param(jnp.ones((size,), dtype))
        self.bias = nnx.Param(jnp.zeros((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.eps)
        weight, bias = (
            _along(p[...], x).astype(jnp.float32) for p in (self.weight, self.bias)
        )
        return (normed * weight + bias).astype(x.dtype)


class Embedding(nnx.Module):
    """A table with one row a token; also the weights of an output layer."""

    def __init__(self, vocab: int, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        scale = jax.random.normal(rngs.params(), (vocab, size), jnp.float32) * 0.02
        self.weight = nnx.Param(scale.astype(dtype))

    def __call__(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch size"]:
        return jnp.take(self.weight[...], tokens, axis=0)


class Projector(nnx.Module):
    """Linear, erf GELU, linear: maps the tower's features to the decoder's."""

    def __init__(self, inputs: int, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.linear_1 = linear(inputs, size, bias=True, dtype=dtype, rngs=rngs)
        self.linear_2 = linear(size, size, bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch size"]:
        return self.linear_2(jax.nn.gelu(self.linear_1(x), approximate=False))


def stack(make: Callable[[nnx.Rngs], _Module], depth: int, rngs: nnx.Rngs) -> _Module:
    """Makes `depth` equal layers as one module whose parameters have a leading axis."""
    return nnx.vmap(make, in_axes=(0,), out_axes=0)(rngs.split(depth))


def run_stack(
    layers: nnx.Module,
    x: Array,
    *args: Any,
    after: Sequence[Array] = (),
    span: tuple[int, int] | None = None,
) -> Array:
    """Applies stacked layers one after another; each is called as `layer(x, *args)`.

    Args:
      layers: The stack, with weights of a leading axis or as `lay_out` stores them.
      x: The input of the first layer.
      *args: Further arguments of every layer.
      after: See `walk_stack`.
      span: Applies layers span[0], ..., span[1] - 1; None: all.
    """

    def step(layer: Any, x: Array, _: tuple[()], *args: Any) -> tuple[Array, tuple[()]]:
        return layer(x, *args), ()

    return walk_stack(layers, step, x, args, after=after, span=span)[0]


def walk_stack(
    layers: nnx.Module,
    step: Callable[..., tuple[Array, PyTree[Array]]],
    x: Array,
    args: Sequence[Any] = (),
    each: PyTree[Array] = (),
    after: Sequence[Array] = (),
    span: tuple[int, int] | None = None,
) -> tuple[Array, PyTree[Array]]:
    """Folds `step(layer, x, of_layer, *args) -> (x, saved)` over stacked layers.

    Args:
      layers: As in `run_stack`.
      step: The step of one layer; `of_layer` is the layer's part of `each`.
      x: The input of the first layer.
      args: Further arguments of every step.
      each: Arrays of the layers, in the form that an earlier walk returned.
      after: Arrays that are added to the outputs of the first layers.
      span: See `run_stack`; None if there is `each` or `after`.

    Returns:
      The output of the last layer, and the saved arrays: with a leading axis, or a
      tuple with those of each layer, as the weights are stored. On a CPU bfloat16 is
      returned as its bits, as by `lay_out`.
    """
    graphdef, state = nnx.split(layers)

    def apply(
        layer: State, x: Array, of_layer: PyTree[Array], *args: Any
    ) -> tuple[Array, PyTree[Array]]:
        with jax.named_scope("layer"):
            return step(nnx.merge(graphdef, layer), x, of_layer, *args)

    if gradients.rematerialised():
        apply = jax.checkpoint(apply)
    leaves = jax.tree.leaves(state, is_leaf=_is_separate)
    first, stop = span or (0, len(leaves[0]))
    if not _is_separate(leaves[0]):

        def scanned(
            x: Array, of_layer: tuple[State, PyTree[Array]]
        ) -> tuple[Array, PyTree[Array]]:
            layer, own = jax.tree.map(_as_floats, of_layer)
            x, saved = apply(layer, x, own, *args)
            return x, jax.tree.map(_as_bits, saved)

        unrolled = parallel.platform() == "cpu" and gradients.are_wanted()
        if span is None and not after:
            return jax.lax.scan(scanned, x, (state, each), unroll=unrolled)

        # Layers are read by their index: a slice of the stack would copy the weights.
        def placed(x: Array, place: Int[Array, ""]) -> tuple[Array, PyTree[Array]]:
            take = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
            return scanned(x, jax.tree.map(lambda of: take(of, place), (state, each)))

        parts = []
        for place, added in enumerate(after, first):
            x, saved = placed(x, jnp.int32(place))
            x += added
            parts.append(jax.tree.map(lambda array: array[None], saved))
        places = jnp.arange(first + len(after), stop, dtype=jnp.int32)
        x, saved = jax.lax.scan(placed, x, places, unroll=unrolled)
        return x, jax.tree.map(lambda *of: jnp.concatenate(of), *parts, saved)
    apply = jax.jit(apply)  # Traced once; the compiler inlines it.
    saved = []
    for k in range(first, stop):
        layer = jax.tree.map(operator.itemgetter(k), state, is_leaf=_is_separate)
        x, of_layer = apply(layer, x, each[k] if each else (), *args)
        if k - first < len(after):
            x += after[k - first]
        saved.append(of_layer)
    return x, tuple(saved)


def take_rows(
    table: Float[Array, "items rows size"], places: Int[Array, "items taken"]
) -> Float[Array, "items taken size"]:
    """Takes rows of each item; an index beyond the last row takes the last one."""
    one = lambda x: x[0].at[x[1]].get(mode="clip")
    # XLA takes half a minute to compile a batched gather of many rows for a TPU.
    if parallel.platform() == "tpu":
        return jax.lax.map(one, (table, places))
    return jax.vmap(one)((table, places))


def project(
    parts: Sequence[Dense], x: Float[Array, "*batch inputs"]
) -> list[Float[Array, "*batch _"]]:
    """Applies two or more dense layers, in one product if `lay_out` joined them."""
    first, *others = parts
    if others[0].kernel[...].size:
        return [part(x) for part in parts]
    ends = np.cumsum([part.out_features for part in parts])[:-1]
    return jnp.split(first(x), ends.tolist(), axis=-1)


def lay_out(state: State) -> None:
    """Stores the weights of stacked layers as `run_stack` reads them fastest, in place.

    It is called when a run starts; calling it again changes nothing; `stacked` undoes
    it. Arrays are replaced one by one, so that the model never exists twice.

    * GPU: one array a layer. A scan over stacked weights copies those of each layer in
      each step. q, k and v are joined in one array, for `project`, if k is smaller than
      q and their outputs are not split over devices; k and v then have empty arrays.
    * CPU: bfloat16 becomes uint16 of the same bits. XLA's CPU compiler has no slice of
      16-bit floats: it converts the whole stack to float32 and back in each step.
    * TPU, and float32 on a CPU: no change.

    Args:
      state: The state of a whole model, on its devices, or with `jax.ShapeDtypeStruct`
        and shardings in place of arrays.
    """
    flat = dict(nnx.to_flat_state(state))
    for path, variable in flat.items():
        value = variable.get_value()
        if "layers" not in path or _is_separate(value) or value.dtype == jnp.uint16:
            continue
        platform = _platform(value)
        if platform == "cpu" and value.dtype == jnp.bfloat16:
            variable.set_value(jax.lax.bitcast_convert_type(value, jnp.uint16))
        elif platform not in ("cpu", "tpu"):
            _separate(path, flat)


def stacked(state: State) -> State:
    """Returns a copy of a state with layers as a leading axis, as they are loaded."""
    restored = jax.tree.map(lambda x: x, state)
    flat = dict(nnx.to_flat_state(restored))
    for path, variable in flat.items():
        value = variable.get_value()
        if not _is_separate(value):
            variable.set_value(_as_floats(value))
            continue
        group = _joined(path, flat)
        if len(group) > 1 and group[1].get_value()[0].size:
            group = [variable]
        whole = jnp.stack(group[0].get_value())
        widths = [x.get_value()[0].shape[-1] for x in group[1:]]
        starts = whole.shape[-1] - np.cumsum(widths[::-1], dtype=int)[::-1]
        for member, part in zip(
            group, jnp.split(whole, starts.tolist(), axis=-1), strict=True
        ):
            member.set_value(part)
    return restored


def _separate(path: tuple[Any, ...], flat: dict[tuple[Any, ...], nnx.Variable]) -> None:
    """Splits one stacked parameter into an array a layer, in place; see `lay_out`.

    `flat` has all parameters by path; those that are joined with this one change, too.
    """
    group = _joined(path, flat)
    if len(group) > 1 and not _worth_joining([x.get_value() for x in group]):
        group = [flat[path]]
    stacks = [x.get_value() for x in group]

    place = _of_a_layer(stacks[0].sharding)
    if isinstance(stacks[0], jax.ShapeDtypeStruct):
        like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        parts = jax.tree.map(like, jax.eval_shape(_cut, *stacks))
    else:
        parts = _cutter(place)(*stacks)
    for member, part in zip(group, parts, strict=True):
        member.set_value(part)


def _cut(first: Array, *others: Array) -> tuple[tuple[Array, ...], ...]:
    """Splits stacks into layers, with `others` joined to `first` and then empty."""
    layers = zip(first, *others, strict=True)
    joined = tuple(jnp.concatenate(layer, axis=-1) for layer in layers)
    empty = (tuple(layer[None][:0] for layer in other) for other in others)
    return joined, *empty


@functools.lru_cache(maxsize=8)  # One function, so that equal shapes compile once.
def _cutter(place: jax.sharding.Sharding) -> Callable[..., tuple[Any, ...]]:
    return jax.jit(_cut, out_shardings=place)


def _joined(
    path: tuple[Any, ...], flat: dict[tuple[Any, ...], nnx.Variable]
) -> list[nnx.Variable]:
    """Returns the parameters that `project` joins with this one, or this one alone."""
    if path[-2] not in _PROJECTED:
        return [flat[path]]
    return [flat[*path[:-2], name, path[-1]] for name in _PROJECTED]


def _of_a_layer(sharding: jax.sharding.Sharding) -> jax.sharding.Sharding:
    """Removes the axis of layers from a sharding."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    return sharding


def _platform(value: Any) -> str:
    """Returns "cpu", "tpu" or jax's name of a GPU, for an array or its shape."""
    return next(iter(value.sharding.device_set)).platform


def _worth_joining(stacks: list[Any]) -> bool:
    """Returns whether q, k, v are joined: k is smaller, and outputs are not split."""
    if any(map(_is_separate, stacks)):  # It was decided at another of the three.
        return False
    whole = all(x.sharding.shard_shape(x.shape)[-1] == x.shape[-1] for x in stacks)
    return whole and stacks[1].shape[-1] < stacks[0].shape[-1]


def _is_separate(value: object) -> bool:
    """Returns whether a parameter has one array a layer."""
    return isinstance(value, tuple)


def _as_floats(value: Array) -> Array:
    """Returns bfloat16 from its bits, and other arrays unchanged."""
    if value.dtype == jnp.uint16:
        return jax.lax.bitcast_convert_type(value, jnp.bfloat16)
    return value


def _as_bits(value: Array) -> Array:
    """Returns the bits of bfloat16 on a CPU, and other arrays unchanged."""
    if value.dtype == jnp.bfloat16 and parallel.platform() == "cpu":
        return jax.lax.bitcast_convert_type(value, jnp.uint16)
    return value


def _along(parameter: Float[Array, " size"], x: Array) -> Float[Array, "*ones size"]:
    """Returns a parameter of the last axis with the rank of `x`."""
    return parameter.reshape((1,) * (x.ndim - 1) + parameter.shape)
