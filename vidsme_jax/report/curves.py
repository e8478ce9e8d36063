"""The entropies of single clips, frame by frame, for the report."""

from collections.abc import Sequence

import numpy as np
from absl import logging
from jaxtyping import UInt8

from vidsme_jax import scores
from vidsme_jax.base import ClipError, Item, ScoredClip, ScoreTable
from vidsme_jax.data import loader
from vidsme_jax.data.reading import Reader
from vidsme_jax.evaluation import metrics
from vidsme_jax.report import plots
from vidsme_jax.report.plots import ClipCurve
from vidsme_jax.store.signals import Signals
from vidsme_jax.wording import printable

_THUMBNAIL = 96  # Pixels, the height in the report.
_CAUSE = 200  # Characters.


def extreme_curves(
    items: Sequence[Item],
    store: Signals,
    table: ScoreTable,
    headline: str,
    profile: str,
    reader: Reader,
) -> list[ClipCurve]:
    """Returns the entropies, frame by frame, of the most and least member-like clip.

    There are none where the rows of the video, or the headline, are not scored.

    Args:
      items: Of the corpus.
      store: The signals.
      table: The scores.
      headline: The score that ranks the clips.
      profile: Of the scores, by name.
      reader: Of the clips, for pictures of their frames.
    """
    oriented = metrics.oriented(table, headline)
    by_id = {item.id: item for item in items}
    curves: list[ClipCurve] = []
    if np.isnan(oriented).all():
        return curves
    ends = ("most", np.nanargmax(oriented)), ("least", np.nanargmin(oriented))
    for label, place in ends:
        item = by_id[table.id[place]]
        clip = next(store.read({item.clip}))
        if clip.signals is None:
            continue
        shows = clip.frame >= 0  # Separators show none.
        frames, which = np.unique(clip.frame[shows], return_inverse=True)
        rows = scores.PROFILES[profile].sharma_mittal(
            clip.signals, table.q[place], table.r[place]
        )
        natural, second = (
            np.bincount(which, each[shows]) / np.bincount(which) for each in rows
        )
        indices = tuple(clip.frame_indices[k] for k in frames)
        pictures, missing = None, ""
        try:
            pictures = _pictures(item, clip, indices, reader)
        except Exception as raised:  # No picture may fail a report.
            missing = printable(loader.failure(raised).cause, _CAUSE)
            name = printable(item.video, _CAUSE)
            logging.warning("%s: its frames are not shown: %s", name, missing)
        curves.append(
            ClipCurve(
                label=f"{label} member-like",
                id=item.id,
                role=item.role,
                score=float(table.scores[headline][place]),
                frame_indices=indices,
                natural=natural,
                reversed=None if store.has_one_order else second,
                thumbnails=pictures,
                missing=missing,
            )
        )
    return curves


def _pictures(
    item: Item, clip: ScoredClip, indices: tuple[int, ...], reader: Reader
) -> UInt8[np.ndarray, "pictures height width 3"]:
    """Returns small pictures of some of the frames.

    Raises:
      ClipError: The file is gone or another one by now, or cannot be shown.
    """
    if not reader.unchanged(item.clip, clip.content_hash, clip.stamp):
        raise ClipError("open", "the file has changed since it was scored")
    shown = [indices[k] for k in plots.pictured(len(indices))]
    return reader.thumbnails(item.clip, shown, _THUMBNAIL)
