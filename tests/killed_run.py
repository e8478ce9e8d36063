"""Runs an audit that is killed at seeded moments, again and again, until it is done.

    python killed_run.py '{"workdir": ..., "clips": ..., "kills": ..., "seed": ...}'

With "asked", two questions are asked about each clip, as these changes of the
configuration say.

Each attempt is a process of its own that sends itself SIGKILL when it has come to the
n-th of these moments: a clip is decoded, a shard is synced, renamed, has been renamed.
A fork before JAX has started anything saves the time of the imports. Prints a line of
JSON for each attempt: its exit status, and how many shards there are. The last attempt
lives; one more, elsewhere, is never killed.
"""

import contextlib
import importlib
import json
import os
import pathlib
import random
import signal
import sys

_SLOWEST = "transformers.models.auto.tokenization_auto"  # Of all imports.
QUESTIONS = (
    *("describe the video", "what happens in this video"),
    *("what can be seen in the clip", "describe the clip"),
)


def config(clips: int | None, **changes):
    """The demo, small: one clip a batch."""
    from vidsme_jax import settings

    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype = "float32"
    config.corpus.suspects = (str(settings.DEMO / "corpus/members.jsonl"),)
    config.corpus.max_clips = clips
    config.video.num_frames = 2
    config.batch_size = config.parallel.data = config.workers = 1
    config.compile_cache, config.scores = "", "vid_sme,perplexity,min_k_prob_10"
    config.update_from_flattened_dict(changes)
    return config


def manifest(path: pathlib.Path, questions: int, clips: int = 3) -> pathlib.Path:
    """Writes a manifest that asks so many questions about each clip of the demo."""
    from vidsme_jax import settings

    lines = (settings.DEMO / "corpus/members.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:clips]]
    asked = [
        row | {"id": f"{k}-{n}", "question": QUESTIONS[n]}
        for k, row in enumerate(rows)
        for n in range(questions)
    ]
    path.write_text("\n".join(map(json.dumps, asked)))
    return path


def asking(path: pathlib.Path, **changes):
    """The demo's model asked what a manifest has; all slices are scored."""
    from vidsme_jax import settings

    slices = ("video", "instruction", "response")
    chosen = config(None, slices=slices, **changes)
    chosen.corpus.suspects = (str(path),)
    chosen.corpus.video_root = str(settings.DEMO / "corpus")
    return chosen


def _die_at(moment: int) -> None:
    from vidsme_jax.data import decoders

    left = moment

    def mortal(function, after=False):
        def wrapped(*args, **kwargs):
            nonlocal left
            result = function(*args, **kwargs) if after else None
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result if after else function(*args, **kwargs)

        return wrapped

    decoders.ask = mortal(decoders.ask)
    os.fsync = mortal(os.fsync)
    os.replace = mortal(mortal(os.replace), after=True)
    os.link = mortal(mortal(os.link), after=True)


def main(
    workdir: str, clips: int, kills: int, seed: int, asked: dict | None = None
) -> None:
    """Kills and resumes, then lets it finish."""
    import jax

    from vidsme_jax.models import tokenizer_files

    tokenizer_files.hide_broken_torchvision()  # transformers remembers what is there.
    importlib.import_module(_SLOWEST)
    from absl import logging

    from vidsme_jax import audit
    from vidsme_jax.report import figures

    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    jax.config.update("jax_compilation_cache_dir", f"{workdir}/compiled")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    figures.draw = lambda *args: []  # They take most of the time.
    chosen = config(clips)
    if asked is not None:
        path = manifest(pathlib.Path(workdir) / "asked.jsonl", 2, clips)
        chosen = asking(path, scores="vid_sme,response_loss,response_pmi", **asked)
    rng = random.Random(seed)
    moments = [rng.randint(1, 30) for _ in range(kills)]
    runs = ["killed"] * (kills + 1) + ["whole"]
    for name, moment in zip(runs, [*moments, -1, -1], strict=True):
        run = pathlib.Path(workdir) / name
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                _die_at(moment)
                audit.run(chosen, run)
                os._exit(0)
            os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        parts = len(list((run / "signals").glob("part-*.parquet")))
        print(json.dumps({"status": status, "parts": parts}), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
