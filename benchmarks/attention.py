r"""The attention of every model here against XLA's and torch's: time, memory, error.

    python benchmarks/attention.py [--size tiny|small|7b] [--tokens N ...]

Causal self-attention, grouped heads. Memory is what XLA sets aside beside arguments and
results. The error is against float64 NumPy on the last queries, which see every key.
XLA's own attention is only compiled, not run, where it would need more than 4 GiB on a
CPU or half of an accelerator's memory.

The sides take turns (`_models.paired`). On an accelerator a call is sent twenty times
before anything is waited for, so that the time is the kernel's and not that of starting
it; the shares are of the rate of a matrix product, the causal half counted.

Exit status 1 if two sides differ by more than 1e-4 (float32) or 3e-2 (bfloat16).
"""

import argparse
import functools
import sys
from collections.abc import Sequence

import _models
import _report
import jax
import jax.numpy as jnp
import numpy as np

from vidsme_jax.models.attention import attention, kernel

# Heads, key-value heads, head size; tokens.
SIZES = {
    "tiny": ((4, 2, 16), (600,)),
    "small": ((14, 2, 64), (2304, 8192)),
    "7b": ((28, 4, 128), (2304, 8192, 18432)),
}
_CALLS = 20  # Of a measurement on an accelerator.
_CHECKED = 4  # Queries that float64 looks at.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}


def exact(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The last queries of the first clip in float64."""
    q, k, v = (np.asarray(x, np.float64)[0] for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    out = np.empty((_CHECKED, *q.shape[1:]))
    for row in range(_CHECKED):
        at = len(q) - _CHECKED + row
        for head in range(q.shape[1]):
            keys, values = (x[: at + 1, head // groups] for x in (k, v))
            scores = keys @ q[at, head] / np.sqrt(q.shape[2])
            weights = np.exp(scores - scores.max())
            out[row, head] = weights @ values / weights.sum()
    return out


def room() -> float:
    """Bytes that a peer may take."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit", 8 * 2**30) / 2


def torch_side(q, k, v, ours: str):
    """Returns a call of torch's fused attention, or None without torch."""
    try:
        import torch
        from _torch_models import fast_attention
    except ImportError:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.float32 if q.dtype == jnp.float32 else torch.bfloat16
    tensors = [
        torch.tensor(np.asarray(x, np.float32), dtype=kind, device=device)
        .transpose(1, 2)
        .contiguous()
        for x in (q, k, v)
    ]

    def run(calls: int):

        out = None
        with torch.inference_mode(), fast_attention([ours]):
            for _ in range(calls):
                out = torch.nn.functional.scaled_dot_product_attention(
                    *tensors, is_causal=True, enable_gqa=True
                )
            if device == "cuda":
                torch.cuda.synchronize()
        return out

    return run, lambda out: out.transpose(1, 2).float().cpu().numpy()


def measure(shape, tokens: int, dtype: str, repeats: int) -> bool:
    """Reports one number of tokens; returns whether all sides agree."""
    heads, kv_heads, size = shape
    rng = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(rng.standard_normal((1, tokens, n, size), np.float32), dtype)
        for n in (heads, kv_heads, kv_heads)
    )
    precise = "highest" if dtype == "float32" else "default"

    def xla(q, k, v):
        with jax.default_matmul_precision(precise):
            return jax.nn.dot_product_attention(
                q, k, v, is_causal=True, implementation="xla"
            )

    compiled, temporary = {}, {}
    sides = {"ours": lambda q, k, v: attention(q, k, v, causal=True), "xla": xla}
    for name, side in sides.items():
        try:
            compiled[name] = jax.jit(side).lower(q, k, v).compile()
        except jax.errors.JaxRuntimeError as error:
            # The compiler tries kernels on a card, for which XLA's may lack memory.
            if name == "ours" or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            continue
        analysis = compiled[name].memory_analysis()
        temporary[name] = max(analysis.temp_size_in_bytes, 1)
    if temporary.get("xla", 0) > room():
        del compiled["xla"]
    calls = 1 if jax.default_backend() == "cpu" else _CALLS

    def repeated(call, count: int):
        outs = [call(q, k, v) for _ in range(count)]
        return jax.block_until_ready(outs)[-1]

    runs = {n: functools.partial(repeated, call) for n, call in compiled.items()}
    read = dict.fromkeys(runs, lambda out: np.asarray(out, np.float32))
    if (peer := torch_side(q, k, v, kernel(dtype, size))) is not None:
        runs["torch"], read["torch"] = peer
    found = {name: read[name](run(1)) for name, run in runs.items()}  # Warms up.
    truth = exact(q, k, v)
    errors = {
        name: float(np.abs(out[0, -_CHECKED:] - truth).max())
        for name, out in found.items()
    }
    gaps = [np.abs(out - found["ours"]).max() for out in found.values()]
    equal = bool(max(*gaps, errors["ours"]) <= _TOLERANCE[dtype])
    ruler = _models.Ruler(dtype)
    turns = {n: functools.partial(run, calls) for n, run in runs.items()}
    rounds = _models.in_turn(turns, repeats=repeats)
    ruler.again()
    work = 2 * tokens**2 * heads * size  # Two products, half of each.
    share = ruler.share(work * calls, rounds.times["ours"].walls)
    extra = {
        "tokens": tokens,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": size,
        "dtype": dtype,
        "kernel": kernel(dtype, size),
        "equal": equal,
    }
    needs = temporary.get("xla")
    beside = (
        "cannot be compiled in this memory"
        if needs is None
        else f"{needs / 2**20:.4g} MiB"
    )
    _report.line(
        "attention/memory",
        temporary["ours"] / 2**20,
        "MiB temporary",
        ratio=needs and needs / temporary["ours"],
        peer=f"jax.nn.dot_product_attention, xla: {beside}",
        **extra,
    )
    for name in rounds.times:
        if name != "ours":
            _report.line(
                f"attention/time against {name}",
                rounds.times["ours"].wall / calls,
                "s",
                ratio=rounds.paired("ours", name),
                peer="torch scaled_dot_product_attention"
                if name == "torch"
                else "jax.nn.dot_product_attention, xla",
                tflop_per_s=_report.rounded(
                    work * calls / rounds.times["ours"].wall / 1e12
                ),
                **rounds.fields("ours", name, per=calls),
                **extra,
            )
    _report.line(
        "attention/share",
        share.scaled(100),
        "% of the rate of a matrix product",
        tflop=_report.rounded(work / 1e12),
        **rounds.fields("ours", per=calls),
        **ruler.fields(),
        **extra,
    )
    _report.line(
        "attention/error",
        errors["ours"],
        "largest absolute error",
        peer=", ".join(f"{n} {e:.2g}" for n, e in errors.items() if n != "ours"),
        **extra,
    )
    return equal


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Attention against XLA and torch.")
    parser.add_argument("--size", default="tiny", choices=list(SIZES))
    parser.add_argument("--tokens", type=int, nargs="+")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    shape, tokens = SIZES[args.size]
    on_cpu = jax.default_backend() == "cpu"
    dtype = args.dtype or ("float32" if on_cpu else "bfloat16")
    equal = [measure(shape, n, dtype, args.repeats) for n in args.tokens or tokens]
    if not all(equal):
        print("attention: the sides differ", file=sys.stderr)
    return int(not all(equal))


if __name__ == "__main__":
    sys.exit(main())
