r"""One clip as the paper's release scores it, and as this package does; same weights.

    python benchmarks/release_loop.py [--size SIZE] [--model NAME] [--frames N]

The release runs the whole model once per direction over every token of the prompt,
copies all probabilities to the host, and then takes one Python iteration per video
token. This is that procedure written from its formulas. With many rows a share of
them is timed (`extrapolated_from_rows` says how many, both directions together); the
scores are then compared over those rows. The loop runs once, ours some times: the ratio
is of CPU seconds on a CPU, unless the loop was cut short, and else of wall seconds.

Exit status 1 if the two sides' scores differ.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _models
import _report
import numpy as np
import torch
from _torch_models import TorchModel, kept

from vidsme_jax import scores
from vidsme_jax.base import TokenSignals
from vidsme_jax.models.rows import Text

Q, R = 1.37, 1.04  # Of the clips: entropy orders as a corpus would give them.
_RATIOS = (0.0, 0.05, 0.1, 0.3, 0.6, 0.9)
_LOW, _HIGH = 1e-10, 1.0 - 1e-10
_PATIENCE = 120.0  # Seconds of loop after which the rest is extrapolated.
_QUESTION = 34  # Tokens behind the video that the release runs too.


def token(p: np.ndarray, q: float, r: float) -> dict[str, float]:
    """Returns what the release computes of one row of probabilities."""
    p = p.astype(np.float64)
    log_p = np.log(np.maximum(p, 1e-300))
    clamped = np.clip(p, _LOW, _HIGH)
    y = int(p.argmax())
    rest = np.delete(clamped, y)
    ordered = log_p[log_p < log_p[y]]
    missing = 1.0 - clamped[y]
    found = {
        "log_prob": log_p[y],
        "gap": log_p[y] - ordered.max() if len(ordered) else 0.0,
        "renyi_05": 2.0 * math.log(np.sqrt(clamped).sum()),
        "renyi_1": -(p * log_p).sum(),
        "renyi_2": -math.log((clamped**2).sum()),
        "renyi_inf": -log_p[y],
        "Modified_entropy": -missing * log_p[y] - (rest * np.log1p(-rest)).sum(),
        "sme": sharma_mittal((clamped**q).sum(), q, r),
    }
    for name, power in (("Modified_renyi_05", 0.5), ("Modified_renyi_2", 1.0)):
        own = missing * clamped[y] ** power - missing
        others = (rest * (1.0 - rest) ** power).sum() - rest.sum()
        found[name] = -(own + others) / power
    return found


def sharma_mittal(power_sum: float, q: float, r: float) -> float:
    """The Sharma-Mittal entropy with the release's cases and clips."""
    if abs(q - r) < _LOW:
        return (power_sum - 1.0) / (1.0 - q + _LOW)
    if abs(r - 1.0) < _LOW:
        return math.log(power_sum) / (1.0 - q + _LOW)
    exponent = min(max((1.0 - r) / (1.0 - q + _LOW), -100.0), 100.0)
    return (max(power_sum, _LOW) ** exponent - 1.0) / (1.0 - r + _LOW)


def clip_scores(
    rows: dict[str, np.ndarray],
    backward: np.ndarray,
    means: Sequence[np.ndarray],
    q: float,
    r: float,
) -> dict[str, float]:
    """Returns the release's scores by its names; smaller means member.

    Args:
      rows: By the keys of `token`, natural order, each (rows,).
      backward: Sharma-Mittal entropy of the reversed clip's rows.
      means: The mean distribution of each direction.
      q: Order.
      r: Degree.
    """

    def label(ratio):
        return f"{ratio * 100}%" if 0 < ratio < 1 else f"{int(ratio * 100)}%"

    def tails(values, name):
        ordered = np.sort(values)
        for ratio in (*_RATIOS, 1.0):
            k = max(1, int(len(ordered) * ratio))
            out[f"Max_{label(ratio)} {name}"] = ordered[-k:].mean()
            out[f"Min_{label(ratio)} {name}"] = ordered[:k].mean()

    out = {"ppl": math.exp(-rows["log_prob"].mean())}
    lowest = np.sort(rows["log_prob"])
    for ratio in _RATIOS:
        k = max(1, int(len(lowest) * ratio))
        out[f"Min_{label(ratio)} Prob"] = -lowest[:k].mean()
    for name in ("Modified_entropy", "Modified_renyi_05", "Modified_renyi_2"):
        out[name] = rows[name].mean()
    out["Max_Prob_Gap"] = -rows["gap"].mean()
    for order in ("05", "1", "2", "inf"):
        tails(rows[f"renyi_{order}"], f"renyi_{order}")
    difference = rows["sme"] - backward
    tails(difference, "vetp")
    out["Max_vetp"], out["Min_vetp"] = difference.max(), difference.min()
    out["Mean_vetp"] = difference.mean()
    natural, reverse = (
        sharma_mittal((np.clip(m.astype(np.float64), _LOW, _HIGH) ** q).sum(), q, r)
        for m in means
    )
    out["sequence_vetp"] = natural - reverse
    return {name: float(value) for name, value in out.items()}


