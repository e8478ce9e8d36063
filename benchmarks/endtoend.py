r"""Clips a second from encoded files to stored signals, against the step alone.

    python benchmarks/endtoend.py [--size tiny|small|7b] [--clips N] [--workers N] ...

end to end: `scoring.score_clips`, as in a run: clips are hashed, scanned, decoded,
measured (`motion.flow=auto`), resized, sent and scored, and their signals stored.
pairs: the same model on frames that lie prepared in memory. Both take turns; the ratio
is the median over the turns, with its range. Clips are H.264 with a keyframe every 250
frames, made here once and kept in the system's temporary folder: tiny 64 x 96 and 2 s,
small 360 x 640 and 10 s, 7b 720 x 1280 and 40 s. Many clips are copies of two.

`endtoend/.../host` tells the core seconds of one clip by stage, and how many cores
would feed the step at its own rate. Where that many are there and the ratio is below
0.9, the exit status is 1; the dearest stage is named in any case. On a CPU the step
needs the cores itself, so that nothing follows from the ratio there. Exit status 2 if a
package is missing.
"""

import argparse
import dataclasses
import functools
import importlib.util
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

_PACKAGES = {"av": "av", "ml_collections": "ml-collections", "cv2": "opencv-python"}
_SIZES = {"tiny": (64, 96, 50), "small": (360, 640, 250), "7b": (720, 1280, 1000)}
_CLIPS = {"tiny": 8, "small": 3, "7b": 64}
_DISTINCT = 2
_GOAL = 0.9  # Of the rate of pairs.
STORE = "store"


def clips(
    folder: pathlib.Path, size: str, count: int
) -> tuple[list[pathlib.Path], float]:
    """Makes clips, and returns them with the seconds that encoding took, 0 if none."""
    import decode

    cache = pathlib.Path(tempfile.gettempdir()) / "vidsme-endtoend"
    cache.mkdir(exist_ok=True)
    start, made = time.perf_counter(), False
    for seed in range(_DISTINCT):
        known = cache / f"{'x'.join(map(str, _SIZES[size]))}-{seed}.mp4"
        if not known.exists():
            made, draft = True, folder / known.name
            decode.make(draft, *_SIZES[size], seed)
            shutil.copy(draft, known.with_suffix(".part"))
            known.with_suffix(".part").replace(known)
        for k in range(seed, count, _DISTINCT):
            shutil.copy(known, folder / f"clip-{k}.mp4")
    paths = [folder / f"clip-{k}.mp4" for k in range(count)]
    return paths, time.perf_counter() - start if made else 0.0


