r"""How the cost grows with frames, clips, classes and devices.

    python benchmarks/scaling.py [--size SIZE] [--model NAME] [--axes frames clips ...]

* frames: one clip of each number in --frames; necessary operations per second, over the
  first number's, and the device's memory where it reports its peak (that of the process
  so far, so ask for one number to be sure);
* clips: a stream with one clip a step; clips per second, over one clip's;
* classes: the head, two passes; classes per second, over the fewest;
* devices: one step with one clip a device; clips per second, over one device's.

A ratio of 1 is linear cost; of devices, as many as there are is linear speed. The
virtual devices of a CPU share its cores, so that there only equality is shown. The
signals must not depend on how many clips or devices there are; exit status 1 otherwise.
"""

import argparse
import sys
from collections.abc import Sequence

import _models
import _report
import jax
import jax.numpy as jnp
import numpy as np
from _models import Run

from vidsme_jax import parallel
from vidsme_jax.base import TokenSignals
from vidsme_jax.entropy import streaming

AXES = ("frames", "clips", "classes", "devices")
FRAMES = {
    "tiny": (1, 2, 4, 8, 16, 32, 64, 128),
    "small": (1, 2, 4),
    "7b": (1, 16, 128),  # Each is compiled, which takes a minute.
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
        if x is not None
    )


def frames(run: Run, counts: Sequence[int], repeats: int) -> bool:
    """Times one clip of each number of frames."""
    held = sum(x.nbytes for x in jax.tree.leaves(run.model.state))
    first = None
    for count in counts:
        longer = run.at(frames=count, batch=1)
        clip = longer.clips(1)
        longer.ours(clip)
        rounds = _models.in_turn(
            {"ours": lambda r=longer, c=clip: r.ours(c)}, repeats=repeats
        )
        peak = _report.device_peak_mib()  # Before the ruler takes memory of its own.
        seconds = rounds.times["ours"].wall
        work = longer.flops().pair
        first = first or work / seconds
        _report.line(
            "scaling/frames",
            seconds,
            "s per clip",
            ratio=work / seconds / first,
            peer=f"necessary operations per second at {counts[0]}",
            tflop_per_clip=_report.rounded(work / 1e12),
            **rounds.fields("ours"),
            **longer.extra,
        )
        if peak is not None:
            _report.line(
                "scaling/device memory",
                peak / 1024,
                "GiB at the peak",
                parameters_gib=_report.rounded(held / 2**30),
                **longer.extra,
            )
        ruler = _models.Ruler(run.model.model.dtype)
        share = ruler.share(work, rounds.times["ours"].walls)
        _report.line(
            "scaling/mfu",
            share.scaled(100),
            "% of the rate of a matrix product",
            **ruler.fields(),
            **longer.extra,
        )
    return True


def clips(run: Run, counts: Sequence[int], repeats: int) -> bool:
    """Times streams of more and more clips; each must score as it does alone."""
    run = run.at(batch=1)
    every = run.clips(max(counts))
    alone = [run.ours(every[k : k + 1])[0] for k in range(len(every))]
    gaps = {n: difference(run.ours(every[:n]), alone[:n]) for n in counts}
    rounds = _models.in_turn(
        {str(n): lambda n=n: run.ours(every[:n]) for n in counts}, repeats=repeats
    )
    first = str(counts[0])
    for count, gap in gaps.items():
        _report.line(
            "scaling/clips",
            count / rounds.times[str(count)].wall,
            "clips/s",
            ratio=rounds.paired(str(count), first).scaled(count / counts[0]),
            peer=f"clips/s at {first}",
            clips=count,
            difference=_report.rounded(gap),
            equal=gap <= _TOLERANCE[run.model.model.dtype],
            **rounds.fields(str(count), first),
            **run.extra,
        )
    return max(gaps.values()) <= _TOLERANCE[run.model.model.dtype]


def classes(run: Run, counts: Sequence[int], repeats: int) -> bool:
    """Times the head over more and more classes."""
    rows = run.rows
    size, dtype = run.config.text.hidden_size, jnp.dtype(run.model.model.dtype)
    keys = jax.random.split(jax.random.key(0), 1 + len(counts))
    hidden = jax.random.normal(keys[0], (2, rows, size), dtype)
    mask = jnp.ones((2, 2, rows), bool)
    memory = run.head_memory()
    head = jax.jit(
        lambda h, w: streaming.token_signals(h, w, mask, second=True, memory=memory)
    )
    deviation = jnp.asarray(3 / np.sqrt(size), dtype)
    calls = {}
    for key, count in zip(keys[1:], counts, strict=True):
        weights = deviation * jax.random.normal(key, (count, size), dtype)
        jax.block_until_ready(head(hidden, weights))
        calls[str(count)] = lambda w=weights: jax.block_until_ready(head(hidden, w))
    rounds, first = _models.in_turn(calls, repeats=repeats), str(counts[0])
    for count in counts:
        _report.line(
            "scaling/classes",
            rounds.times[str(count)].wall,
            "s per clip, head only",
            ratio=rounds.paired(str(count), first).scaled(count / counts[0]),
            peer=f"classes per second at {first}",
            classes=count,
            **rounds.fields(str(count), first),
            **run.extra,
        )
    return True


def devices(run: Run, repeats: int) -> bool:
    """Times one step on more and more devices; the signals must stay the same."""
    number = len(jax.local_devices())
    counts = [n for n in DEVICES if n <= number]
    every = run.clips(max(counts))
    single = run.at(batch=1)
    alone = [single.ours(every[k : k + 1])[0] for k in range(len(every))]
    first, equal = None, True
    for count in counts:
        grid = parallel.make_devices("pmap", count, 1)
        model = run.model.model.load(grid.shardings(run.model.model.split))

        def step(n=count, grid=grid, model=model):
            options = dict(batch_size=n, num_frames=run.frames)
            return _models.signals_of(model, every[:n], grid, **options)

        gap = difference(step(), alone[:count])
        equal = equal and gap <= _TOLERANCE[run.model.model.dtype]
        took = _models.in_turn({"": step}, repeats=repeats).times[""]
        seconds, cpu = took.wall, took.cpu
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


def _of(sizes: dict[str, tuple[int, ...]], size: str) -> tuple[int, ...]:
    """Returns the numbers of a size; published models have those of 7b."""
    return sizes[size if size in sizes else "7b"]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Cost against size.")
    _models.add_arguments(parser)
    parser.add_argument("--axes", nargs="+", default=AXES, choices=AXES)
    args = parser.parse_args(argv)
    run = _models.prepare(args)
    most = run.model.model.max_frames
    counts = args.frames or [n for n in _of(FRAMES, args.size) if n <= most]
    if max(counts) > most:
        parser.error(f"--frames {max(counts)}: the model's positions hold {most}")
    equal = True
    if "frames" in args.axes:
        equal &= frames(run, counts, args.repeats)
    if "clips" in args.axes:
        equal &= clips(run, _of(CLIPS, args.size), args.repeats)
    if "classes" in args.axes:
        equal &= classes(run, _of(CLASSES, args.size), args.repeats)
    if "devices" in args.axes:
        equal &= devices(run, args.repeats)
    if not equal:
        print("scaling: the signals depend on clips or devices", file=sys.stderr)
    return int(not equal)


if __name__ == "__main__":
    if jax.config.jax_platforms in (None, "cpu"):
        jax.config.update("jax_num_cpu_devices", 8)  # Of no effect on accelerators.
    sys.exit(main())
