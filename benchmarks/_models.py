"""What the benchmarks of whole models share: sizes, clips, our side's run, rulers."""

import argparse
import dataclasses
import functools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import _clocks
import jax
import numpy as np
from _report import Judged, rounded
from flax import nnx
from jax.typing import DTypeLike

from vidsme_jax import parallel
from vidsme_jax.base import TokenSignals
from vidsme_jax.models import layers, random
from vidsme_jax.models.interface import Flops, LoadedModel
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.run import pipeline, rates, stacking, step

# By model and size: a key of `random.sizes`, such as internvl3-8b.
NAMES: dict[str, dict[str, str]] = {}
for _name in random.sizes():
    _model, _, _size = _name.partition("-")
    NAMES.setdefault(_model, {})[_size] = _name
NAMES["llava_onevision"]["small"] = "llava_onevision-0.5b"
SIZES = sorted({size for sizes in NAMES.values() for size in sizes})
PIXELS = 360, 640  # Of a frame, before the model's own size.
_FRAMES, _PUBLISHED = {"tiny": 4, "small": 2}, 16
# Of the largest score difference; the project's target of parity is 1e-4 in float32.
# Some scores are of a single row: there two pipelines in bfloat16 are 0.1 apart.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One model with its settings."""

    model: LoadedModel
    name: str  # A key of `random.sizes`.
    config: Any
    frames: int
    batch: int
    extra: dict[str, Any]

    @property
    def tolerance(self) -> float:
        """The largest difference of a score that counts as equal."""
        return _TOLERANCE[self.model.model.dtype]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The attention kernels of tower and decoder."""
        return tuple(self.extra["attention"].values())

    def clips(self, count: int) -> np.ndarray:
        """Draws clips of noise over a moving gradient, at the model's input size.

        Where a model takes frames of any size they are of `PIXELS`, and then cut.
        """
        prepare, tiling = self.model.model.prepare, self.model.model.tiling
        size = (*PIXELS, 3)
        if tiling is None:
            size = prepare(np.zeros((1, 8, 8, 3), np.uint8)).shape[1:]
        rng = np.random.default_rng(0)
        shape = (count, self.frames, *size)
        noise = rng.integers(0, 128, shape, np.uint8)
        ramp = np.arange(shape[-2], dtype=np.float32) / shape[-2]
        moving = np.arange(self.frames, dtype=np.float32) / self.frames
        light = 127 * (0.5 + 0.5 * np.sin(6 * (ramp[None] + moving[:, None])))
        drawn = noise + light.astype(np.uint8)[None, :, None, :, None]
        return drawn if tiling is None else np.stack([prepare(clip) for clip in drawn])

    @functools.cached_property
    def shown(self) -> Shown:
        """What the model is shown of a clip."""
        shown = Shown(self.frames)
        if self.model.model.tiling is None:
            return shown
        return stacking.seen(self.model.model, self.clips(1)[0], shown)

    @property
    def prompt(self) -> Text:
        """The tokens around a clip."""
        return self.model.model.tokenise(None, self.shown)

    @property
    def rows(self) -> int:
        """The rows of a clip that have signals."""
        model, order = self.model.model, np.arange(self.frames)
        return int((model.lay_out(self.shown, self.prompt, order).slice >= 0).sum())

    def flops(self, **more: Any) -> Flops:
        """The operations of a clip; see `Model.flops`."""
        return self.model.model.flops(self.shown, **more)

    def ours(self, clips: np.ndarray) -> list[TokenSignals]:
        """Runs this package; the signals are on the host when it returns."""
        return signals_of(
            self.model,
            clips,
            parallel.make_devices("pmap", 1, 1),
            batch_size=self.batch,
            num_frames=self.frames,
        )

    def at(self, *, frames: int | None = None, batch: int | None = None) -> "Run":
        """Returns the same model with another number of frames or clips a step."""
        frames, batch = frames or self.frames, batch or self.batch
        extra = self.extra | {"frames": frames, "batch": batch}
        return dataclasses.replace(self, frames=frames, batch=batch, extra=extra)

    def head_memory(self) -> int | None:
        """Returns what `signals.stream` gives the head on this device."""
        leaves = jax.tree.leaves(self.model.state)
        return budget(sum(x.addressable_shards[0].data.nbytes for x in leaves))

    def torch_model(self, attention: str = "sdpa") -> Any:
        """Carries the weights to torch."""
        import _torch_models

        return _torch_models.carry(self.name, self.model, self.config, attention)


def signals_of(
    model: LoadedModel, clips: np.ndarray, devices: parallel.Devices, **options: int
) -> list[Any]:
    """Runs clips of one length through a pipeline; results are in their order."""
    run = pipeline.Pipeline(model, devices, second=True, **options)
    coming = ([(0, stacking.Input(k, clip))] for k, clip in enumerate(clips))
    stream = pipeline.stream(coming, [run])
    return [result.signals for _, batch in stream for result in batch]


def add_arguments(parser: argparse.ArgumentParser, *, batch: int = 1) -> None:
    """Adds what every benchmark of a whole model can be asked for."""
    parser.add_argument("--size", default="tiny", choices=SIZES)
    parser.add_argument("--model", default="llava_qwen", choices=list(NAMES))
    parser.add_argument(
        "--frames", type=int, nargs="+", help="of a clip; by default 4, 2 or 16"
    )
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[batch], help="clips per step"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5, help="rounds")


def prepare(args: argparse.Namespace) -> Run:
    """Draws the model; bfloat16 on a GPU or TPU, float32 on a CPU.

    The run has the first of the numbers of frames and of clips; see `runs`.
    """
    sizes = NAMES[args.model]
    if args.size not in sizes:
        raise SystemExit(f"--model {args.model} has the sizes {', '.join(sizes)}")
    on_cpu = jax.default_backend() == "cpu"
    dtype = args.dtype or ("float32" if on_cpu else "bfloat16")
    name = sizes[args.size]
    model = random.draw(name, dtype=dtype)
    layers.lay_out(model.state)  # As a run does.
    config = nnx.merge(model.graphdef, model.state).config
    frames = args.frames[0] if args.frames else _FRAMES.get(args.size, _PUBLISHED)
    extra: dict[str, Any] = {"model": name, "dtype": dtype}
    extra["attention"] = model.model.kernels()
    if on_cpu:
        extra["threads"] = os.cpu_count()
    run = Run(
        model=model, name=name, config=config, frames=frames, batch=1, extra=extra
    )
    return run.at(batch=args.batch[0])


def runs(args: argparse.Namespace) -> Iterator[Run]:
    """Draws the model once and yields a run for each number of frames and of clips."""
    run = prepare(args)
    for frames in args.frames or [run.frames]:
        for batch in args.batch:
            yield run.at(frames=frames, batch=batch)


def budget(held: int) -> int | None:
    """Returns the head's memory budget where so many bytes of parameters lie."""
    memory = parallel.make_devices("pmap", 1, 1).memory()
    return step.head_memory(memory, held)


