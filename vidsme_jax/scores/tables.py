"""Stored signals to scores, one row per row of the manifests. No model is needed."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vidsme_jax import scores
from vidsme_jax.base import (
    AnyArray,
    AuditError,
    Item,
    MotionStatistics,
    ScoredClip,
    ScoredText,
    ScoreTable,
)
from vidsme_jax.data import samples
from vidsme_jax.motion import statistics
from vidsme_jax.names import is_calibrated, uncalibrated
from vidsme_jax.scores import blind_columns, gathered, units
from vidsme_jax.scores.gathered import Gathered, Unit
from vidsme_jax.scores.kept import Kept
from vidsme_jax.scores.profile import Profile, Revealed
from vidsme_jax.settings import views
from vidsme_jax.store import received
from vidsme_jax.store.signals import Signals

# The values of every column, for each of some texts (None: the video alone) of a clip.
_Compute = Callable[[ScoredClip, Sequence[ScoredText | None]], list[Sequence[float]]]


def score_table(
    items: Sequence[Item],
    store: Signals,
    names: Collection[str],
    profile: str,
    motion: views.Motion,
    *,
    slices: Sequence[str] = ("video",),
    response: str = "given",
    reference: Signals | None = None,
    allow_duplicates: bool | None = None,
    kept: Kept | None = None,
) -> tuple[ScoreTable, dict[str, list[str]]]:
    """Scores every item whose clip, and text if one is scored, has signals.

    q and r are scaled over the clips of these items alone, all roles together, or by
    `motion.bounds`.
    Scores of the video are those of the item's clip; scores of text are those of the
    item's own question and answer. An item that lacks signals of a slice that is scored
    is left out: it has failed. One that lacks the reference model's has NaN in the
    scores that need them.

    Args:
      items: Of the corpus.
      store: The signals.
      names: Of the scores.
      profile: Of the scores, by name.
      motion: How motion and light become q and r.
      slices: Whose rows have signals, as `settings.slices` has it.
      response: Whose answers are scored, as `settings.response` has it.
      reference: The reference model's signals.
      allow_duplicates: Whether near-duplicates may be in two roles, which is noticed
        then; None: not looked for.
      kept: Scores that were computed before, whose signals are not read; receives those
        that are computed now. None: all are computed.

    Returns:
      The scores, and what was noticed of a video, by the key of its clip.

    Raises:
      AuditError: No item has signals, the corpus has no range to scale by, or
        near-duplicates are in two roles.
    """
    chosen, names = scores.PROFILES[profile], tuple(names)
    found = {name: chosen.score(name) for name in names}
    comparing = [name for name in names if found[name].compares]
    calibrated = [name for name in names if is_calibrated(name)]
    plain = list(dict.fromkeys(uncalibrated(n) for n in names if n not in comparing))
    if all(score.slice == "video" for score in found.values()):
        slices = ("video",)
    asked = {i.id: (i.clip, samples.text_of(i, slices, response)) for i in items}
    needs_video = any(score.slice == "video" for score in found.values())
    items = [i for i in items if _has(store, *asked[i.id], video=needs_video)]
    orders = entropy_orders(measured(items, store, video=needs_video), motion)
    theirs = plain if reference is not None else []
    units = dict.fromkeys(asked[i.id] for i in items)
    into, left = Gathered(units, len(names) + len(theirs)), orders
    if kept is not None:
        columns = *names, *(f"reference {name}" for name in theirs)
        left = kept.fill(into, columns, profile, orders, store, reference)
    others = {}
    if reference is not None:
        given = chosen, {key: orders[key] for key in left}, plain, bool(comparing)
        others = _others(reference, into.texts, *given)
    nothing = _Other("", "", np.full(len(plain), np.nan), None)
    of_text = np.array([chosen.score(name).slice != "video" for name in plain], bool)

    def other_of(clip: ScoredClip, text: ScoredText | None) -> _Other:
        other = others.get((clip.key, text.asked.key if text else ""), nothing)
        if other.content_hash != clip.content_hash:
            other = nothing
        elif text is not None and other.answer != text.asked.answer:
            values = np.where(of_text, np.nan, other.values)  # The video is the same.
            other = other._replace(values=values, text=None)
        return other

    def compute(
        clip: ScoredClip, texts: Sequence[ScoredText | None]
    ) -> list[Sequence[float]]:
        rows: list[Sequence[float]] = []
        own = _values(chosen, clip, texts, orders, plain)
        for text, values in zip(texts, own, strict=True):
            other = other_of(clip, text)
            values |= chosen.compute(
                *(None, *orders[clip.key], comparing),
                text=text,
                reference=Revealed(text=other.text),
            )
            its = dict(zip(plain, other.values.tolist(), strict=True))
            for name in calibrated:
                base = uncalibrated(name)
                values[name] = values[base] - its[base]
            rows.append([values[n] for n in names] + [its[n] for n in theirs])
        return rows

    _gather(into, store, left, compute, needs_video)
    if kept is not None:
        kept.take(into, left)
    table, warnings = _table(
        *(items, asked, store, names, into, orders, profile),
        in_units=True,
        allow_duplicates=allow_duplicates,
    )
    if reference is not None:
        columns = into.values[len(names) :, _places(into, asked, table.id)]
        of_reference = dict(zip(theirs, columns, strict=True))
        table = dataclasses.replace(table, reference=of_reference)
    return table, warnings


class _Other(NamedTuple):
    """What the reference model says of one clip and text.

    Attributes:
      content_hash: Of the clip.
      answer: Of the text; "" if it has none.
      values: Of the scores, float64.
      text: With log p alone, for what compares two models; None if nothing does.
    """

    content_hash: str
    answer: str
    values: np.ndarray
    text: ScoredText | None


def _others(
    reference: Signals,
    asked: Mapping[str, Sequence[str]],
    profile: Profile,
    orders: dict[str, tuple[float, float]],
    names: Sequence[str],
    comparing: bool,
) -> dict[Unit, _Other]:
    """Returns the reference model's scores of what is asked, where it has signals."""
    found: dict[Unit, _Other] = {}
    for clip in received.read(reference, orders.keys()):
        texts = gathered.texts_of(clip, asked[clip.key])
        values = _values(profile, clip, list(texts.values()), orders, names)
        for (key, text), each in zip(texts.items(), values, strict=True):
            row = np.array([each[name] for name in names], np.float64)
            kept = text if comparing and text is not None else None
            if kept is not None:
                few = kept.signals.map(_only_log_prob)
                kept = dataclasses.replace(kept, signals=few, blank=None)
            answer = text.asked.answer if text else ""
            found[clip.key, key] = _Other(clip.content_hash, answer, row, kept)
        for key in set(asked[clip.key]) - set(texts):
            # The text could not be scored; the scores of the video count.
            row = _of_video(profile, clip, orders, names)
            found[clip.key, key] = _Other(clip.content_hash, "", row, None)
    return found


