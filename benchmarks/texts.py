r"""What questions about a clip cost beside its video, against transformers.

    python benchmarks/texts.py [--size SIZE] [--model NAME] [--texts 4] [--question 64]
        [--answer 32]

ours: one pass over both directions, the texts of a clip as further segments of it; the
Renyi profile of every row of the video, of every question and of every answer, with log
p and rank of the true tokens. video: the same run without texts; the line `texts/added`
compares what the texts add to its time with what they add to the necessary operations.
transformers, cached: the video's pass of `pairs.tuned` with its keys and values kept,
then all texts of a direction as one batch on them; SDPA, vectorised statistics.
transformers, again: a pass over video and text for each text and direction, as is done
where a model is asked one question after another.

The sides take turns as in `pairs.py`, and must give the same log p of all answers; exit
status 1 otherwise.
"""

import argparse
import inspect
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch needs room.

import _models
import _report
import numpy as np
import pairs
import torch
import transformers
from _torch_models import TorchModel, fast_attention, kept

from vidsme_jax import parallel
from vidsme_jax.base import Asked
from vidsme_jax.models.rows import Text
from vidsme_jax.run import pipeline, stacking

CACHED, AGAIN = "transformers, cached", "transformers, again"
Texts = list[tuple[list[int], list[int]]]  # Questions and answers of one clip.


def draw(run: _models.Run, args: argparse.Namespace) -> Texts:
    """Draws token ids; the same texts are asked about every clip."""
    rng = np.random.default_rng(1)
    high = run.config.text.vocab_size
    return [
        tuple(rng.integers(5, high, n).tolist() for n in (args.question, args.answer))
        for _ in range(args.texts)
    ]


def ours(run: _models.Run, clips: np.ndarray, texts: Texts) -> list[list[np.ndarray]]:
    """Returns log p of each answer's tokens, natural order, of each text and clip."""
    prompt = run.prompt
    asked = tuple(
        stacking.Tokenised(Asked(key=str(k)), Text(prompt.before, tuple(q), tuple(a)))
        for k, (q, a) in enumerate(texts)
    )
    side = pipeline.Pipeline(
        run.model,
        parallel.make_devices("pmap", 1, 1),
        batch_size=run.batch,
        num_frames=run.frames,
        second=False,
        slices=("video", "instruction", "response"),
    )
    inputs = (stacking.Input(k, clip, asked) for k, clip in enumerate(clips))
    results = [
        result
        for _, batch in pipeline.stream(([(0, each)] for each in inputs), [side])
        for result in batch
    ]
    found = []
    for result in sorted(results, key=lambda result: result.key):
        answers = []
        for text, (question, _) in zip(result.texts, texts, strict=False):
            answers.append(text.signals.log_prob[0, len(question) :])
        found.append(answers)
    return found


