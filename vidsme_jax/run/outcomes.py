"""Takes the signals of one sample out of the arrays of a batch, without padding."""

import numpy as np
from jaxtyping import Int16

from vidsme_jax.base import SLICES, AnyArray, Asked, ClipError, ScoredText, TokenSignals
from vidsme_jax.models.rows import Rows
from vidsme_jax.run.step import Found
from vidsme_jax.wording import printable

_MEANS = "mean_renyi"  # The only array without an axis of rows.
_QUOTED = 60  # Characters of a question in a message.


def of_video(
    k: int, found: TokenSignals, rows: Rows
) -> tuple[TokenSignals, Int16[np.ndarray, " rows"]]:
    """Returns the signals of the video's rows, and the frame that each shows.

    Args:
      k: The sample's place in the batch.
      found: The results of the batch; (clips, directions, kept, ...).
      rows: The rows of the sample, in natural order.

    Raises:
      ClipError: Some are not finite.
    """
    trunk = rows.trunk
    own = np.flatnonzero(trunk.slice >= 0)
    one = _cut(k, found, own, slice(None))
    _refuse(_not_finite(one))
    return one, trunk.frame[own]


def of_text(k: int, number: int, asked: Asked, found: Found, rows: Rows) -> ScoredText:
    """Returns the signals of one text.

    Args:
      k: The sample's place in the batch.
      number: The number of the text within the sample, from 1.
      asked: The text.
      found: The results of the batch.
      rows: The rows of the sample, in natural order.

    Raises:
      ClipError: Some are not finite.
    """
    assert found.texts is not None
    of_texts = rows.text[rows.text > 0]
    own, mine = np.flatnonzero(of_texts == number), rows.text == number
    slices = rows.slice[mine]
    one = _cut(k, found.texts, own, slice(2 * (number - 1), 2 * number))
    has = np.isin([SLICES.index(name) for name in SLICES[1:]], slices)
    blank = None if found.blank is None else np.asarray(found.blank)[k][own]
    means = one.mean_renyi
    bad = _not_finite(one if means is None else one._replace(mean_renyi=means[:, has]))
    if blank is not None and not np.isfinite(blank).all():
        bad.append("blank")
    asks = printable(asked.question or asked.answer, _QUOTED)
    _refuse(bad, f" of the text {asks!r}")
    if means is not None:  # A mean over no row is none.
        means = np.where(has[None, :, None], means, np.float32(np.nan))
        one = one._replace(mean_renyi=means)
    return ScoredText(
        asked=asked, tokens=rows.target[mine], slice=slices, signals=one, blank=blank
    )


def _cut(k: int, found: TokenSignals, own: np.ndarray, means: slice) -> TokenSignals:
    """Returns the signals of one sample; a single direction counts for both."""

    def cut(name: str, x: AnyArray) -> AnyArray:
        taken = x[k][:, means] if name == _MEANS else x[k][:, own]
        return np.repeat(np.asarray(taken), 2 // len(taken), axis=0)

    return found.map(cut)


def _not_finite(signals: TokenSignals) -> list[str]:
    return [
        name
        for name, value in zip(TokenSignals._fields, signals, strict=True)
        if value is not None and not np.isfinite(value).all()
    ]


def _refuse(bad: list[str], where: str = "") -> None:
    if bad:
        raise ClipError("signals", f"not finite: {', '.join(bad)}{where}")
