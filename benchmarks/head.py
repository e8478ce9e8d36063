r"""The streaming head against materialised logits: memory, time, error.

    python benchmarks/head.py [--size tiny|small|7b] [--compile-only]

Memory is what XLA sets aside beside arguments and results of the compiled program with
the sizes that a CPU takes; time is taken with those of the device at hand. The
error is against float64 NumPy on the same float32 logits, with logits of deviation 3
(as of the random models) and 12 (peaked: most rows below 1 nat). With --compile-only
nothing is run, so that any size can be asked for on any machine.

Exit status 1 if the head needs more than a tenth of the logits (sizes small and 7b), if
it is off by more than 1e-4, or if both sides differ by more than that at deviation 3.
"""

import argparse
import functools
import math
import sys
from collections.abc import Sequence

import _models
import _report
import jax
import jax.numpy as jnp
import numpy as np

from vidsme_jax import parallel, signals
from vidsme_jax.base import PROFILE_ORDERS
from vidsme_jax.entropy import streaming

# Rows of one direction, classes, hidden size.
SIZES = {
    "tiny": (64, 2048, 64),
    "small": (2304, 152064, 896),
    "7b": (2304, 152064, 3584),
}
_ORDERS = (0.5, 1.0, PROFILE_ORDERS[2], 1.5, 2.0, np.inf)  # One of them near 1.
_CHECKED = 16  # Rows that float64 looks at.
_TOLERANCE = 1e-4


def materialised(hidden, head):
    """What the streaming head replaces: all log-probabilities, then the entropies."""
    exact = "highest" if head.dtype == jnp.float32 else None
    logits = jnp.einsum(
        "btd,vd->btv",
        hidden,
        head,
        precision=exact,
        preferred_element_type=jnp.float32,
    )
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    p = jnp.exp(log_probs)
    renyi = [
        -jnp.sum(p * log_probs, axis=-1)
        if q == 1
        else -jnp.max(log_probs, axis=-1)
        if q == np.inf
        else jax.nn.logsumexp(q * log_probs, axis=-1) / (1 - q)
        for q in _ORDERS
    ]
    return jnp.stack(renyi, axis=-1), jnp.mean(p, axis=1)


def exact(hidden: np.ndarray, head: np.ndarray) -> np.ndarray:
    """The entropies (rows, orders) in float64."""
    out = []
    for y in hidden.astype(np.float64) @ head.astype(np.float64).T:
        y -= y.max()
        log_p = y - np.log(np.exp(y).sum())
        rest = np.delete(y, y.argmax())  # 1 - p of the largest without cancellation.
        total = np.exp(rest).sum()
        p = np.exp(log_p)
        renyi = []
        for q in _ORDERS:
            if q == 1:
                renyi.append(-(p * log_p).sum())
            elif q == np.inf:
                renyi.append(np.log1p(total))
            else:
                powers = np.log1p(np.exp(q * rest).sum())
                renyi.append((powers - q * np.log1p(total)) / (1 - q))
        out.append(renyi)
    return np.array(out)


def budget(sizes, dtype) -> streaming.Classes:
    """What a step of a model with this head alone gives it; on a CPU None is known."""
    held = sizes[1] * sizes[2] * dtype.itemsize
    memory = parallel.make_devices("pmap", 1, 1).memory()
    return streaming.Classes(memory=signals.head_memory(memory, held))


def memory(sizes, dtype, extra) -> bool:
    """Reports the temporary memory of one pass, of two, and of the logits' way."""
    rows, vocab, embed = sizes
    hidden = jax.ShapeDtypeStruct((1, rows, embed), dtype)
    head = jax.ShapeDtypeStruct((vocab, embed), dtype)
    mask = jnp.ones((1, 2, rows), bool)

    def temporary(function) -> int:
        compiled = jax.jit(function).lower(hidden, head).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = rows * vocab * 4
    peer = temporary(materialised)
    small = True
    for second in (False, True):
        value = temporary(
            lambda h, w, second=second: streaming.token_signals(
                h, w, mask, second=second
            )
        )
        small = small and value <= logits / 10
        _report.line(
            f"head/memory, {'two passes' if second else 'one pass'}",
            value / 2**20,
            "MiB temporary",
            ratio=logits / value,
            peer=f"float32 logits, {logits / 2**20:.0f} MiB (materialised head: "
            f"{peer / 2**20:.0f} MiB temporary)",
            **extra,
        )
    return small


