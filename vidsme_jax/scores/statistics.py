r"""Statistics of the rows of a slice: what scores average. Smaller = member, in all.

Each function takes a `ClipView` and returns one number a row, or a single row where
the statistic is one of the whole slice. With $p$ the next-token distribution of a row
of the natural clip, $p'$ that of the same position of the second order, $t$ the target
(of a row of the video its own argmax, of a row of text the true token) and $R_\alpha$
the Renyi entropy; all in nats.

Examples are of rows with few classes, q = r = 1.5.

References:
  [1] Li, Yu and Wang, 2025. Vid-SME. https://arxiv.org/abs/2506.03179
  [2] Li et al., 2024. Max-Renyi. https://arxiv.org/abs/2411.02902
  [3] Shi et al., 2023. Min-K% Prob. https://arxiv.org/abs/2310.16789
  [4] Zhang et al., 2024. Min-K%++. https://arxiv.org/abs/2404.02936
  [5] Song and Mittal, 2021. Modified entropy. https://arxiv.org/abs/2003.10595
  [6] Carlini et al., 2021. Perplexity, zlib. https://arxiv.org/abs/2012.07805
  [7] Mitchell et al., 2023. Log rank. https://arxiv.org/abs/2301.11305
  [8] Chen et al., 2026. Windows of two models. https://arxiv.org/abs/2601.02751
"""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.base import AnyArray, AuditError, TokenSignals
from vidsme_jax.entropy import stored

Rows = Float[AnyArray, " rows"]
# Renyi entropy of order q, q and r to the Sharma-Mittal entropy; all broadcast.
Deformation = Callable[[Any, Any, Any], Any]
_NODES = slice(1, 14)  # Of the Renyi profile: the orders in [1, 2].
_SHANNON, _TWO, _INF = 1, 13, 14  # Places in the profile.
_SIZES = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)  # Of `windows`, as configured in [8].


@dataclasses.dataclass(frozen=True)
class ClipView:
    """What a statistic may read: the rows of one slice and the clip's entropy orders.

    Attributes:
      signals: Of these rows, (2, rows, ...) each.
      q: Order, in [1, 2].
      r: Degree, >= 1.
      deform: Of the profile.
      answer: The text of the answer; of rows of text.
      tokens: The targets; of rows of text.
      blank: log p of the targets after a grey video, if it was computed.
      reference: The same rows by the reference model, if there is one.
    """

    signals: TokenSignals
    q: float
    r: float
    deform: Deformation
    answer: str = ""
    tokens: tuple[int, ...] = ()
    blank: Rows | None = None
    reference: "ClipView | None" = None


Statistic = Callable[[ClipView], Rows]


def sharma_mittal(
    signals: TokenSignals, q: Any, r: Any, deform: Deformation
) -> Float[np.ndarray, "*points 2 rows"]:
    r"""Computes $S_{q,r}$ of every row, natural and second order of the frames [1].

    Args:
      signals: Of one clip.
      q: A number, or an array (points,); each distinct q is interpolated once.
      r: A number, or an array like `q`.
      deform: Of the profile.
    """
    q, r = np.asarray(q, np.float64), np.asarray(r, np.float64)
    orders, place = np.unique(q, return_inverse=True)
    nodes = signals.renyi[..., _NODES]
    renyi = np.asarray(stored.renyi_at_order(nodes, orders[:, None, None]))
    renyi = renyi[place.reshape(q.shape)]
    return deform(renyi, q[..., None, None], r[..., None, None])


def vid_sme(c: ClipView) -> Rows:
    r"""Computes $S_{q,r}(p) - S_{q,r}(p')$, position by position [1].

    A row that is uniform in both orders gives 0; one that is certain in the natural
    order and uniform over V classes in the other gives $-S$ of the uniform row.

    >>> from vidsme_jax.scores.example import view
    >>> vid_sme(view([[0.5, 0.25, 0.25]], [[0.4, 0.3, 0.3]])).round(3).tolist()
    [-0.044]
    """
    natural, second = sharma_mittal(c.signals, c.q, c.r, c.deform)
    return natural - second


def vid_sme_sequence(c: ClipView) -> Rows:
    r"""Computes $S_{q,r}(\bar p) - S_{q,r}(\bar p')$ of the means; one row [1].

    >>> from vidsme_jax.scores.example import view
    >>> vid_sme_sequence(view([[0.5, 0.25, 0.25]], [[0.4, 0.3, 0.3]])).round(3).tolist()
    [-0.044]
    """
    return _of_means(c, 0)


def vid_sme_sequence_released(c: ClipView) -> Rows:
    """Computes `vid_sme_sequence` over the rows that the release averages [1].

    It averages one text row too many where the tokenizer adds no BOS token.

    >>> from vidsme_jax.scores.example import view
    >>> clip = view([[0.5, 0.25, 0.25]], [[0.4, 0.3, 0.3]])
    >>> vid_sme_sequence_released(clip).round(3).tolist()
    [-0.044]
    """
    return _of_means(c, 1)