def _only_log_prob(name: str, x: AnyArray) -> AnyArray:
    """Returns log p, which scores of two models compare, and NaN for all else."""
    return x if name == "log_prob" else np.broadcast_to(np.float32(np.nan), x.shape)


def _of_video(
    profile: Profile,
    clip: ScoredClip,
    orders: dict[str, tuple[float, float]],
    names: Sequence[str],
) -> np.ndarray:
    """Returns the scores of the video's rows, NaN for those of a text."""
    own = [n for n in names if profile.score(n).slice == "video"]
    (values,) = _values(profile, clip, [None], orders, own)
    return np.array([values.get(name, np.nan) for name in names], np.float64)


def _values(
    profile: Profile,
    clip: ScoredClip,
    texts: Sequence[ScoredText | None],
    orders: dict[str, tuple[float, float]],
    names: Collection[str],
) -> list[dict[str, float]]:
    """Returns the scores of a clip for each text; those of the video computed once."""
    of_video = [name for name in names if profile.score(name).slice == "video"]
    of_text = [name for name in names if profile.score(name).slice != "video"]
    q, r = orders[clip.key]
    shared = profile.compute(clip.signals, q, r, of_video)
    return [shared | profile.compute(None, q, r, of_text, text=text) for text in texts]


def _has(store: Signals, key: str, text: str, *, video: bool) -> bool:
    """Returns whether a clip has signals of a text ("": of none), and of its video."""
    known = store.finished.get(key)
    if known is None or (video and known.video is None):
        return False
    return text == "" or text in known.texts


def measured(
    items: Sequence[Item], store: Signals, *, video: bool = True
) -> dict[str, MotionStatistics]:
    """Returns the motion statistics of the clips that have signals, by key.

    Args:
      items: Of the corpus.
      store: The signals.
      video: Whether those of the video's rows are needed.

    Raises:
      AuditError: No clip has signals.
    """
    paths = dict.fromkeys(i.clip for i in items if _has(store, i.clip, "", video=video))
    motion = {path: store.finished[path].motion for path in paths}
    if not motion:
        raise AuditError(["no clip could be scored"])
    return motion


