r"""Optical flow of the 15 pairs of a clip: JAX on the present device against OpenCV.

    python benchmarks/flow.py [--size tiny|small|7b] [--repeats 3]

tiny is 64 x 96, small 360 x 640, 7b 720 x 1280. Grey frames lie on the host and the 15
variances come back to it, as in a run; compilation is excluded and reported separately.
The peer is OpenCV on one thread of the same machine, as in a run with
`motion.flow=opencv`; where it is missing, its variances are those of an earlier run.
Exit status 1 if the flow variances of the two differ by more than 0.1 %.

Counted, not measured: 152 bytes and about 1,000 operations a pixel, scale and iteration
on a GPU (`vidsme_jax/motion/farneback.py`), from which the lower bound of the time
follows that the device's memory allows. On the cards it names 7b takes 3 ms at the
least (H100), or 2.1 ms (H200), where the pair of a 7B model at 16 frames takes about
120 ms.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence

import _report
import jax
import numpy as np

from vidsme_jax.motion import backends, statistics

try:
    import cv2
except ImportError:
    cv2 = None

SIZES = {"tiny": (64, 96), "small": (360, 640), "7b": (720, 1280)}
FRAMES = 16
# The mean flow variance of OpenCV 5.0.0 (`statistics.opencv`), where it is missing.
RECORDED = {"tiny": 0.4506753, "small": 5.405655, "7b": 18.77609}
_WAVES = 12
BYTES = 152  # Moved for a pixel of a scale in an iteration.
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12, "A100": 2.0e12}  # Bytes a second.


def clip(height: int, width: int) -> np.ndarray:
    """A texture that moves and stretches, with noise; shape (frames, height, width)."""
    random = np.random.default_rng(0)
    lengths = np.geomspace(12, 90, _WAVES)  # Of the waves, in pixels.
    angles, phases = random.uniform(0, 2 * np.pi, (2, _WAVES))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    frames = []
    for k in range(FRAMES):
        x = (1 + 0.004 * k) * columns + 0.01 * k * rows + 3 * k
        y = (1 - 0.003 * k) * rows + 2 * k
        light = np.zeros((height, width), np.float32)
        for length, angle, phase in zip(lengths, angles, phases, strict=True):
            turn = np.float32(2 * np.pi / length)
            along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
            light += np.sin(turn * along + np.float32(phase))
        noise = random.standard_normal((height, width), np.float32)
        frames.append(np.clip(128 + 20 * light + 2 * noise, 0, 255).astype(np.uint8))
    return np.stack(frames)


def seconds(function, repeats: int) -> float:
    """The shortest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    height, width = SIZES[args.size]
    grey = clip(height, width)
    device = jax.devices()[0]
    flow = backends.make("jax", [device])

    start = time.perf_counter()
    found = flow(grey)().mean()
    compiled = time.perf_counter() - start
    ours = seconds(lambda: flow(grey)(), args.repeats)
    expected, ratio, peer = RECORDED[args.size], None, "OpenCV 5.0.0, not timed here"
    if cv2 is not None:
        cv2.setNumThreads(1)
        expected = statistics.opencv(grey)().mean()
        theirs = seconds(lambda: statistics.opencv(grey)(), args.repeats)
        ratio, peer = theirs / ours, f"OpenCV on one thread, {1000 * theirs:.1f} ms"
    difference = abs(found / expected - 1)
    memory = backends.executable(grey.shape, device).memory_analysis()
    temporary = 0 if memory is None else memory.temp_size_in_bytes

    about = {"size": {"frames": FRAMES, "height": height, "width": width}}
    _report.line(
        f"flow/{args.size}",
        round(1000 * ours, 2),
        "ms a clip",
        ratio=ratio,
        peer=peer,
        phi=found,
        phi_difference=difference,
        **about,
    )
    bandwidth = next((v for k, v in BANDWIDTH.items() if k in device.device_kind), None)
    moved = BYTES * math.prod(backends.plan(grey.shape, device)) * 4 / 3 * 3
    bound = None if bandwidth is None else round(1000 * moved / bandwidth, 2)
    _report.line(
        f"flow/{args.size}/bytes",
        round(moved / 2**30, 2),
        "GiB moved, counted",
        bound_ms=bound,
        **about,
    )
    _report.line(
        f"flow/{args.size}/memory",
        round(temporary / 2**20, 1),
        "MiB temporary",
        calls=backends.plan(grey.shape, device)[0],
        **about,
    )
    _report.line(
        f"flow/{args.size}/first", round(compiled, 1), "s with compiling", **about
    )
    if difference > 1e-3:
        print(
            f"flow variances differ by {difference:.2%}: {found:.6g} here, OpenCV "
            f"{expected:.6g}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