class Times(NamedTuple):
    """Seconds of one side, a number a round."""

    walls: tuple[float, ...]
    cpus: tuple[float, ...]  # Of all threads of this process.

    @property
    def wall(self) -> float:
        """The median wall seconds."""
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        """The median CPU seconds."""
        return statistics.median(self.cpus)


class Rounds(NamedTuple):
    """What some rounds took, and the clocks of the card meanwhile."""

    times: dict[str, Times]
    clocks: dict[str, Any]  # See `_clocks.watching`; empty without a card.

    def paired(self, side: str, peer: str) -> Judged:
        """How many times faster a side is than a peer; see `paired`."""
        return paired(self.times[side], self.times[peer])

    def fields(self, side: str, peer: str | None = None, *, per: int = 1) -> dict:
        """Returns for a line the seconds of a side, and of a peer, per clip.

        Args:
          side: One of the calls.
          peer: Another one.
          per: Clips of a call.
        """
        found: dict[str, Any] = {}
        for prefix, name in (("", side), ("peer_", peer)):
            if name is not None:
                times = self.times[name]
                found[f"{prefix}wall_seconds"] = rounded(times.wall / per)
                found[f"{prefix}cpu_seconds"] = rounded(times.cpu / per)
        if peer is not None:
            found["ratio_of"] = f"{clock()} seconds"
        if self.clocks:
            found["clocks"] = self.clocks
        return found


