r"""Clips a second from encoded files to stored signals, against the step alone.

    python benchmarks/endtoend.py [--size tiny|small|7b] [--clips N] [--workers N] ...

end to end: `scoring.score`, as in a run: clips are hashed, scanned, decoded,
measured (`motion.flow=auto`), resized, sent and scored, and their signals stored.
pairs: the same model on frames that lie prepared in memory. Both take turns; the ratio
is the median over the turns, with its range, and not decided where the turns are far
apart. Clips are H.264 with a keyframe every 250 frames, made here once and kept in the
system's temporary folder: tiny 64 x 96 and 2 s, small 360 x 640 and 10 s, 7b 720 x 1280
and 40 s. Many clips are copies of two.

`endtoend/.../host` gives the core seconds of one clip by stage, and how many cores
would feed the step at its own rate; `endtoend/.../files` how long the devices computed
for a clip, and waited for what. Where that many cores are there and the ratio is below
0.9, the exit status is 1; the costliest stage is named in any case. On a CPU the step
needs the cores itself, so that nothing follows from the ratio there. Exit status 2 if a
package is missing.
"""

import argparse
import dataclasses
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import _models
import _report
import jax
import numpy as np

NEEDED = {
    "av": "av",
    "cv2": "opencv-python-headless",
    "ml_collections": "ml-collections",
    "pyarrow": "pyarrow",
}
_SIZES = {"tiny": (64, 96, 50), "small": (360, 640, 250), "7b": (720, 1280, 1000)}
_CLIPS = {"tiny": 8, "small": 3, "7b": 64}
_DISTINCT = 2
_GOAL = 0.9  # Of the rate of pairs.


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
    """Scores clips from their files.

    Attributes:
      used: The `utilisation.Utilisation` of each time that they were scored.
    """

    def __init__(self, run: _models.Run, paths: Sequence[pathlib.Path], workers: int):
        from vidsme_jax import parallel, settings
        from vidsme_jax.base import Clip, Item
        from vidsme_jax.data import reading
        from vidsme_jax.settings import views

        self.used: list[Any] = []
        self._clips = []
        for path in paths:
            about = {"id": path.name, "video": str(path), "role": "member"}
            self._clips.append(Clip(str(path), (Item(clip=str(path), **about),)))
        config = settings.default()
        config.video.num_frames = run.frames
        config.batch_size, config.workers = run.batch, workers
        self._settings = views.Settings.of(config)
        self._devices = parallel.make_devices("pmap", 1, 1)
        self._model = dataclasses.replace(
            run.model.model, fill=lambda abstract, shardings: run.model.state
        )
        self._reader = reading.Videos(self._settings.video)

    def score(self) -> None:
        """Scores all clips into a new store."""
        from vidsme_jax.base import Sample
        from vidsme_jax.run import processes, scoring
        from vidsme_jax.run.runs import Run, Wanted
        from vidsme_jax.run.stopping import Stop
        from vidsme_jax.store.signals import SECOND, Signals

        with tempfile.TemporaryDirectory() as folder:
            store = Signals(pathlib.Path(folder), {})
            wanted = Wanted(frozenset({SECOND}))
            run = Run(
                model=self._model,
                settings=self._settings,
                store=store,
                wanted=wanted,
                computed=wanted,
            )
            samples = [Sample(clip) for clip in self._clips]
            parts = samples, self._reader, self._devices
            with processes.together(pathlib.Path(folder)) as team:
                scored = scoring.score([run], *parts, team=team, stop=Stop())
            if scored.failures or len(store.finished) != len(self._clips):
                raise SystemExit(f"clips could not be scored: {scored.failures}")
            self.used.append(scored.utilisation)

    def prepared(self) -> np.ndarray:
        """Returns the first clips at the model's input size, (clips, frames, ...)."""
        count = self._settings.video.num_frames
        some = [
            self._model.prepare(self._reader.read(clip.key, {count})(count)[0].pixels)
            for clip in self._clips[:_DISTINCT]
        ]
        return np.stack([some[k % len(some)] for k in range(len(self._clips))])

    def of_a_clip(self, field: str) -> dict[str, float]:
        """Returns seconds a clip by what they went to, over all times scored.

        Args:
          field: "core_seconds", which is of a clip, or "waited", which is of them all.
        """
        total, scored = {}, sum(used.clips for used in self.used)
        for used in self.used:
            weight = used.clips if field == "core_seconds" else 1
            for key, seconds in getattr(used, field).items():
                total[key] = total.get(key, 0.0) + weight * seconds / scored
        return total


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(
        description="Files to signals, and the step alone."
    )
    _models.add_arguments(parser)
    parser.add_argument("--clips", type=int, help="by default 8, 3 or 64")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: one a core")
    args = parser.parse_args(argv)
    if _report.lacks("endtoend.py", **NEEDED):
        return 2
    run = _models.prepare(args)
    count = args.clips or _CLIPS[args.size]
    with tempfile.TemporaryDirectory() as folder:
        paths, encoding = clips(pathlib.Path(folder), args.size, count)
        files = Files(run, paths, args.workers)
        arrays = files.prepared()
        sides = {"pairs": lambda: run.ours(arrays), "files": files.score}
        for side in sides.values():  # Compiles.
            side()
        files.used.clear()
        rounds = _models.in_turn(sides, repeats=args.repeats)
    return report(args.size, run, files, rounds, count, encoding)


def report(
    size: str,
    run: _models.Run,
    files: Files,
    rounds: _models.Rounds,
    count: int,
    encoding: float,
) -> int:
    """Prints the lines; 1 if the host's cores suffice and files are too slow."""
    pairs, whole = rounds.times["pairs"], rounds.times["files"]
    ratios = [a / b for a, b in zip(pairs.walls, whole.walls, strict=True)]
    ratio = _report.Judged(
        statistics.median(ratios), min(ratios), max(ratios), rounds=len(ratios)
    )
    rate, last = count / pairs.wall, files.used[-1]
    spent, waited = files.of_a_clip("core_seconds"), files.of_a_clip("waited")
    total = sum(spent.values())
    needed, costliest = total * rate, max(spent, key=spent.__getitem__)
    below = ratio.median < _GOAL and ratio.why_not is None
    on_cpu = jax.default_backend() == "cpu"
    judged = not on_cpu and needed <= last.workers and ratio.why_not is None
    about = run.extra | {
        "clips": count,
        "clip": dict(zip(("height", "width", "frames"), _SIZES[size], strict=True)),
        "workers": last.workers,
        "cores": last.cores,
    }
    if rounds.clocks:
        about["clocks"] = rounds.clocks
    name, short = f"endtoend/{size}", _report.rounded
    _report.line(f"{name}/pairs", rate, "clips/s", **about)
    _report.line(
        f"{name}/files",
        count / whole.wall,
        "clips/s",
        ratio=ratio,
        peer="pairs",
        reached=not below if judged else None,
        lacks=costliest if below else None,
        computing=short(sum(used.busy for used in files.used) / (count * len(ratios))),
        waited={cause: short(seconds) for cause, seconds in waited.items()},
        **about,
    )
    _report.line(
        f"{name}/host",
        total,
        "core s a clip",
        stages={stage: short(s) for stage, s in spent.items()},
        shares={stage: short(s / total) for stage, s in spent.items()},
        costliest=costliest,
        needed_cores=short(needed),
        **about,
    )
    if encoding:
        _report.line(f"{name}/encoding", encoding, f"s for {_DISTINCT} clips", **about)
    if judged and below:
        print(
            f"{ratio.median:.0%} of the rate of pairs; the costliest stage is "
            f"{costliest}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
