r"""Where the time of a pair goes: tower, decoder and head, ours and transformers'.

    python benchmarks/parts.py [--size SIZE] [--model NAME] [--trace FILE]

The parts are those of `pairs.py`, ours and transformers tuned, each run by itself on
what the part before it gave; the head has the block sizes that `signals.stream` gives
it. Beside the seconds stands the share of the device's rate: the necessary operations
of the part (`Model.flops`) over its time, against a matrix product of the same run;
what is missing to 100 % is not matrix products, or is done twice. `--trace` writes a
profile of our whole step (of the last number of frames and clips), one file for
TensorBoard or Perfetto once unpacked. `--no-torch` leaves transformers out.

Exit status 1 if the parts of both sides give different results.
"""

import argparse
import os
import pathlib
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _models
import _report
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vidsme_jax.entropy import streaming
from vidsme_jax.models.decoder import Visual
from vidsme_jax.run import stacking


def ours(run: _models.Run, clips: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Our parts, as calls that wait for their results: see, read and head."""
    graphdef, state, model = run.model.graphdef, run.model.state, run.model.model
    stacker = stacking.Stacker(model, num_frames=run.frames, slices=("video",))
    inputs = [stacking.Input(k, clip) for k, clip in enumerate(clips)]
    group = stacking.Group(stacker.shape(inputs[0]), inputs)
    batch = jax.tree.map(jnp.asarray, stacker.batch(group, len(inputs))[0])
    memory = run.head_memory()

    @jax.jit
    def see(state, batch):
        return nnx.merge(graphdef, state).see(batch.pixels)

    @jax.jit
    def read(state, visual, batch):
        return nnx.merge(graphdef, state).read(visual, batch)[0]

    @jax.jit
    def head(state, hidden, batch):
        means = jnp.swapaxes(batch.means, 2, 3)
        hidden, means = (x.reshape(-1, *x.shape[2:]) for x in (hidden, means))
        weights = nnx.merge(graphdef, state).head
        return streaming.token_signals(
            hidden, weights, means, second=True, memory=memory
        )

    visual = see(state, batch)
    hidden = read(state, visual, batch)
    wait = jax.block_until_ready
    return {
        "tower": lambda: wait(see(state, batch)),
        "decoder": lambda: wait(read(state, visual, batch)),
        "head": lambda: wait(head(state, hidden, batch)),
    }


def theirs(run: _models.Run, clips: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The parts of `pairs.tuned`."""
    import pairs
    import torch
    from _torch_models import fast_attention, kept

    model, text = run.torch_model(), run.prompt
    frames = torch.from_numpy(clips).to(model.device)

    def waiting(part: Callable[[], Any]) -> Callable[[], Any]:
        @torch.inference_mode()
        def call():
            with fast_attention(run.kernels):
                out = part()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return out

        return call

    tower = waiting(lambda: model.look(frames))
    with torch.inference_mode():
        given = model.inputs(model.both(tower()), text)

    def decode():
        hidden = model.llm.model(**given, use_cache=False)[0]
        return kept(hidden, text)

    decoder = waiting(decode)
    hidden = decoder()

    def head():
        return [
            pairs.entropies(model, hidden[k], hidden[k + len(clips)], text.after)
            for k in range(len(clips))
        ]

    return {"tower": tower, "decoder": decoder, "head": waiting(head)}


def _difference(run: _models.Run, mine: Any, other: Any, part: str) -> float:
    """The largest difference, relative to the largest number."""
    if part == "head":
        found = np.asarray(mine.renyi[0, : run.rows, 1])
        wanted = other[0][0]["renyi_1"].float().cpu().numpy()
    else:
        mine = mine.rows if isinstance(mine, Visual) else mine
        other = other.rows if part == "tower" else other
        # Ours has the views or directions of a clip side by side.
        found = np.asarray(mine, np.float32).swapaxes(0, 1)
        wanted = other.float().cpu().numpy()
        if part == "decoder":  # Padding stands behind.
            found = found[:, :, : wanted.shape[1]]
        elif run.model.model.tiling is None:
            # A newline for the video's end may stand in front.
            found = found[:, :, -wanted[0, ..., 0].size :]
        else:  # Each group of frames is padded.
            found = found.reshape(*wanted.shape[:2], -1, wanted.shape[-1])
            found = found[:, :, : wanted.shape[2]]
        found = found.reshape(wanted.shape)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def trace(run: _models.Run, clips: np.ndarray, target: pathlib.Path) -> None:
    """Profiles a step that has been compiled and packs the profile into one file."""
    run.ours(clips)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run.ours(clips)
        with tarfile.open(target, "w:gz") as packed:
            packed.add(folder, arcname="trace")
    size = target.stat().st_size / 2**20
    _report.line("parts/trace", size, "MiB", file=str(target), **run.extra)


def measure(run: _models.Run, args: argparse.Namespace) -> bool:
    """Reports one number of frames and of clips a step; whether both sides agree."""
    clips = run.clips(run.batch)
    sides = {"ours": ours(run, clips)}
    if not args.no_torch:
        sides["transformers"] = theirs(run, clips)
    calls, gaps = {}, {}
    for part in sides["ours"]:
        found = {side: parts[part]() for side, parts in sides.items()}
        if len(found) == 2:
            gaps[part] = _difference(run, found["ours"], found["transformers"], part)
        calls |= {f"{part}, {side}": parts[part] for side, parts in sides.items()}
        del found
    ruler = _models.Ruler(run.model.model.dtype)
    rounds = _models.in_turn(calls, repeats=args.repeats)
    ruler.again()
    flops = run.flops()
    needed = {
        "tower": flops.vision,
        "decoder": 2 * flops.prefill,
        "head": 2 * flops.head,
    }
    for name, times in rounds.times.items():
        part, side = name.split(", ")
        peer = f"{part}, transformers" if side == "ours" and gaps else None
        _report.line(
            f"parts/{name}",
            times.wall / len(clips),
            "s a clip",
            ratio=rounds.paired(name, peer) if peer else None,
            peer="transformers, tuned" if peer else None,
            tflop=_report.rounded(needed[part] / 1e12),
            share_of_rate=ruler.share(needed[part] * len(clips), times.walls),
            **({"difference": _report.rounded(gaps[part])} if gaps else {}),
            **rounds.fields(name, peer, per=len(clips)),
            **ruler.fields(),
            **run.extra,
        )
    worst = max(gaps, key=gaps.__getitem__, default="")
    equal = not gaps or gaps[worst] <= run.tolerance
    if not equal:
        print(f"parts: {worst} differs by {gaps[worst]:.2g}", file=sys.stderr)
    return equal


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Seconds of the parts of a pair.")
    _models.add_arguments(parser)
    parser.add_argument(
        "--trace", metavar="FILE", type=pathlib.Path, help="FILE.tar.gz: our step"
    )
    parser.add_argument(
        "--no-torch", action="store_true", help="leave transformers out"
    )
    args = parser.parse_args(argv)
    equal, run = True, None
    for run in _models.runs(args):
        equal &= measure(run, args)
    if args.trace and run is not None:
        trace(run, run.clips(run.batch), args.trace)
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
