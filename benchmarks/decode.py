r"""Decoding 16 uniform frames of a clip: PyAV with seeking against OpenCV's grab loop.

    python benchmarks/decode.py [--size tiny|small|7b] [--clips 3] [--repeats 2]

The clips are made here (H.264, 25 frames a second, a keyframe every 250, three
B-frames): tiny 64 x 96 and 2 s, small 360 x 640 and 10 s, 7b 720 x 1280 and 60 s. Both
sides run on one thread and give RGB; ours also takes the SHA-256 of the file. Exit
status 1 if the frames of the two differ by more than 3 grey levels in the mean or one
of them is nearer to another frame, 2 if PyAV is missing.
"""

import argparse
import importlib.util
import pathlib
import sys
import tempfile
import time

import _report
import cv2
import numpy as np

SIZES = {"tiny": (64, 96, 50), "small": (360, 640, 250), "7b": (720, 1280, 1500)}
FRAMES = 16
CODEC = {"preset": "veryfast", "g": "250", "bf": "3", "sc_threshold": "0"}


def make(path: pathlib.Path, height: int, width: int, count: int, seed: int) -> None:
    """Writes a clip of a texture that moves steadily while the light changes."""
    import av

    random = np.random.default_rng(seed)
    coarse = random.normal(size=(height // 8 + 8, width // 4 + 8, 3))
    texture = cv2.resize(coarse.astype(np.float32), None, fx=8, fy=8)
    texture = np.clip(120 + 40 * texture, 0, 235).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=CODEC)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(count):
            left = k * (texture.shape[1] - width) // count
            rgb = texture[:height, left : left + width] + np.uint8(20 * k // count)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def grabbed(path: pathlib.Path, indices) -> np.ndarray:
    """Frames by OpenCV, which decodes all up to the last; shape (frames, h, w, 3)."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted, frames = set(indices), []
    for index in range(max(indices) + 1):
        if not capture.grab():
            raise SystemExit(f"OpenCV cannot read frame {index} of {path}")
        if index in wanted:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


def seconds(function, repeats: int) -> float:
    """The shortest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    if importlib.util.find_spec("av") is None:
        print("PyAV is not installed: pip install av", file=sys.stderr)
        return 2
    from vidsme_jax.data import video

    cv2.setNumThreads(1)
    height, width, count = SIZES[args.size]
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{k}.mp4" for k in range(args.clips)]
        for seed, path in enumerate(paths):
            make(path, height, width, count, seed)

        def ours():
            return [video.decode(path, num_frames=FRAMES) for path in paths]

        decoded = ours()
        if any(len(set(frames.indices)) != FRAMES for frames in decoded):
            raise SystemExit("a clip has fewer than 16 frames")
        indices = [frames.indices for frames in decoded]

        def theirs():
            return [grabbed(p, i) for p, i in zip(paths, indices, strict=True)]

        peers = theirs()
        worst, confused = 0.0, 0
        for frames, peer in zip(decoded, peers, strict=True):
            pixels = frames.pixels.astype(np.float32)
            apart = np.array([np.abs(pixels - other).mean((1, 2, 3)) for other in peer])
            worst = max(worst, float(apart.diagonal().max()))
            confused += int((apart.argmin(axis=0) != np.arange(FRAMES)).sum())
        mine, other = seconds(ours, args.repeats), seconds(theirs, args.repeats)

    peer = f"cv2.VideoCapture grab loop, {args.clips / other:.2f} clips/s"
    about = {
        "ratio": round(other / mine, 2),
        "peer": peer,
        "difference": round(worst, 3),
        "size": {
            "clips": args.clips,
            "height": height,
            "width": width,
            "frames_of_a_clip": count,
            "sampled": FRAMES,
        },
    }
    rate = args.clips / mine
    _report.line(f"decode/{args.size}/clips", round(rate, 2), "clips/s", **about)
    _report.line(
        f"decode/{args.size}/frames",
        round(FRAMES * rate, 1),
        "sampled frames/s",
        **about,
    )
    if worst > 3 or confused:
        print(
            f"frames differ by {worst:.2f} grey levels in the mean; {confused} are "
            "nearer to another frame",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
