"""Signals of rows of text from their logits, by definition, in float64."""

import numpy as np

from vidsme_jax.base import PROFILE_ORDERS, Asked, ScoredText, TokenSignals


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def profile(log_p: np.ndarray) -> np.ndarray:
    """Renyi entropies at `PROFILE_ORDERS`, one by one."""
    p, found = np.exp(log_p), []
    for order in PROFILE_ORDERS:
        if order == 1:
            found.append(-np.sum(p * log_p, axis=-1))
        elif np.isinf(order):
            found.append(-log_p.max(-1))
        else:
            found.append(np.log(np.sum(np.exp(order * log_p), axis=-1)) / (1 - order))
    return np.stack(found, axis=-1)


def signals(log_p: np.ndarray, tokens: np.ndarray) -> TokenSignals:
    """Signals of (directions, rows, classes) with true targets."""
    target = np.take_along_axis(log_p, tokens[None, :, None], -1)
    entropy = -np.sum(np.exp(log_p) * log_p, -1, keepdims=True)
    two = np.sort(log_p, axis=-1)[..., -2:]
    above = (log_p > target).sum(-1)
    equal = (log_p == target).sum(-1) - 1
    return TokenSignals(
        renyi=profile(log_p),
        varentropy=np.sum(np.exp(log_p) * (log_p + entropy) ** 2, -1),
        gap=two[..., 1] - two[..., 0],
        log_prob=target[..., 0],
        rank=1 + above + equal / 2,
    )


def scored_text(
    logits: np.ndarray,
    tokens,
    slices,
    *,
    blank: np.ndarray | None = None,
    answer: str = "a cat",
) -> ScoredText:
    """Makes a text of logits (2, rows, classes) whose rows predict `tokens`.

    Args:
      logits: Natural order, then the other.
      tokens: Of each row.
      slices: Of each row, 1 (instruction) or 2 (response).
      blank: Logits of the rows after a grey video.
      answer: Its text.
    """
    tokens, slices = np.asarray(tokens, np.int32), np.asarray(slices, np.int8)
    log_p = log_softmax(np.asarray(logits, np.float64))
    means = [np.log(np.exp(log_p[:, slices == k]).mean(1)) for k in (1, 2)]
    found = signals(log_p, tokens)._replace(
        mean_renyi=np.stack([profile(each) for each in means], axis=1)
    )
    grey = None if blank is None else log_softmax(np.asarray(blank, np.float64))
    return ScoredText(
        asked=Asked(key="k", question="what", answer=answer),
        tokens=tokens,
        slice=slices,
        signals=TokenSignals(
            *(x if x is None else np.asarray(x, np.float32) for x in found)
        ),
        blank=None
        if grey is None
        else grey[np.arange(len(tokens)), tokens].astype(np.float32),
    )
