"""Makes canary sets: variants of clips, and which of each is to be published.

The variant is drawn, once and for all, before anybody trains on anything; all else of
the test follows from that. What is written of the variants does not say which it is,
but for the key and the folder of what is to be published.
"""

import concurrent.futures
import contextlib
import json
import math
import pathlib
import secrets
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from vidsme_jax import progress
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.canary import coding, key, marks, survival
from vidsme_jax.canary.inputs import InputClip
from vidsme_jax.canary.key import Key, Set
from vidsme_jax.data.manifest_rows import Row
from vidsme_jax.store import regular
from vidsme_jax.store.files import write_atomically

LEAST_PSNR = 40.0  # In dB, of every picture of every variant.
VARIANTS, MANIFEST, PUBLISH = "variants", "variants.jsonl", "publish"
_CRFS = (12, 8, 4, 1)  # Of x264: the first that leaves enough for the mark.
_SHARE = 0.35  # Of the error that is allowed, what coding alone may make.
_ALLOWED = 255**2 / 10 ** (LEAST_PSNR / 10)  # A mean square error.
_WEAKEST = 1.0  # Levels of a mark.
_MOST_RAISED = 1.5  # How much stronger a mark is that is partly cut off.
_TRIES = 8


class Clip(NamedTuple):
    """A clip and what is known of it.

    Attributes:
      name: Of its set; unique.
      path: Of the file.
      rows: That ask about it.
      about: Its pictures.
    """

    name: str
    path: pathlib.Path
    rows: tuple[Row, ...]
    about: coding.Clip


class Variant(NamedTuple):
    """A variant that was written.

    Attributes:
      digest: SHA-256 of the file.
      strength: Of its mark.
      psnr: Of its worst picture.
      seen: What is seen of it.
    """

    digest: str
    strength: float
    psnr: float
    seen: survival.Seen


def look(given: Sequence[InputClip]) -> list[Clip]:
    """Looks through all clips.

    Raises:
      AuditError: Some cannot be written with a mark; lists each.
    """
    clips, problems = [], []
    for each in given:
        try:
            clips.append(Clip(each.name, each.path, each.rows, coding.look(each.path)))
        except ClipError as error:
            problems.append(f"{each.path}: {error}")
    if problems:
        raise AuditError(problems)
    return clips


def make(
    given: Sequence[InputClip],
    out: pathlib.Path,
    number: int,
    seed: int | None,
    workers: int,
) -> Key:
    """Writes variants, their manifest, what is to be published, and the key.

    Args:
      given: The clips.
      out: The folder that receives them; empty, or made.
      number: Of variants of each clip, 2 at least.
      seed: Of all draws; None: 256 bits of chance.
      workers: Variants that are written at a time.

    Returns:
      The key, which is written last.

    Raises:
      AuditError: Lists what is wrong with the clips; or one cannot be marked.
      OSError: Something cannot be written.
    """
    clips = look(given)
    secret = f"{secrets.randbits(256):064x}"
    if seed is not None:
        secret = f"{marks.drawn('', 'seed', seed):064x}"
    out.mkdir(parents=True, exist_ok=True)
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        contextlib.closing(
            progress.Bar(number * len(clips), "marking", "variant")
        ) as bar,
    ):
        try:
            sets = [_made(clip, out, number, secret, pool, bar) for clip in clips]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    lines = [line for clip in clips for line in _lines(clip, number)]
    write_atomically(out / MANIFEST, "".join(lines).encode("utf-8", "backslashreplace"))
    (out / PUBLISH).mkdir()
    for clip, each in zip(clips, sets, strict=True):
        path = _path(out, clip, each.chosen)
        # A link would show, by the number of its names, which variant it is.
        shutil.copyfile(path, out / PUBLISH / f"{clip.name}{clip.about.suffix}")
    key.write(out / key.FILE, secret, seed, sets)
    return key.read(out / key.FILE)


def _path(out: pathlib.Path, clip: Clip, index: int) -> pathlib.Path:
    return out / VARIANTS / clip.name / f"{index:04d}{clip.about.suffix}"


