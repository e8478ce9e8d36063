"""Greedy answers: the most likely token, one after another, with a cache of keys.

The video and the questions about it go through the decoder once, as in `read`; keys and
values of all layers are kept, those of a clip once for all of its texts. Then all texts
of a batch take one token a step, until each has ended or has as many as are allowed.

Axes: `clips`; `texts` of a clip; `rows` of a trunk and, behind them, of its texts;
`steps`, the tokens that an answer may have; `heads`, `kv_heads`, `head_dim`, `embed`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int32

from vidsme_jax import parallel
from vidsme_jax.base import AuditError
from vidsme_jax.models import layers
from vidsme_jax.models.batches import Batch, Shape, Texts, TextShape
from vidsme_jax.models.decoder import Decoder, DecoderConfig, Visual
from vidsme_jax.models.rope import rope_tables

# Caches have a multiple of so many rows, or steps: else a GPU pads them in every step.
_ROWS, _STEPS = 64, 16
_CACHE_SHARE = 2  # The cache may take this part of what parameters leave free.


class Answers(NamedTuple):
    """What a model answers; of texts that a clip does not have, nothing.

    Attributes:
      ids: Tokens, with that which ended the answer, if any; -1 behind them.
      length: How many tokens there are.
      ended: Whether a token of `ends` is the last one.
    """

    ids: Int32[Array | np.ndarray, "clips texts steps"]
    length: Int32[Array | np.ndarray, "clips texts"]
    ended: Bool[Array | np.ndarray, "clips texts"]


class Answer(NamedTuple):
    """The answer to one question; see `base.Asked`."""

    ids: tuple[int, ...]
    ended: str  # "end" or "length".


@functools.lru_cache(maxsize=8)  # One function per model, so that it compiles once.
def greedy(
    graphdef: nnx.GraphDef, *, limit: int, ends: tuple[int, ...]
) -> Callable[[nnx.State, Batch], Answers]:
    """Returns the pure `step(state, batch)` that answers the questions of a batch.

    The batch has one direction, and `texts` without answers; without `texts` there is
    one answer a clip, to the prompt's start alone. The last row of a text predicts the
    first token of its answer; of a text without rows, which must not be the last of
    several, the trunk's last row does.

    Args:
      graphdef: Of the model.
      limit: The most tokens of an answer, at least 1.
      ends: The tokens that end one.

    Raises:
      AuditError: The model's family has no decoder that can do this.
    """

    def step(state: nnx.State, batch: Batch) -> Answers:
        model: Any = nnx.merge(graphdef, state)
        batch = batch if batch.texts is not None else _without_rows(batch)
        with jax.named_scope("generation"):
            asked = _asked(_decoder(model), model.see(batch.pixels), batch)
            return _answers(model, asked, limit, ends)

    return step


def answers(found: Answers, clip: int, count: int) -> list[Answer]:
    """Returns the answers to the first `count` questions about one clip of a batch.

    Args:
      found: From a step, on the host.
      clip: Its place in the batch.
      count: How many texts it has.
    """
    rows = zip(*(x[clip][:count] for x in found), strict=True)
    return [
        Answer(tuple(ids[:length].tolist()), "end" if ended else "length")
        for ids, length, ended in rows
    ]


def cache_bytes(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    shape: Shape,
    texts: TextShape | None,
    limit: int,
    split: int = 1,
) -> int:
    """Returns the bytes of keys and values that a device keeps of one clip.

    Args:
      graphdef: Of the model.
      state: Of the model; its values are not looked at.
      shape: Of the clip's trunk.
      texts: Of its texts.
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
    """Returns how many clips a device may answer questions about at a time.

    As many as have their cache in half of what the parameters leave free, at least one.

    Args:
      memory: Bytes that the device holds; None if that is not known.
      parameters: Bytes of them that lie there.
      of_a_clip: From `cache_bytes`.
      most: The most clips that are wanted: no more than a batch to be scored has, for
        reading videos and questions takes that much memory beside the cache.

    Example:
      >>> fit(80 * 2**30, 14 * 2**30, 12 * 2**28, most=32)
      11
    """
    if memory is None:
        return most
    return min(max((memory - parameters) // (_CACHE_SHARE * of_a_clip), 1), most)


class _Asked(NamedTuple):
    """What the steps read, and change nothing of.

    Attributes:
      last: States of the rows that predict the first tokens.
      start: Positions of the first tokens.
      there: Which texts the clips have.
      seen: The rows that a text sees.
      cache: Keys and values of these rows, of all layers, heads in front of rows.
    """

    last: Float[Array, "clips texts embed"]
    start: Int[Array, "clips texts"]
    there: Bool[Array, "clips texts"]
    seen: Bool[Array, "clips texts rows"]
    cache: Any


def _decoder(model: Any) -> Decoder:
    """Returns the part of a module whose layers are walked."""
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, Decoder):
        raise AuditError(
            [
                f"config.response: a model of the class {type(model).__name__} cannot "
                "generate answers, for it has no decoder that keeps its keys; take "
                "'given', with answers in the manifests"
            ]
        )
    return decoder


def _without_rows(batch: Batch) -> Batch:
    """Asks one text without rows about each clip; a row of padding stands for it."""
    clips, _, _, axes = batch.position.shape
    no = functools.partial(jnp.zeros, dtype=jnp.int32)
    row, kept = no((clips, 1)), no((clips, 0))
    means = jnp.zeros((clips, 0, 2), bool)
    texts = Texts(row, no((clips, 1, axes)), row, kept, kept, means)
    return batch._replace(texts=texts)


def _asked(decoder: Decoder, visual: Array | Visual, batch: Batch) -> _Asked:
    """Reads videos and questions, and keeps their keys and values."""
    x, position, behind, deep = decoder.lay_out(visual, batch)
    assert batch.texts is not None and behind is not None
    c = decoder.config
    tables = rope_tables(position, c.rope, c.head_dim)

    def step(layer, x, _, *args):
        *tables, behind = args
        own = layer.self_attn
        q, k, v = own.project(layer.input_layernorm(x), *tables)
        x = layer.mlp(x + own.finish(own.attend(q, k, v, behind)))
        fill = [(0, 0), (0, _padded(x.shape[1], _ROWS) - x.shape[1]), (0, 0), (0, 0)]
        return x, tuple(_kept(jnp.pad(y, fill), decoder.config) for y in (k, v))

    hidden, cache = layers.walk_stack(
        decoder.layers, step, x, (*tables, behind), after=deep
    )
    segment, shared = behind.segment, behind.shared[:, None]
    trunk = x.shape[1] - segment.shape[1]
    number = jnp.arange(1, 1 + batch.texts.means.shape[-1] // 2, dtype=jnp.int32)
    own = segment[:, None] == number[None, :, None]
    of_trunk = jnp.arange(trunk, dtype=jnp.int32)[None] < shared
    # The last row of each text, counted from the trunk's end; -1 if it has none.
    places = jnp.arange(segment.shape[1], dtype=jnp.int32)
    last = jnp.max(jnp.where(own, places[None, None], -1), axis=-1)
    place = jnp.where(last < 0, shared - 1, trunk + last)
    # Text has one position on all axes, behind the largest of what precedes it.
    largest = jnp.max(position, axis=-1)
    behind_trunk = jnp.max(jnp.where(of_trunk, largest[:, :trunk], 0), axis=1)
    before = jnp.take_along_axis(largest, place, axis=1)
    before = jnp.where(last < 0, behind_trunk[:, None], before)
    of_trunk = jnp.broadcast_to(of_trunk[:, None], (*own.shape[:2], trunk))
    fill = [(0, 0), (0, 0), (0, _padded(x.shape[1], _ROWS) - x.shape[1])]
    return _Asked(
        last=decoder.norm(jnp.take_along_axis(hidden, place[..., None], axis=1)),
        start=before + 1,
        there=number[None] <= jnp.maximum(jnp.max(segment, axis=1), 1)[:, None],
        seen=jnp.pad(jnp.concatenate([of_trunk, own], axis=-1), fill),
        cache=cache,
    )


def _answers(model: Any, asked: _Asked, limit: int, ends: tuple[int, ...]) -> Answers:
    """Takes token after token."""
    decoder = _decoder(model)
    token = _likeliest(asked.last, model.head)
    size = *token.shape, limit
    ids = jnp.full(size, -1, jnp.int32)
    ids = ids.at[..., 0].set(jnp.where(asked.there, token, -1))
    ended = asked.there & _among(token, ends)
    # Of the answers' tokens: as `asked.cache`, with an axis of texts before the rows.
    rows = token.shape[1], _padded(limit, _STEPS)
    own = jax.tree.map(
        lambda x: jnp.zeros((*x.shape[:-2], *rows, x.shape[-1]), x.dtype),
        asked.cache,
    )

    def goes_on(carry) -> Array:
        done, _, ended, *_ = carry
        return (done < limit) & jnp.any(asked.there & ~ended)

    def step(carry):
        done, token, ended, ids, length, own = carry
        hidden, own = _advance(decoder, asked, token, own, done - 1)
        token = _likeliest(hidden, model.head)
        going = asked.there & ~ended
        ids = ids.at[..., done].set(jnp.where(going, token, -1))
        ended = ended | (going & _among(token, ends))
        return done + 1, token, ended, ids, length + going.astype(jnp.int32), own

    length = asked.there.astype(jnp.int32)
    carry = jnp.int32(1), token, ended, ids, length, own
    _, _, ended, ids, length, _ = jax.lax.while_loop(goes_on, step, carry)
    return Answers(ids, length, ended)


def _advance(
    decoder: Decoder,
    asked: _Asked,
    token: Int[Array, "clips texts"],
    own: Any,
    place: Int[Array, ""],
) -> tuple[Float[Array, "clips texts embed"], Any]:
    """Reads one token of each answer; returns states and the keys with theirs."""
    c = decoder.config
    axes = max(1, len(c.rope.sections))
    position = jnp.repeat((asked.start + place)[..., None], axes, axis=-1)
    tables = rope_tables(position, c.rope, c.head_dim)

    def step(layer, x, kept, *args):
        *tables, seen, place = args
        cache, answers = kept
        attention = layer.self_attn
        q, k, v = attention.project(layer.input_layernorm(x), *tables)
        out = _attend(q, k, v, cache, answers, seen, place)
        x = layer.mlp(x + attention.finish(out))
        return x, (_kept(k, decoder.config), _kept(v, decoder.config))

    x, new = layers.walk_stack(
        decoder.layers,
        step,
        decoder.embed_tokens(token),
        (*tables, asked.seen, place),
        _paired(asked.cache, own),
    )

    def put(old, new):
        new = new[..., None, :]
        return jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=-2)

    return decoder.norm(x), jax.tree.map(put, own, new)


def _padded(rows: int, multiple: int) -> int:
    return -(-rows // multiple) * multiple


def _paired(cache: Any, own: Any) -> Any:
    """Puts both caches of each layer together, however the layers lie."""
    if isinstance(cache[0], tuple):
        return tuple(zip(cache, own, strict=True))
    return cache, own


def _attend(q, k, v, cache, own, seen, place):
    """Attention of one token of each text to its clip, to its answer and to itself.

    Args:
      q: Queries, (clips, texts, heads, head_dim).
      k: Keys of the token itself, (clips, texts, kv_heads, head_dim).
      v: Its values.
      cache: Keys and values of a clip, (clips, kv_heads, rows, head_dim) each.
      own: The same of answers, (clips, kv_heads, texts, steps, head_dim).
      seen: The rows of the clip that a text sees, (clips, texts, rows).
      place: How many tokens of an answer stand before this one.
    """
    clips, texts, heads, head_dim = q.shape
    product = functools.partial(
        jnp.einsum,
        precision="highest" if q.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
    q = q.reshape(clips, texts, k.shape[2], -1, head_dim).transpose(0, 2, 1, 3, 4)
    k, v = (x.swapaxes(1, 2) for x in (k, v))
    far = product("ckngh,cksh->ckngs", q, cache[0])
    near = product("ckngh,cknlh->ckngl", q, own[0])
    itself = product("ckngh,cknh->ckng", q, k)[..., None]
    earlier = jnp.arange(near.shape[-1], dtype=jnp.int32) < place
    far = jnp.where(seen[:, None, :, None], far, -jnp.inf)
    near = jnp.where(earlier[None, None, None, None], near, -jnp.inf)
    # A softmax over three arrays: joining and cutting them would move each once more.
    parts = [far, near, itself]
    tops = [jnp.max(part, axis=-1, keepdims=True) for part in parts]
    top = functools.reduce(jnp.maximum, tops)
    parts = [jnp.exp((part - top) * head_dim**-0.5) for part in parts]
    norm = sum(jnp.sum(part, axis=-1, keepdims=True) for part in parts)
    far, near, itself = (part.astype(v.dtype) for part in parts)
    out = product("ckngs,cksh->ckngh", far, cache[1])
    out += product("ckngl,cknlh->ckngh", near, own[1])
    out += product("ckng,cknh->ckngh", itself[..., 0], v)
    out = (out / norm).astype(v.dtype)
    return out.transpose(0, 2, 1, 3, 4).reshape(clips, texts, heads, head_dim)


def _kept(
    heads: Float[Array, "clips rows kv_heads head_dim"], config: DecoderConfig
) -> Float[Array, "clips kv_heads rows head_dim"]:
    """Puts heads before rows, so that a step reads the cache as it lies."""
    heads, mesh = heads.swapaxes(1, 2), parallel.grid()
    splits = mesh and config.num_key_value_heads % mesh.shape["model"] == 0
    return parallel.spread(heads, "data", "model" if splits else None)


def _likeliest(
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


def _among(token: Int[Array, "clips texts"], ends: tuple[int, ...]) -> Array:
    return jnp.any(token[..., None] == jnp.asarray(ends, jnp.int32)[None, None], -1)
