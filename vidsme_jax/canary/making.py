"""Makes canary sets: variants of clips, of which one is drawn to be published.

The test is exact because the variant is drawn at random before a model is trained. Only
the key and the folder to be published show which one was drawn.
"""

import concurrent.futures
import contextlib
import json
import math
import pathlib
import secrets
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from vidsme_jax import progress
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.canary import coding, key, marks, survival
from vidsme_jax.canary.inputs import InputClip
from vidsme_jax.canary.key import CanarySet, Key
from vidsme_jax.data.manifest_rows import Row
from vidsme_jax.store import regular
from vidsme_jax.store.files import write_atomically

LEAST_PSNR = 40.0  # dB, of every picture of every variant.
VARIANTS, MANIFEST, PUBLISH = "variants", "variants.jsonl", "publish"
_CRFS = (12, 8, 4, 1)  # Of x264; the first that leaves enough error for the mark.
_CODING_SHARE = 0.35  # Largest share of the allowed error that coding may take.
_MAX_ERROR = 255**2 / 10 ** (LEAST_PSNR / 10)  # Mean square error.
_WEAKEST = 1.0  # Least strength of a mark, in levels.
_MAX_RAISE = 1.5  # Largest factor by which a clipped mark is made stronger.
_TRIES = 8  # Strengths that are tried for a variant.


class Clip(NamedTuple):
    """An input clip and its properties.

    Attributes:
      name: The name of its set; unique.
      path: Its file.
      rows: Its rows in the manifest.
      info: Its properties.
    """

    name: str
    path: pathlib.Path
    rows: tuple[Row, ...]
    info: coding.ClipInfo


class Variant(NamedTuple):
    """A variant that was written.

    Attributes:
      digest: The SHA-256 of the file, in hex.
      strength: Of its mark, in levels.
      psnr: Of its worst picture, in dB.
      seen: Its pictures before and after recoding.
    """

    digest: str
    strength: float
    psnr: float
    seen: survival.Seen


def inspect(inputs: Sequence[InputClip]) -> list[Clip]:
    """Inspects all clips.

    Raises:
      AuditError: Some cannot be written with a mark; lists each.
    """
    clips, problems = list[Clip](), list[str]()
    for each in inputs:
        try:
            clips.append(Clip(*each, coding.inspect(each.path)))
        except ClipError as error:
            problems.append(f"{each.path}: {error}")
    if problems:
        raise AuditError(problems)
    return clips


def make(
    inputs: Sequence[InputClip],
    out: pathlib.Path,
    number: int,
    seed: int | None,
    workers: int,
) -> Key:
    """Writes variants, their manifest, the folder to be published, and the key.

    Args:
      inputs: The clips.
      out: The folder that receives them; empty, or created.
      number: The number of variants of each clip, at least 2.
      seed: Of all draws; None: 256 random bits.
      workers: The number of variants that are written at a time.

    Returns:
      The key, which is written last.

    Raises:
      AuditError: Clips cannot be marked; lists every problem that is found at once.
      OSError: A file cannot be written.
    """
    clips = inspect(inputs)
    secret = f"{secrets.randbits(256):064x}"
    if seed is not None:
        secret = f"{marks.drawn('', 'seed', seed):064x}"
    out.mkdir(parents=True, exist_ok=True)
    sets: list[CanarySet] = []
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        contextlib.closing(
            progress.Bar(number * len(clips), "marking", "variant")
        ) as bar,
    ):
        try:
            for clip in clips:
                try:
                    sets.append(_set_of(clip, out, number, secret, pool, bar))
                except ClipError as error:
                    raise AuditError([f"{clip.path}: {error}"]) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    lines = [line for clip in clips for line in _lines(clip, number)]
    write_atomically(out / MANIFEST, "".join(lines).encode("utf-8", "backslashreplace"))
    (out / PUBLISH).mkdir()
    for clip, each in zip(clips, sets, strict=True):
        path = _path(out, clip, each.chosen)
        # A copy: the link count of a hard link would show which variant it is.
        shutil.copyfile(path, out / PUBLISH / f"{clip.name}{clip.info.suffix}")
    key.write(out / key.FILE, secret, seed, sets)
    return key.read(out / key.FILE)