def run(sizes, dtype, repeats: int, extra) -> bool:
    """Reports time and error; returns whether both sides are right."""
    rows, vocab, embed = sizes
    mask = jnp.ones((1, 2, rows), bool)
    keys = jax.random.split(jax.random.key(0))
    hidden = jax.random.normal(keys[0], (1, rows, embed), dtype)
    unit = jax.random.normal(keys[1], (vocab, embed), dtype) / math.sqrt(embed)
    places = [PROFILE_ORDERS.index(q) for q in _ORDERS]
    run = functools.partial(
        streaming.token_signals, masks=mask, classes=budget(sizes, dtype)
    )
    one = jax.jit(functools.partial(run, second=False))
    two = jax.jit(functools.partial(run, second=True))
    all_logits = jax.jit(materialised)
    right = True
    for deviation in (12, 3):
        head = deviation * unit
        truth = exact(
            np.asarray(hidden[0, :_CHECKED], np.float32), np.asarray(head, np.float32)
        )
        found = [
            np.asarray(one(hidden, head).renyi)[0, :, places].T,
            np.asarray(all_logits(hidden, head)[0])[0],
        ]
        errors = [np.abs(x[:_CHECKED] / truth - 1).max() for x in found]
        # The least logit error moves peaked rows; the design's scheme stays at 1e-4.
        right = right and errors[0] <= _TOLERANCE
        if deviation == 3:
            # Away from q = 1 and infinity, where logits in float32 lose digits.
            plain = [0, 1, 3, 4]
            gap = np.abs(found[0][:, plain] / found[1][:, plain] - 1).max()
            right = right and gap <= _TOLERANCE
        _report.line(
            f"head/error, logits of deviation {deviation}",
            errors[0],
            "largest relative error of a Renyi entropy",
            ratio=errors[1] / max(errors[0], 1e-12),
            peer=f"materialised log-softmax, {errors[1]:.2g}",
            orders=[_report.rounded(q) if q < np.inf else "inf" for q in _ORDERS],
            equal=bool(right),
            **extra,
        )
    wait = jax.block_until_ready
    sides = {
        "one pass": lambda: wait(one(hidden, head)),
        "two passes": lambda: wait(two(hidden, head)),
        "materialised": lambda: wait(all_logits(hidden, head)),
    }
    sides["two passes"]()  # The others have run.
    times = _models.timed(sides, repeats=repeats)
    for name in ("one pass", "two passes"):
        _report.line(
            f"head/time, {name}",
            times[name][0],
            "s",
            ratio=times["materialised"][0] / times[name][0],
            peer=f"materialised log-softmax, {len(_ORDERS)} orders and the mean",
            cpu_seconds=_report.rounded(times[name][1]),
            equal=bool(right),
            **extra,
        )
    return bool(right)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Streaming head against all logits.")
    parser.add_argument("--size", default="tiny", choices=list(SIZES))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile-only", action="store_true")
    args = parser.parse_args(argv)
    given = (args.rows, args.vocab, args.hidden)
    sizes = tuple(a or b for a, b in zip(given, SIZES[args.size], strict=True))
    extra = dict(zip(("rows", "vocab", "hidden"), sizes, strict=True))
    on_cpu = jax.default_backend() == "cpu"
    dtype = jnp.dtype(args.dtype or ("float32" if on_cpu else "bfloat16"))
    extra |= {"dtype": dtype.name}
    small = memory(sizes, dtype, extra | {"run": False})
    right = args.compile_only or run(sizes, dtype, args.repeats, extra)
    if args.size == "tiny":  # The logits of so few rows are all held at once.
        small = True
    for good, what in (
        (small, "more memory than a tenth of the logits"),
        (right, "the entropies differ"),
    ):
        if not good:
            print(f"head: {what}", file=sys.stderr)
    return int(not (small and right))


if __name__ == "__main__":
    sys.exit(main())
