r"""Clips per second, natural and reversed, against transformers on the same weights.

    python benchmarks/pairs.py [--size SIZE] [--model NAME] [--batch N ...]

ours: `signals.stream`: the Renyi profile of every row, so any (q, r) afterwards.
transformers, tuned: the tower once (once a direction if it sees several frames at
once), both directions as one batch, SDPA, no token behind the video but one, the output
layer and vectorised entropies on blocks of rows, (q, r) known beforehand. Where frames
are of any size it is given our positions; its tower attends with one call of SDPA a
frame, group of frames or window, as the class does. transformers, plain: the same
entropies on all logits of the whole prompt; the tower runs in both directions. loop:
the release's procedure, see `release_loop.py`.

The sides take turns; a ratio is taken in each round (`_models.paired`), of CPU seconds
on a CPU and of wall seconds elsewhere, up to the statistics on the host: scores come
afterwards on both sides. On a card SDPA takes fused kernels only. The plain pipeline
and the loop run at the first of the numbers in `--batch`, since they take one clip at a
time. The share of the device's rate (`pairs/mfu`) is the necessary operations
(`Model.flops`) over the time, against a matrix product of the same run. All sides must
give the same scores; exit status 1 otherwise.

With `--against COMMIT` the peer is this package at that commit, in a worktree and a
process of its own, on the same weights and clips: what a change costs.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _models
import _report
import numpy as np
import release_loop
import torch
from _torch_models import TorchModel, fast_attention, kept
from release_loop import Q, R

from vidsme_jax.models.rows import Text

_BLOCK = 256  # Rows whose logits exist at the same time in the tuned pipeline.
TUNED, PLAIN = "transformers, tuned", "transformers, plain"
_STEPS, _PUBLISHED = {"tiny": 32, "small": 1}, 8  # Clips of a measurement...
_FEWEST = 4  # ...but at least so many batches, if there are as many clips.
_QUESTION = 34  # Tokens behind the video that the plain pipeline runs too.


def power_sum(log_p: torch.Tensor, q: float) -> torch.Tensor:
    """Sum of the clamped probabilities to the power q."""
    return torch.exp(q * log_p.clamp(min=float(np.log(1e-10)))).sum(-1)


def row_statistics(log_p: torch.Tensor, q: float) -> dict[str, torch.Tensor]:
    """The keys of `release_loop.token` for many rows at once, "sme" as a sum."""
    p = log_p.exp()
    top = log_p.amax(-1)
    below = log_p.masked_fill(log_p == top[:, None], -torch.inf).amax(-1)
    own = top.exp()
    two = p.square().sum(-1)
    missing = -torch.expm1(top)
    rest = p.scatter(-1, p.argmax(-1, keepdim=True), 0.0)
    log_rest = torch.log1p(-rest)
    shannon = -(rest * log_rest).sum(-1)
    half = (rest * torch.expm1(0.5 * log_rest)).sum(-1)
    return {
        "log_prob": top,
        "gap": torch.where(below.isfinite(), top - below, 0.0),
        "renyi_05": 2 * p.clamp(min=1e-10).sqrt().sum(-1).log(),
        "renyi_1": -(p * log_p).sum(-1),
        "renyi_2": -two.log(),
        "renyi_inf": -top,
        "Modified_entropy": -missing * top + shannon,
        "Modified_renyi_05": -2 * (missing * torch.expm1(0.5 * top) + half),
        "Modified_renyi_2": missing.square() + (two - own.square()),
        "sme": power_sum(log_p, q),
    }


def _deformed(sums: np.ndarray) -> np.ndarray:
    return np.array([release_loop.sharma_mittal(x, Q, R) for x in sums.tolist()])


class Rows(NamedTuple):
    """What a pipeline of transformers leaves on the host of one clip, in float64."""

    natural: dict[str, np.ndarray]  # By the keys of `row_statistics`.
    backward: np.ndarray  # Power sums of the reversed clip's rows.
    means: list[np.ndarray]  # The mean distribution of each direction.


def _on_host(natural, backward, means) -> Rows:
    host = {name: x.double().cpu().numpy() for name, x in natural.items()}
    averages = [mean.double().cpu().numpy() for mean in means]
    return Rows(host, backward.double().cpu().numpy(), averages)


def scored(rows: Rows) -> dict[str, float]:
    """Returns the release's scores of a clip; outside of the time that is measured."""
    natural = rows.natural | {"sme": _deformed(rows.natural["sme"])}
    return release_loop.clip_scores(natural, _deformed(rows.backward), rows.means, Q, R)


@torch.inference_mode()
def tuned(
    model: TorchModel, clips: np.ndarray, text: Text, statistics=row_statistics
) -> list[Rows]:
    """Runs a batch of clips, with nothing twice and no logits kept."""
    frames = torch.from_numpy(clips).to(model.device)
    given = model.inputs(model.both(model.look(frames)), text)
    hidden = model.llm.model(**given, use_cache=False)[0]
    hidden = kept(hidden, text)
    return [
        _on_host(*entropies(model, *hidden[k :: len(clips)], text.after, statistics))
        for k in range(len(clips))
    ]