def _path(out: pathlib.Path, clip: Clip, index: int) -> pathlib.Path:
    return out / VARIANTS / clip.name / f"{index:04d}{clip.info.suffix}"


def _set_of(
    clip: Clip,
    out: pathlib.Path,
    number: int,
    secret: str,
    pool: concurrent.futures.Executor,
    bar: progress.Bar,
) -> CanarySet:
    """Writes the variants of a clip; see `make`.

    Raises:
      ClipError: The clip or a variant cannot be decoded or encoded.
      AuditError: No mark keeps the PSNR.
    """
    _path(out, clip, 0).parent.mkdir(parents=True)
    crf, strength = _room(clip, _path(out, clip, 0), secret)

    def write(index: int, strength: float) -> Variant:
        path = _path(out, clip, index)
        written, worst = _write(clip, path, secret, index, crf, strength)
        seen = survival.see(path, clip.info)
        bar.update()
        return Variant(regular.sha256(path), written, worst, seen)

    first = write(0, strength)
    rest = pool.map(lambda index: write(index, first.strength), range(1, number))
    found = [first, *rest]
    return CanarySet(
        name=clip.name,
        clip=regular.sha256(clip.path),
        chosen=marks.drawn(secret, "choice", clip.name) % number,
        files=tuple(each.digest for each in found),
        frames=clip.info.frames,
        strength=min(each.strength for each in found),
        crf=crf,
        psnr=min(each.psnr for each in found),
        survival=survival.of([each.seen for each in found])._asdict(),
    )


def _room(clip: Clip, path: pathlib.Path, secret: str) -> tuple[int, float]:
    """Returns the crf to write a clip with, and the strength that it leaves to marks.

    Args:
      clip: The clip.
      path: The file of a variant, which is written for a trial.
      secret: The secret of the key.

    Raises:
      AuditError: No crf leaves enough.
    """

    def error_of(strength: float) -> float:
        size = clip.info.height, clip.info.width
        coding.write(
            clip.path, path, marks.added(secret, clip.name, 0, *size, strength), crf
        )
        return coding.compare(clip.path, path).error

    for crf in _CRFS:
        coded = error_of(0.0)
        if coded <= _CODING_SHARE * _MAX_ERROR:
            strength = 0.99 * math.sqrt(_MAX_ERROR - coded)
            # A mark on black and white is partly clipped.
            left = (error_of(strength) - coded) / strength**2
            return crf, strength * min(_MAX_RAISE, max(left, 0.01) ** -0.5)
    reason = "x264 loses too much of its pictures to leave room for a mark"
    remedy = "take another clip, with less noise"
    raise AuditError([f"{clip.path}: {reason} at {LEAST_PSNR:g} dB; {remedy}"])


def _write(
    clip: Clip,
    path: pathlib.Path,
    secret: str,
    index: int,
    crf: int,
    strength: float,
) -> tuple[float, float]:
    """Writes a variant; returns the strength that `LEAST_PSNR` allows, and the PSNR."""
    height, width = clip.info.height, clip.info.width
    for _ in range(_TRIES):
        added = marks.added(secret, clip.name, index, height, width, strength)
        coding.write(clip.path, path, added, crf)
        found = coding.compare(clip.path, path)
        if found.psnr >= LEAST_PSNR:
            return strength, found.psnr
        strength *= min(0.99, 0.995 * math.sqrt(_MAX_ERROR / found.error))
        if strength < _WEAKEST:
            break
    reason = f"no mark that can be identified keeps {LEAST_PSNR:g} dB"
    raise AuditError([f"{clip.path}: {reason}; take another clip, with less noise"])


def _lines(clip: Clip, number: int) -> Sequence[str]:
    """Returns the lines of a clip's variants in the manifest."""
    lines: list[str] = []
    for index in range(number):
        path = _path(pathlib.Path(), clip, index)
        for k, row in enumerate(clip.rows):
            suffix = f"/{k}" if len(clip.rows) > 1 else ""
            fields = {
                "id": f"{clip.name}/{index:04d}{suffix}",
                "video": path.as_posix(),
                "source": clip.name,
                "group": row.group,
                "question": row.question,
                "answer": row.answer,
                "candidates": list(row.candidates),
                "date": row.date,
            }
            lines.append(json.dumps({k: v for k, v in fields.items() if v}) + "\n")
    return lines
