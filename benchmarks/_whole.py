"""A whole audit of synthetic clips, stage by stage, without a model's computations.

The work directory is that of an audit by the demo's model: its signals are drawn, as
many rows a clip as asked for, in parts of eight clips; its videos are files of one byte
or two, which nothing decodes.
"""

import contextlib
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import _report

CLIPS_A_PART = 8
_FRAMES = 16


def _config(folder: pathlib.Path) -> Any:
    from vidsme_jax import settings

    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype, config.video.num_frames = "float32", _FRAMES
    config.batch_size = CLIPS_A_PART
    for role in ("members", "nonmembers"):
        config.corpus[role] = (str(folder / f"{role}.jsonl"),)
    return config


@contextlib.contextmanager
def _opened(folder: pathlib.Path) -> Iterator[tuple[Any, list[Any], Any]]:
    """Checks the configuration and opens the runs of the audit, and their team."""
    from vidsme_jax.run import checks, processes

    setup = checks.check(_config(folder))
    with processes.together(folder / "run") as team:
        yield setup, checks.open_runs(setup, team), team


def storing(folder: pathlib.Path, clips: int, rows: int) -> dict:
    """Writes the videos, their manifests and their signals; times the last."""
    for size, role in enumerate(("members", "nonmembers"), 1):
        # Files of two roles that are equal in size would be hashed.
        (folder / role).mkdir()
        with (folder / f"{role}.jsonl").open("w") as manifest:
            for number in range(clips // 2):
                name = f"{role}/{number:07}.mp4"
                (folder / name).write_bytes(b"v" * size)
                manifest.write(json.dumps({"video": name}) + "\n")
    with _opened(folder) as (setup, (run,), _):
        found, drawn, left = _Clock(), _drawn(setup.clips, rows), clips
        while left > 0:
            part = [next(drawn) for _ in range(min(left, CLIPS_A_PART))]
            left -= len(part)
            with found:
                run.store.write(part)
    parts = list((folder / "run" / "signals").glob("part-*"))
    size = sum(part.stat().st_size for part in parts)
    return found.result() | {"bytes": size, "parts": len(parts)}


def _drawn(clips: Any, rows: int) -> Iterator[Any]:
    """Yields clips with signals of the right kind; members have a little less."""
    import numpy as np

    from vidsme_jax.base import (
        PROFILE_ORDERS,
        Fingerprint,
        MotionStatistics,
        ScoredClip,
        TokenSignals,
        Traits,
    )
    from vidsme_jax.data import reading
    from vidsme_jax.store import traits

    rng = np.random.default_rng(0)
    frame = np.repeat(np.arange(_FRAMES), -(-rows // _FRAMES))[:rows].astype(np.int16)
    decreasing = np.linspace(1, 0.4, len(PROFILE_ORDERS), dtype=np.float32)
    for clip in clips:
        base = rng.uniform(1, 4, (2, rows, 1)).astype(np.float32)
        base *= 0.95 if clip.items[0].role == "members" else 1.0
        noise = rng.uniform(0.99, 1, (2, rows, len(PROFILE_ORDERS)))
        prints = rng.integers(0, 2**64, (_FRAMES, traits.WINDOWS, 2), np.uint64)
        yield ScoredClip(
            key=clip.key,
            content_hash=hashlib.sha256(clip.key.encode()).hexdigest(),
            signals=TokenSignals(
                renyi=base * decreasing * noise.astype(np.float32),
                varentropy=rng.gamma(2, 1, (2, rows)).astype(np.float32),
                gap=rng.gamma(2, 1, (2, rows)).astype(np.float32),
                log_prob=-rng.gamma(2, 1, (2, rows)).astype(np.float32),
                modified=rng.gamma(2, 1, (2, rows, 3)).astype(np.float32),
                renyi_half_clamped=base[..., 0],
                mean_renyi=np.repeat(base[:, :2], len(decreasing), -1) * decreasing,
            ),
            frame=frame,
            frame_indices=tuple(range(_FRAMES)),
            motion=MotionStatistics(float(rng.lognormal()), float(rng.gamma(2, 5))),
            stamp=reading.stamp(clip.key),
            traits=Traits(
                pixels=rng.normal(0, 1, traits.PIXELS).astype(np.float32),
                container={"width": 640.0, "height": 360.0, "codec": "h264"},
                prints=Fingerprint(prints, np.ones(prints.shape[:2], bool)),
            ),
        )


def resuming(folder: pathlib.Path) -> dict:
    """Starts the audit again, as after a kill, up to where it finds nothing left."""
    from vidsme_jax.run import scoring
    from vidsme_jax.run.stopping import Stop

    with _Clock() as found, _opened(folder) as (setup, runs, team):
        opened = found.seconds()
        args = setup.samples, setup.reader, setup.devices
        scored = scoring.score(runs, *args, team=team, stop=Stop())
        assert not scored.failures and scored.utilisation is None
    return found.result() | {"open": opened}


def auditing(folder: pathlib.Path) -> dict:
    """Makes scores, metrics and report, as `audit.run` does after scoring."""
    from vidsme_jax import audit, report
    from vidsme_jax.run import stored

    return _stages(
        folder,
        audit.run,
        (_config(folder), folder / "run"),
        {
            "scores": (stored, "score_table"),
            "metrics": (audit, "results"),
            "report": (report, "write"),
            "digest": (audit.digests, "write"),
        },
    )


def again(folder: pathlib.Path) -> dict:
    """Makes another report of the same signals, with other words."""
    from vidsme_jax import audit, report
    from vidsme_jax.commands.finished import run_record
    from vidsme_jax.run import stored

    config = _config(folder)
    config.report.fprs = (0.02,)
    about = run_record(folder / "run")
    return _stages(
        folder,
        audit.report_again,
        (folder / "run", config, about),
        {
            "open": (stored, "open_signals"),
            "scores": (stored, "score_table"),
            "metrics": (audit, "results"),
            "report": (report, "write"),
            "digest": (audit.digests, "write"),
        },
    )


def _stages(
    folder: pathlib.Path,
    call: Callable[..., Any],
    given: tuple[Any, ...],
    stages: dict[str, tuple[Any, str]],
) -> dict:
    """Calls a function and times those that it calls; peaks are of all until then."""
    found: dict[str, Any] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **more: Any) -> Any:
            with _Clock() as clock:
                result = function(*args, **more)
            found[name] = clock.result()
            return result

        return instead

    with contextlib.ExitStack() as patched:
        for name, (module, function) in stages.items():
            instead = timed(name, getattr(module, function))
            patched.enter_context(mock.patch.object(module, function, instead))
        with _Clock() as clock:
            call(*given)
    page = (folder / "run" / "report.html").stat().st_size
    return clock.result() | {"page": page, "stages": found}


class _Clock:
    """Adds up seconds and CPU seconds of the blocks that it is around."""

    def __init__(self):
        self._wall = self._cpu = 0.0

    def __enter__(self) -> "_Clock":
        self._begun = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall += time.monotonic() - self._begun[0]
        self._cpu += time.process_time() - self._begun[1]

    def seconds(self) -> float:
        """Returns the seconds of the block that has begun."""
        return time.monotonic() - self._begun[0]

    def result(self) -> dict:
        """Returns what all blocks took, and the peak of the process until now."""
        return {"seconds": self._wall, "cpu": self._cpu, "mib": _report.peak_mib()}


STAGES = {
    "storing": storing,
    "resuming": resuming,
    "auditing": auditing,
    "again": again,
}
