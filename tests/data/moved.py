"""Drawn clips, and what a codec makes of them."""

import fractions
import pathlib

import av
import numpy as np

from vidsme_jax.demo import drawing

LUMA = np.array([0.299, 0.587, 0.114])


def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    scene, shape = drawing.make_scene(rng), drawing.choice(rng, drawing.FORMATS)
    indices = np.rint(np.linspace(0, scene.num_frames - 1, count)).astype(int)
    return np.stack([drawing.draw(scene, k, *shape) for k in indices.tolist()])


def decoded(path: pathlib.Path) -> np.ndarray:
    with av.open(str(path)) as file:
        pictures = [x.to_ndarray(format="rgb24") for x in file.decode(video=0)]
    return np.stack(pictures)


def encoded(path: pathlib.Path, frames: np.ndarray, crf: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=12)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = fractions.Fraction(1, 12)
        stream.options = {"crf": str(crf)}
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return decoded(path)
