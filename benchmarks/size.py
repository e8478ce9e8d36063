r"""What the number of clips costs: memory to score, time to evaluate and to resume.

    python benchmarks/size.py [--clips 100 1000 10000] [--scores 100000] [--parts 12500]
        [--rows 100000] [--whole 10000 30000 100000] [--clip_rows 96]
        [--folder DIR] [--only whole]

Five things are measured, each in processes of its own:

scoring: the tiny model scores so many synthetic clips (links to the demo's, under names
of their own) at two frames; the peak resident memory must not follow their number.
evaluating: metrics, intervals, blind baseline and report of a synthetic table of all
scores of the profile `exact`; time and peak resident memory.
shards: opening a folder of so many shards, as a restart does, and the writing of one
more.
reading: the rows of two manifests, members and non-members, as JSONL and as Parquet,
whose videos are all there: with ids, links followed, and files of equal size in two
roles looked for.
whole: an audit of so many clips with signals of `--clip_rows` rows each, from the
store to the report, a process a stage: `storing` writes the signals, `resuming` starts
the audit up to where it finds nothing left, `auditing` makes scores, metrics and
report, `again` another report with other rates. It takes 19 kB of disk a clip of 96
rows, in `--folder`, and deletes them.
"""

import argparse
import functools
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import _report
import _whole

NEEDED = {
    "av": "av",
    "cv2": "opencv-python-headless",
    "matplotlib": "matplotlib",
    "ml_collections": "ml-collections",
    "pyarrow": "pyarrow",
    "sklearn": "scikit-learn",
}
LIMIT_SECONDS, LIMIT_MIB, LIMIT_PAGE = 60.0, 2048.0, 5e6  # Of 100,000 rows.


def computing(clips: int) -> dict:
    """Scores so many clips of the demo, with the tiny model."""
    from vidsme_jax import settings
    from vidsme_jax.run import checks, processes, scoring
    from vidsme_jax.run.stopping import Stop

    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype, config.video.num_frames = "float32", 2
    config.batch_size, config.scores = 16, "vid_sme"
    sources = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
    with tempfile.TemporaryDirectory() as folder:
        videos = pathlib.Path(folder, "videos")
        videos.mkdir()
        for number in range(clips):  # Copies: a link would be the same clip again.
            data = sources[number % len(sources)].read_bytes()
            (videos / f"{number:06}.mp4").write_bytes(data)
        config.corpus.suspects = (str(videos),)
        setup = checks.check(config)
        workdir = pathlib.Path(folder, "run")
        args = setup.samples, setup.reader, setup.devices
        with processes.together(workdir) as team:
            run = checks.open_run(setup, workdir)
            begun = time.monotonic()
            scoring.score([run], *args, team=team, stop=Stop())
        return {"seconds": time.monotonic() - begun, "mib": _report.peak_mib()}


def evaluating(rows: int) -> dict:
    """Evaluates a synthetic table with all scores."""
    import numpy as np

    from vidsme_jax import report, scores
    from vidsme_jax.base import ScoreTable
    from vidsme_jax.evaluation import metrics, suspects, validity

    rng = np.random.default_rng(0)
    role = np.repeat(np.array(["members", "nonmembers"], object), rows // 2)
    member, names = role == "members", scores.resolve("all", "exact")

    def texts(form):
        return np.array([form(i) for i in range(len(role))], object)

    table = ScoreTable(
        id=texts("item-{}".format),
        video=texts("clips/{}.mp4".format),
        role=role,
        group=texts(lambda i: ""),
        cluster=texts(lambda i: hashlib.sha256(str(i).encode()).hexdigest()),
        num_rows=np.full(len(role), 64),
        flow_variance=rng.lognormal(0, 1, len(role)),
        brightness_std=rng.gamma(2, 5, len(role)),
        q=rng.uniform(1, 2, len(role)),
        r=rng.uniform(1, 1.1, len(role)),
        scores={n: rng.normal(0, 1, len(role)) + 0.2 * member for n in names},
        traits={
            "pixels": {f"c{k}": rng.normal(0, 1, len(role)) for k in range(32)},
        },
    )
    begun, cpu = time.monotonic(), time.process_time()
    procedure = validity.Procedure()
    evaluation = metrics.evaluate(table, (0.001, 0.01, 0.05), procedure.number, 0)
    results = report.Results(
        table=table,
        evaluation=evaluation,
        judged=validity.judge(table, evaluation, procedure, "vid_sme"),
        suspects=suspects.suspects(table, "vid_sme", 0.05, procedure),
        run={},
        failures=[],
        warnings={},
        comparison="all",
        headline="vid_sme",
    )
    with tempfile.TemporaryDirectory() as folder:
        report.write(folder, results, curves=[], descriptions={})
        page = pathlib.Path(folder, "report.html").stat().st_size
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "mib": _report.peak_mib(), "page": page}


