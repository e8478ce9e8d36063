"""What a clip's pixels say in words: colours, light, motion, and when they change.

Questions are of `QUESTIONS` and answers are built of few words and of numbers, so that
a small model can learn their form from a few clips and must then have seen the clip, or
remember it, to get the rest right.

Axes: `frames`, `height`, `width`.
"""

import itertools
import zlib
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Clip = UInt8[np.ndarray, "frames height width 3"]
# A word holds below its bound: of OpenCV's hue, half of a degree.
HUES = (
    ("red", 8),
    ("orange", 18),
    ("yellow", 33),
    ("green", 80),
    ("teal", 97),
    ("blue", 128),
    ("purple", 150),
    ("pink", 172),
    ("red", 180),
)
GREYS = (("black", 50), ("grey", 180), ("white", 256))  # Of the largest channel.
_FAINT, _DARK = 30, 120  # Chroma of what has no hue; value of an orange that is brown.
COLOURS = list(dict.fromkeys([*(n for n, _ in HUES), "brown", *(n for n, _ in GREYS)]))
# Mean grey level.
LIGHTS = (
    ("very dark", 40),
    ("dark", 70),
    ("dim", 95),
    ("bright", 130),
    ("very bright", 256),
)
# Widths of the picture a second, of what moves most.
PACES = (
    ("almost still", 0.02),
    ("slow", 0.06),
    ("steady", 0.15),
    ("fast", 0.35),
    ("very fast", np.inf),
)
TURNED = 8  # Of mean grey levels between the first and the last third.
HEADINGS = ("right", "down right", "down", "down left")
HEADINGS += ("left", "up left", "up", "up right")
PLACES = [
    f"{row} {column}".strip()
    for row in ("top", "", "bottom")
    for column in ("left", "", "right")
]
PLACES[4] = "middle"
_FLOW = 96, 54  # Width and height that motion is measured at.
_ONE_WAY = 0.3  # Of the motion's length, its sum's, if it goes anywhere.


def asked(clip: Clip, fps: int, key: str, seed: int) -> dict[str, str]:
    """Returns a question and the answer that a clip's pixels give.

    Args:
      clip: RGB.
      fps: Frames per second.
      key: Of the clip; with the seed it decides what is asked.
      seed: Of what is asked.
    """
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    return dict(
        zip(
            ("question", "answer"),
            QUESTIONS[rng.integers(len(QUESTIONS))](clip, fps, rng),
            strict=True,
        )
    )


def happens(clip: Clip, fps: int, _: Any) -> tuple[str, str]:
    """Light, hue, how the light changes, the largest change, the motion."""
    jumps = _jumps(clip)
    return "what happens in the video", (
        f"the picture is {light(clip)} and mostly {shares(clip)[0][0]} ; it "
        f"{turn(clip)} ; the largest change comes after {_after(jumps, fps)} seconds ; "
        f"{motion(clip, fps)}"
    )