def statistics(log_p: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Returns of text rows what `pairs.row_statistics` gives, log p and the rank."""
    found = pairs.row_statistics(log_p, pairs.Q)
    own = log_p.gather(-1, targets[:, None])
    ties = (log_p == own).sum(-1) - 1
    rank = 1 + (log_p > own).sum(-1) + 0.5 * ties
    return [own[:, 0], rank, *found.values()]


def _scored(model: TorchModel, hidden, targets) -> np.ndarray:
    """Reduces rows of texts (texts, rows, embed); returns log p of the targets."""
    out = []
    for rows, wanted in zip(hidden, targets, strict=True):
        log_p = torch.log_softmax((rows @ model.llm.lm_head.weight.T).float(), dim=-1)
        log_prob, *_ = [x.double().cpu().numpy() for x in statistics(log_p, wanted)]
        out.append(log_prob)
    return np.stack(out)


@torch.inference_mode()
def cached(
    model: TorchModel, clips: np.ndarray, text: Text, texts: Texts
) -> list[list[np.ndarray]]:
    """Runs the video of a batch once a direction, then all texts on its keys."""
    frames = torch.from_numpy(clips).to(model.device)
    both = model.both(model.look(frames))
    text = text._replace(after=())
    given = model.inputs(both, text)
    cache = transformers.DynamicCache()
    known = inspect.signature(model.llm.model.forward).parameters  # By version.
    keys = {"cache" if "cache" in known else "past_key_values": cache}
    hidden = model.llm.model(**given, use_cache=True, **keys)[0]
    video = kept(hidden, text)
    for k in range(len(clips)):
        pairs.entropies(model, *video[k :: len(clips)], (), pairs.row_statistics)
    ids = torch.tensor([q + a for q, a in texts], device=model.device)
    cache.batch_repeat_interleave(len(texts))
    rows = model.llm.get_input_embeddings()(ids).repeat(len(hidden), 1, 1)
    given = model.after(both, text, rows)
    behind = model.llm.model(**given, use_cache=True, **keys)[0]
    behind = behind.unflatten(0, (len(hidden), len(texts)))
    last = hidden[:, None, -1:].expand(-1, len(texts), -1, -1)
    predicting = torch.cat([last, behind[:, :, :-1]], dim=2)
    found = [_scored(model, each, ids) for each in predicting]
    return [list(each[:, len(texts[0][0]) :]) for each in found[: len(clips)]]


@torch.inference_mode()
def again(
    model: TorchModel, clips: np.ndarray, text: Text, texts: Texts
) -> list[list[np.ndarray]]:
    """Runs video and text for each text, both directions as one batch."""
    found: list[list[np.ndarray]] = [[] for _ in clips]
    for number, (question, answer) in enumerate(texts):
        frames = torch.from_numpy(clips).to(model.device)
        whole = text._replace(after=(*question, *answer))
        given = model.inputs(model.both(model.look(frames)), whole)
        hidden = model.llm.model(**given, use_cache=False)[0]
        count = len(question) + len(answer)
        if number == 0:  # The video's rows are the same with every text.
            video = kept(hidden, text._replace(after=()), count)
            for k in range(len(clips)):
                pairs.entropies(
                    model, *video[k :: len(clips)], (), pairs.row_statistics
                )
        ids = torch.tensor([question + answer] * len(hidden), device=model.device)
        log_p = _scored(model, hidden[:, -count - 1 : -1], ids)
        for k in range(len(clips)):
            found[k].append(log_p[k, len(question) :])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description="What questions about a clip cost.")
    _models.add_arguments(parser)
    parser.add_argument("--texts", type=int, default=4, help="of each clip")
    parser.add_argument("--question", type=int, default=64, help="tokens of each")
    parser.add_argument("--answer", type=int, default=32, help="tokens of each")
    parser.add_argument("--steps", type=int, default=1, help="batches a measurement")
    parser.add_argument("--no-again", action="store_true", help="leave it out")
    args = parser.parse_args(argv)
    run = _models.prepare(args)
    return int(not measure(run, run.torch_model(), args))


def measure(run: _models.Run, model: TorchModel, args: argparse.Namespace) -> bool:
    """Reports the sides; returns whether all log p of answers agree."""
    clips, texts = run.clips(run.batch * args.steps), draw(run, args)

    def batches(side):
        with fast_attention(run.kernels):
            return [
                found
                for start in range(0, len(clips), run.batch)
                for found in side(
                    model,
                    clips[start : start + run.batch],
                    run.prompt,
                    texts,
                )
            ]

    sides = {
        "ours": lambda: ours(run, clips, texts),
        "video": lambda: ours(run, clips, []),
        CACHED: lambda: batches(cached),
    }
    if not args.no_again:
        sides[AGAIN] = lambda: batches(again)
    first = {name: side() for name, side in sides.items()}  # Compiles, warms up.
    peers = [name for name in (CACHED, AGAIN) if name in sides]
    gaps = {
        name: float(np.max(np.abs(np.array(first[name]) - np.array(first["ours"]))))
        for name in peers
    }
    rounds = _models.in_turn(sides, repeats=args.repeats)
    lengths = [(len(q) + len(a), len(q) + len(a)) for q, a in texts]
    text = len(run.prompt.before)
    flops = run.flops(text=text, texts=lengths)
    added = 2 * flops.texts
    video = flops.pair - added
    extra = run.extra | {
        "texts": args.texts,
        "question": args.question,
        "answer": args.answer,
        "clips": len(clips),
    }
    equal = max(gaps.values()) <= run.tolerance
    for name in peers:
        _report.line(
            f"texts/ours against {name}",
            len(clips) / rounds.times["ours"].wall,
            "clips/s",
            ratio=rounds.paired("ours", name),
            peer=name,
            difference=_report.rounded(gaps[name]),
            equal=equal,
            **rounds.fields("ours", name, per=len(clips)),
            **extra,
        )
    slower = rounds.paired("video", "ours")  # Seconds with texts over those without.
    _report.line(
        "texts/added",
        slower,
        "x of the time without texts",
        necessary=_report.rounded(1 + added / video),
        allowed=_report.rounded(1 + 1.15 * added / video),
        equal=equal,
        **rounds.fields("ours", "video", per=len(clips)),
        **extra,
    )
    if not equal:
        print(f"log p of answers differ by {max(gaps.values()):.2g}", file=sys.stderr)
    return equal


if __name__ == "__main__":
    sys.exit(main())