def shards(parts: int) -> dict:
    """Opens a folder of so many shards of 8 clips and writes one more."""
    import numpy as np

    from vidsme_jax.base import MotionStatistics, ScoredClip, TokenSignals
    from vidsme_jax.store.signals import Signals

    def clip(number):
        rows = np.full((2, 4), number, np.float32)
        profile = np.zeros((2, 4, 15), np.float32)
        return ScoredClip(
            key=f"/videos/{number:09}.mp4",
            content_hash=hashlib.sha256(str(number).encode()).hexdigest(),
            signals=TokenSignals(profile, rows, rows, rows),
            frame=np.zeros(4, np.int16),
            frame_indices=(0,),
            motion=MotionStatistics(1.0, 1.0),
        )

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        Signals(folder, {}).write([clip(number) for number in range(8)])
        (first,) = folder.glob("part-*")
        data = first.read_bytes()
        for number in range(1, parts):
            (folder / f"part-{number:06}.parquet").write_bytes(data)
        begun = time.monotonic()
        store = Signals(folder, {})
        opened = time.monotonic()
        for number in range(20):
            store.write([clip(8 * number + k) for k in range(8)])
        written = (time.monotonic() - opened) / 20
        return {"open": opened - begun, "write": written, "mib": _report.peak_mib()}


