r"""Peak temporary memory of the streaming head against the materialised logits.

    python benchmarks/head_memory.py [--rows 2304] [--vocab 152064] [--hidden 3584]

Nothing is run: the head is compiled for the present device and XLA's own memory
analysis is read. Exit status 1 if the head needs more than a tenth of the logits.
"""

import argparse
import json
import subprocess
import sys

import jax
import jax.numpy as jnp

from vidsme_jax.entropy import streaming


def materialised(hidden, head):
    """What the streaming head replaces: all log-probabilities, then the entropies."""
    logits = jnp.einsum("btd,vd->btv", hidden, head).astype(jnp.float32)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    p = jnp.exp(log_probs)
    return [
        -jnp.sum(p * log_probs, axis=-1),
        *(jnp.log(jnp.sum(jnp.exp(q * log_probs), -1)) for q in (0.5, 1.5, 2.0)),
        jnp.max(log_probs, axis=-1),
        jnp.mean(p, axis=1),
    ]


def temporary(function, *shapes) -> int:
    """Returns the bytes that XLA sets aside beside arguments and results."""
    compiled = jax.jit(function).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2304)
    parser.add_argument("--vocab", type=int, default=152064)
    parser.add_argument("--hidden", type=int, default=3584)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    dtype = jnp.dtype(args.dtype)
    hidden = jax.ShapeDtypeStruct((1, args.rows, args.hidden), dtype)
    head = jax.ShapeDtypeStruct((args.vocab, args.hidden), dtype)
    mask = jnp.ones((1, 2, args.rows), bool)
    logits = args.rows * args.vocab * 4
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    peer = temporary(materialised, hidden, head)
    worst = 0.0
    for second in (False, True):

        def streamed(h, w, second=second):
            return streaming.token_signals(h, w, mask, second=second)

        value = temporary(streamed, hidden, head)
        worst = max(worst, value / logits)
        line = {
            "name": f"head_memory/{'two passes' if second else 'one pass'}",
            "value": round(value / 2**20, 1),
            "unit": "MiB temporary",
            "ratio": round(logits / value, 1),
            "peer": f"float32 logits, {logits / 2**20:.0f} MiB (materialised head: "
            f"{peer / 2**20:.0f} MiB temporary)",
            "device": jax.devices()[0].device_kind,
            "versions": {"jax": jax.__version__},
            "commit": commit,
            "size": vars(args),
        }
        print(json.dumps(line))
    return int(worst > 0.1)


if __name__ == "__main__":
    sys.exit(main())
