r"""The streaming head against materialised logits: memory, time, error, bytes.

    python benchmarks/head.py [--size tiny|small|7b] [--compile-only]
    python benchmarks/head.py --compile-only --kind H100|H200 [--clips 1]

Memory is what XLA sets aside beside arguments and results of the compiled program, with
the block sizes that a run takes on the device at hand, as is time. The error is against
float64 NumPy on the same float32 logits, with logits of deviation 3 (as of the random
models) and 12 (peaked: most rows below 1 nat), of the first 2^24 weights' classes where
there are more. With --compile-only nothing is run, so that any size can be asked for on
any machine.

With --kind (size 7b unless another is asked for) the head alone, both passes in
bfloat16, is compiled ahead of time for a GPU that need not be there (`pip install
jax[cuda13]`). The line gives the bytes that pass through memory for each logit, as the
compiled program reads and writes them, and the milliseconds that these take at the rate
at which such a card copies; products are not in it, but for the logits that they write.

Exit status 1 if the head needs more than a tenth of the logits (sizes small and 7b on a
CPU) or more than it was given (elsewhere), if it is off by more than 1e-4, or if both
sides differ by more than that at deviation 3; 2 if the compiler is missing.
"""

import argparse
import functools
import math
import sys
from collections.abc import Sequence

import _hlo
import _models
import _report
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vidsme_jax.base import PROFILE_ORDERS
from vidsme_jax.entropy import streaming
from vidsme_jax.run.step import head_memory

# Rows of one direction, classes, hidden size.
SIZES = {
    "tiny": (64, 2048, 64),
    "small": (2304, 152064, 896),
    "7b": (2304, 152064, 3584),
}
_ORDERS = (0.5, 1.0, PROFILE_ORDERS[2], 1.5, 2.0, np.inf)  # One of them near 1.
_CHECKED = 16  # Rows that float64 looks at.
_MOST_CHECKED = 2**24  # Weights that float64 looks at: 128 MiB.
_TOLERANCE = 1e-4
_COPYING = {"H100": 3.0e12, "H200": 4.0e12}  # Bytes a second, read and written.
_STEP = 122.0  # Milliseconds a clip of a LongVA-shaped 7B, 16 frames, by roofline.


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


