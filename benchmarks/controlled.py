r"""Which scores find members, where nothing but membership differs: a controlled trial.

    python benchmarks/controlled.py [--out runs/controlled] [--jobs 2] [--only PATTERN]
        [--small] [--report]

Every pool is one set of clips; a seed trains on a random half of its sources, so that
each clip is a member for some seeds and a non-member for others. Models begin from one
that has seen none of the pool, and learn by full tuning, low-rank updates or their
projector alone; after 1, 3 and 10 epochs and at the end they are scored on all clips.

    drawn   drawn scenes with captions: 800 clips, 16 seeds of full tuning, 5 of others;
            200 non-members of another distribution beside them
    film    shots of a film and of other files that packages carry, asked what their
            pixels answer: 5 seeds of each; pieces of one shot stay together
    smollm  the film's clips for SmolLM2's trained decoder behind a random tower: low-
            rank updates and projector of 3 seeds, full tuning of 1 (`--only smollm`)

A cell is kept when it is done, and the same command goes on. `--report` writes the
tables and the figure of what is there, under benchmarks/results; `--small` is a trial
of a few minutes. Fetching the film takes pip and the network.
"""

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import sys
import threading
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import _cells
import _film
import _seen
import av
import numpy as np
from _cells import Cell, Pool, Setting

from vidsme_jax.demo import clips
from vidsme_jax.finetune import options, training, words
from vidsme_jax.prepared import preparation
from vidsme_jax.settings import views

MODEL = "llava_next_video-tiny"
# Of the tiny model's decoder: larger, so that it can memorise some hundred answers.
DECODER = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 3}
DECODER |= {"num_attention_heads": 4, "num_key_value_heads": 2}
EPOCHS = {"full": 40, "lora": 40, "projector": 20}
TINY = Setting(
    num_frames=4,
    batch_size=16,
    epochs=EPOCHS,
    rates={"full": 1e-3, "lora": 3e-3, "projector": 3e-3},
    target=0.1,
    rank=8,
)
SMOLLM = Setting(
    num_frames=4,
    batch_size=8,
    epochs={"full": 10, "lora": 10, "projector": 10},
    rates={"full": 1e-4, "lora": 1e-3, "projector": 1e-3},
    target=0.1,
    rank=8,
    dtype="bfloat16",
)
BASE_EPOCHS, OTHERS = (
    15,
    999,
)  # Of the model before tuning: its epochs, its clips' seed.


def cells(small: bool) -> list[Cell]:
    """Returns what is trained, the most wanted first."""
    seeds = {"drawn": 2 if small else 16, "film": 2 if small else 5}
    methods = ("full", "lora", "projector")
    found = []
    for name, most in seeds.items():
        for seed, method in itertools.product(range(min(most, 5)), methods):
            found.append(Cell(name, method, seed, more=method == "full"))
        found += [Cell(name, "full", seed) for seed in range(5, most)]
    smollm = [("lora", 0), ("projector", 0), ("full", 0), ("lora", 1), ("projector", 1)]
    smollm += [("lora", 2), ("projector", 2)]
    return found + [Cell("smollm", method, seed) for method, seed in smollm]


def make_pool(name: str, out: pathlib.Path, small: bool) -> Pool:
    """Writes clips, manifest and base model of a pool; what is there is kept."""
    folder = out / name
    if name == "smollm":
        import _smollm

        base, film = folder / "base", make_pool("film", out, small)
        if not (base / "config.json").is_file():
            _smollm.write_checkpoint(base, seed=0)
        return Pool(name, film.folder, base, SMOLLM)
    done = folder / "done"
    if not done.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        {"drawn": _draw, "film": _film_clips}[name](folder, out, small)
        base = _base(folder, small)
        pool = Pool(name, folder, base, TINY)
        config = _cells.audit_config(pool, base)
        config.corpus.prepared, config.workers = "", 0
        preparation.run(views.Settings.of(config), pool.prepared)
        done.write_text("")
    return Pool(name, folder, folder / "base", TINY)


def _draw(folder: pathlib.Path, out: pathlib.Path, small: bool) -> None:
    """Draws the pool, clips of another distribution, and clips for the base."""
    half, shifted = (40, 20) if small else (400, 200)
    clips.write_corpus(
        folder, num_members=half, num_matched=half, num_shifted=shifted, seed=1
    )
    rows = [
        json.loads(line)
        for role in ("members", "nonmembers")
        for line in (folder / f"{role}.jsonl").read_text().splitlines()
    ]
    for row in rows:
        row["group"] = "shifted" if row["group"] == "shifted" else ""
    _write(folder / "pool.jsonl", [row for row in rows if not row["group"]])
    _write(folder / "shifted.jsonl", [row for row in rows if row["group"]])
    clips.write_corpus(
        *(folder / "others",),
        num_members=half,
        num_matched=0,
        num_shifted=0,
        seed=OTHERS,
    )


