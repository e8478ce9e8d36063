r"""Full tuning of a LLaVA-NeXT-Video, against a loop of transformers and torch.

    python benchmarks/training.py [--checkpoint DIR] [--batch 8] [--steps 20]
        [--rounds 3] [--dtype float32]

Both sides start from the same weights and make the same steps on the same batches of
the demo's clips, frames prepared: AdamW with the same rates, clipped gradients, the
mean loss of the answers' tokens. Their losses must be equal to 1e-4 in each step
(float32), or the exit status is 1. Then they take turns: `--rounds` times each side
makes the steps once more. One line of JSON a side: clips and decoder rows a second by
wall time and by CPU time, the median of the rounds; the last line is the ratio.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _report
import _torch_models  # noqa: F401  Declares what torchvision lacks.
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from vidsme_jax.finetune import examples, options, steps, training
from vidsme_jax.settings import DEMO

VIDEO_TOKEN = "video_token_index"
OURS, PEER = "ours", "transformers"
_CLOSE = {"float32": 1e-4, "bfloat16": 3e-2}


def configuration(args: argparse.Namespace) -> Any:
    """Returns that of both sides."""
    config: Any = options.default()
    config.corpus.members = (str(DEMO / "corpus/members.jsonl"),)
    config.video.num_frames = 8
    config.model.checkpoint = args.checkpoint
    config.parallel.data = 1
    config.train.batch_size, config.train.dtype = args.batch, args.dtype
    config.train.epochs, config.train.max_steps = args.steps, args.steps
    config.train.learning_rate, config.train.warmup_steps = 1e-3, 5
    config.train.weight_decay = 0.01
    return config


class Ours:
    """The package's own programs."""

    def __init__(self, prepared: training.Prepared, cuts: Sequence[examples.Cut]):
        self._cuts, self._prepared = cuts, prepared
        self._programs = steps.programs(
            prepared.trainee.form, prepared.train, len(cuts), prepared.devices
        )

    def __call__(self) -> list[float]:
        """Makes all steps from the first weights; returns their losses."""
        programs, trainee = self._programs, self._prepared.trainee
        where = self._prepared.devices.shardings(trainee.form.split)
        trained, frozen = trainee.start(where, 0)
        state, losses = programs.start(trained), []
        jax.block_until_ready((state, frozen))
        self.begun = time.perf_counter(), time.process_time()
        for cut in self._cuts:
            weight = 1 / sum(x.num_tokens for x in cut.examples)
            total = programs.gradients(state, frozen, cut.batch, weight, None)
            state, loss, _ = programs.update(state, total)
            losses.append(loss)
        return [float(loss) for loss in losses]


class Torch:
    """The class of transformers, as a user would train it."""

    def __init__(self, prepared: training.Prepared, cuts: Sequence[examples.Cut]):
        train, folder = prepared.train, prepared.trainee.source.checkpoint.folder
        self._train, self._folder = train, folder
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        config = json.loads((folder / "config.json").read_text())
        trained, frozen = prepared.trainee.start(
            prepared.devices.shardings(prepared.trainee.form.split), 0
        )
        module = prepared.trainee.form.module(trained, frozen)
        self._batches = [
            self._batch(cut, config[VIDEO_TOKEN], module.normalise) for cut in cuts
        ]
        rate = steps.make_schedule(train, len(cuts))
        self._rates = [float(rate(step)) for step in range(len(cuts))]

    def __call__(self) -> list[float]:
        """Makes all steps from the first weights; returns their losses."""
        model = transformers.LlavaNextVideoForConditionalGeneration.from_pretrained(
            self._folder, dtype=torch.float32, attn_implementation="sdpa"
        )
        model = model.to(self._device).train()
        decayed = [p for n, p in model.named_parameters() if _is_matrix(n, p)]
        others = [p for n, p in model.named_parameters() if not _is_matrix(n, p)]
        groups = [
            {"params": decayed, "weight_decay": self._train.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        fused = {"fused": True}
        optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98), **fused)
        narrow = self._train.dtype == "bfloat16"
        losses = []
        self.begun = time.perf_counter(), time.process_time()
        for batch, rate in zip(self._batches, self._rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self._device, torch.bfloat16, enabled=narrow):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), self._train.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
        return [float(loss) for loss in losses]

    def _batch(
        self, cut: examples.Cut, video: int, normalise: Callable[..., Any]
    ) -> dict[str, torch.Tensor]:
        """Returns the arguments of the class: padded behind, as we do."""
        rows = [example.rows for example in cut.examples]
        longest = max(len(each.feature) for each in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, -100)
        for k, each in enumerate(rows):
            size = len(each.feature)
            ids[k, :size] = np.where(each.feature < 0, each.token, video)
            mask[k, :size] = 1
            labels[k, each.kept + 1] = each.target
        frames = np.asarray(cut.batch.pixels)[: len(rows), 0]
        pixels = np.stack([np.asarray(normalise(jnp.asarray(x))) for x in frames])
        found = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        tensors = {k: torch.from_numpy(v).to(self._device) for k, v in found.items()}
        tensors["pixel_values_videos"] = torch.from_numpy(pixels).to(self._device)
        return tensors


def _is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether the weight decays: dense layers, not norms, biases or embeddings."""
    return name.endswith(".weight") and parameter.ndim > 1 and "embed" not in name


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the losses, then times both sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=str(DEMO / "checkpoint"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=sorted(_CLOSE))
    args = parser.parse_args(argv)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    prepared = training.prepare(configuration(args), pathlib.Path(os.devnull))
    model, members = prepared.trainee.source.model, prepared.members
    plan, epoch = [], 0
    while len(plan) < args.steps:
        rng = np.random.default_rng([0, epoch])
        plan += examples.batches_of(members, args.batch, rng)
        epoch += 1
    plan = plan[: args.steps]
    cuts = list(examples.cut(members, plan, prepared.clips, model, args.batch))
    sides = {OURS: Ours(prepared, cuts), PEER: Torch(prepared, cuts)}
    first = {name: side() for name, side in sides.items()}
    away = max(abs(a - b) for a, b in zip(*first.values(), strict=True))
    rows = sum(len(x.rows.feature) for cut in cuts for x in cut.examples)
    clips = sum(len(cut.examples) for cut in cuts)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            side()
            wall, cpu = side.begun
            now = time.perf_counter() - wall, time.process_time() - cpu
            taken[name].append(now)
    medians = {}
    for name, its in taken.items():
        wall, cpu = (statistics.median(each) for each in zip(*its, strict=True))
        medians[name] = wall, cpu
        _report.line(
            f"training/{name}",
            clips / wall,
            "clips/s",
            steps=len(cuts),
            batch=args.batch,
            dtype=args.dtype,
            rows_a_second=_report.rounded(rows / wall),
            wall_s=_report.rounded(wall),
            cpu_s=_report.rounded(cpu),
            first_loss=first[name][0],
            last_loss=first[name][-1],
        )
    ours, theirs = medians[OURS], medians[PEER]
    _report.line(
        "training/ratio",
        theirs[0] / ours[0],
        "x",
        ratio=theirs[0] / ours[0],
        peer=PEER,
        by_cpu=_report.rounded(theirs[1] / ours[1]),
        difference=_report.rounded(away),
        equal=away <= _CLOSE[args.dtype],
    )
    return int(away > _CLOSE[args.dtype])


if __name__ == "__main__":
    sys.exit(main())