def reading(kind: str, rows: int) -> dict:
    """Reads so many rows, each with a file and a group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vidsme_jax import settings
    from vidsme_jax.data import corpora
    from vidsme_jax.settings import views

    config = settings.default()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for role in ("members", "nonmembers"):
            its = [
                {"video": f"{role}/{k:07}.mp4", "group": f"g{k // 100}"}
                for k in range(rows // 2)
            ]
            (folder / role).mkdir()
            for row in its:
                (folder / row["video"]).touch()
            manifest = folder / f"{role}.{kind}"
            if kind == "jsonl":
                manifest.write_text("".join(json.dumps(row) + "\n" for row in its))
            else:
                pq.write_table(pa.Table.from_pylist(its), manifest)
            config.corpus[role] = (str(manifest),)
        del its
        begun, cpu = time.monotonic(), time.process_time()
        found = corpora.load(views.Settings.of(config).corpus)
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        assert len(found.items) == rows
        return {"seconds": seconds, "cpu": cpu, "mib": _report.peak_mib()}


STAGES = {
    "scoring": computing,
    "evaluating": evaluating,
    "shards": shards,
    "jsonl": functools.partial(reading, "jsonl"),
    "parquet": functools.partial(reading, "parquet"),
}


def _apart(stage: str, *numbers: int, folder: str = "") -> dict:
    given = [f"--folder={folder}", "--number", *map(str, numbers)]
    command = [sys.executable, __file__, "--stage", stage, *given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _scoring(args: argparse.Namespace) -> bool:
    first = None
    for clips in args.clips:
        found = _apart("scoring", clips)
        first = first or found["mib"]
        _report.line(
            f"size/scoring {clips} clips",
            round(found["mib"]),
            "MiB peak resident",
            ratio=round(found["mib"] / first, 3),
            peer=f"{args.clips[0]} clips",
            seconds=round(found["seconds"], 1),
        )
    return True


def _evaluating(args: argparse.Namespace) -> bool:
    result = _apart("evaluating", args.scores)
    _report.line(
        f"size/evaluating {args.scores} rows of all scores",
        round(result["seconds"], 1),
        "s",
        ratio=round(result["seconds"] / LIMIT_SECONDS, 2),
        peer=f"limit of {LIMIT_SECONDS:g} s",
        cpu_seconds=round(result["cpu"], 1),
        report_mb=round(result["page"] / 1e6, 2),
    )
    _report.line(
        f"size/evaluating {args.scores} rows, memory",
        round(result["mib"]),
        "MiB peak resident",
        ratio=round(result["mib"] / LIMIT_MIB, 2),
        peer=f"limit of {LIMIT_MIB:g} MiB",
    )
    limits = {"seconds": LIMIT_SECONDS, "mib": LIMIT_MIB, "page": LIMIT_PAGE}
    return all(result[key] <= limit for key, limit in limits.items())


def _shards(args: argparse.Namespace) -> bool:
    found = _apart("shards", args.parts)
    _report.line(f"size/opening {args.parts} shards", round(found["open"], 2), "s")
    _report.line(
        "size/writing a shard of 8 clips", round(1000 * found["write"], 2), "ms"
    )
    return True


def _reading(args: argparse.Namespace) -> bool:
    for kind in ("jsonl", "parquet"):
        found = _apart(kind, args.rows)
        _report.line(
            f"size/reading {args.rows} rows of {kind}",
            round(found["cpu"], 1),
            "CPU s",
            seconds=round(found["seconds"], 1),
            mib=round(found["mib"]),
        )
    return True


def _whole_audit(args: argparse.Namespace) -> bool:
    good = True
    for clips in args.whole:
        with tempfile.TemporaryDirectory(dir=args.folder or None) as folder:
            for stage in _whole.STAGES:
                numbers = (clips, args.clip_rows) if stage == "storing" else ()
                found = _apart(stage, *numbers, folder=folder)
                inner = found.pop("stages", {})
                inner = {f"of these {name}": x for name, x in inner.items()}
                for name, each in {"": found, **inner}.items():
                    _report.line(
                        f"size/whole {stage} {clips} clips {name}".rstrip(),
                        round(each["cpu"], 1),
                        "CPU s",
                        seconds=round(each["seconds"], 1),
                        mib=round(each["mib"]),
                        **{k: each[k] for k in ("bytes", "parts", "page") if k in each},
                    )
                good = good and found.get("page", 0) < LIMIT_PAGE
    return good


ONLY = {
    "scoring": _scoring,
    "evaluating": _evaluating,
    "shards": _shards,
    "reading": _reading,
    "whole": _whole_audit,
}


def main() -> int:
    """Prints one JSON line per result; 1 above a limit, 2 if a package is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--scores", type=int, default=100_000)
    parser.add_argument("--parts", type=int, default=12_500)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--whole", type=int, nargs="*", default=[10_000, 30_000, 100_000]
    )
    parser.add_argument("--clip_rows", type=int, default=96)
    parser.add_argument("--folder", default="")
    parser.add_argument("--only", choices=list(ONLY))
    parser.add_argument("--stage", choices=[*STAGES, *_whole.STAGES])
    parser.add_argument("--number", type=int, nargs="*", default=[])
    args = parser.parse_args()
    if _report.lacks("size.py", **NEEDED):
        return 2
    if args.stage in _whole.STAGES:
        folder = pathlib.Path(args.folder)
        print(json.dumps(_whole.STAGES[args.stage](folder, *args.number)))
        return 0
    if args.stage:
        print(json.dumps(STAGES[args.stage](*args.number)))
        return 0
    chosen = [ONLY[args.only]] if args.only else list(ONLY.values())
    return int(not all([measure(args) for measure in chosen]))


if __name__ == "__main__":
    sys.exit(main())
