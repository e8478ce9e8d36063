"""What the benchmarks of whole models share: sizes, clips, and our side's run."""

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vidsme_jax import parallel, signals
from vidsme_jax.base import TokenSignals
from vidsme_jax.models import random
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.llava import LlavaConfig

# By family and size: a key of `random.CONFIGS`.
NAMES = {
    "llava_qwen": {
        "tiny": "llava_qwen-tiny",
        "small": "llava_qwen-small",
        "7b": "llava_qwen-7b",
    },
    "llava_next_video": {
        "tiny": "llava_next_video-tiny",
        "7b": "llava_next_video-7b",
    },
    "llava_onevision": {
        "tiny": "llava_onevision-tiny",
        "small": "llava_onevision-0.5b",
        "7b": "llava_onevision-7b",
    },
}
_FRAMES = {"tiny": 4, "small": 2, "7b": 16}
# Of the largest score difference; the project's target of parity is 1e-4 in float32.
# Some scores are of a single row: there two pipelines in bfloat16 are 0.1 apart.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One model with its settings."""

    model: LoadedModel
    config: LlavaConfig
    frames: int
    batch: int
    extra: dict[str, Any]

    @property
    def tolerance(self) -> float:
        """The largest difference of a score that counts as equal."""
        return _TOLERANCE[self.model.plan.dtype]

    def clips(self, count: int) -> np.ndarray:
        """Draws clips of noise over a moving gradient, at the model's input size."""
        size = self.config.vision.image_size
        rng = np.random.default_rng(0)
        shape = (count, self.frames, size, size, 3)
        noise = rng.integers(0, 128, shape, np.uint8)
        ramp = np.arange(size, dtype=np.float32) / size
        moving = np.arange(self.frames, dtype=np.float32) / self.frames
        light = 127 * (0.5 + 0.5 * np.sin(6 * (ramp[None] + moving[:, None])))
        return noise + light.astype(np.uint8)[None, :, None, :, None]

    def ours(self, clips: np.ndarray) -> list[TokenSignals]:
        """Runs this package; the signals are on the host when it returns."""
        stream = signals.stream(
            self.model,
            [signals.Prepared(k, clip) for k, clip in enumerate(clips)],
            parallel.make_devices("pmap", 1, 1),
            batch_size=self.batch,
            num_frames=self.frames,
            second=True,
        )
        return [found for batch in stream for _, found in batch]

    def torch_model(self, attention: str = "sdpa") -> Any:
        """Carries the weights to torch."""
        import _torch_models

        return _torch_models.carry(self.model, self.config, attention)


def add_arguments(parser: argparse.ArgumentParser, *, batch: int = 1) -> None:
    """Adds what every benchmark of a whole model can be asked for."""
    parser.add_argument("--size", default="tiny", choices=["tiny", "small", "7b"])
    parser.add_argument("--model", default="llava_qwen", choices=list(NAMES))
    parser.add_argument("--frames", type=int, help="by default 4, 2 or 16")
    parser.add_argument("--batch", type=int, default=batch, help="clips per step")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)


def prepare(args: argparse.Namespace) -> Run:
    """Draws the model; bfloat16 on a GPU or TPU, float32 on a CPU."""
    sizes = NAMES[args.model]
    if args.size not in sizes:
        raise SystemExit(f"--model {args.model} has the sizes {', '.join(sizes)}")
    on_cpu = jax.default_backend() == "cpu"
    dtype = args.dtype or ("float32" if on_cpu else "bfloat16")
    name = sizes[args.size]
    model = random.draw(name, dtype=dtype)
    _, config = random.configuration(name, dtype)
    frames = args.frames or _FRAMES[args.size]
    extra = {"model": name, "dtype": dtype, "frames": frames, "batch": args.batch}
    if on_cpu:
        extra["threads"] = os.cpu_count()
    return Run(model=model, config=config, frames=frames, batch=args.batch, extra=extra)


def timed(
    runs: dict[str, Callable[[], Any]], *, repeats: int
) -> dict[str, tuple[float, float]]:
    """Returns the median wall and CPU seconds of calls that wait for their results.

    The calls take turns, so that what else runs on the machine meets all of them alike.
    """
    walls, cpus = {name: [] for name in runs}, {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    median = statistics.median
    return {name: (median(walls[name]), median(cpus[name])) for name in runs}
