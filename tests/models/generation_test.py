"""Greedy answers against transformers' own, on one device and on many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from made_up_family import FAMILY
from oracles import config_of, llava_next_video, llava_onevision, llava_qwen
from vidsme_jax import models, parallel
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.models import generation, layers, random
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.run.stacking import Group, Input, Stacker, Tokenised

LIMIT = 7
# The frames of two clips, and the questions about each.
FRAMES = (3, 2)
QUESTIONS = (((7, 8), (11, 12, 13, 14, 15), (9,)), ((21, 22, 23),))
CLEAR = 1e-3  # The least distance of the two largest logits, at every step.


def _videos(model, frames=FRAMES):
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256, (n, 60, 80, 3), np.uint8) for n in frames]
    return [model.prepare(clip) for clip in clips]


def _batch(model, videos, questions):
    """Clips of different lengths, with different questions, in one batch."""
    clips = []
    for video, asked in zip(videos, questions, strict=True):
        texts = [Text((), question) for question in asked]
        order = np.arange(len(video), dtype=np.int32)
        shown = Shown(len(video))
        clips.append(model.lay_out(shown, model.tokenise(), order, texts))
    most = max(map(len, videos))
    pixels = [np.pad(x, [(0, most - len(x))] + [(0, 0)] * 3) for x in videos]
    shape = Shape(*np.max([Shape.of(x) for x in clips], axis=0).tolist())
    texts = [found for x in clips if (found := TextShape.of(x)) is not None]
    texts = TextShape(*np.max(texts, axis=0).tolist()) if texts else None
    return stack([[x] for x in clips], np.stack(pixels)[:, None], shape, texts)


def _greedy(loaded, batch, *, limit=LIMIT, ends=()):
    step = generation.greedy(loaded.graphdef, limit=limit, ends=ends)
    found = jax.jit(step)(loaded.state, jax.tree.map(jnp.asarray, batch))
    return jax.tree.map(np.asarray, found)


def _told(found, questions=QUESTIONS):
    """All answers, in the order of clips and questions."""
    counts = [len(asked) for asked in questions]
    return [generation.answers(found, k, count) for k, count in enumerate(counts)]


def _of_transformers(model, before, pixels, rows, question, ends):
    """The tokens of `generate`, and the logits of each."""
    video = getattr(model.config, "video_token_index", None)
    video = model.config.video_token_id if video is None else video
    ids = torch.tensor([[*before, *[video] * rows, *question]])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=pixels[None],
        do_sample=False,
        max_new_tokens=LIMIT,
        eos_token_id=list(ends) or None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0, ids.shape[1] :].tolist(), torch.cat(out.logits)


def _of_a_loop(model, before, pixels, rows, question, ends):
    """The same of a model without a class: all rows anew for every token."""
    ids, every = [], []
    while len(ids) < LIMIT and (not ids or ids[-1] not in ends):
        logits = model(before, pixels, (*question, *ids))
        assert len(logits) == len(before) + rows + len(question) + len(ids)
        ids.append(int(logits[-1].argmax()))
        every.append(logits[-1])
    return ids, torch.stack(every)


@pytest.mark.long
@pytest.mark.parametrize(
    ("oracle", "save", "kwargs", "answer"),
    [
        (llava_next_video, "save_complete", {"kv_heads": 4}, _of_transformers),
        (llava_onevision, "save", {"kv_heads": 2}, _of_transformers),
        (llava_qwen, "save", {"kv_heads": 1}, _of_a_loop),
    ],
    ids=["llava_next_video", "llava_onevision", "llava_qwen"],
)
def test_tokens_equal_transformers(tmp_path, oracle, save, kwargs, answer):
    """Two clips of different lengths, questions of 1 to 5 tokens, two ends."""
    model = oracle.make_model(**kwargs)
    loaded = models.load(str(getattr(oracle, save)(model, tmp_path)), dtype="float32")
    videos, before = _videos(loaded.model), loaded.model.tokenise().before
    config = config_of(loaded.model)

    def expected(ends):
        found = []
        for video, asked in zip(videos, QUESTIONS, strict=True):
            pixels = torch.tensor(video.astype(np.float32)) / 255
            mean, std = map(torch.tensor, (config.image_mean, config.image_std))
            pixels = ((pixels - mean) / std).permute(0, 3, 1, 2).float()
            rows = loaded.model.num_rows(len(video))
            found += [answer(model, before, pixels, rows, x, ends) for x in asked]
        return found

    found = expected(())
    for ids, logits in found:
        two = logits.topk(2, dim=-1).values
        assert (two[:, 0] - two[:, 1]).min() > CLEAR, "this fixture's steps are unclear"
        assert len(ids) == LIMIT
    ids = [ids for ids, _ in found]
    assert len(set(map(tuple, ids))) == len(ids), "the questions make no difference"
    # One token that the fewest answers have, and one that none has.
    ends = min(ids[0][1:], key=lambda end: sum(end in x for x in ids)), 99
    told = _told(_greedy(loaded, _batch(loaded.model, videos, QUESTIONS), ends=ends))
    told = [one for clip in told for one in clip]
    ids = [ids for ids, _ in expected(ends)]
    assert [list(one.ids) for one in told] == ids
    ended = ["end" if ids[-1] in ends else "length" for ids in ids]
    assert [one.ended for one in told] == ended
    assert ended[0] == "end" and "length" in ended


@pytest.fixture(scope="module")
def drawn():
    return random.draw("llava_qwen-tiny", dtype="float32")


@pytest.fixture(scope="module")
def found(drawn):
    return _greedy(drawn, _batch(drawn.model, _videos(drawn.model), QUESTIONS))


@pytest.fixture(scope="module")
def expected(found):
    return _told(found)


def test_texts_that_are_not_there(found):
    """A clip may have fewer texts than its shape holds."""
    np.testing.assert_array_equal(found.length, [[LIMIT] * 3 + [0], [LIMIT] + [0] * 3])
    assert not found.ended.any()
    np.testing.assert_array_equal((found.ids >= 0).sum(-1), found.length)


@pytest.mark.parametrize(("mode", "data", "split"), [("pmap", 8, 1), ("mesh", 4, 2)])
def test_many_devices_give_the_tokens_of_one(drawn, expected, mode, data, split):
    """Each device stops on its own with pmap; all of a mesh stop together."""
    model = drawn.model
    videos = _videos(model) * 4
    batch = _batch(model, videos, QUESTIONS * 4)
    devices = parallel.make_devices(mode, data, split)
    state = random.draw(
        "llava_qwen-tiny", dtype="float32", shardings=devices.shardings(model.split)
    ).state
    layers.lay_out(state)
    end = expected[0][1].ids[3]
    step = generation.greedy(drawn.graphdef, limit=LIMIT, ends=(end,))
    found = devices.fetch(devices.runner(step)(state, batch))
    cut = [[_cut(one, end) for one in clip] for clip in expected]
    assert _told(found, QUESTIONS * 4) == cut * 4


def _cut(answer, end):
    """What is left of an answer where a token ends it."""
    if end not in answer.ids:
        return answer
    return generation.Answer(answer.ids[: answer.ids.index(end) + 1], "end")


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_layout_of_the_weights(drawn, expected, dtype, monkeypatch):
    """Stacked and scanned, as bits of bfloat16, and one array a layer."""
    batch = _batch(drawn.model, _videos(drawn.model), QUESTIONS)
    if dtype == "bfloat16":
        bits = random.draw("llava_qwen-tiny", dtype=dtype)
        layers.lay_out(bits.state)
        expected = _told(_greedy(bits, batch))
    separate = random.draw("llava_qwen-tiny", dtype=dtype)
    with monkeypatch.context() as patch:
        patch.setattr(layers, "_platform", lambda _: "gpu")
        layers.lay_out(separate.state)
    assert _told(_greedy(separate, batch)) == expected


def test_a_clip_alone_gives_the_same_answers(drawn, expected):
    """Neither a longer clip of its batch nor the padding of its texts matters."""
    video, asked = _videos(drawn.model)[1], QUESTIONS[1]
    batch = _batch(drawn.model, [video], [asked])
    assert _told(_greedy(drawn, batch), [asked]) == [expected[1]]


def test_no_question_at_all(drawn):
    """The trunk's last row predicts the answer; a limit of one token is one token."""
    videos = _videos(drawn.model)
    without = _batch(drawn.model, videos, ((), ()))
    assert without.texts is None
    found = _told(_greedy(drawn, without), ((0,), (0,)))
    # The second text has no rows: it is answered as if nothing had been asked.
    batch = _batch(drawn.model, videos, (((7, 8), (), (9,)), ((), (5,))))
    told = _told(_greedy(drawn, batch), (range(3), range(2)))
    assert [told[0][1], told[1][0]] == [found[0][0], found[1][0]]
    (one,), (other,) = _told(_greedy(drawn, without, limit=1), ((0,), (0,)))
    assert (one.ids, other.ids) == (found[0][0].ids[:1], found[1][0].ids[:1])
    assert one.ended == other.ended == "length"