def _of_means(c: ClipView, which: int) -> Rows:
    means = _present(c.signals.mean_renyi, "mean_renyi, of the head's second pass")
    nodes = means[:, which, _NODES]
    renyi = stored.renyi_at_order(nodes, c.q)
    natural, second = c.deform(renyi, c.q, c.r)
    return np.array([natural - second])


def renyi_05(c: ClipView) -> Rows:
    r"""Returns $R_{1/2}(p) = 2 \log \sum_v \sqrt{p_v}$ [2]; $\log V$ if uniform.

    >>> from vidsme_jax.scores.example import view
    >>> renyi_05(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [1.07]
    """
    return c.signals.renyi[0, :, 0]


def renyi_05_clamped(c: ClipView) -> Rows:
    """Returns `renyi_05` of probabilities clamped at 1e-10, as released [1].

    >>> from vidsme_jax.scores.example import view
    >>> renyi_05_clamped(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [1.07]
    """
    what = "renyi_half_clamped, of the head's second pass"
    return _present(c.signals.renyi_half_clamped, what)[0]


def renyi_1(c: ClipView) -> Rows:
    r"""Returns $R_1(p) = -\sum_v p_v \log p_v$ (Shannon) [2]; $\log V$ if uniform.

    >>> from vidsme_jax.scores.example import view
    >>> renyi_1(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [1.04]
    """
    return c.signals.renyi[0, :, _SHANNON]


def renyi_2(c: ClipView) -> Rows:
    r"""Returns $R_2(p) = -\log \sum_v p_v^2$ [2]; $\log V$ if uniform.

    >>> from vidsme_jax.scores.example import view
    >>> renyi_2(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [0.981]
    """
    return c.signals.renyi[0, :, _TWO]


def renyi_inf(c: ClipView) -> Rows:
    r"""Returns $R_\infty(p) = -\log \max_v p_v$ [2]; $\log V$ if uniform.

    >>> from vidsme_jax.scores.example import view
    >>> renyi_inf(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [0.693]
    """
    return c.signals.renyi[0, :, _INF]


def nll(c: ClipView) -> Rows:
    r"""Returns $-\log p_t$ [3]; $\log 2$ if $p_t$ is 1/2.

    >>> from vidsme_jax.scores.example import view
    >>> nll(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [0.693]
    """
    return -c.signals.log_prob[0]


def perplexity(c: ClipView) -> Rows:
    r"""Computes $\exp$ of the mean of $-\log p_t$ [6]; one row. V if uniform.

    >>> from vidsme_jax.scores.example import view
    >>> perplexity(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [2.0]
    """
    rows = np.sort(nll(c).astype(np.float64))
    return np.exp(rows.mean(keepdims=True))


def min_k_plus_plus(c: ClipView) -> Rows:
    r"""Computes $(\mathrm{E}_p \log p - \log p_t) / \sqrt{\mathrm{Var}_p \log p}$ [4].

    For a point mass numerator and denominator are 0; the limit of their ratio is 0 too.

    >>> from vidsme_jax.scores.example import view
    >>> min_k_plus_plus(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [-1.0]
    """
    s = c.signals
    surprise = -s.renyi[0, :, _SHANNON] - s.log_prob[0]
    deviation = np.sqrt(s.varentropy[0])
    return np.where(deviation > 0, surprise / np.maximum(deviation, 1e-12), 0.0)


def modified_entropy(c: ClipView) -> Rows:
    r"""Returns $-(1 - p_t) \log p_t - \sum_{v \ne t} p_v \log(1 - p_v)$ [5].

    >>> from vidsme_jax.scores.example import view
    >>> modified_entropy(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [0.49]
    """
    return _modified(c, 0)


def modified_renyi_05(c: ClipView) -> Rows:
    r"""Returns the modified Renyi-1/2 entropy [2]; 0 if p is a point mass.

    $$2 (1 - p_t)(1 - \sqrt{p_t}) + 2 \sum_{v \ne t} p_v (1 - \sqrt{1 - p_v})$$

    >>> from vidsme_jax.scores.example import view
    >>> modified_renyi_05(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [0.427]
    """
    return _modified(c, 1)


def modified_renyi_2(c: ClipView) -> Rows:
    r"""Returns $(1 - p_t)^2 + \sum_{v \ne t} p_v^2$ [2]; 0 if p is a point mass.

    >>> from vidsme_jax.scores.example import view
    >>> modified_renyi_2(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [0.375]
    """
    return _modified(c, 2)


def _modified(c: ClipView, which: int) -> Rows:
    what = "modified, of the head's second pass"
    return _present(c.signals.modified, what)[0, :, which]


def gap(c: ClipView) -> Rows:
    r"""Returns $-(\log p_t - \log p_u)$, u the most probable class below t [2].

    >>> from vidsme_jax.scores.example import view
    >>> gap(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [-0.693]
    """
    return -c.signals.gap[0]