class Files:
    """Scores clips from their files, and counts what the host spends on it."""

    def __init__(self, run: Any, paths: Sequence[pathlib.Path], workers: int):
        from vidsme_jax import parallel, settings
        from vidsme_jax.base import Clip, Item
        from vidsme_jax.data import reading
        from vidsme_jax.data.stages import PREPROCESS, Stages

        self.stages, self.clips = Stages(), []
        for path in paths:
            about = {"id": path.name, "video": str(path), "role": "member"}
            self.clips.append(Clip(path, (Item(path=path, **about),)))
        self.config = settings.default()
        self.config.video.num_frames = run.frames
        self.config.batch_size, self.config.workers = run.batch, workers
        self._devices = parallel.make_devices("pmap", 1, 1)
        prepare = run.model.plan.prepare
        self._plan = dataclasses.replace(
            run.model.plan,
            load=lambda sharding: run.model,
            prepare=lambda pixels: self._counted(PREPROCESS, prepare, pixels),
        )
        self.reader = reading.Videos(self.config)

    def _counted(self, stage: str, function: Any, *args: Any, **more: Any) -> Any:
        with self.stages.spending(stage):
            return function(*args, **more)

    def read(self, path: pathlib.Path) -> Any:
        """Reads the frames of a clip; see `reading.Reader`."""
        from vidsme_jax.data.stages import DECODE

        return self._counted(DECODE, self.reader.read, path)

    def thumbnails(
        self, path: pathlib.Path, indices: Sequence[int], height: int
    ) -> Any:
        """Frames that were read before, scaled down; see `reading.Reader`."""
        return self.reader.thumbnails(path, indices, height)

    def score(self) -> None:
        """Scores all clips into a new store."""
        from vidsme_jax import scoring, shards
        from vidsme_jax.data.stages import MOTION
        from vidsme_jax.stopping import Stop

        begin = functools.partial(self._counted, MOTION, scoring.statistics.begin)
        counted = mock.patch.object(scoring.statistics, "begin", begin)
        with tempfile.TemporaryDirectory() as folder, counted:
            store = shards.Shards(pathlib.Path(folder), {})
            write = functools.partial(self._counted, STORE, store.write)
            with mock.patch.object(store, "write", write):
                failures = scoring.score_clips(
                    self.clips,
                    self,
                    self._plan,
                    self._devices,
                    store,
                    self.config,
                    second=True,
                    stop=Stop(),
                )
            if failures or len(store.reopened().finished) != len(self.clips):
                raise SystemExit(f"clips could not be scored: {failures}")

    def prepared(self) -> Any:
        """Returns the first clips at the model's input size, (clips, frames, ...)."""
        import numpy as np

        some = [self._plan.prepare(self.read(c.path)[0].pixels) for c in self.clips[:2]]
        return np.stack([some[k % len(some)] for k in range(len(self.clips))])


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    for module, package in _PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            print(f"{package} is not installed: pip install {package}", file=sys.stderr)
            return 2
    import _models
    import _report
    import jax

    from vidsme_jax.data import loader
    from vidsme_jax.data.stages import Stages

    parser = argparse.ArgumentParser(
        description="Files to signals, and the step alone."
    )
    _models.add_arguments(parser)
    parser.add_argument("--clips", type=int, help="by default 8, 3 or 64")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: one a core")
    args = parser.parse_args(argv)
    run = _models.prepare(args)
    count = args.clips or _CLIPS[args.size]
    cores = loader.num_cores()
    rates: dict[str, list[float]] = {"pairs": [], "files": []}
    with tempfile.TemporaryDirectory() as folder:
        paths, encoding = clips(pathlib.Path(folder), args.size, count)
        files = Files(run, paths, args.workers)
        arrays = files.prepared()
        sides = {"pairs": lambda: run.ours(arrays), "files": files.score}
        for side in sides.values():  # Compiles.
            side()
        files.stages = Stages()
        for _ in range(args.repeats):
            for name, side in sides.items():
                start = time.perf_counter()
                side()
                rates[name].append(count / (time.perf_counter() - start))

    scored = count * args.repeats
    spent = {stage: s / scored for stage, s in files.stages.seconds.items()}
    total, rate = sum(spent.values()), statistics.median(rates["pairs"])
    ratios = [a / b for a, b in zip(rates["files"], rates["pairs"], strict=True)]
    ratio, needed = statistics.median(ratios), total * rate
    dearest = max(spent, key=spent.__getitem__)
    on_cpu = jax.default_backend() == "cpu"
    decided = not on_cpu and needed <= (args.workers or cores)
    about = run.extra | {
        "clips": count,
        "clip": dict(
            zip(("height", "width", "frames"), _SIZES[args.size], strict=True)
        ),
        "workers": args.workers or cores,
        "cores": cores,
    }
    name = f"endtoend/{args.size}"
    _report.line(f"{name}/pairs", rate, "clips/s", **about)
    _report.line(
        f"{name}/files",
        statistics.median(rates["files"]),
        "clips/s",
        ratio=ratio,
        peer="pairs",
        ratios=[_report.rounded(min(ratios)), _report.rounded(max(ratios))],
        reached=ratio >= _GOAL if decided else None,
        lacks=None if ratio >= _GOAL else dearest,
        **about,
    )
    _report.line(
        f"{name}/host",
        total,
        "core s a clip",
        stages={stage: _report.rounded(s) for stage, s in spent.items()},
        shares={stage: _report.rounded(s / total) for stage, s in spent.items()},
        dearest=dearest,
        needed_cores=_report.rounded(needed),
        **about,
    )
    if encoding:
        _report.line(f"{name}/encoding", encoding, f"s for {_DISTINCT} clips", **about)
    if decided and ratio < _GOAL:
        print(
            f"{ratio:.0%} of the rate of pairs; the dearest stage is {dearest}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