def test_the_bytes_of_the_cache(drawn, monkeypatch):
    """What is kept of a clip, and how many clips a device can hold."""
    kept = []
    answer = generation._answers

    def watched(model, asked, limit, ends):
        kept.append(sum(x.nbytes for x in jax.tree.leaves(asked.cache)))
        return answer(model, asked, limit, ends)

    monkeypatch.setattr(generation, "_answers", watched)
    batch = _batch(drawn.model, _videos(drawn.model), QUESTIONS)
    step = generation.greedy.__wrapped__(drawn.graphdef, limit=5, ends=())
    jax.eval_shape(step, drawn.state, jax.tree.map(jnp.asarray, batch))
    shape = Shape(batch.source.shape[2], 0, 0)
    texts = TextShape(batch.texts.token.shape[1], 0, batch.texts.means.shape[2] // 2)
    size = drawn.graphdef, drawn.state
    whole = generation.cache_bytes(*size, shape, texts, 5)
    of_steps = whole - generation.cache_bytes(*size, shape, texts, 0)
    assert 2 * (whole - of_steps) == kept[0]
    row = (whole - of_steps) // (-(-(shape.rows + texts.rows) // 64) * 64)
    assert of_steps == 16 * texts.texts * row  # A multiple of 16 steps.
    assert generation.cache_bytes(*size, shape, texts, 5, split=2) == whole // 2
    model = random.describe("llava_next_video-7b")
    rows = Shape(16 * 144 + 16, 0, 0)
    seven = generation.cache_bytes(*model.abstract(), rows, None, 0)
    assert seven / 2**30 == pytest.approx(2.3 / 2, rel=0.02)


def test_how_many_clips_fit():
    assert generation.fit(None, 10, 10, most=8) == 8
    assert generation.fit(100, 40, 10, most=8) == 3
    assert generation.fit(100, 40, 10, most=2) == 2
    assert generation.fit(100, 99, 10, most=8) == 1


def test_a_family_that_cannot_answer(monkeypatch):
    monkeypatch.setattr(models, "FAMILIES", (*models.FAMILIES, FAMILY))
    loaded = random.draw("pairs-tiny", dtype="float32")
    step = generation.greedy(loaded.graphdef, limit=3, ends=())
    order = np.arange(2, dtype=np.int32)
    rows = loaded.model.lay_out(Shown(2), loaded.model.tokenise(), order)
    pixels = loaded.model.prepare(np.zeros((2, 8, 8, 3), np.uint8))
    batch = stack([[rows]], pixels[None, None], Shape.of(rows))
    with pytest.raises(AuditError, match="class Pairs cannot generate answers"):
        step(loaded.state, batch)


@pytest.mark.long
@pytest.mark.parametrize("name", ["qwen2_5_vl-tiny", "qwen3_vl-tiny"])
def test_three_axes_and_deep_features_equal_a_loop_without_a_cache(name):
    """Two clips of one room, several questions; the loop reads all rows anew."""
    loaded = random.draw(name, dtype="float32")
    model, limit = loaded.model, 4
    stacker = Stacker(model, num_frames=3, slices=("response",), against=None)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (3, *x, 3), np.uint8) for x in ((60, 80), (80, 60))]
    videos, questions = list(map(model.prepare, frames)), (((7, 8), (11,)), ((21,),))

    def batch(answers):
        inputs = [
            Input(
                *(None, video),
                tuple(
                    Tokenised(Asked(key="", question=""), Text((), question, answer))
                    for question, answer in zip(asked, given, strict=True)
                ),
                video=False,
            )
            for video, asked, given in zip(videos, questions, answers, strict=True)
        ]
        shapes = [stacker.shape(x) for x in inputs]
        whole = shapes[0]._replace(
            texts=TextShape(*map(max, zip(*(x.texts for x in shapes), strict=True)))
        )
        assert whole.room == shapes[1].room
        return stacker.batch(Group(whole, inputs), 2)[0]

    @jax.jit
    def last(state, batch):
        reader = nnx.merge(loaded.graphdef, state)
        decoder = reader.decoder
        hidden = decoder(*decoder.lay_out(reader.see(batch.pixels), batch))
        return hidden[:, batch.source.shape[2] :] @ reader.head.T

    empty = tuple(tuple(() for _ in asked) for asked in questions)
    told = _told(_greedy(loaded, batch(empty), limit=limit), questions)
    answers = [[() for _ in asked] for asked in questions]
    for _ in range(limit):
        given = batch(answers)
        logits = np.asarray(last(loaded.state, jax.tree.map(jnp.asarray, given)))
        for clip, asked in enumerate(questions):
            for k in range(len(asked)):
                rows = np.flatnonzero(given.texts.segment[clip] == k + 1)
                two = np.sort(logits[clip, rows[-1]])[-2:]
                assert two[1] - two[0] > CLEAR, "this fixture's steps are unclear"
                answers[clip][k] += (int(logits[clip, rows[-1]].argmax()),)
    assert [[one.ids for one in clip] for clip in told] == answers
    assert len({ids for clip in answers for ids in clip}) == 3