def memory(sizes, dtype, extra) -> bool:
    """Reports the temporary memory of one pass, of two, and of the logits' way."""
    rows, vocab, embed = sizes
    hidden = jax.ShapeDtypeStruct((1, rows, embed), dtype)
    head = jax.ShapeDtypeStruct((vocab, embed), dtype)
    mask = jnp.ones((1, 2, rows), bool)
    given = _models.budget(vocab * embed * dtype.itemsize)

    def temporary(function) -> int:
        compiled = jax.jit(function).lower(hidden, head).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = rows * vocab * 4
    allowed = logits / 10 if given is None else given
    peer = temporary(materialised)
    small = True
    for second in (False, True):
        value = temporary(
            lambda h, w, second=second: streaming.token_signals(
                h, w, mask, second=second, memory=given
            )
        )
        small = small and value <= allowed
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
        streaming.token_signals,
        masks=mask,
        memory=_models.budget(vocab * embed * dtype.itemsize),
    )
    one = jax.jit(functools.partial(run, second=False))
    two = jax.jit(functools.partial(run, second=True))
    all_logits = jax.jit(materialised)
    right, checked = True, min(max(_MOST_CHECKED // embed, 1), vocab)
    for deviation in (12, 3):
        head = deviation * unit[:checked]
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
            checked={"rows": min(_CHECKED, rows), "vocab": checked},
            equal=bool(right),
            **extra,
        )
    wait, head = jax.block_until_ready, 3 * unit
    sides = {
        "one pass": lambda: wait(one(hidden, head)),
        "two passes": lambda: wait(two(hidden, head)),
        "materialised": lambda: wait(all_logits(hidden, head)),
    }
    for side in sides.values():  # Compiles.
        side()
    rounds = _models.in_turn(sides, repeats=repeats)
    for name in ("one pass", "two passes"):
        _report.line(
            f"head/time, {name}",
            rounds.times[name].wall,
            "s",
            ratio=rounds.paired(name, "materialised"),
            peer=f"materialised log-softmax, {len(_ORDERS)} orders and the mean",
            equal=bool(right),
            **rounds.fields(name, "materialised"),
            **extra,
        )
    return bool(right)


def traffic(sizes, kind: str, clips: int) -> None:
    """Compiles both directions of some clips for a described card; reports bytes."""
    jax.config.update("jax_platforms", "cpu")  # Only the compiler is needed.
    import aot

    rows, vocab, embed = sizes
    case = aot.Case("head", 0, clips, kind, "1", (1, 1))
    mesh = Mesh(np.array(aot.topology(case).devices), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)

    hidden = array(jnp.bfloat16, 2 * clips, rows, embed)
    head = array(jnp.bfloat16, vocab, embed)
    held = math.prod(head.shape) * head.dtype.itemsize
    given = head_memory(int(aot.KINDS[kind].memory * aot.GIB), held)
    both = functools.partial(streaming.token_signals, second=True, memory=given)
    masks = array(jnp.bool_, 2 * clips, 2, rows)
    compiled = jax.jit(both).lower(hidden, head, masks).compile()
    found = _hlo.kernels(compiled.as_text())
    logits, rate = 2 * clips * rows * vocab, _COPYING[kind]
    products = [kernel for kernel in found if kernel.kind == "gemm"]
    alone = _hlo.traffic(kernel for kernel in found if kernel.kind != "gemm")
    whole = alone + sum(kernel.runs * kernel.written for kernel in products)

    def shown(size: int) -> dict[str, float]:
        ms = 1000 * size / rate / clips
        shown = {"bytes_a_logit": size / logits, "ms_a_clip": ms}
        if sizes == SIZES["7b"]:
            shown["share_of_step"] = ms / _STEP
        return {key: _report.rounded(value) for key, value in shown.items()}

    step = f"{_STEP:g} ms a clip, a LongVA-shaped 7B with 16 frames by roofline"

    _report.line(
        f"head/traffic, {kind}",
        alone / logits,
        "bytes a logit, statistics alone",
        statistics=shown(alone),
        with_the_write_of_the_product=shown(whole),
        launches=_hlo.launches(found),
        launches_of_products=_hlo.launches(products),
        bytes_a_second=rate,
        temporary_mib=_report.rounded(
            compiled.memory_analysis().temp_size_in_bytes / 2**20
        ),
        **dict(zip(("rows", "vocab", "hidden"), sizes, strict=True)),
        clips=clips,
        **({"step": step} if sizes == SIZES["7b"] else {}),
        dtype="bfloat16",
        device=f"1 x {kind}, described",
        run=False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="Streaming head against all logits.")
    parser.add_argument("--size", choices=list(SIZES), help="tiny; with --kind 7b")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--kind", choices=list(_COPYING), help="a GPU to compile for")
    parser.add_argument("--clips", type=int, default=1, help="with --kind: of a step")
    args = parser.parse_args(argv)
    if args.kind and (not args.compile_only or args.dtype == "float32"):
        parser.error("--kind is for --compile-only, and for bfloat16")
    size = args.size or ("7b" if args.kind else "tiny")
    given = (args.rows, args.vocab, args.hidden)
    sizes = tuple(a or b for a, b in zip(given, SIZES[size], strict=True))
    if args.kind:
        needed = {"jax_plugins.xla_cuda13": "jax[cuda13]"}
        if _report.lacks("head.py --kind", **needed):
            return 2
        traffic(sizes, args.kind, args.clips)
        return 0
    extra = dict(zip(("rows", "vocab", "hidden"), sizes, strict=True))
    on_cpu = jax.default_backend() == "cpu"
    dtype = jnp.dtype(args.dtype or ("float32" if on_cpu else "bfloat16"))
    extra |= {"dtype": dtype.name}
    small = memory(sizes, dtype, extra | {"run": False})
    right = args.compile_only or run(sizes, dtype, args.repeats, extra)
    if size == "tiny":  # The logits of so few rows are all held at once.
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
