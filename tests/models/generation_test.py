"""Greedy answers against transformers' own, on one device and on many."""

import jax
import jax.numpy as jnp
import numpy as np

from vidsme_jax.models import generation
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.rows import Shown, Text

LIMIT = 7
# Of two clips, of which the second one is shorter: their questions.
FRAMES = (3, 2)
QUESTIONS = (((7, 8), (11, 12, 13, 14, 15), (9,)), ((21, 22, 23),))
CLEAR = 1e-3  # The least distance of the two largest logits at every step.


def _rows(model, frames, questions):
    texts = [Text((), question) for question in questions]
    order = np.arange(frames, dtype=np.int32)
    return model.lay_out(Shown(frames), model.tokenise(), order, texts)


def _batch(model, videos, questions):
    """Clips of different lengths and questions in one batch."""
    clips = [_rows(model, len(x), y) for x, y in zip(videos, questions, strict=True)]
    most = max(len(video) for video in videos)
    videos = [np.pad(x, [(0, most - len(x))] + [(0, 0)] * 3) for x in videos]
    shape = Shape(*np.max([Shape.of(rows) for rows in clips], axis=0).tolist())
    texts = TextShape(*np.max([TextShape.of(rows) for rows in clips], axis=0).tolist())
    pixels = np.stack(videos)[:, None]
    return stack([[rows] for rows in clips], pixels, shape, texts)


def _videos(model, frames=FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    clips = [rng.integers(0, 256, (n, 60, 80, 3), np.uint8) for n in frames]
    return [model.prepare(clip) for clip in clips]


def _greedy(loaded: LoadedModel, batch, *, limit=LIMIT, ends=()):
    step = generation.greedy(loaded.graphdef, limit=limit, ends=ends)
    found = jax.jit(step)(loaded.state, jax.tree.map(jnp.asarray, batch))
    return jax.tree.map(np.asarray, found)


def _told(found, questions=QUESTIONS):
    """All answers, in the order of clips and questions."""
    counts = map(len, questions)
    return [generation.answers(found, k, count) for k, count in enumerate(counts)]