def _made(
    clip: Clip, out: pathlib.Path, number: int, secret: str, pool: Any, bar: Any
) -> Set:
    """Writes the variants of a clip.

    Raises:
      AuditError: It cannot be marked, or a variant cannot be written.
    """
    try:
        return _set_of(clip, out, number, secret, pool, bar)
    except ClipError as error:
        raise AuditError([f"{clip.path}: {error}"]) from error


def _set_of(
    clip: Clip, out: pathlib.Path, number: int, secret: str, pool: Any, bar: Any
) -> Set:
    _path(out, clip, 0).parent.mkdir(parents=True)
    crf, strength = _room(clip, _path(out, clip, 0), secret)

    def write(index: int, strength: float) -> Variant:
        path = _path(out, clip, index)
        written, worst = _write(clip, path, secret, index, crf, strength)
        seen = survival.see(path, clip.about)
        bar.update()
        return Variant(regular.sha256(path), written, worst, seen)

    first = write(0, strength)
    rest = pool.map(lambda index: write(index, first.strength), range(1, number))
    found = [first, *rest]
    return Set(
        name=clip.name,
        clip=regular.sha256(clip.path),
        chosen=marks.drawn(secret, "choice", clip.name) % number,
        files=tuple(each.digest for each in found),
        frames=clip.about.frames,
        strength=min(each.strength for each in found),
        crf=crf,
        psnr=min(each.psnr for each in found),
        survival=survival.of([each.seen for each in found])._asdict(),
    )


def _room(clip: Clip, path: pathlib.Path, secret: str) -> tuple[int, float]:
    """Returns by which crf to write a clip, and which strength that leaves to marks.

    Args:
      clip: The clip.
      path: Of a variant, which is written for a trial.
      secret: Of the key.
    """

    def error_of(strength: float) -> float:
        size = clip.about.height, clip.about.width
        coding.write(
            clip.path, path, marks.added(secret, clip.name, 0, *size, strength), crf
        )
        return coding.compared(clip.path, path).error

    for crf in _CRFS:
        coded = error_of(0.0)
        if coded <= _SHARE * _ALLOWED:
            strength = 0.99 * math.sqrt(_ALLOWED - coded)
            # Of a mark on black and white a part is cut off.
            left = (error_of(strength) - coded) / strength**2
            return crf, strength * min(_MOST_RAISED, max(left, 0.01) ** -0.5)
    reason = "its pictures cannot be coded well enough to leave room for a mark"
    raise AuditError([f"{clip.path}: {reason} at {LEAST_PSNR:g} dB"])


def _write(
    clip: Clip,
    path: pathlib.Path,
    secret: str,
    index: int,
    crf: int,
    strength: float,
) -> tuple[float, float]:
    """Writes a variant; returns the strength that its PSNR allows, and the PSNR."""
    height, width = clip.about.height, clip.about.width
    for _ in range(_TRIES):
        added = marks.added(secret, clip.name, index, height, width, strength)
        coding.write(clip.path, path, added, crf)
        worst = coding.compared(clip.path, path)
        if worst.psnr >= LEAST_PSNR:
            return strength, worst.psnr
        strength *= min(0.99, 0.995 * math.sqrt(_ALLOWED / worst.error))
        if strength < _WEAKEST:
            break
    reason = f"no mark that can be identified keeps {LEAST_PSNR:g} dB"
    raise AuditError([f"{clip.path}: {reason}"])


def _lines(clip: Clip, number: int) -> Sequence[str]:
    """Returns the rows of a clip's variants in the manifest."""
    lines = []
    for index in range(number):
        path = _path(pathlib.Path(), clip, index)
        for place, row in enumerate(clip.rows):
            asked = f"/{place}" if len(clip.rows) > 1 else ""
            its: dict[str, Any] = {
                "id": f"{clip.name}/{index:04d}{asked}",
                "video": path.as_posix(),
                "source": clip.name,
                "group": row.group,
                "question": row.question,
                "answer": row.answer,
                "candidates": list(row.candidates),
                "date": row.date,
            }
            lines.append(json.dumps({k: v for k, v in its.items() if v}) + "\n")
    return lines