def nll_sum(c: ClipView) -> Rows:
    r"""Sums $-\log p_t$ over the rows; one row. $n \log V$ if all n are uniform.

    >>> from vidsme_jax.scores.example import view
    >>> nll_sum(view([[0.5, 0.25, 0.25]] * 2)).round(3).tolist()
    [1.386]
    """
    return np.sort(nll(c).astype(np.float64)).sum(keepdims=True)


def standardised_entropy(c: ClipView) -> Rows:
    r"""Computes $H / \sqrt{H^2 + V}$: entropy by root mean square of $\log p$; ours.

    V is the varentropy, so that the value is monotone in $H / \sqrt V$ and finite: 1 if
    p is uniform, and 0 in the limit of a point mass. No target is needed.

    >>> from vidsme_jax.scores.example import view
    >>> standardised_entropy(view([[0.5, 0.25, 0.25]])).round(3).tolist()
    [0.949]
    """
    entropy = np.maximum(renyi_1(c), 0.0).astype(np.float64)
    scale = np.sqrt(entropy**2 + np.maximum(c.signals.varentropy[0], 0.0))
    return np.where(scale > 0, entropy / np.maximum(scale, 1e-30), 0.0)


def log_rank(c: ClipView) -> Rows:
    r"""Returns $\log$ of the rank of $t$ among the classes [7]; 0 if first.

    >>> from vidsme_jax.scores.example import view
    >>> log_rank(view([[0.5, 0.25, 0.25]], targets=[1])).round(3).tolist()
    [0.916]
    """
    return np.log(_present(c.signals.rank, "rank").astype(np.float64)[0])


def pmi(c: ClipView) -> Rows:
    r"""Computes $-(\log p_t - \log p'_t)$: what the order of the frames adds to log p.

    0 if the second order gives the target the same probability.

    >>> from vidsme_jax.scores.example import view
    >>> pmi(view([[0.5, 0.5]], [[0.25, 0.75]], targets=[0])).round(3).tolist()
    [-0.693]
    """
    return -(c.signals.log_prob[0] - c.signals.log_prob[1])


def pmi_blank(c: ClipView) -> Rows:
    """Computes `pmi` against a grey video: what the clip adds to log p.

    >>> from vidsme_jax.scores.example import view
    >>> pmi_blank(view([[0.5, 0.25, 0.25]], blank=[0.25])).round(3).tolist()
    [-0.693]
    """
    return -(c.signals.log_prob[0] - _present(c.blank, "blank"))


def nll_per_zlib_byte(c: ClipView) -> Rows:
    r"""Computes $-\sum \log p_t$ by the bytes of the answer in zlib; one row [6].

    The release of [6] takes the mean of $-\log p_t$; the sum grows with the text, as
    the bytes do. UTF-8 at zlib's level 9; an empty answer has 8 bytes.

    >>> from vidsme_jax.scores.example import view
    >>> nll_per_zlib_byte(view([[0.5, 0.25, 0.25]], answer="a cat")).round(3).tolist()
    [0.053]
    """
    text = c.answer.encode("utf-8", "surrogatepass")
    return nll_sum(c) / len(zlib.compress(text, 9))


def windows(c: ClipView) -> Rows:
    r"""Computes minus the share of windows that the target predicts better [8].

    $$-\frac{1}{|W|} \sum_{w \in W} \frac{1}{n - w + 1} \sum_i
      [\sum_{j=i}^{i+w-1} (\log p_{t_j} - \log p^{ref}_{t_j}) > 0]$$

    over windows of 2 to 40 rows, at most all n of them. Equal sums count half: of two
    equal models the value is -1/2 (0 in the release of [8]). NaN without a reference,
    or where its tokens are others.

    >>> from vidsme_jax.scores.example import view
    >>> clip = view([[0.5, 0.25, 0.25]] * 2, reference=[[0.4, 0.3, 0.3]] * 2)
    >>> windows(clip).round(3).tolist()
    [-1.0]
    """
    other = c.reference
    if other is None or c.tokens != other.tokens:
        return np.array([np.nan])
    own, others = (x.signals.log_prob[0].astype(np.float64) for x in (c, other))
    ends = np.cumsum([0.0, *(own - others)])
    shares: list[np.floating] = []
    for size in _SIZES:
        size = min(size, len(own))
        sums = ends[size:] - ends[:-size]
        shares.append(np.mean((np.sign(sums) + 1) / 2))
    return np.array([-np.mean(shares)])


def _present(value: AnyArray | None, what: str) -> AnyArray:
    if value is None:
        raise AuditError([f"the signals lack {what}, which a chosen score needs"])
    return value


# Those that read what only the head's second pass computes.
SECOND_PASS = {vid_sme_sequence, vid_sme_sequence_released, renyi_05_clamped} | {
    modified_entropy,
    modified_renyi_05,
    modified_renyi_2,
}
BLANK = {pmi_blank}  # Those that read the rows of a grey video.
# Those that compare the natural with the second order of the frames.
ORDERS = {vid_sme, vid_sme_sequence, vid_sme_sequence_released, pmi}
COMPARING = {windows}  # Those that compare the model with the reference row by row.