def _film_clips(folder: pathlib.Path, out: pathlib.Path, small: bool) -> None:
    """Cuts the film; the base learns the same questions about drawn clips."""
    sources = tuple(_film.SOURCES)
    rows = _film.write_pool(folder, cache=out / "cache", sources=sources)
    print(json.dumps({"name": "controlled/film", **_film.summary(rows)}), flush=True)
    others = folder / "others"
    clips.write_corpus(
        others,
        num_members=40 if small else 400,
        num_matched=0,
        num_shifted=0,
        seed=OTHERS,
    )
    manifest = others / "members.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        with av.open(str(others / row["video"])) as file:
            pixels = [x.to_ndarray(format="rgb24") for x in file.decode(video=0)]
            fps = round(float(file.streams.video[0].average_rate or 8))
        row |= _seen.asked(np.stack(pixels), fps, row["id"], OTHERS)
    _write(manifest, rows)


def _base(folder: pathlib.Path, small: bool) -> pathlib.Path:
    """Trains the model before tuning on clips that are in no pool."""
    architecture, base = folder / "architecture", folder / "base"
    texts = []
    for manifest in (folder / "pool.jsonl", folder / "others" / "members.jsonl"):
        rows = map(json.loads, manifest.read_text().splitlines())
        texts += [row[key] for row in rows for key in ("question", "answer")]
    words.write(architecture, MODEL, texts, 0)
    (architecture / "model.safetensors").unlink()
    raw = json.loads((architecture / "config.json").read_text())
    raw["text_config"] |= DECODER
    (architecture / "config.json").write_text(json.dumps(raw))
    config: Any = options.default()
    config.corpus.members = (str(folder / "others" / "members.jsonl"),)
    config.video.num_frames = TINY.num_frames
    config.model.checkpoint, config.model.init = str(architecture), "random"
    config.train.epochs = 2 if small else BASE_EPOCHS
    config.train.batch_size, config.train.learning_rate = TINY.batch_size, 2e-3
    config.parallel.data = 1
    training.run(config, base)
    return base


def _write(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _pinned(cores: Any) -> None:
    """Keeps a process on one core, which its programs then are compiled for.

    It ends with its parent: two that work on one cell would spoil it.
    """
    os.sched_setaffinity(0, {cores.get()})
    threading.Thread(target=_outlived, daemon=True).start()


def _outlived() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(pool: Pool, cell: Cell, folder: pathlib.Path) -> tuple[str, float]:
    began = time.monotonic()
    _cells.run(pool, cell, folder)
    return cell.name, time.monotonic() - began


def main() -> int:
    """Makes the pools, runs the cells, and writes the tables if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="runs/controlled")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="drawn|film")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    out = args.out / "small" if args.small else args.out
    folder = out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    if args.report:
        import _findings

        return _findings.report(out, folder, [x.name for x in cells(args.small)])
    wanted = [x for x in cells(args.small) if re.search(args.only, x.name)]
    pools = {n: make_pool(n, out, args.small) for n in {x.pool for x in wanted}}
    for pool in pools.values():
        _cells.base_signals(pool, folder)
    began, failed = time.monotonic(), 0
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in itertools.islice(
        itertools.cycle(sorted(os.sched_getaffinity(0))), args.jobs
    ):
        cores.put(core)
    with concurrent.futures.ProcessPoolExecutor(
        args.jobs, mp_context=context, initializer=_pinned, initargs=(cores,)
    ) as workers:
        found = [workers.submit(_work, pools[x.pool], x, folder) for x in wanted]
        for future in concurrent.futures.as_completed(found):
            try:
                name, seconds = future.result()
            except Exception as error:  # The others go on.
                failed += 1
                print(f"a cell failed: {error!r}", file=sys.stderr, flush=True)
                continue
            line = {"name": f"controlled/{name}", "seconds": round(seconds, 1)}
            print(json.dumps(line), flush=True)
    took = {"name": "controlled/total", "cells": len(wanted), "failed": failed}
    print(json.dumps(took | {"seconds": round(time.monotonic() - began, 1)}))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