def ours(signals: TokenSignals, q: float, r: float, rows: int) -> dict[str, float]:
    """This package's scores of the first `rows` rows, by the release's names."""
    cut = TokenSignals(
        *(
            x if name == "mean_renyi" or x is None else x[:, :rows]
            for name, x in zip(TokenSignals._fields, signals, strict=True)
        )
    )
    return scores.compute(
        cut, q, r, scores.PROFILES["official"].table, profile="official"
    )


def difference(
    found: dict[str, float], expected: dict[str, float], skip: Sequence[str] = ()
) -> float:
    """Returns the largest difference of a score: relative, absolute below 1/2."""
    if set(found) != set(expected):
        raise ValueError(f"other names: {sorted(set(found) ^ set(expected))}")
    return max(
        abs(found[name] - value) / max(abs(value), 0.5)
        for name, value in expected.items()
        if name not in skip
    )


@torch.inference_mode()
def release(
    model: TorchModel,
    frames: np.ndarray,
    text: Text,
    *,
    q: float = Q,
    r: float = R,
    patience: float = _PATIENCE,
) -> tuple[dict[str, float], float, float, int, int]:
    """Scores one clip (frames, ...) token by token.

    Returns:
      The scores, the seconds of the forward passes, those that the loop over all rows
      takes or would take, the rows that were run per direction, and how many there are.
      In a partial run the mean distributions, and so `sequence_vetp`, are those of the
      rows that were run.
    """
    ids = torch.from_numpy(frames).to(model.device)
    asked = text._replace(after=(*text.after, *range(1, _QUESTION)))
    model.llm(**model.inputs(model.video(ids[None]), asked))  # Warms up.
    start = time.perf_counter()
    tables, found, means, loops = [], [], [], 0.0
    for order in (ids, ids.flip(0)):
        video = model.video(order[None])
        logits = model.llm(**model.inputs(video, asked)).logits
        tables.append(torch.softmax(logits[0].float(), dim=-1).cpu())
    forward = time.perf_counter() - start
    # One text row too many, as in the release, is in the means.
    more = len(asked.after) - 1
    tables = [
        kept(table[None], text._replace(after=asked.after[:1]), more)[0].numpy()
        for table in tables
    ]
    total = len(tables[0]) - 1
    done = total
    for table in tables:
        begin, rows = time.perf_counter(), []
        mean = np.zeros(table.shape[-1])
        for k in range(done):
            rows.append(token(table[k], q, r))
            mean += table[k]
            if time.perf_counter() - begin > patience / 2 and k + 1 < done:
                done = k + 1
                break
        loops += (time.perf_counter() - begin) * total / len(rows)
        if len(rows) == total:
            mean += table[total]
        means.append(mean / (len(rows) + (len(rows) == total)))
        found.append({key: np.array([row[key] for row in rows]) for key in rows[0]})
    found = [{key: x[:done] for key, x in rows.items()} for rows in found]
    scored = clip_scores(found[0], found[1]["sme"], means, q, r)
    return scored, forward, loops, done, total


def faster(
    ours: _models.Times, clips: int, wall: float, cpu: float | None
) -> _report.Judged:
    """How many times faster ours is a clip than one run of the loop.

    Args:
      ours: For so many clips.
      clips: Of a round.
      wall: Seconds of the loop.
      cpu: CPU seconds of the loop, None if it was cut short.
    """
    by_cpu = _models.clock() == "cpu" and cpu is not None
    loop, rounds = (cpu, ours.cpus) if by_cpu else (wall, ours.walls)
    ratios = sorted(loop * clips / seconds for seconds in rounds)
    middle = statistics.median(ratios)
    return _report.Judged(middle, ratios[0], ratios[-1], rounds=len(ratios))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="The release's loop against ours.")
    _models.add_arguments(parser)
    args = parser.parse_args(argv)
    run = _models.prepare(args)
    clip = run.clips(1)
    signals = run.ours(clip)[0]  # Compiles.
    rounds = _models.in_turn({"ours": lambda: run.ours(clip)}, repeats=args.repeats)
    model = run.torch_model()
    begun = time.process_time()
    expected, forward, loop, done, total = release(model, clip[0], run.prompt)
    cpu = time.process_time() - begun
    partial = () if done == total else ("sequence_vetp",)
    gap = difference(ours(signals, Q, R, done), expected, partial)
    cut = {} if done == total else {"extrapolated_from_rows": 2 * done}
    extra = run.extra | {"rows": total, "difference": _report.rounded(gap), **cut}
    equal = gap <= run.tolerance
    _report.line(
        "release_loop/loop",
        forward + loop,
        "s per clip",
        seconds_of_forward=_report.rounded(forward),
        **extra,
    )
    _report.line(
        "release_loop/ours",
        rounds.times["ours"].wall,
        "s per clip",
        ratio=faster(rounds.times["ours"], 1, forward + loop, None if cut else cpu),
        peer="the release's loop",
        equal=equal,
        **rounds.fields("ours"),
        **extra,
    )
    if not equal:
        print(f"the scores differ by {gap:.2g} > {run.tolerance}", file=sys.stderr)
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
