r"""Where the time of a pair goes: tower, decoder and head, ours and transformers'.

    python benchmarks/parts.py [--size tiny|small|7b] [--model NAME] [--trace DIR]

The parts are those of `pairs.py`, ours and transformers tuned, each run by itself on
what the part before it gave. Beside the seconds stands the share of the device's rate:
the necessary operations of the part (`models.flops`) over its time, against a
matrix product of the same run; what is missing to 100 % is not matrix products, or is
done twice. `--trace` writes a profile of our whole step, for TensorBoard or Perfetto.

Exit status 1 if the parts of both sides give different results.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _models
import _report
import jax
import jax.numpy as jnp
import numpy as np
import pairs
import torch
from flax import nnx
from release_loop import Q

from vidsme_jax import rates
from vidsme_jax.entropy import streaming
from vidsme_jax.models.flops import necessary_flops


def ours(run: _models.Run, clips: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Our parts, as calls that wait for their results."""
    graphdef, state, prompt = run.model.graphdef, run.model.state, run.model.plan.prompt
    prefix, suffix = (jnp.asarray(x, jnp.int32) for x in (prompt.prefix, prompt.suffix))

    @jax.jit
    def tower(state, frames):
        model = nnx.merge(graphdef, state)
        return model.encode_frames(model.normalise(frames))

    @jax.jit
    def embed(state, features):
        model = nnx.merge(graphdef, state)
        natural = features.reshape(len(clips), -1, *features.shape[1:])
        both = jnp.concatenate([natural, natural[:, ::-1]])
        both = both.reshape(len(both), -1, both.shape[-1])
        after = jnp.concatenate([model.tail, model.embed(suffix)])
        around = [
            jnp.broadcast_to(x[None], (len(both), *x.shape))
            for x in (model.embed(prefix), after)
        ]
        return jnp.concatenate([around[0], both, around[1]], axis=1)

    @jax.jit
    def decoder(state, rows):
        return nnx.merge(graphdef, state).decode(rows)[:, len(prefix) :]

    @jax.jit
    def head(state, hidden):
        video = np.arange(hidden.shape[1]) < hidden.shape[1] - len(suffix)
        masks = jnp.asarray([np.stack([video, np.ones_like(video)])] * len(hidden))
        weights = nnx.merge(graphdef, state).head
        return streaming.token_signals(hidden, weights, masks, second=True)

    frames = jnp.asarray(clips.reshape(-1, *clips.shape[2:]))
    rows = embed(state, tower(state, frames))
    hidden = decoder(state, rows)
    wait = jax.block_until_ready
    return {
        "tower": lambda: wait(tower(state, frames)),
        "decoder": lambda: wait(decoder(state, rows)),
        "head": lambda: wait(head(state, hidden)),
    }


def theirs(run: _models.Run, clips: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The parts of `pairs.tuned`."""
    model, prompt = run.torch_model(), run.model.plan.prompt
    frames = torch.from_numpy(clips).to(model.device)

    def waiting(part: Callable[[], Any]) -> Callable[[], Any]:
        @torch.inference_mode()
        def call():
            out = part()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return out

        return call

    tower = waiting(lambda: model.encode(frames.flatten(0, 1)))
    with torch.inference_mode():
        features = tower().unflatten(0, frames.shape[:2])
        both = torch.cat([features, features.flip(1)]).flatten(1, 2)
        rows = model.prompt(both, prompt.prefix, prompt.suffix)

    def decode():
        hidden = model.llm.model(inputs_embeds=rows, use_cache=False)[0]
        return hidden[:, len(prompt.prefix) :]

    decoder = waiting(decode)
    hidden = decoder()

    def head():
        return [
            pairs.entropies(model, hidden[k], hidden[k + len(clips)], prompt.suffix)
            for k in range(len(clips))
        ]

    return {"tower": tower, "decoder": decoder, "head": waiting(head)}


def _difference(run: _models.Run, mine: Any, other: Any, part: str) -> float:
    """The largest difference, relative to the largest number."""
    if part == "head":
        found = np.asarray(mine.renyi[0, : run.model.plan.num_rows(run.frames), 1])
        wanted = other[0][0]["renyi_1"].float().cpu().numpy()
    else:
        found, wanted = np.asarray(mine, np.float32), other.float().cpu().numpy()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Seconds of the parts of a pair.")
    _models.add_arguments(parser)
    parser.add_argument("--trace", metavar="DIR", help="write a profile of our step")
    args = parser.parse_args(argv)
    run = _models.prepare(args)
    clips = run.clips(args.batch)
    sides = {"ours": ours(run, clips), "transformers": theirs(run, clips)}
    calls, gaps = {}, {}
    for part in sides["ours"]:
        found = {side: parts[part]() for side, parts in sides.items()}
        gaps[part] = _difference(run, found["ours"], found["transformers"], part)
        calls |= {f"{part}, {side}": parts[part] for side, parts in sides.items()}
    times = _models.timed(calls, repeats=args.repeats)
    prompt = run.model.plan.prompt
    text = len(prompt.prefix) + len(prompt.suffix)
    flops = necessary_flops(run.config, run.frames, text=text)
    needed = {
        "tower": flops.vision,
        "decoder": 2 * flops.prefill,
        "head": 2 * flops.head,
    }
    size = 2048 if jax.default_backend() == "cpu" else 8192
    rate = rates.matrix_rate(run.model.plan.dtype, size=size)
    for name, (wall, cpu) in times.items():
        part, side = name.split(", ")
        peer = times[f"{part}, transformers"][0]
        _report.line(
            f"parts/{name}",
            wall / len(clips),
            "s a clip",
            ratio=peer / wall if side == "ours" else None,
            peer="transformers, tuned" if side == "ours" else None,
            cpu_seconds=_report.rounded(cpu / len(clips)),
            tflop=_report.rounded(needed[part] / 1e12),
            share_of_rate=_report.rounded(needed[part] * len(clips) / wall / rate),
            tflop_per_s=_report.rounded(rate / 1e12),
            difference=_report.rounded(gaps[part]),
            q=Q,
            **run.extra,
        )
    if args.trace:
        with jax.profiler.trace(args.trace):
            run.ours(clips)
    worst = max(gaps, key=gaps.__getitem__)
    equal = gaps[worst] <= run.tolerance
    if not equal:
        print(f"parts: {worst} differs by {gaps[worst]:.2g}", file=sys.stderr)
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
