"""Signals, scores and entropy orders are those of the code of 2026-11-26.

`python tests/unchanged_test.py` replaces tests/golden/signals.npz, for a change that is
meant to change numbers. On the machine that wrote it float32 must be equal within
1e-6 relative and bfloat16 exactly; another processor adds in another order, so that the
bounds there are those of the parity tests.
"""

import importlib
import json
import pathlib
import platform
from typing import Any

import jax
import numpy as np
import pytest

from vidsme_jax import audit, models, parallel, settings
from vidsme_jax.base import TokenSignals
from vidsme_jax.run import pipeline, stacking
from vidsme_jax.store import signals

FILE = pathlib.Path(__file__).parent / "golden" / "signals.npz"
# Of that day's families.
NAMES = tuple(f"llava_{x}-tiny" for x in ("next_video", "onevision", "qwen", "video"))
DTYPES, ORDERS, LENGTHS = ("float32", "bfloat16"), ("reversed", "shuffled:3"), (1, 5, 8)
FIELDS = [name for name in TokenSignals._fields if name not in ("log_prob", "rank")]
BOUNDS = (0.0, 40.0, 0.0, 12.0)  # Of q and r, so that a few clips do.
EVERY = 10  # Of the demo's clips.


def machine() -> str:
    """Names what rounding depends on: the processor and the compiler."""
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else platform.processor()
    lines = [x for x in text.splitlines() if x.startswith(("model name", "flags"))]
    return "\n".join([*sorted(set(lines)), jax.lib.__version__])


def random_signals(name: str, dtype: str, against: str) -> dict[str, np.ndarray]:
    """Scores drawn clips of 1, 5 and 8 frames of the same stream."""
    plan = models.inspect(f"random:{name}", dtype=dtype)
    devices = parallel.make_devices("pmap", 1, 1)
    clips = (
        stacking.Input(length, plan.prepare(_frames(length))) for length in LENGTHS
    )
    run = pipeline.Pipeline(
        plan.load(devices.shardings(plan.split)),
        devices,
        batch_size=1,
        num_frames=max(LENGTHS),
        second=True,
        against=against,
    )
    return {
        f"{name}/{dtype}/{against}/{found.key}/{field}": getattr(found.signals, field)
        for _, batch in pipeline.stream(([(0, clip)] for clip in clips), [run])
        for found in batch
        for field in FIELDS
    }


def demo(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Audits every tenth clip of the demo."""
    config: Any = settings.default()
    for role in ("members", "nonmembers"):
        lines = (settings.DEMO / f"corpus/{role}.jsonl").read_text().splitlines()
        manifest = workdir / f"{role}.jsonl"
        manifest.write_text("\n".join(lines[::EVERY]))
        config.corpus[role] = (str(manifest),)
    config.corpus.video_root = str(settings.DEMO / "corpus")
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype = "float32"
    config.motion.bounds = BOUNDS
    config.report.num_permutations = 100
    report = audit.run(config, workdir)
    assert report is not None
    table = report.table
    found = {"demo/q": table.q, "demo/r": table.r, "demo/ids": table.id.astype(str)}
    found |= {f"demo/scores/{name}": x for name, x in table.scores.items()}
    folder = workdir / "signals"
    store = signals.Signals(folder, signals.recorded(folder))
    for clip in store.read(store.finished):
        name = pathlib.Path(clip.key).name
        for field in FIELDS:
            if (value := getattr(clip.signals, field)) is not None:
                found[f"demo/{name}/{field}"] = value
    return found


def _frames(count: int) -> np.ndarray:
    rng = np.random.default_rng([count, 7])
    return rng.integers(0, 256, (count, 61, 83, 3), np.uint8)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return dict(file)


def _compare(found: dict, stored: dict, prefix: str, exact: bool) -> None:
    same = str(stored["machine"]) == machine()
    bounds = (1e-6, 1e-6) if same else (1e-4, 5e-5)
    if "bfloat16" in prefix and not same:
        bounds = 0.1, 0.2  # Some steps of a logit near 8.
    assert sorted(found) == sorted(k for k in stored if k.startswith(prefix))
    for key, value in found.items():
        assert value.shape == stored[key].shape, key
        if value.dtype.kind == "U" or (same and exact):
            np.testing.assert_array_equal(value, stored[key], key)
        else:
            np.testing.assert_allclose(value, stored[key], *bounds, err_msg=key)


@pytest.mark.parametrize(
    ("dtype", "against"),
    [  # One pair by default, its opposite is long, the other two are slow.
        pytest.param(
            dtype,
            against,
            marks=[pytest.mark.slow] * (k != m) + [pytest.mark.long] * (k == m == 1),
        )
        for k, dtype in enumerate(DTYPES)
        for m, against in enumerate(ORDERS)
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_signals_of_random_checkpoints(stored, name, dtype, against):
    found = random_signals(name, dtype, against)
    _compare(found, stored, f"{name}/{dtype}/{against}/", dtype == "bfloat16")


@pytest.mark.long
@pytest.mark.usefixtures("figureless")
def test_scores_and_orders_of_the_demo(stored, tmp_path):
    _compare(demo(tmp_path), stored, "demo/", False)


def _write(workdir: pathlib.Path) -> None:
    found = demo(workdir)
    for name in NAMES:
        for dtype in DTYPES:
            for against in ORDERS:
                found |= random_signals(name, dtype, against)
    np.savez_compressed(FILE, machine=np.array(machine()), **found)
    size = FILE.stat().st_size
    print(json.dumps({"arrays": len(found), "bytes": size}))


if __name__ == "__main__":
    import tempfile

    importlib.import_module("conftest")  # The same settings as in the tests.

    with tempfile.TemporaryDirectory() as folder:
        _write(pathlib.Path(folder))
