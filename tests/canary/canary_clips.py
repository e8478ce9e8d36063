"""Clips to make canary sets of: smooth, noisy, with sound, of uneven times."""

import fractions
import pathlib

import av
import numpy as np

from vidsme_jax.canary import inputs, making
from vidsme_jax.demo import drawing


def drawn(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """Draws a scene."""
    scene = drawing.make_scene(np.random.default_rng(seed))
    return np.stack([drawing.draw(scene, k, height, width) for k in range(count)])


def grained(frames: np.ndarray, sigma: float) -> np.ndarray:
    """Adds what a camera's sensor adds, other grain in every picture."""
    noise = np.random.default_rng(1).normal(0, sigma, frames.shape)
    return np.clip(np.rint(frames + noise), 0, 255).astype(np.uint8)


def encode(
    path: pathlib.Path,
    frames: np.ndarray,
    *,
    times=None,
    sound: str = "",
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
) -> pathlib.Path:
    """Writes a clip; `times` are its pictures', in units of 1 / 1000 s."""
    times = [40 * k for k in range(len(frames))] if times is None else times
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
        stream.options = {"crf": "20"}
        audio = file.add_stream(sound, rate=16000, layout="mono") if sound else None
        for pixels, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = time, fractions.Fraction(1, 1000)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
        if audio is not None:
            tone = np.sin(np.arange(16000) / 7).astype(np.float32)[None]
            if sound != "aac":
                tone = (9000 * tone).astype(np.int16)
            for k in range(0, 16000, 1024):
                samples = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(tone[:, k : k + 1024]),
                    "fltp" if sound == "aac" else "s16",
                    "mono",
                )
                samples.sample_rate, samples.pts = 16000, k
                file.mux(audio.encode(samples))
            file.mux(audio.encode())
    return path


def pictures(content) -> tuple[np.ndarray, list[float]]:
    """Decodes a clip with PyAV alone; returns its pictures and their times."""
    with av.open(content if hasattr(content, "read") else str(content)) as file:
        found = [(x.to_ndarray(format="rgb24"), x.time) for x in file.decode(video=0)]
    frames, times = zip(*found, strict=True)
    return np.stack(frames), list(times)


def packets(path: pathlib.Path) -> list[bytes]:
    """The packets of a file's sound."""
    with av.open(str(path)) as file:
        return [bytes(x) for x in file.demux(file.streams.audio[0]) if x.size]


def made(source: pathlib.Path, out: pathlib.Path, number: int, seed: int | None = 5):
    """Makes canary sets, on one thread."""
    return making.make(inputs.find(str(source), number), out, number, seed, 1)
