"""The grid over (beta1, beta2, K) of a finished run, from its stored signals.

    python benchmarks/studies.py [--clips N] [--rows N]

Signals of random clips are stored as a run stores them; then the study `scales` is made
of them: the shards are read, every point of the grid is scored and evaluated with its
intervals, the blind baselines and the shuffled labels, as the command
`--config configs/studies.py:scales` does once the clips are scored.
"""

import argparse
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import _report
import numpy as np

from vidsme_jax.base import (
    PROFILE_ORDERS,
    ROLES,
    Item,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
)

NEEDED = {
    "ml_collections": "ml-collections",
    "pyarrow": "pyarrow",
    "sklearn": "scikit-learn",
}
_TARGET = 60.0  # Seconds, on two cores.
_BATCH = 8  # Clips of a shard.


def clip(key: str, rows: int, rng: np.random.Generator) -> ScoredClip:
    """Draws the signals of one clip: a falling profile per row."""
    steps = rng.random((2, rows, len(PROFILE_ORDERS)), np.float32)
    renyi = 11.0 - np.cumsum(steps, axis=-1) * (10.0 / len(PROFILE_ORDERS))
    row = rng.random((2, rows), np.float32)
    return ScoredClip(
        key=key,
        content_hash=f"{rng.integers(1 << 62):064x}",
        signals=TokenSignals(
            renyi=renyi.astype(np.float32),
            varentropy=row,
            gap=row,
            log_prob=-row,
            mean_renyi=renyi[:, :2].astype(np.float32),
        ),
        frame=np.repeat(np.arange(16, dtype=np.int16), -(-rows // 16))[:rows],
        frame_indices=tuple(range(16)),
        motion=MotionStatistics(*rng.uniform(0.1, 30.0, 2).tolist()),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line; 1 above the target of a minute, 2 without a package."""
    parser = argparse.ArgumentParser(description="A grid over stored signals.")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2304, help="per direction")
    args = parser.parse_args(argv)
    if _report.lacks("studies.py", **NEEDED):
        return 2
    from vidsme_jax import settings
    from vidsme_jax.settings import views
    from vidsme_jax.store.signals import Signals
    from vidsme_jax.studies import findings, points

    config = settings.default()
    config.study = "scales"
    given = views.Settings.of(config)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Signals(pathlib.Path(folder), {"random": True})
        items = [
            Item(
                id=str(k),
                video=f"{k}.mp4",
                clip=f"/{k}.mp4",
                role=ROLES[k % 2],
            )
            for k in range(args.clips)
        ]
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            store.write([clip(item.clip, args.rows, rng) for item in batch])
        stored = sum(part.stat().st_size for part in pathlib.Path(folder).iterdir())
        begin, cpu = time.perf_counter(), time.process_time()
        names = [given.headline]
        sheet = points.sheet(items, store, names, given.headline, given)
        scored = time.perf_counter()
        found = findings.evaluate([sheet], given.study, given.report)
        end, cpu = time.perf_counter(), time.process_time() - cpu
    _report.line(
        "studies/scales",
        end - begin,
        "s",
        ratio=_TARGET / (end - begin),
        peer="target: a minute",
        points=len(found["points"]),
        clips=args.clips,
        rows=args.rows,
        seconds_of_scores=_report.rounded(scored - begin),
        cpu_seconds=_report.rounded(cpu),
        stored_mib=_report.rounded(stored / 2**20),
        peak_mib=_report.rounded(_report.peak_mib()),
    )
    return int(end - begin > _TARGET)


if __name__ == "__main__":
    sys.exit(main())