def in_turn(calls: dict[str, Callable[[], Any]], *, repeats: int) -> Rounds:
    """Times calls that wait for their results, one after the other in each round.

    Rounds rather than blocks (A B A B, not A A B B), so that what else runs on the
    machine, and a clock that falls as the card warms up, meet all sides alike.
    """
    walls, cpus = {name: [] for name in calls}, {name: [] for name in calls}
    with _clocks.watching() as clocks:
        for _ in range(repeats):
            for name, call in calls.items():
                wall, cpu = time.perf_counter(), time.process_time()
                call()
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
    times = {name: Times(tuple(walls[name]), tuple(cpus[name])) for name in calls}
    return Rounds(times, clocks)


def clock() -> str:
    """Returns the seconds that a ratio is taken of: "cpu" on a CPU, else "wall".

    The cores of a CPU may be shared with other programs, which lengthens wall time; on
    an accelerator the host's CPU time says nothing.
    """
    return "cpu" if jax.default_backend() == "cpu" else "wall"


def paired(side: Times, peer: Times) -> Judged:
    """How many times faster a side is than a peer, by the seconds of `clock`.

    A ratio is taken in each round, in which both ran one after the other; the figure is
    the median of these ratios and the spread goes from the smallest to the largest.
    """
    of = [getattr(times, f"{clock()}s") for times in (side, peer)]
    ratios = [b / a if a else math.inf for a, b in zip(*of, strict=True)]
    middle = statistics.median(ratios)
    return Judged(middle, min(ratios), max(ratios), rounds=len(ratios))


class Ruler:
    """The rate of a matrix product on random data, before and after what it measures.

    `again` is called once that has run. On an accelerator a measurement goes on for
    more than a second, as a step does, with the clocks watched meanwhile.
    """

    def __init__(self, dtype: DTypeLike):
        """Measures for the first time."""
        here = jax.default_backend() == "cpu"
        self._size, self._repeats = (2048, 5) if here else (16384, 100)
        self._dtype, self._rates = dtype, []
        self._clocks: dict[str, Any] = {}
        self.again()

    def again(self) -> None:
        """Measures once more."""
        with _clocks.watching() as clocks:
            rate = rates.matrix_rate(
                self._dtype, size=self._size, repeats=self._repeats
            )
        self._rates.append(rate)
        self._clocks = clocks

    def share(self, work: float, walls: Sequence[float]) -> Judged:
        """Returns which part of the rate so many operations reached in each round.

        The spread takes the slowest round with the highest rate and the reverse.

        Args:
          work: Operations.
          walls: Seconds, a number a round.
        """
        middle = work / statistics.median(walls) / statistics.median(self._rates)
        low = work / max(walls) / max(self._rates)
        high = work / min(walls) / min(self._rates)
        return Judged(middle, low, high, most=1.0, rounds=len(walls))

    def fields(self) -> dict[str, Any]:
        """Returns the rate for a line, with the clocks that it was measured at."""
        found: dict[str, Any] = {
            "product": f"{self._size} x {self._size}, random",
            "product_tflop_per_s": [rounded(rate / 1e12) for rate in self._rates],
        }
        if self._clocks:
            found["product_clocks"] = self._clocks
        return found