def entropies(
    model: TorchModel, natural, backward, after, statistics=row_statistics
) -> tuple[dict[str, torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Statistics of natural rows, power sums of the others, both mean distributions.

    The logits of a few rows exist at the same time; the rows of `after` are in the mean
    distributions only.
    """
    head = model.llm.lm_head.weight
    last = len(natural) - len(after)
    pieces, sums, means = [], [], []
    for direction, rows in enumerate((natural, backward)):
        mean = torch.zeros(len(head), device=rows.device)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            log_p = torch.log_softmax((block @ head.T).float(), dim=-1)
            mean += log_p.exp().sum(0)
            video = log_p[: max(last - start, 0)]
            if direction:
                sums.append(power_sum(video, Q))
            else:
                pieces.append(statistics(video, Q))
        means.append(mean / len(rows))
    found = {n: torch.cat([piece[n] for piece in pieces]) for n in pieces[0]}
    return found, torch.cat(sums), means


@torch.inference_mode()
def plain(
    model: TorchModel, clips: np.ndarray, text: Text, statistics=row_statistics
) -> list[Rows]:
    """Runs clips one by one with all logits of the prompt in memory."""
    found = []
    for clip in torch.from_numpy(clips).to(model.device):
        video = model.video(torch.stack([clip, clip.flip(0)]))
        asked = text._replace(after=(*text.after, *range(1, _QUESTION)))
        logits = model.llm(**model.inputs(video, asked), use_cache=False).logits
        logits = kept(logits, text, _QUESTION - 1)
        log_p = torch.log_softmax(logits.float(), dim=-1)
        means = log_p.exp().mean(1)
        video = log_p[:, : log_p.shape[1] - len(text.after)]
        natural = statistics(video[0], Q)
        found.append(_on_host(natural, power_sum(video[1], Q), means))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Clips per second of four sides.")
    _models.add_arguments(parser)
    parser.add_argument(
        "--steps", type=int, help="batches a measurement; by default 32, 1 or 8 clips"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile entropies"
    )
    parser.add_argument("--no-loop", action="store_true", help="leave the loop out")
    parser.add_argument(
        "--against", metavar="COMMIT", help="an earlier state of this package instead"
    )
    args = parser.parse_args(argv)
    if args.against:
        return against_commit(args)
    model, loop, equal = None, not args.no_loop, True
    for run in _models.runs(args):
        model = model or run.torch_model()
        equal &= measure(run, model, args, loop=loop)
        loop = False  # One clip at a time, whatever the batch.
    return int(not equal)


def measure(
    run: _models.Run, model: TorchModel, args: argparse.Namespace, *, loop: bool
) -> bool:
    """Reports one number of frames and of clips a step; whether all scores agree."""
    most = _STEPS.get(args.size, _PUBLISHED)
    clips = run.clips(
        run.batch * (args.steps or max(most // run.batch, min(most, _FEWEST)))
    )
    statistics = torch.compile(row_statistics) if args.compile else row_statistics

    def batches(side):
        with fast_attention(run.kernels):
            return [
                rows
                for start in range(0, len(clips), run.batch)
                for rows in side(
                    model, clips[start : start + run.batch], run.prompt, statistics
                )
            ]

    sides = {"ours": lambda: run.ours(clips), TUNED: lambda: batches(tuned)}
    if run.batch == args.batch[0]:  # It takes one clip at a time, whatever the batch.
        sides[PLAIN] = lambda: batches(plain)
    first = {name: side() for name, side in sides.items()}  # Compiles, warms up.
    rows = run.rows
    expected = [release_loop.ours(found, Q, R, rows) for found in first.pop("ours")]
    gaps = {
        name: max(map(release_loop.difference, map(scored, found), expected))
        for name, found in first.items()
    }
    del first
    ruler = _models.Ruler(run.model.model.dtype)
    rounds = _models.in_turn(sides, repeats=args.repeats)
    ruler.again()
    extra = run.extra | {"rows": rows, "compile": args.compile, "clips": len(clips)}
    for name in gaps:
        _report.line(
            f"pairs/{name}",
            len(clips) / rounds.times[name].wall,
            "clips/s",
            difference=_report.rounded(gaps[name]),
            **rounds.fields(name, per=len(clips)),
            **extra,
        )
    equal = max(gaps.values()) <= run.tolerance
    for name in gaps:
        _report.line(
            f"pairs/ours against {name}",
            len(clips) / rounds.times["ours"].wall,
            "clips/s",
            ratio=rounds.paired("ours", name),
            peer=name,
            equal=equal,
            **rounds.fields("ours", name, per=len(clips)),
            **extra,
        )
    flops = run.flops()
    share = ruler.share(flops.pair * len(clips), rounds.times["ours"].walls)
    _report.line(
        "pairs/mfu",
        share.scaled(100),
        "% of the rate of a matrix product",
        tflop_per_clip=_report.rounded(flops.pair / 1e12),
        **ruler.fields(),
        **rounds.fields("ours", per=len(clips)),
        **extra,
    )
    if loop:
        gaps["loop"] = against_the_loop(run, model, rounds, len(clips), extra)
        equal = equal and gaps["loop"] <= run.tolerance
    if not equal:
        worst = max(gaps, key=gaps.__getitem__)
        print(
            f"scores differ from {worst} by {gaps[worst]:.2g} > {run.tolerance}",
            file=sys.stderr,
        )
    return equal


def against_commit(args: argparse.Namespace) -> int:
    """Reports this tree against a commit, each in a process of its own, in turn.

    Both must give the same signals, float32 within 1e-6 relative and bfloat16 exactly;
    exit status 1 otherwise.
    """
    root = pathlib.Path(__file__).resolve().parents[1]
    options = [f"--{name}={getattr(args, name)}" for name in ("size", "model")]
    options += [f"--batch={args.batch[0]}"]
    options += [f"--frames={args.frames[0]}"] if args.frames else []
    options += [f"--dtype={args.dtype}"] if args.dtype else []
    count = args.steps or max(_STEPS.get(args.size, _PUBLISHED) // args.batch[0], 1)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        old = folder / "tree"
        git = ["git", "-C", str(root), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", old, args.against], check=True)
        stack.callback(subprocess.run, [*git, "remove", "--force", old], check=True)
        sides = {}
        for name, tree in (("ours", root), (args.against, old)):
            file = folder / f"{len(sides)}.npz"
            sides[name] = stack.enter_context(_Side(tree, file, count, options))
        rounds = {name: [] for name in sides}
        for _ in range(args.repeats):
            for name, side in sides.items():
                rounds[name].append(side.run())
        times = {
            name: _models.Times(*zip(*seconds, strict=True))
            for name, seconds in rounds.items()
        }
        signals = [dict(np.load(side.file)) for side in sides.values()]
        extra = sides["ours"].extra
    gap = max(
        float(np.max(np.abs(mine - signals[1][name]) / np.maximum(np.abs(mine), 1.0)))
        for name, mine in signals[0].items()
    )
    most = 0.0 if extra["dtype"] == "bfloat16" else 1e-6
    clips = count * args.batch[0]
    _report.line(
        f"pairs/ours against {args.against}",
        clips / times["ours"].wall,
        "clips/s",
        ratio=_models.paired(times["ours"], times[args.against]),
        peer=args.against,
        difference=_report.rounded(gap),
        equal=gap <= most,
        **_models.Rounds(times, {}).fields("ours", args.against, per=clips),
        **extra,
        clips=clips,
    )
    if gap > most:
        print(f"signals differ by {gap:.2g} > {most:g}", file=sys.stderr)
    return int(gap > most)


class _Side:
    """A process that runs one tree; see `_side.py`."""

    def __init__(self, tree, file: pathlib.Path, steps: int, options: list[str]):
        self.file = file
        script = pathlib.Path(__file__).with_name("_side.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(tree), str(file), str(steps), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "_Side":
        self.extra = self._answer()  # Compiled by then.
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()  # Closes its pipes, too.

    def run(self) -> list[float]:
        """Returns wall and CPU seconds of one run."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended early")
        return json.loads(line)


def against_the_loop(
    run: _models.Run,
    model: TorchModel,
    rounds: _models.Rounds,
    clips: int,
    extra: dict[str, Any],
) -> float:
    """Reports the release's procedure, run once; returns the largest difference."""
    rows = run.rows
    clip = run.clips(1)
    cpu = time.process_time()
    expected, forward, loop, done, _ = release_loop.release(model, clip[0], run.prompt)
    cpu = time.process_time() - cpu
    partial = () if done == rows else ("sequence_vetp",)
    gap = release_loop.difference(
        release_loop.ours(run.ours(clip)[0], Q, R, done), expected, partial
    )
    cut = {} if done == rows else {"extrapolated_from_rows": 2 * done}
    about = {"difference": _report.rounded(gap), **cut, **extra}
    seconds, ours = forward + loop, rounds.times["ours"]
    _report.line("pairs/loop", 1 / seconds, "clips/s", **about)
    _report.line(
        "pairs/ours against loop",
        clips / ours.wall,
        "clips/s",
        ratio=release_loop.faster(ours, clips, seconds, None if cut else cpu),
        peer="loop",
        equal=gap <= run.tolerance,
        **rounds.fields("ours", per=clips),
        **about,
    )
    return gap


if __name__ == "__main__":
    sys.exit(main())
