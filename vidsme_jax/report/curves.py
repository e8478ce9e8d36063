"""The entropies of single clips by frame, for the report."""

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

_THUMBNAIL = 96  # Height in pixels.
_MAX_CAUSE = 200  # Characters.
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
    """Returns the entropies by frame of the most and the least member-like clips.

    The clips are suspects if any have the headline score, else of all roles: three of
    each end, each clip once, the most member-like first. Clips without signals of the
    video are left out.

    Args:
      items: The corpus.
      store: The signals.
      table: The scores.
      headline: The score that ranks the clips.
      profile: The name of the score profile.
      reader: Reads the frames of the clips, for thumbnails.
    """
    by_id = {item.id: item for item in items}
    curves: list[ClipCurve] = []
    for label, row in _extremes(table, headline, by_id):
        item = by_id[table.id[row]]
        clip = next(store.read({item.clip}))
        if clip.signals is None:
            continue
        of_frame = clip.frame >= 0  # Separators are of no frame.
        frames, which = np.unique(clip.frame[of_frame], return_inverse=True)
        entropies = scores.PROFILES[profile].sharma_mittal(
            clip.signals, table.q[row], table.r[row]
        )
        natural, second = (
            np.bincount(which, each[of_frame]) / np.bincount(which)
            for each in entropies
        )
        indices = tuple(clip.frame_indices[k] for k in frames)
        pictures, missing = None, ""
        try:
            pictures = _pictures(item, clip, indices, reader)
        except Exception as error:  # A picture must not fail a report.
            missing = printable(loader.failure(error).cause, _MAX_CAUSE)
            name = printable(item.video, _MAX_CAUSE)
            logging.warning("%s: its frames are not shown: %s", name, missing)
        curves.append(
            ClipCurve(
                label=label,
                id=item.id,
                role=item.role,
                score=float(table.scores[headline][row]),
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
    """Returns the most and the least member-like clips: labels and rows."""
    oriented = metrics.oriented(table, headline)
    scored = ~np.isnan(oriented)
    of_suspects = (table.role == "suspects") & scored
    ranked = of_suspects if of_suspects.any() else scored
    rows = np.flatnonzero(ranked)
    rows = rows[np.argsort(-oriented[rows], kind="stable")].tolist()
    num_clips = len({by_id[str(table.id[row])].clip for row in rows})
    found: list[tuple[str, int]] = []
    seen: set[str] = set()
    for end, most in (("most", -(-num_clips // 2)), ("least", num_clips // 2)):
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
    """Returns thumbnails of some of the frames.

    Raises:
      ClipError: The file is missing, has changed, or cannot be decoded.
    """
    if not reader.unchanged(item.clip, clip.content_hash, clip.stamp):
        raise ClipError("open", "the file has changed since it was scored")
    shown = [indices[k] for k in plots.pictured(len(indices))]
    return reader.thumbnails(item.clip, shown, _THUMBNAIL)
