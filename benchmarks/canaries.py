"""Shows that canary sets find a model that was trained on what was published.

    python benchmarks/canaries.py --out runs/canaries

Draws clips (`demo.drawing`), makes canary sets of them, trains the demo's architecture
from random weights on what was published (target) and, in the same way, on the clips
themselves, which are no variant of any set (null), audits all variants with both, and
tests both by the key. Prints one JSON line a result.

The published variants are tested as `vidsme canary` does. Beside that the key is drawn
again many times for the null's scores: Fisher's p must be as small as a level in at
most that part of the draws.
"""

import argparse
import json
import pathlib
import shutil
import sys
import time
from typing import Any

import numpy as np
from scipy import stats

from vidsme_jax import audit, settings
from vidsme_jax.canary import inputs, making, ranks, testing
from vidsme_jax.canary import key as keys
from vidsme_jax.commands.finished import run_record
from vidsme_jax.demo import clips, drawing
from vidsme_jax.finetune import options, training

HEIGHT, WIDTH = 72, 96
DRAWS = 10_000
SCORES = ("response_loss", "response_min_k_prob_0", "response_min_k_plus_plus_100")


def draw(folder: pathlib.Path, number: int, frames: int, seed: int) -> pathlib.Path:
    """Draws clips, a scene each, and returns their manifest."""
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        scene = drawing.make_scene(rng)
        places = np.linspace(0, scene.num_frames - 1, frames).astype(int).tolist()
        pictures = [drawing.draw(scene, place, HEIGHT, WIDTH) for place in places]
        clips.encode(folder / f"{index:02d}.mp4", np.stack(pictures), scene.fps)
        row = {"video": f"{index:02d}.mp4", "question": drawing.QUESTIONS[0]}
        rows.append(row | {"answer": drawing.caption(scene)})
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def published(out: pathlib.Path, manifest: pathlib.Path) -> pathlib.Path:
    """Returns the manifest of what is published, with the texts of the clips."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    path = out / making.PUBLISH / "published.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(manifest: pathlib.Path, folder: pathlib.Path, given: Any) -> dict[str, Any]:
    """Trains the demo's architecture on a manifest."""
    config: Any = options.default()
    config.corpus.members = (str(manifest),)
    config.video.num_frames = given.frames
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.init, config.model.dtype = "random", "float32"
    config.train.batch_size, config.train.epochs = 10, given.epochs
    config.train.learning_rate, config.train.warmup_steps = given.rate, 100
    config.train.seed, config.train.target_loss = given.seed, given.target
    if (folder / options.RECORD).exists():
        return json.loads((folder / options.RECORD).read_text())
    return training.run(config, folder)


def audited(
    model: pathlib.Path, out: pathlib.Path, run: pathlib.Path, given: Any
) -> None:
    """Audits all variants."""
    config = settings.default()
    config.corpus.suspects = (str(out / making.MANIFEST),)
    config.video.num_frames = given.frames
    config.model.checkpoint, config.model.dtype = str(model), "float32"
    config.batch_size = 64
    config.slices = ("response",)
    config.scores, config.headline = SCORES, SCORES[0]
    audit.run(config, run)


def tested(
    what: str, key: keys.Key, run: pathlib.Path, about: dict[str, Any]
) -> list[dict[str, Any]]:
    """Tests a run by every score, and by keys that are drawn again."""
    recorded = run_record(run)
    config = settings.restored(recorded["config"])
    lines = []
    table, *_ = testing._table(config, run)
    for score in SCORES:
        found = testing.run(config, recorded, key, run, score)
        values = testing.by_content(key, table, score)
        scores = np.array([[values[f] for f in each.files] for each in key.sets])
        p_values = [each["p"] for each in found["sets"]]
        uniform = stats.kstest(p_values, "uniform").pvalue
        lines.append(
            {"benchmark": f"canaries/{what}", "score": score}
            | {"fisher p": found["p"], "median rank": None}
            | {"ranks": [each["rank"] for each in found["sets"]]}
            | {"variants": found["sets"][0]["variants"]}
            | {"uniform p of ranks (Kolmogorov-Smirnov)": float(uniform)}
            | {"redrawn": redrawn(scores)}
            | about
        )
        lines[-1]["median rank"] = float(np.median(lines[-1]["ranks"]))
    return lines


def redrawn(scores: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Returns how Fisher's p is distributed for keys that are drawn again."""
    rng = np.random.default_rng(seed)
    number, size = scores.shape
    all_ranks = np.array([[ranks.rank(row, k) for k in range(size)] for row in scores])
    p = []
    for _ in range(DRAWS):
        drawn = all_ranks[np.arange(number), rng.integers(0, size, number)]
        p.append(ranks.fisher(drawn.tolist(), [size] * number))
    found = {f"<= {x}": float(np.mean(np.array(p) <= x)) for x in (0.5, 0.05, 0.01)}
    return found | {"Kolmogorov-Smirnov p": float(stats.kstest(p, "uniform").pvalue)}


def main() -> int:
    """Runs all of it and prints a JSON line a result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--variants", type=int, default=64)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=600, help="at most")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0, help="of clips, key and weights")
    parser.add_argument("--target", type=float, default=4e-4, help="loss to end at")
    given = parser.parse_args()
    manifest = draw(given.out / "clips", given.sets, given.frames, given.seed)
    out, start = given.out / "sets", time.monotonic()
    if (out / keys.FILE).exists():
        key = keys.read(out)
    else:
        shutil.rmtree(out, ignore_errors=True)
        key = making.make(
            inputs.find(str(manifest), given.variants),
            *(out, given.variants, given.seed, 2),
        )
    kept = [each.survival for each in key.sets]
    line = {
        "benchmark": "canaries/marks",
        "sets": len(key.sets),
        "variants": given.variants,
        "least psnr": min(each.psnr for each in key.sets),
        "distance": [f([x["distance"] for x in kept]) for f in (min, max)],
        "noise": [f([x["noise"] for x in kept]) for f in (min, max)],
        "noise of pixels": [
            f([x["noise_of_pixels"] for x in kept]) for f in (min, max)
        ],
        "identified": min(x["identified"] for x in kept),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(line), flush=True)
    for what, learnt in (("target", published(out, manifest)), ("null", manifest)):
        start = time.monotonic()
        record = train(learnt, given.out / what, given)
        about = {"target loss": given.target, "rate": given.rate, "seed": given.seed}
        about |= {
            "loss": record["losses"],
            "steps": record["steps"],
            "training seconds": record["seconds"],
        }
        audited(given.out / what, out, given.out / f"{what}-run", given)
        about["seconds"] = round(time.monotonic() - start, 1)
        for each in tested(what, key, given.out / f"{what}-run", about):
            print(json.dumps(each), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
