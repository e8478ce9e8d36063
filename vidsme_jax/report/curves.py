"""The entropies of single clips, frame by frame, for the report."""

from collections.abc import Mapping, Sequence

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
EACH = 3  # Clips of either end.
_ORDINALS = ("", "second ", "third ")


def extreme_curves(
    items: Sequence[Item],
    store: Signals,
    table: ScoreTable,
    headline: str,
    profile: str,
    reader: Reader,
) -> list[ClipCurve]:
    """Returns the entropies, frame by frame, of the most and least member-like clips.

    They are of the suspects where there are any with the headline, else of all roles;
    three of each end, each clip once, the most member-like first. There are none where
    the rows of the video, or the headline, are not scored.

    Args:
      items: Of the corpus.
      store: The signals.
      table: The scores.
      headline: The score that ranks the clips.
      profile: Of the scores, by name.
      reader: Of the clips, for pictures of their frames.
    """
    by_id = {item.id: item for item in items}
    curves: list[ClipCurve] = []
    for label, place in _extremes(table, headline, by_id):
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
                label=label,
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


def _extremes(
    table: ScoreTable, headline: str, by_id: Mapping[str, Item]
) -> list[tuple[str, int]]:
    """Returns rows of the most and the least member-like clips, with their labels."""
    oriented = metrics.oriented(table, headline)
    of_suspects = (table.role == "suspects") & ~np.isnan(oriented)
    ranked = of_suspects if of_suspects.any() else ~np.isnan(oriented)
    rows = np.flatnonzero(ranked)
    rows = rows[np.argsort(-oriented[rows], kind="stable")].tolist()
    every = len({by_id[str(table.id[row])].clip for row in rows})
    found: list[tuple[str, int]] = []
    seen: set[str] = set()
    for end, most in (("most", -(-every // 2)), ("least", every // 2)):
        chosen: list[int] = []
        for row in rows if end == "most" else reversed(rows):
            clip = by_id[str(table.id[row])].clip
            if len(chosen) == min(most, EACH):
                break
            if clip not in seen:
                seen.add(clip)
                chosen.append(row)
        for number, row in enumerate(chosen):
            found.append((f"{_ORDINALS[number]}{end} member-like", row))
    return found


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
