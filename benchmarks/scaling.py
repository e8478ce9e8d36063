r"""How the cost grows with frames, clips, classes and devices.

    python benchmarks/scaling.py [--size tiny|small|7b] [--axes frames clips ...]

* frames: one clip; necessary operations per second, over the fewest frames';
* clips: a stream with one clip a step; clips per second, over one clip's;
* classes: the head, two passes; classes per second, over the fewest;
* devices: one step with one clip a device; clips per second, over one device's.

A ratio of 1 is linear cost; of devices, as many as there are is linear speed. The
virtual devices of a CPU share its cores, so that there only equality is shown. The
signals must not depend on how many clips or devices there are; exit status 1 otherwise.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import _models
import _report
import jax
import jax.numpy as jnp
import numpy as np
from _models import Run

from vidsme_jax import parallel, signals
from vidsme_jax.base import TokenSignals
from vidsme_jax.entropy import streaming
from vidsme_jax.models.flops import necessary_flops

AXES = ("frames", "clips", "classes", "devices")
FRAMES = {
    "tiny": (1, 2, 4, 8, 16, 32, 64, 128),
    "small": (1, 2, 4),
    "7b": (1, 2, 4, 8, 16, 32, 64, 128),
}
CLIPS = {"tiny": (1, 4, 16), "small": (1, 2), "7b": (1, 4, 16)}
CLASSES = {
    "tiny": (512, 1024, 2048),
    "small": (19008, 38016, 76032, 152064),
    "7b": (19008, 38016, 76032, 152064),
}
DEVICES = (1, 2, 4, 8)
_TOLERANCE = {"float32": 2e-5, "bfloat16": 1e-1}


def difference(a: Sequence[TokenSignals], b: Sequence[TokenSignals]) -> float:
    """Returns the largest difference of two runs over the same clips."""
    return max(
        float((np.abs(x - y) / np.maximum(np.abs(y), 1.0)).max())
        for one, other in zip(a, b, strict=True)
        for x, y in zip(one, other, strict=True)
    )


def frames(run: Run, counts: Sequence[int], repeats: int) -> bool:
    """Times one clip of more and more frames."""
    text = len(run.model.plan.prompt.prefix) + len(run.model.plan.prompt.suffix)
    first = None
    for count in counts:
        longer = dataclasses.replace(run, frames=count, batch=1)
        clip = longer.clips(1)
        longer.ours(clip)
        seconds, cpu = _models.timed(
            {"": lambda r=longer, c=clip: r.ours(c)}, repeats=repeats
        )[""]
        work = necessary_flops(run.config, count, text=text).pair
        first = first or work / seconds
        _report.line(
            "scaling/frames",
            seconds,
            "s per clip",
            ratio=work / seconds / first,
            peer=f"necessary operations per second at {counts[0]}",
            cpu_seconds=_report.rounded(cpu),
            **run.extra | {"frames": count, "batch": 1},
        )
    return True


def clips(run: Run, counts: Sequence[int], repeats: int) -> bool:
    """Times streams of more and more clips; each must score as it does alone."""
    run = dataclasses.replace(run, batch=1)
    every = run.clips(max(counts))
    alone = [run.ours(every[k : k + 1])[0] for k in range(len(every))]
    first, equal = None, True
    for count in counts:
        gap = difference(run.ours(every[:count]), alone[:count])
        equal = equal and gap <= _TOLERANCE[run.model.plan.dtype]
        seconds, cpu = _models.timed(
            {"": lambda n=count: run.ours(every[:n])}, repeats=repeats
        )[""]
        first = first or count / seconds
        _report.line(
            "scaling/clips",
            count / seconds,
            "clips/s",
            ratio=count / seconds / first,
            peer=f"clips/s at {counts[0]}",
            clips=count,
            cpu_seconds=_report.rounded(cpu),
            difference=_report.rounded(gap),
            equal=equal,
            **run.extra | {"batch": 1},
        )
    return equal


def classes(run: Run, counts: Sequence[int], repeats: int) -> bool:
    """Times the head over more and more classes."""
    rows = run.model.plan.num_rows(run.frames)
    size, dtype = run.config.text.hidden_size, jnp.dtype(run.model.plan.dtype)
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.standard_normal((2, rows, size), np.float32), dtype)
    mask = jnp.ones((2, 2, rows), bool)
    head = jax.jit(lambda h, w: streaming.token_signals(h, w, mask, second=True))
    first = None
    for count in counts:
        drawn = rng.standard_normal((count, size), np.float32) * np.float32(
            3 / np.sqrt(size)
        )
        weights = jnp.asarray(drawn, dtype)
        jax.block_until_ready(head(hidden, weights))
        seconds, cpu = _models.timed(
            {"": lambda w=weights: jax.block_until_ready(head(hidden, w))},
            repeats=repeats,
        )[""]
        first = first or count / seconds
        _report.line(
            "scaling/classes",
            seconds,
            "s per clip, head only",
            ratio=count / seconds / first,
            peer=f"classes per second at {counts[0]}",
            classes=count,
            cpu_seconds=_report.rounded(cpu),
            **run.extra,
        )
    return True


def devices(run: Run, repeats: int) -> bool:
    """Times one step on more and more devices; the signals must stay the same."""
    number = len(jax.local_devices())
    counts = [n for n in DEVICES if n <= number]
    every = run.clips(max(counts))
    single = dataclasses.replace(run, batch=1)
    alone = [single.ours(every[k : k + 1])[0] for k in range(len(every))]
    first, equal = None, True
    for count in counts:
        grid = parallel.make_devices("pmap", count, 1)
        model = run.model.plan.load(grid.sharding)

        def step(n=count, grid=grid, model=model):
            prepared = [signals.Prepared(k, every[k]) for k in range(n)]
            stream = signals.stream(
                model,
                prepared,
                grid,
                batch_size=n,
                num_frames=run.frames,
                second=True,
            )
            return [found for batch in stream for _, found in batch]

        gap = difference(step(), alone[:count])
        equal = equal and gap <= _TOLERANCE[run.model.plan.dtype]
        seconds, cpu = _models.timed({"": step}, repeats=repeats)[""]
        first = first or count / seconds
        _report.line(
            "scaling/devices",
            count / seconds,
            "clips/s",
            ratio=count / seconds / first,
            peer="clips/s on one device",
            devices=count,
            cpu_seconds=_report.rounded(cpu),
            difference=_report.rounded(gap),
            equal=equal,
            **run.extra | {"batch": count},
        )
    return equal


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Cost against size.")
    _models.add_arguments(parser)
    parser.add_argument("--axes", nargs="+", default=AXES, choices=AXES)
    args = parser.parse_args(argv)
    run = _models.prepare(args)
    most = run.model.plan.max_frames
    counts = [n for n in FRAMES[args.size] if n <= min(most, args.frames or most)]
    equal = True
    if "frames" in args.axes:
        equal &= frames(run, counts, args.repeats)
    if "clips" in args.axes:
        equal &= clips(run, CLIPS[args.size], args.repeats)
    if "classes" in args.axes:
        equal &= classes(run, CLASSES[args.size], args.repeats)
    if "devices" in args.axes:
        equal &= devices(run, args.repeats)
    if not equal:
        print("scaling: the signals depend on clips or devices", file=sys.stderr)
    return int(not equal)


if __name__ == "__main__":
    if jax.config.jax_platforms in (None, "cpu"):
        jax.config.update("jax_num_cpu_devices", 8)  # Of no effect on accelerators.
    sys.exit(main())
