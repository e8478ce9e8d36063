"""Corpora without members, and of which one half was altered.

Scenes of the demo are drawn, dealt out to two roles at random and encoded; then the
second half is encoded again, altered in one way. All of it is read as a run reads it,
and judged as an audit is.

Axes: `frames`, `height`, `width`; `clips`.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from vidsme_jax import settings
from vidsme_jax.base import Fingerprint, Item, ScoreTable, Traits
from vidsme_jax.data import appearance, reading
from vidsme_jax.demo import drawing
from vidsme_jax.evaluation import metrics, validity
from vidsme_jax.motion import statistics
from vidsme_jax.scores import blind_columns
from vidsme_jax.settings import views

_FRAMES = 16
_DEALT = 10  # Times that the unaltered corpus is dealt out again.
_PERMUTATIONS = 499
_ALPHA = 0.05
_LUMA = np.array([0.299, 0.587, 0.114])

Video = UInt8[np.ndarray, "frames height width 3"]


@dataclasses.dataclass(frozen=True)
class _Encoding:
    """How a clip is written."""

    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("crf", "28"), ("preset", "veryfast"))
    audio: bool = False
    created: str = ""
    faster: int = 1  # So many times the frame rate, of the same frames.


@dataclasses.dataclass(frozen=True)
class Alteration:
    """One way in which the second half differs.

    Attributes:
      reaching: Whether the model sees it; else the container alone says it.
      change: Of the frames.
      encoding: Of the file.
      longer: So many times as many frames, in which everything moves on.
    """

    reaching: bool
    change: Callable[[Video], Video] | None = None
    encoding: _Encoding = _Encoding()
    longer: int = 1


def _graded(vivid: float, warm: float) -> Callable[[Video], Video]:
    """Returns a grading: saturation and warmth, with the luminance kept."""

    def change(frames: Video) -> Video:
        grey = (frames @ _LUMA)[..., None]
        tinted = grey + vivid * (frames - grey) + warm * np.array([1.0, 0.0, -1.0])
        tinted += grey - (tinted @ _LUMA)[..., None]
        return np.clip(np.rint(tinted), 0, 255).astype(np.uint8)

    return change


def _watermarked(frames: Video) -> Video:
    mark = np.zeros(frames.shape[1:3], np.uint8)
    place = 4, frames.shape[1] - 5
    cv2.putText(mark, "TV1", place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    cover = (mark / 255 * 0.6)[..., None]
    return np.rint(frames * (1 - cover) + 255 * cover).astype(np.uint8)


def _letterboxed(frames: Video) -> Video:
    bar = round(0.12 * frames.shape[1])
    found = frames.copy()
    found[:, :bar] = found[:, -bar:] = 0
    return found


def _upscaled(frames: Video) -> Video:
    size = 2 * frames.shape[2], 2 * frames.shape[1]
    return np.stack(
        [cv2.resize(x, size, interpolation=cv2.INTER_CUBIC) for x in frames]
    )


def _ending(frames: Video) -> Video:
    """Shows a card in the last eighth."""
    card = np.full(frames.shape[1:], 16, np.uint8)
    place = 6, frames.shape[1] // 2
    cv2.putText(card, "THE END", place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (230,) * 3, 1)
    found = frames.copy()
    found[-max(2, len(frames) // 8) :] = card
    return found


_X264 = (("crf", "46"), ("preset", "veryfast"))
ALTERATIONS = {
    "nothing": Alteration(True),
    "MPEG-4": Alteration(False, encoding=_Encoding("mpeg4", (("qscale", "3"),))),
    "HEVC": Alteration(
        False,
        encoding=_Encoding(
            "libx265",
            (("crf", "28"), ("preset", "ultrafast"), ("x265-params", "log-level=none")),
        ),
    ),
    "audio track": Alteration(False, encoding=_Encoding(audio=True)),
    "creation date": Alteration(
        False, encoding=_Encoding(created="2024-05-01T12:00:00Z")
    ),
    "double fps": Alteration(False, encoding=_Encoding(faster=2)),
    "colour grading": Alteration(True, _graded(1.4, 12)),
    "mild colour grading": Alteration(True, _graded(1.15, 4)),
    "watermark": Alteration(True, _watermarked),
    "x264 crf 46": Alteration(True, encoding=_Encoding(options=_X264)),
    "letterbox": Alteration(True, _letterboxed),
    "upscaled 2x": Alteration(True, _upscaled),
    "3x longer": Alteration(True, longer=3),
    "end card": Alteration(True, _ending),
}


def cells() -> Any:
    """Yields one cell: a draw has all alterations of the same scenes."""
    yield "48 + 48 clips", {"clips": 48, "names": list(ALTERATIONS)}


def draw(
    rng: np.random.Generator, clips: int, names: Sequence[str]
) -> dict[str, float]:
    """Says of each alteration whether it is noticed, and as what."""
    scenes = [drawing.make_scene(rng) for _ in range(2 * clips)]
    seed = int(rng.integers(2**31))
    shapes = [drawing.FORMATS[k % 3] for k in rng.permutation(2 * clips)]
    drawn = [_drawn(*both) for both in zip(scenes, shapes, strict=True)]
    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "clip.mp4"
        plain = [
            _read(path, frames, scene.fps, ALTERATIONS["nothing"])
            for frames, scene in zip(drawn, scenes, strict=True)
        ]
        for name in names:
            alteration = ALTERATIONS[name]
            if name == "nothing":
                numbers |= _dealt(plain, clips, rng)
                second = plain[clips:]
            else:
                second = []
                for k in range(clips, 2 * clips):
                    frames = drawn[k]
                    if alteration.longer > 1:
                        frames = _drawn(scenes[k], shapes[k], alteration.longer)
                    second.append(_read(path, frames, scenes[k].fps, alteration))
            found = _judged([*plain[:clips], *second], clips, seed)
            numbers |= {f"{name}: {key}": value for key, value in found.items()}
    return numbers


def _dealt(plain: list[Any], clips: int, rng: np.random.Generator) -> dict[str, float]:
    """Deals the unaltered clips out again; returns how often a difference is seen."""
    found = []
    for _ in range(_DEALT):
        order = rng.permutation(2 * clips)
        its = _judged([plain[k] for k in order], clips, int(rng.integers(2**31)))
        found.append((its["shift"], its["apart"]))
    shift, apart = np.mean(found, axis=0)
    return {"dealt again: shift": float(shift), "dealt again: apart": float(apart)}


def _judged(clips: list[Any], first: int, seed: int) -> dict[str, float]:
    table = _table(clips, first)
    tests = validity.Procedure(alpha=_ALPHA, number=_PERMUTATIONS, seed=seed)
    evaluation = metrics.evaluate(table, (), 1, seed, ("s",))
    found = validity.judge(table, evaluation, tests)["all"]
    blind, apart = found["blind"], found["apart"]
    numbers = {
        "shift": float(blind["differs"]),
        "auc": blind["auc"],
        "apart": float(apart is not None and apart["differs"]),
    }
    for name, p in blind["families"].items():
        numbers[f"by {name}"] = float(p <= _ALPHA)
    return numbers


def _table(clips: list[Any], first: int) -> ScoreTable:
    """Makes the table of an audit whose score knows nothing."""
    n = len(clips)
    names = [str(k) for k in range(n)]
    role = np.array(["members"] * first + ["nonmembers"] * (n - first), object)
    items = [
        Item(id=name, video=name, clip=name, role=its)
        for name, its in zip(names, role, strict=True)
    ]
    traits = {name: its for name, (its, _) in zip(names, clips, strict=True)}
    array = np.array(names, object)
    return ScoreTable(
        id=array,
        video=array,
        role=role,
        group=np.full(n, "", object),
        cluster=array,
        num_rows=np.full(n, 8),
        flow_variance=np.array([motion.flow_variance for _, motion in clips]),
        brightness_std=np.array([motion.brightness_std for _, motion in clips]),
        q=np.ones(n),
        r=np.ones(n),
        scores={"s": np.random.default_rng(0).normal(size=n)},
        traits=blind_columns.of_items(items, traits),
    )


def _drawn(scene: drawing.Scene, shape: tuple[int, int], longer: int = 1) -> Video:
    """Draws a scene, of which more passes in a clip that is longer."""
    scene = dataclasses.replace(scene, num_frames=longer * scene.num_frames)
    return np.stack([drawing.draw(scene, k, *shape) for k in range(scene.num_frames)])


def _read(
    path: pathlib.Path, frames: Video, fps: int, how: Alteration
) -> tuple[Traits, Any]:
    """Alters and encodes a clip, and reads what an audit knows of it."""
    if how.change is not None:
        frames = how.change(frames)
    _encode(path, frames, fps * how.encoding.faster, how.encoding)
    reader = reading.Videos(views.Settings.of(settings.default()).video)
    found, _ = reader.read(str(path), {_FRAMES})(_FRAMES)
    # By which near-duplicates are known: there are none.
    prints = Fingerprint(np.zeros((1, 7, 2), np.uint64), np.zeros((1, 7), bool))
    traits = Traits(appearance.describe(found.pixels), found.container, prints)
    return traits, statistics.measure(found.pixels)


def _encode(path: pathlib.Path, frames: Video, fps: int, how: _Encoding) -> None:
    height, width = frames.shape[1:3]
    with av.open(str(path), "w", format="mp4", options={"fflags": "bitexact"}) as file:
        if how.created:
            file.metadata["creation_time"] = how.created
        stream: Any = file.add_stream(how.codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = dict(how.options)
        sound: Any = file.add_stream("aac", rate=8000) if how.audio else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if sound is not None:
            silence = np.zeros((1, 8000 * len(frames) // fps), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
            file.mux(sound.encode(frame))
            file.mux(sound.encode())
