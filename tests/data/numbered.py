"""Clips whose frames carry their own number."""

import fractions
import pathlib
from collections.abc import Sequence

import av
import numpy as np
import pytest

from decoding import decode
from vidsme_jax.base import ClipError

BITS = 12
CELL = 16


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A moving grey ramp; the upper left shows `number` in two rows of six cells."""
    ramp = np.arange(width)[None, :] + np.arange(height)[:, None] + 3 * number
    rgb = np.repeat((ramp % 200)[..., None], 3, axis=-1).astype(np.uint8)
    for bit in range(BITS):
        y, x = CELL * (bit // 6), CELL * (bit % 6)
        rgb[y : y + CELL, x : x + CELL] = 235 if number >> bit & 1 else 20
    return rgb


def number(rgb: np.ndarray) -> int:
    cells = rgb[: 2 * CELL, : 6 * CELL].reshape(2, CELL, 6, CELL, 3)
    means = cells.mean(axis=(1, 3, 4)).reshape(-1)
    return sum(1 << bit for bit in range(BITS) if means[bit] > 127)


def numbers(frames) -> list[int]:
    return [number(rgb) for rgb in frames.pixels]


def make(
    path: pathlib.Path,
    count: int = 40,
    width: int = 96,
    height: int = 64,
    gop: int = 12,
    milliseconds: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    rate: fractions.Fraction | int = 25,
) -> pathlib.Path:
    """Writes a clip of `count` frames, `rate` a second or at given `milliseconds`."""
    if options is None:
        fast = {"preset": "veryfast", "bf": "3", "crf": "12", "sc_threshold": "0"}
        options = fast if codec == "libx264" else {}
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.gop_size = gop
        unit = (
            fractions.Fraction(1, 1000)
            if milliseconds
            else 1 / fractions.Fraction(rate)
        )
        stream.codec_context.time_base = unit
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), "rgb24")
            frame.pts = milliseconds[number] if milliseconds else number
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cause(path: pathlib.Path, stage: str) -> str:
    with pytest.raises(ClipError) as caught:
        decode(path)
    assert caught.value.stage == stage
    return caught.value.cause