def entropy_orders(
    motion: dict[str, MotionStatistics],
    settings: views.Motion,
    scales: tuple[views.Number, views.Number] | None = None,
) -> dict[str, tuple[float, float]]:
    """Returns (q, r) of every clip, by key, scaled as configured or by other scales.

    Raises:
      AuditError: The corpus has no range to scale by.
    """
    phi = np.array([m.flow_variance for m in motion.values()])
    b = np.array([m.brightness_std for m in motion.values()])
    bounds = settings.bounds or statistics.bounds(phi, b)
    scales = scales or (settings.q_scale, settings.r_scale)
    q, r = statistics.entropy_orders(phi, b, bounds, *scales)
    return dict(zip(motion, zip(q.tolist(), r.tolist(), strict=True), strict=True))


def fill(
    items: Sequence[Item],
    store: Signals,
    names: Collection[str],
    compute: Callable[[ScoredClip], Sequence[float]],
    orders: dict[str, tuple[float, float]],
    profile: str,
) -> tuple[ScoreTable, dict[str, list[str]]]:
    """Reads every clip once and makes a table of what `compute` returns for its video.

    Args:
      items: Of the corpus.
      store: The signals.
      names: Of the columns.
      compute: One number a column, in the sign of the profile.
      orders: (q, r) of every clip that has signals, by key.
      profile: Of the scores, by name.

    Returns:
      As `score_table`.
    """
    asked = {item.id: (item.clip, "") for item in items}
    into = Gathered(dict.fromkeys(asked.values()), len(names))
    _gather(into, store, orders, lambda clip, texts: [compute(clip)], True)
    return _table(items, asked, store, tuple(names), into, orders, profile)


def _gather(
    into: Gathered,
    store: Signals,
    keys: Collection[str],
    compute: _Compute,
    needs_video: bool,
) -> None:
    """Reads some clips and adds them and what is computed of them."""
    for clip in received.read(store, keys):
        if needs_video and clip.signals is None:
            continue
        texts = into.texts_of(clip)
        into.add(clip, texts, compute(clip, list(texts.values())))


def _places(into: Gathered, asked: dict[str, Unit], ids: np.ndarray) -> Any:
    """Returns where the values of some items are; a slice if that is all, in order."""
    places = np.array([into.places[asked[each]] for each in ids], np.int64)
    everything = np.arange(len(into.there))
    return slice(None) if np.array_equal(places, everything) else places


def _table(
    items: Sequence[Item],
    asked: dict[str, Unit],
    store: Signals,
    names: Sequence[str],
    into: Gathered,
    orders: dict[str, tuple[float, float]],
    profile: str,
    *,
    in_units: bool = False,
    allow_duplicates: bool | None = None,
) -> tuple[ScoreTable, dict[str, list[str]]]:
    """Makes a table of the items of whose clip and text the values are known."""
    scored = [item for item in items if into.there[into.places[asked[item.id]]]]
    if not scored:
        raise AuditError(["no clip could be scored"])
    warnings = {key: list(x.warnings) for key, x in into.about.items() if x.warnings}
    places = _places(into, asked, np.array([i.id for i in scored], object))
    answers = np.array(into.answers, object)[places]
    known = store.finished

    def column(pick: Callable[[str], Any], dtype: Any = np.float64) -> np.ndarray:
        return np.array([pick(item.clip) for item in scored], dtype)

    has_text = any(asked[item.id][1] for item in scored)
    traits = {key: its.traits for key, its in into.about.items()}
    unit = None
    if in_units:
        content = {key: known[key].content_hash for key in into.about}
        unit, found = units.of_items(scored, content, traits, allow_duplicates)
        for key, notes in found.items():
            warnings[key] = [*warnings.get(key, []), *notes]
    table = ScoreTable(
        id=np.array([i.id for i in scored], object),
        video=np.array([i.video for i in scored], object),
        role=np.array([i.role for i in scored], object),
        group=np.array([i.group for i in scored], object),
        cluster=column(lambda p: known[p].content_hash, object),
        num_rows=column(lambda p: into.about[p].num_rows, np.int64),
        num_response_rows=into.lengths[places] if has_text else None,
        flow_variance=column(lambda p: known[p].motion.flow_variance),
        brightness_std=column(lambda p: known[p].motion.brightness_std),
        q=column(lambda p: orders[p][0]),
        r=column(lambda p: orders[p][1]),
        scores={name: into.values[place, places] for place, name in enumerate(names)},
        larger_is_member=scores.PROFILES[profile].larger_is_member,
        unit=unit,
        source=np.array([i.source for i in scored], object),
        question=np.array([_question(i) for i in scored], object) if has_text else None,
        answer=answers if has_text else None,
        traits=blind_columns.of_items(scored, traits) if in_units else {},
    )
    return table, warnings


def _question(item: Item) -> str:
    """Returns what is asked, with its options."""
    return "\n".join([item.question, *item.candidates])
