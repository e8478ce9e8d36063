r"""Full tuning of a LLaVA-NeXT-Video, against a loop of transformers and torch.

    python benchmarks/training.py [--checkpoint DIR] [--batch 8] [--steps 20]
        [--rounds 3] [--dtype float32]

Both sides start from the same weights and make the same steps on the same batches of
the demo's clips, frames prepared: AdamW with the same rates, clipped gradients, the
mean loss of the answers' tokens. Their losses must be equal to 1e-4 in each step
(float32), or the exit status is 1. Then they take turns: `--rounds` times each side
makes as many steps more. One line of JSON a side: clips and decoder rows a second, the
losses of the first and the last step, and how many times as fast ours is, by CPU
seconds on a CPU.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _models
import _report
import _torch_models  # noqa: F401  Declares what torchvision lacks.
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from vidsme_jax.finetune import examples, options, preparing, steps
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
    """The package's own programs, from the checkpoint's weights on."""

    def __init__(self, prepared: preparing.Prepared, cuts: Sequence[examples.Cut]):
        self._cuts = cuts
        self._programs = steps.programs(
            prepared.trainee.form, prepared.train, len(cuts), prepared.devices
        )
        where = prepared.devices.shardings(prepared.trainee.form.split)
        trained, self._frozen = prepared.trainee.start(where, 0)
        self._state = self._programs.start(trained)

    def __call__(self) -> list[float]:
        """Makes all steps from the present weights on; returns their losses."""
        losses = []
        for cut in self._cuts:
            weight = 1 / sum(x.num_tokens for x in cut.examples)
            total = self._programs.gradients(
                self._state, self._frozen, cut.batch, weight, None
            )
            self._state, loss, *_ = self._programs.update(self._state, total)
            losses.append(loss)
        return [float(loss) for loss in losses]


class Torch:
    """The class of transformers, as a user would train it."""

    def __init__(self, prepared: preparing.Prepared, cuts: Sequence[examples.Cut]):
        train, folder = prepared.train, prepared.trainee.source.checkpoint.folder
        self._train, self._device = (
            train,
            "cuda" if torch.cuda.is_available() else "cpu",
        )
        model = transformers.LlavaNextVideoForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        )
        self._model = model.to(self._device).train()
        named = list(model.named_parameters())
        decayed = [p for n, p in named if _is_matrix(n, p)]
        others = [p for n, p in named if not _is_matrix(n, p)]
        groups = [
            {"params": decayed, "weight_decay": train.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98))
        rate = steps.make_schedule(train, len(cuts))
        self._rates = [float(rate(step)) for step in range(len(cuts))]
        config = json.loads((folder / "config.json").read_text())
        where = prepared.devices.shardings(prepared.trainee.form.split)
        module = prepared.trainee.form.module(*prepared.trainee.start(where, 0))
        video = config[VIDEO_TOKEN]
        self._batches = [self._batch(cut, video, module.normalise) for cut in cuts]

    def __call__(self) -> list[float]:
        """Makes all steps from the present weights on; returns their losses."""
        model, narrow, losses = self._model, self._train.dtype == "bfloat16", []
        for batch, rate in zip(self._batches, self._rates, strict=True):
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self._device, torch.bfloat16, enabled=narrow):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), self._train.clip_norm)
            self._optimizer.step()
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
    with tempfile.TemporaryDirectory() as workdir:  # Nothing is written to it.
        prepared = preparing.prepare(configuration(args), pathlib.Path(workdir))
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
    rounds = _models.in_turn(sides, repeats=args.rounds)
    rows = sum(len(x.rows.feature) for cut in cuts for x in cut.examples)
    clips = sum(len(cut.examples) for cut in cuts)
    for name, its in first.items():
        wall = rounds.times[name].wall
        _report.line(
            f"training/{name}",
            clips / wall,
            "clips/s",
            ratio=rounds.paired(OURS, PEER) if name == OURS else None,
            peer=PEER if name == OURS else None,
            **rounds.fields(name, PEER if name == OURS else None, per=clips),
            rows_a_second=_report.rounded(rows / wall),
            steps=len(cuts),
            batch=args.batch,
            dtype=args.dtype,
            losses=[its[0], its[-1]],
            difference=_report.rounded(away),
            equal=away <= _CLOSE[args.dtype],
        )
    return int(away > _CLOSE[args.dtype])


if __name__ == "__main__":
    sys.exit(main())