def colours(clip: Clip, fps: int, _: Any) -> tuple[str, str]:
    """The two commonest colours of the first, the middle and the last frame."""
    said = []
    for verb, place in (("begins", 0), ("goes on", len(clip) // 2), ("ends", -1)):
        (one, much), (other, less) = shares(clip[place][None])[:2]
        said.append(f"{verb} {one} {much} percent and {other} {less} percent")
    return "how do the colours change", f"it {' ; it '.join(said)}"


def moves(clip: Clip, fps: int, _: Any) -> tuple[str, str]:
    """The motion, where most of it is, and when there is most and least of it."""
    change = np.abs(np.diff(clip.astype(np.float32), axis=0)).mean(axis=-1)
    where = PLACES[int(np.argmax(_nine(change.mean(axis=0))))]
    jumps = _jumps(clip)
    return "what moves and where", (
        f"{motion(clip, fps)} ; most of it is in the {where} ; it is strongest after "
        f"{_after(jumps, fps)} seconds and weakest after {_after(-jumps, fps)} seconds"
    )


def lit(clip: Clip, fps: int, _: Any) -> tuple[str, str]:
    """The lightest and the darkest of nine places, and when it is lightest."""
    grey = _grey(clip)
    levels = _nine(grey.mean(axis=0))
    high, low = int(np.argmax(levels)), int(np.argmin(levels))
    return "where is it light and when", (
        f"the {PLACES[high]} is lightest with {_of_hundred(levels[high])} and the "
        f"{PLACES[low]} is darkest with {_of_hundred(levels[low])} ; it {turn(clip)} ; "
        f"it is lightest after {_after(grey.mean(axis=(1, 2)), fps, 0)} seconds"
    )


def seen_at(clip: Clip, fps: int, rng: np.random.Generator) -> tuple[str, str]:
    """The colours at a time, which the question names."""
    place = int(rng.integers(len(clip)))
    frame = clip[place]
    third = frame.shape[1] // 3
    parts = {"left": frame[:, :third], "middle": frame[:, third:-third]}
    parts |= {"right": frame[:, -third:], "top": frame[: len(frame) // 3]}
    said = [
        f"the {name} is {light(part[None])} {shares(part[None])[0][0]}"
        for name, part in parts.items()
    ]
    when = f"what is seen after {place / fps:.1f} seconds"
    return when, f"{' ; '.join(said)} ; {_of_hundred(_grey(frame[None]).mean())} in all"


QUESTIONS = (happens, colours, moves, lit, seen_at)


def light(clip: Clip) -> str:
    """Returns how light a clip is."""
    return _word(LIGHTS, float(_grey(clip).mean()))


def turn(clip: Clip) -> str:
    """Returns how the light changes from the first third to the last."""
    levels, third = _grey(clip).mean(axis=(1, 2)), max(1, len(clip) // 3)
    grown = float(levels[-third:].mean() - levels[:third].mean())
    if abs(grown) < TURNED:
        return "stays as light"
    return "grows lighter" if grown > 0 else "grows darker"


def shares(clip: Clip) -> list[tuple[str, int]]:
    """Returns the colours with their percents, the commonest first."""
    flat = np.ascontiguousarray(clip[:, ::2, ::2]).reshape(1, -1, 3)
    hue, _, value = np.moveaxis(cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)[0], -1, 0)
    names = np.array([COLOURS.index(name) for name, _ in HUES])
    found = names[np.searchsorted([end for _, end in HUES], hue, side="right")]
    brown = (found == COLOURS.index("orange")) & (value < _DARK)
    found = np.where(brown, COLOURS.index("brown"), found)
    greys = np.array([COLOURS.index(name) for name, _ in GREYS])
    plain = greys[np.searchsorted([end for _, end in GREYS], value, side="right")]
    chroma = flat[0].max(axis=-1).astype(int) - flat[0].min(axis=-1)
    found = np.where(chroma < _FAINT, plain, found)
    counts = np.bincount(found, minlength=len(COLOURS))
    order = np.argsort(-counts, kind="stable")
    return [(COLOURS[k], round(100 * counts[k] / len(found))) for k in order]


def motion(clip: Clip, fps: int) -> str:
    """Returns pace and direction of what moves most: a tenth of the picture."""
    width, height = _FLOW
    small = [
        cv2.resize(frame, _FLOW, interpolation=cv2.INTER_AREA)
        for frame in _grey(clip).round().astype(np.uint8)
    ]
    total, lengths = np.zeros(2), []
    for one, other in itertools.pairwise(small):
        flow = cv2.calcOpticalFlowFarneback(
            one, other, None, 0.5, 3, 15, 3, 5, 1.2, 0
        ).reshape(-1, 2)
        length = np.hypot(*flow.T)
        most = np.argsort(-length, kind="stable")[: width * height // 10]
        total += flow[most].mean(axis=0)
        lengths.append(float(length[most].mean()))
    pace = _word(PACES, float(np.mean(lengths)) * fps / width)
    if np.hypot(*total) < _ONE_WAY * sum(lengths) or not any(lengths):
        return f"the motion is {pace} and goes many ways"
    eighth = round(float(np.arctan2(total[1], total[0])) / (np.pi / 4)) % 8
    return f"the motion is {pace} and goes {HEADINGS[eighth]}"


def _jumps(clip: Clip) -> Float[np.ndarray, " pairs"]:
    """Returns the mean difference of each frame to the one before."""
    wide = clip.astype(np.float32)
    return np.abs(np.diff(wide, axis=0)).mean(axis=(1, 2, 3))


def _after(values: Float[np.ndarray, " times"], fps: int, first: int = 1) -> str:
    """Returns the time of the largest value; the first one's is that frame's."""
    return f"{(int(np.argmax(values)) + first) / fps:.1f}"


def _grey(clip: Clip) -> Float[np.ndarray, "frames height width"]:
    return clip.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])


def _nine(plane: Float[np.ndarray, "height width"]) -> Float[np.ndarray, " places"]:
    """Returns the means of a three by three grid, in the order of `PLACES`."""
    rows = np.array_split(plane, 3)
    return np.array([x.mean() for row in rows for x in np.array_split(row, 3, axis=1)])


def _of_hundred(level: float) -> str:
    return f"{round(100 * float(level) / 255)} of 100"


def _word(bounds: tuple[tuple[str, float], ...], value: float) -> str:
    return next(word for word, end in bounds if value < end)
