"""The optimizer of a training, against torch's AdamW with what is around it."""

import math

import jax
import numpy as np
import pytest
import torch

from vidsme_jax.finetune import options, steps

STEPS, WARMUP, RATE, CLIP, DECAY = 12, 3, 0.05, 0.7, 0.4
SHAPES = {
    "decoder/layers/query/kernel": (3, 4),
    "decoder/layers/query/bias": (4,),
    "decoder/embed_tokens/embedding": (5, 3),
    "decoder/norm/weight": (3,),
    "image_newline": (3,),
    "decoder/layers/query/lora_a": (3, 2),
}
DECAYED = {"decoder/layers/query/kernel", "decoder/layers/query/lora_a"}


def _train():
    config = options.default()
    config.train.learning_rate, config.train.warmup_steps = RATE, WARMUP
    config.train.weight_decay, config.train.clip_norm = DECAY, CLIP
    return options.train_of(config)


def _rate(step: int) -> float:
    """Up in a line to the rate, then down half a cosine to a tenth of it."""
    if step < WARMUP:
        return RATE * step / WARMUP
    share = (step - WARMUP) / (STEPS - WARMUP)
    return RATE * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def _material():
    """Parameters of sizes near 1, and gradients: some above the clip, some below."""
    rng = np.random.default_rng(0)
    start = {path: rng.normal(size=shape) for path, shape in SHAPES.items()}
    norms = (5.0, 0.2, 30.0, 1.0, 0.1, 9.0, 0.5, 2.0, 0.3, 60.0, 0.4, 3.0)
    found = []
    for norm in norms:
        each = {path: rng.normal(size=shape) for path, shape in SHAPES.items()}
        whole = math.sqrt(sum((x**2).sum() for x in each.values()))
        found.append({path: x * norm / whole for path, x in each.items()})
    return start, found


def test_steps_are_those_of_torch():
    """Decay beside Adam, of matrices alone; one norm of all; the rate of each step."""
    start, gradients = _material()
    assert len(gradients) == STEPS
    tensors = {path: torch.nn.Parameter(torch.tensor(x)) for path, x in start.items()}
    groups = [
        {
            "params": [x for path, x in tensors.items() if (path in DECAYED) == decays],
            "weight_decay": DECAY if decays else 0.0,
        }
        for decays in (True, False)
    ]
    theirs = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98), eps=1e-8)
    optimizer = steps.make_optimizer(_train(), STEPS)
    ours = {path: jax.numpy.asarray(x, "float32") for path, x in start.items()}
    state = optimizer.init(ours)
    for step, each in enumerate(gradients):
        for group in theirs.param_groups:
            group["lr"] = _rate(step)
        for path, x in each.items():
            tensors[path].grad = torch.tensor(x)
        torch.nn.utils.clip_grad_norm_(tensors.values(), CLIP)
        theirs.step()
        found = {path: jax.numpy.asarray(x, "float32") for path, x in each.items()}
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(found, state, ours)
        ours = {path: x + updates[path] for path, x in ours.items()}
        for path, x in ours.items():
            wanted = tensors[path].detach().numpy()
            np.testing.assert_allclose(x, wanted, atol=2e-5, err_msg=f"{step} {path}")
    moved = {path: np.abs(x - start[path]).max() for path, x in ours.items()}
    assert min(moved.values()) > 0.05, moved


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_the_rate_of_a_step(step):
    assert float(steps.make_schedule(_train(), STEPS)(step)) == pytest.approx(
        _rate(step), rel=1e-5, abs=1e-9
    )
