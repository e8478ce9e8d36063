r"""Clips per second, natural and reversed, against transformers on the same weights.

    python benchmarks/pairs.py [--size tiny|small|7b] [--model NAME] [--batch N] ...

ours: `signals.stream`: the Renyi profile of every row, so any (q, r) afterwards.
transformers, tuned: the tower once, both directions as one batch, SDPA, no token behind
the video but one, the output layer and vectorised entropies on blocks of rows, (q, r)
known beforehand. transformers, plain: the same entropies on all logits of the whole
prompt; the tower runs in both directions. loop: the release's procedure, see
`release_loop.py`.

The share of the device's rate (`pairs/mfu`) is the necessary operations
(`models.flops`) over the time, against a matrix product of the same run. All
sides must give the same scores; exit status 1 otherwise.
"""

import argparse
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _models
import _report
import jax
import numpy as np
import release_loop
import torch
from _torch_models import TorchLlava
from release_loop import Q, R

from vidsme_jax.models.flops import necessary_flops

_BLOCK = 256  # Rows whose logits exist at the same time in the tuned pipeline.
_STEPS = {"tiny": 32, "small": 1, "7b": 8}
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


def _deformed(sums: torch.Tensor) -> np.ndarray:
    values = sums.double().cpu().tolist()
    return np.array([release_loop.sharma_mittal(x, Q, R) for x in values])


def _scores(natural, backward, means) -> dict[str, float]:
    rows = {name: x.double().cpu().numpy() for name, x in natural.items()}
    rows["sme"] = _deformed(natural["sme"])
    averages = [mean.double().cpu().numpy() for mean in means]
    return release_loop.clip_scores(rows, _deformed(backward), averages, Q, R)


@torch.inference_mode()
def tuned(
    model: TorchLlava, clips: np.ndarray, before, after, statistics=row_statistics
) -> list[dict[str, float]]:
    """Scores a batch of clips, with nothing run twice and no logits kept."""
    frames = torch.from_numpy(clips).to(model.device)
    features = model.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    both = torch.cat([features, features.flip(1)]).flatten(1, 2)
    embedded = model.prompt(both, before, after)
    hidden = model.llm.model(inputs_embeds=embedded, use_cache=False)[0]
    hidden = hidden[:, len(before) :]
    return [
        _scores(*entropies(model, *hidden[k :: len(clips)], after, statistics))
        for k in range(len(clips))
    ]


def entropies(
    model: TorchLlava, natural, backward, after, statistics=row_statistics
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
    model: TorchLlava, clips: np.ndarray, before, after, statistics=row_statistics
) -> list[dict[str, float]]:
    """Scores clips one by one with all logits of the prompt in memory."""
    found = []
    for clip in torch.from_numpy(clips).to(model.device):
        both = torch.cat([clip, clip.flip(0)])
        video = model.encode(both).unflatten(0, (2, len(clip))).flatten(1, 2)
        embedded = model.prompt(video, before, (*after, *range(1, _QUESTION)))
        logits = model.llm(inputs_embeds=embedded, use_cache=False).logits
        last = logits.shape[1] - _QUESTION + 1
        log_p = torch.log_softmax(logits[:, len(before) : last].float(), dim=-1)
        means = log_p.exp().mean(1)
        video = log_p[:, : log_p.shape[1] - len(after)]
        natural = statistics(video[0], Q)
        found.append(_scores(natural, power_sum(video[1], Q), means))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Clips per second of four sides.")
    _models.add_arguments(parser)
    parser.add_argument(
        "--steps", type=int, help="batches a measurement; by default 32, 1 or 8"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile entropies"
    )
    parser.add_argument("--no-loop", action="store_true", help="leave the loop out")
    args = parser.parse_args(argv)
    run = _models.prepare(args)
    clips = run.clips(args.batch * (args.steps or _STEPS[args.size]))
    prompt = run.model.plan.prompt
    around = prompt.prefix, prompt.suffix
    model = run.torch_model()
    statistics = torch.compile(row_statistics) if args.compile else row_statistics

    def batches(side):
        return [
            scored
            for start in range(0, len(clips), args.batch)
            for scored in side(
                model, clips[start : start + args.batch], *around, statistics
            )
        ]

    sides = {
        "ours": lambda: run.ours(clips),
        "transformers, tuned": lambda: batches(tuned),
        "transformers, plain": lambda: batches(plain),
    }
    first = {name: side() for name, side in sides.items()}  # Compiles, warms up.
    rows = run.model.plan.num_rows(run.frames)
    scored = [release_loop.ours(found, Q, R, rows) for found in first["ours"]]
    if not args.no_loop:
        expected, forward, loop, done, _ = release_loop.release(
            model, clips[0], around[0], (*around[1], *range(1, _QUESTION))
        )
    times = _models.timed(sides, repeats=args.repeats)
    gaps = {
        name: max(map(release_loop.difference, first[name], scored))
        for name in ("transformers, tuned", "transformers, plain")
    }
    rates = {name: len(clips) / wall for name, (wall, _) in times.items()}
    extra = run.extra | {"rows": rows, "compile": args.compile}
    for name in ("transformers, tuned", "transformers, plain"):
        _report.line(
            f"pairs/{name}",
            rates[name],
            "clips/s",
            cpu_seconds=_report.rounded(times[name][1] / len(clips)),
            difference=_report.rounded(gaps[name]),
            **extra,
        )
    if not args.no_loop:
        partial = () if done == rows else ("sequence_vetp",)
        ours = release_loop.ours(first["ours"][0], Q, R, done)
        gaps["loop"] = release_loop.difference(ours, expected, partial)
        rates["loop"] = 1 / (forward + loop)
        _report.line(
            "pairs/loop",
            rates["loop"],
            "clips/s",
            difference=_report.rounded(gaps["loop"]),
            **extra,
            **({} if done == rows else {"extrapolated_from_rows": 2 * done}),
        )
    equal = max(gaps.values()) <= run.tolerance
    for name in list(rates)[1:]:
        _report.line(
            f"pairs/ours against {name}",
            rates["ours"],
            "clips/s",
            ratio=rates["ours"] / rates[name],
            peer=name,
            equal=equal,
            cpu_seconds=_report.rounded(times["ours"][1] / len(clips)),
            **extra,
        )
    text = len(prompt.prefix) + len(prompt.suffix)
    flops = necessary_flops(run.config, run.frames, text=text)
    size = 2048 if jax.default_backend() == "cpu" else 8192
    rate = rates.matrix_rate(run.model.plan.dtype, size=size)
    _report.line(
        "pairs/mfu",
        100 * flops.pair * rates["ours"] / rate,
        "% of the rate of a matrix product",
        peer=f"{rate / 1e12:.4g} TFLOP/s, {size} x {size}",
        tflop_per_clip=_report.rounded(flops.pair / 1e12),
        **extra,
    )
    if not equal:
        worst = max(gaps, key=gaps.__getitem__)
        print(
            f"scores differ from {worst} by {gaps[worst]:.2g} > {run.tolerance}",
            file=sys.stderr,
        )
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
