"""The loss of answers, by the forward pass of an audit.

Axes: `clips` of a batch; `rows` that predict an answer; `embed`; `vocab`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidsme_jax.models.batches import Batch

_MOST = 2**27  # Logits of a batch; with more, clips are computed one after another.


def answer_nll(
    model: Any, batch: Batch
) -> tuple[Float[Array, " clips"], Float[Array, " clips"]]:
    """Returns the negative log-likelihood of each answer and its number of tokens.

    Args:
      model: A module of any family.
      batch: One direction, with the rows of the slice "response" kept; those without a
        target do not count.

    Returns:
      The sum over the tokens of each clip's answer, in nats, and the number of its
      tokens; both float32.
    """
    hidden, _ = model.read(model.see(batch.pixels), batch)
    hidden, target = hidden[:, 0], jnp.asarray(batch.target)[:, 0]
    head = model.head
    if target.size * len(head) <= _MOST:
        nll = _nll(hidden, target, head)
    else:
        one: Any = jax.checkpoint(lambda each: _nll(each[0], each[1], head))
        nll = jax.lax.map(one, (hidden, target))
    return nll, (target >= 0).astype(jnp.float32).sum(-1)


def _nll(
    hidden: Float[Array, "*clips rows embed"],
    target: Int[Array, "*clips rows"],
    head: Float[Array, "vocab embed"],
) -> Float[Array, "*clips"]:
    """Returns the negative log-likelihood, summed over rows that have a target."""
    with jax.named_scope("head"):
        precision = "highest" if head.dtype == jnp.float32 else None  # As in an audit.
        logits = jnp.matmul(
            hidden, head.T, precision=precision, preferred_element_type=jnp.float32
        )
        token = jnp.maximum(target, 0)[..., None]
        picked = jnp.take_along_axis(logits, token, axis=-1)[..., 0]
        nll = jax.nn.logsumexp(logits, axis=-1) - picked
        return jnp.where(target >= 0, nll, 0.0).sum(-1)
