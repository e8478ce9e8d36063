"""The entropies of single clips, frame by frame, for the report."""

from collections.abc import Sequence

import numpy as np

from vidsme_jax import scores
from vidsme_jax.base import ClipCurve, ClipError, Item, ScoreTable
from vidsme_jax.data.reading import Reader
from vidsme_jax.evaluation import metrics
from vidsme_jax.store.shards import Shards

_THUMBNAIL = 96  # Pixels, the height in the report.


def extreme_curves(
    items: Sequence[Item],
    store: Shards,
    table: ScoreTable,
    headline: str,
    profile: str,
    reader: Reader,
) -> list[ClipCurve]:
    """Returns the entropies, frame by frame, of the most and least member-like clip.

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
    curves = []
    for label, place in (("most", np.argmax(oriented)), ("least", np.argmin(oriented))):
        item = by_id[table.id[place]]
        clip = next(store.read({str(item.path)}))
        rows = scores.PROFILES[profile].sharma_mittal(
            clip.signals, table.q[place], table.r[place]
        )
        per_frame = rows.shape[-1] // clip.num_frames  # A row may follow the last one.
        parts = np.split(rows[:, : clip.num_frames * per_frame], clip.num_frames, -1)
        natural, backward = np.stack([part.mean(-1) for part in parts], axis=-1)
        try:
            pictures = reader.thumbnails(item.path, clip.frame_indices, _THUMBNAIL)
        except ClipError:  # Gone since it was scored: its curves still stand.
            pictures = None
        curves.append(
            ClipCurve(
                label=f"{label} member-like",
                id=item.id,
                role=item.role,
                score=float(table.scores[headline][place]),
                frame_indices=clip.frame_indices,
                natural=natural,
                reversed=backward,
                thumbnails=pictures,
            )
        )
    return curves
