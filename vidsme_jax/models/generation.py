"""Greedy decoding of answers with a cache of keys and values.

The video and the questions about it go through the decoder once, as in `read`; keys and
values of all layers are cached, those of a clip once for all of its texts. Then all
texts of a batch take one token a step, until each has ended or reached the limit.

Axes: `clips`; `texts` of a clip; `rows` of a trunk, then of its texts; `steps`, the
tokens that an answer may have; `heads`, `kv_heads`, `groups`, `head_dim`, `embed`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int32, PyTree

from vidsme_jax import parallel
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints.trees import Graph, State
from vidsme_jax.models import layers
from vidsme_jax.models.batches import Batch, Shape, Texts, TextShape
from vidsme_jax.models.decoder import Decoder, DecoderConfig, Layer, Visual
from vidsme_jax.models.rope import rope_tables

# Cached rows and steps are multiples of these: else a GPU pads them in every step.
_ROWS, _STEPS = 64, 16
_CACHE_SHARE = 2  # The cache may take 1 / this of what the parameters leave free.

_Cached = tuple[Float[Array, "..."], Float[Array, "..."]]  # Keys and values of a layer.


class Answers(NamedTuple):
    """The answers to a batch; those of texts that a clip does not have are empty.

    Attributes:
      ids: Tokens, including the one that ended the answer, if any; then -1.
      length: How many tokens there are.
      ended: Whether the last token is one of `ends`.
    """

    ids: Int32[Array | np.ndarray, "clips texts steps"]
    length: Int32[Array | np.ndarray, "clips texts"]
    ended: Bool[Array | np.ndarray, "clips texts"]


class Answer(NamedTuple):
    """The answer to one question; see `base.Asked`."""

    ids: tuple[int, ...]
    ended: str  # "end" or "length".


@functools.lru_cache(maxsize=8)  # One function a model, so that it compiles once.
def greedy(
    graphdef: Graph, *, limit: int, ends: tuple[int, ...]
) -> Callable[[State, Batch], Answers]:
    """Returns the pure `step(state, batch)` that answers the questions of a batch.

    The batch has one direction, and `texts` without answers; without `texts` there is
    one answer a clip, to the prompt's start alone. The last row of a text predicts the
    first token of its answer. For a text without rows, which must not be the last of
    several, the trunk's last row does.

    Args:
      graphdef: The model's graph.
      limit: The most tokens of an answer, at least 1.
      ends: The tokens that end an answer.

    Raises:
      AuditError: The model has no `decoder` (see `interface`).
    """

    def step(state: State, batch: Batch) -> Answers:
        model = nnx.merge(graphdef, state)
        batch = batch if batch.texts is not None else _without_rows(batch)
        with jax.named_scope("generation"):
            decoder = _decoder(model)
            prefill = _prefill(decoder, model.see(batch.pixels), batch)
            return _answers(decoder, prefill, limit, ends)

    return step


def answers(found: Answers, clip: int, count: int) -> list[Answer]:
    """Returns the answers to the first `count` texts of one clip.

    `found` is the result of a step, on the host; `clip` is an index of its batch.
    """
    rows = zip(*(x[clip][:count] for x in found), strict=True)
    return [
        Answer(tuple(ids[:length].tolist()), "end" if ended else "length")
        for ids, length, ended in rows
    ]


def cache_bytes(
    graphdef: Graph,
    state: State,
    shape: Shape,
    texts: TextShape | None,
    limit: int,
    split: int = 1,
) -> int:
    """Returns the bytes of keys and values that a device caches for one clip.

    Args:
      graphdef: The model's graph.
      state: The model's state; its values are not read.
      shape: The padded shape of the clip's trunk.
      texts: The padded shape of its texts; None if there are none.
      limit: See `greedy`.
      split: Devices of a mesh along `model`.
    """
    config = _decoder(nnx.merge(graphdef, state)).config
    rows, number = (1, 1) if texts is None else (texts.rows, texts.texts)
    rows = _padded(rows + shape.rows, _ROWS) + number * _padded(limit, _STEPS)
    heads = config.num_key_value_heads
    heads = heads // split if heads % split == 0 else heads
    size = jnp.dtype(config.dtype).itemsize
    return 2 * config.num_hidden_layers * heads * config.head_dim * rows * size


def fit(memory: int | None, parameters: int, of_a_clip: int, most: int) -> int:
    """Returns how many clips fit in one batch of a device, from 1 to `most`.

    Their caches take at most half of the memory that the parameters leave free.

    Args:
      memory: The device's memory in bytes; None if it is unknown.
      parameters: Bytes of the parameters on the device.
      of_a_clip: Bytes of a clip's cache; see `cache_bytes`.
      most: The upper limit: the clips of a batch that is scored, because reading videos
        and questions takes as much memory, in addition to the cache.

    Example:
      >>> fit(80 * 2**30, 14 * 2**30, 12 * 2**28, most=32)
      11
    """
    if memory is None:
        return most
    return min(max((memory - parameters) // (_CACHE_SHARE * of_a_clip), 1), most)


class _Prefill(NamedTuple):
    """What was computed of videos and questions; the steps only read it.

    Attributes:
      last: States of the rows that predict the first tokens.
      start: Positions of the first tokens.
      valid: Which texts the clips have.
      seen: The rows that a text sees.
      cache: Keys and values of these rows, of all layers (`layers.walk_stack`); of a
        layer (clips, kv_heads, rows, head_dim) each.
    """

    last: Float[Array, "clips texts embed"]
    start: Int[Array, "clips texts"]
    valid: Bool[Array, "clips texts"]
    seen: Bool[Array, "clips texts rows"]
    cache: PyTree[Array]


def _decoder(model: object) -> Decoder:
    """Returns the decoder of a module."""
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, Decoder):
        raise AuditError(
            [
                f"config.response is 'greedy', but a model of the class "
                f"{type(model).__name__} cannot generate answers: it has no `decoder`; "
                "take 'given', with answers in the manifests"
            ]
        )
    return decoder


def _without_rows(batch: Batch) -> Batch:
    """Adds one text without rows, a row of padding, for each clip."""
    clips, _, _, axes = batch.position.shape
    zeros = functools.partial(jnp.zeros, dtype=jnp.int32)
    row, kept = zeros((clips, 1)), zeros((clips, 0))
    means = jnp.zeros((clips, 0, 2), bool)
    texts = Texts(row, zeros((clips, 1, axes)), row, kept, kept, means)
    return batch._replace(texts=texts)


def _prefill(decoder: Decoder, visual: Array | Visual, batch: Batch) -> _Prefill:
    """Reads videos and questions, and caches their keys and values."""
    x, position, texts, deep = decoder.lay_out(visual, batch)
    assert batch.texts is not None and texts is not None
    c = decoder.config
    tables = rope_tables(position, c.rope, c.head_dim)

    def step(
        layer: Layer, x: Array, _: tuple[()], *args: Any
    ) -> tuple[Array, tuple[Array, ...]]:
        *tables, texts = args
        attention = layer.self_attn
        q, k, v = attention.project(layer.input_layernorm(x), *tables)
        x = layer.mlp(x + attention.finish(attention.attend(q, k, v, texts)))
        fill = [(0, 0), (0, _padded(x.shape[1], _ROWS) - x.shape[1]), (0, 0), (0, 0)]
        return x, tuple(_for_cache(jnp.pad(y, fill), c) for y in (k, v))

    hidden, cache = layers.walk_stack(
        decoder.layers, step, x, (*tables, texts), after=deep
    )
    segment, shared = texts.segment, texts.shared[:, None]
    trunk = x.shape[1] - segment.shape[1]
    number = jnp.arange(1, 1 + batch.texts.means.shape[-1] // 2, dtype=jnp.int32)
    of_text = segment[:, None] == number[None, :, None]
    of_trunk = jnp.arange(trunk, dtype=jnp.int32)[None] < shared
    # The last row of each text, counted from the trunk's end; -1 for a text without.
    places = jnp.arange(segment.shape[1], dtype=jnp.int32)
    last = jnp.max(jnp.where(of_text, places[None, None], -1), axis=-1)
    place = jnp.where(last < 0, shared - 1, trunk + last)
    # Text has one position on all axes, after the largest of the rows before it.
    largest = jnp.max(position, axis=-1)
    of_trunk_end = jnp.max(jnp.where(of_trunk, largest[:, :trunk], 0), axis=1)
    before = jnp.take_along_axis(largest, place, axis=1)
    before = jnp.where(last < 0, of_trunk_end[:, None], before)
    of_trunk = jnp.broadcast_to(of_trunk[:, None], (*of_text.shape[:2], trunk))
    fill = [(0, 0), (0, 0), (0, _padded(x.shape[1], _ROWS) - x.shape[1])]
    return _Prefill(
        last=decoder.norm(jnp.take_along_axis(hidden, place[..., None], axis=1)),
        start=before + 1,
        valid=number[None] <= jnp.maximum(jnp.max(segment, axis=1), 1)[:, None],
        seen=jnp.pad(jnp.concatenate([of_trunk, of_text], axis=-1), fill),
        cache=cache,
    )


def _answers(
    decoder: Decoder, prefill: _Prefill, limit: int, ends: tuple[int, ...]
) -> Answers:
    """Takes one token after another."""
    token = _most_likely(prefill.last, decoder.head)
    size = *token.shape, limit
    ids = jnp.full(size, -1, jnp.int32)
    ids = ids.at[..., 0].set(jnp.where(prefill.valid, token, -1))
    ended = prefill.valid & _among(token, ends)
    # For the answers' tokens: `prefill.cache` with an axis of texts before the rows.
    rows = token.shape[1], _padded(limit, _STEPS)
    cache = jax.tree.map(
        lambda x: jnp.zeros((*x.shape[:-2], *rows, x.shape[-1]), x.dtype),
        prefill.cache,
    )

    def unfinished(carry: tuple[Any, ...]) -> Bool[Array, ""]:
        done, _, ended, *_ = carry
        return (done < limit) & jnp.any(prefill.valid & ~ended)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        done, token, ended, ids, length, cache = carry
        hidden, cache = _advance(decoder, prefill, token, cache, done - 1)
        token = _most_likely(hidden, decoder.head)
        active = prefill.valid & ~ended
        ids = ids.at[..., done].set(jnp.where(active, token, -1))
        ended = ended | (active & _among(token, ends))
        return done + 1, token, ended, ids, length + active.astype(jnp.int32), cache

    length = prefill.valid.astype(jnp.int32)
    carry = jnp.int32(1), token, ended, ids, length, cache
    _, _, ended, ids, length, _ = jax.lax.while_loop(unfinished, step, carry)
    return Answers(ids, length, ended)


def _advance(
    decoder: Decoder,
    prefill: _Prefill,
    token: Int[Array, "clips texts"],
    cache: PyTree[Array],
    place: Int[Array, ""],
) -> tuple[Float[Array, "clips texts embed"], PyTree[Array]]:
    """Reads token `place` of each answer; returns its states and the updated cache."""
    c = decoder.config
    axes = max(1, len(c.rope.sections))
    position = jnp.repeat((prefill.start + place)[..., None], axes, axis=-1)
    tables = rope_tables(position, c.rope, c.head_dim)

    def step(
        layer: Layer, x: Array, caches: tuple[_Cached, _Cached], *args: Any
    ) -> tuple[Array, _Cached]:
        *tables, seen, place = args
        attention = layer.self_attn
        q, k, v = attention.project(layer.input_layernorm(x), *tables)
        out = _attend(q, k, v, *caches, seen, place)
        x = layer.mlp(x + attention.finish(out))
        return x, (_for_cache(k, c), _for_cache(v, c))

    x, new = layers.walk_stack(
        decoder.layers,
        step,
        decoder.embed_tokens(token),
        (*tables, prefill.seen, place),
        _paired(prefill.cache, cache),
    )

    def put(old: Array, new: Array) -> Array:
        new = new[..., None, :]
        return jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=-2)

    return decoder.norm(x), jax.tree.map(put, cache, new)


def _padded(rows: int, multiple: int) -> int:
    return -(-rows // multiple) * multiple


def _paired(first: PyTree[Array], second: PyTree[Array]) -> PyTree[Array]:
    """Pairs the two caches of each layer, stacked or one a layer."""
    if isinstance(first[0], tuple):
        return tuple(zip(first, second, strict=True))
    return first, second


def _attend(
    q: Float[Array, "clips texts heads head_dim"],
    k: Float[Array, "clips texts kv_heads head_dim"],
    v: Float[Array, "clips texts kv_heads head_dim"],
    of_clip: _Cached,
    of_answer: _Cached,
    seen: Bool[Array, "clips texts rows"],
    place: Int[Array, ""],
) -> Float[Array, "clips texts heads head_dim"]:
    """Attends from one token of each text to its clip, its answer and itself.

    The cached keys and values are (clips, kv_heads, rows, head_dim) of a clip, and
    (clips, kv_heads, texts, steps, head_dim) of answers, of which `place` are filled.
    """
    clips, texts, heads, head_dim = q.shape
    product = functools.partial(
        jnp.einsum,
        precision="highest" if q.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
    q = q.reshape(clips, texts, k.shape[2], -1, head_dim).transpose(0, 2, 1, 3, 4)
    k, v = (x.swapaxes(1, 2) for x in (k, v))
    far = product("ckngh,cksh->ckngs", q, of_clip[0])
    near = product("ckngh,cknlh->ckngl", q, of_answer[0])
    itself = product("ckngh,cknh->ckng", q, k)[..., None]
    earlier = jnp.arange(near.shape[-1], dtype=jnp.int32) < place
    far = jnp.where(seen[:, None, :, None], far, -jnp.inf)
    near = jnp.where(earlier[None, None, None, None], near, -jnp.inf)
    # A softmax over three arrays: concatenating and splitting would copy each again.
    parts = [far, near, itself]
    tops = [jnp.max(part, axis=-1, keepdims=True) for part in parts]
    top = functools.reduce(jnp.maximum, tops)
    parts = [jnp.exp((part - top) * head_dim**-0.5) for part in parts]
    norm = sum(jnp.sum(part, axis=-1, keepdims=True) for part in parts)
    far, near, itself = (part.astype(v.dtype) for part in parts)
    out = product("ckngs,cksh->ckngh", far, of_clip[1])
    out += product("ckngl,cknlh->ckngh", near, of_answer[1])
    out += product("ckng,cknh->ckngh", itself[..., 0], v)
    out = (out / norm).astype(v.dtype)
    return out.transpose(0, 2, 1, 3, 4).reshape(clips, texts, heads, head_dim)


def _for_cache(
    heads: Float[Array, "clips rows kv_heads head_dim"], config: DecoderConfig
) -> Float[Array, "clips kv_heads rows head_dim"]:
    """Moves heads before rows, the order in which a step reads the cache."""
    heads, mesh = heads.swapaxes(1, 2), parallel.grid()
    splits = mesh and config.num_key_value_heads % mesh.shape["model"] == 0
    return parallel.spread(heads, "data", "model" if splits else None)


def _most_likely(
    hidden: Float[Array, "clips texts embed"], head: Float[Array, "vocab embed"]
) -> Int[Array, "clips texts"]:
    """Returns the class of the largest logit, the first of equal ones."""
    logits = jnp.einsum(
        "cte,ve->ctv",
        hidden,
        head,
        precision="highest" if head.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _among(
    token: Int[Array, "clips texts"], ends: tuple[int, ...]
) -> Bool[Array, "clips texts"]:
    """Returns which tokens are among `ends`."""
    return jnp.any(token[..., None] == jnp.asarray(ends, jnp.int32)[None, None], -1)
