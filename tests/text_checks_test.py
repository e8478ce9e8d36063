"""Texts that cannot be scored are named before a model is loaded."""

import re
import time

import numpy as np
import pytest

from vidsme_jax import models, scores, settings
from vidsme_jax.base import Item, text_key
from vidsme_jax.data import corpora
from vidsme_jax.data.samples import samples
from vidsme_jax.models.rows import Shown
from vidsme_jax.run import asking, texts
from vidsme_jax.settings import overrides

BOTH = ("video", "instruction", "response")
FRAMES = 4


@pytest.fixture(scope="module")
def model():
    return models.inspect("random:llava_next_video-tiny", dtype="float32")


def _items(*rows) -> list[Item]:
    """One row each: a question, an answer, and options if there are any."""
    return [
        Item(
            id=f"row {k}",
            video=f"{k % 3}",
            clip=f"/{k % 3}",
            role="suspects",
            question=row[0],
            answer=row[1],
            candidates=tuple(row[2:]),
        )
        for k, row in enumerate(rows)
    ]


def _check(model, rows, slices=BOTH, response="given", **more):
    items = _items(*rows)
    asked = samples(corpora.unique_clips(items), slices, response)
    given = {"response": response, **more}
    return texts.check_texts(asked, model, FRAMES, slices, **given)


def test_good_texts_are_tokenised(model):
    rows = [("describe the video", "the large circle"), ("", "a red cross")]
    found, problems = _check(model, rows)
    assert not problems and not found.refused and not found.long
    for question, answer in rows:
        text = found.texts[text_key(question, (), answer)]
        assert len(text.answer) == 4 and len(text.after) == len(question.split()) + 2
    assert len(_check(model, rows, ("video",))[0].texts) == 0


def test_many_faulty_texts_are_named_in_a_few_lines(model):
    rows = [("describe the video", f"zebra{k // 2}") for k in range(60)]
    found, problems = _check(model, rows)
    assert len(found.refused) == 30 and len(problems) == 21
    assert problems[1].startswith("row 3, row 2: words") and "zebra1" in problems[1]
    assert problems[-1] == "and 20 more rows whose texts cannot be scored"


def test_answers_that_are_missing():
    rows = [("what", "a")] * 3 + [("what", " \n")] * 7
    items = _items(*rows)
    (problem,) = asking.answers_missing(items, BOTH, "given", "vid_sme")
    assert (
        "7 of 10 rows have no answer: row 3, row 4, row 5, row 6, row 7 and 2 more"
        in (problem)
    )
    assert "own (--config.response=greedy), or leave 'response' out (" in problem
    assert """ out (--config.slices="('video', 'instruction')")""" in problem
    said = """out (--config.slices="('video',)" --config.headline=vid_sme)"""
    both = ("video", "response")
    assert said in asking.answers_missing(items, both, "given", "response_loss")[0]
    (problem,) = asking.answers_missing(
        items[3:], ("response",), "given", "response_loss"
    )
    assert "no row of the corpus has an answer" in problem
    for slices, response in (
        (("video",), "given"),
        (("instruction",), "given"),
        (BOTH, "greedy"),
    ):
        assert asking.answers_missing(items, slices, response, "vid_sme") == []


@pytest.mark.parametrize(
    ("slices", "headline"),
    [
        (BOTH, "response_min_k_plus_plus_100"),
        (("response",), "response_loss_ref"),
        (("instruction", "response"), "response_loss"),
    ],
)
def test_no_remedy_leads_to_another_refusal(slices, headline):
    items = _items(("what", ""))
    (problem,) = asking.answers_missing(items, slices, "given", headline)
    own, _, without = problem.partition("or leave 'response' out")
    for remedy in (own, without):
        config = settings.default()
        config.slices, config.headline = slices, headline
        config.reference.checkpoint = "x"
        flags = re.findall(r"--config\.\w+=(?:\"[^\"]*\"|\w+)", remedy)
        assert len(flags) >= 1
        flags = [flag.replace('"', "") for flag in flags]
        _, given = overrides.split(flags, settings.RULES)
        overrides.apply(config, given, settings.RULES)
        assert not asking.answers_missing(
            items, config.slices, config.response, config.headline
        )
        found = scores.headline(config.headline, "exact", config.slices, True)
        greedy = config.response == "greedy"
        assert not (greedy and scores.needs_given_answers(found))


def test_an_empty_answer_is_reported_once(model):
    found, problems = _check(model, [("what", "")])
    assert not problems and not found.texts
    # Of a reference's texts nothing else tells it.
    (sample,) = samples(corpora.unique_clips(_items(("what", ""))), BOTH, "given")
    found = texts.tokenise(sample.texts, model, Shown(FRAMES), BOTH)
    assert found.refused == {text_key("what", (), ""): ("the answer is empty",)}


def test_rows_with_one_fault_are_named_together(model):
    rows = [("zebra", "a")] * 4 + [("what", "gnu")] * 4 + [("<image>", "a")]
    _, problems = _check(model, rows)
    assert problems == [
        "row 0, row 3, row 1, row 2: words that the tokenizer does not know: zebra",
        "row 6, row 4, row 7, row 5: words that the tokenizer does not know: gnu",
        "row 8: its text contains the video token <image>: remove it, the prompt puts "
        "the video before the question",
    ]


def _room(model) -> int:
    """Returns the tokens that fit behind the video."""
    order = np.arange(FRAMES, dtype=np.int32)
    return model.max_rows - len(
        model.lay_out(Shown(FRAMES), model.tokenise(), order).feature
    )


def test_texts_that_are_too_long(model):
    room = _room(model)
    fits = "circle " * (room - 3 - 1)  # A newline, "ASSISTANT:", "what"; "</s>".
    rows = [("what", fits), ("what", fits + "a"), ("what " * room, "a")]
    found, problems = _check(model, rows)
    assert list(found.texts) == [text_key("what", (), fits)]
    assert sorted(found.long.values()) == [room + 1, room + 4]
    (problem,) = problems
    assert f"row 2 ({room + 4} tokens), row 1 ({room + 1} tokens)" in problem
    assert f"at most {room} fit" in problem and "config.video.num_frames" in problem
    assert set(found.refused) == set(found.long)


def test_a_greedy_answer_needs_room(model):
    room = _room(model)
    rows = [("what", "")]
    _, problems = _check(model, rows, BOTH, "greedy", room=room - 3)
    assert not problems
    _, problems = _check(model, rows, BOTH, "greedy", room=room - 2)
    (problem,) = problems
    assert f"row 0 ({room + 1} tokens), {room - 2} of them config.response_tokens" in (
        problem
    )
    # Nothing is generated where the answer is not scored.
    _, problems = _check(model, rows, ("instruction",), "greedy", room=room)
    assert not problems


def test_one_greedy_answer_where_no_question_is_shown():
    model = models.inspect(
        "random:llava_next_video-tiny", dtype="float32", prompt="<video>{answer}"
    )
    rows = [("what", ""), ("why", ""), ("who", ""), ("where", "")]  # Of three clips.
    _, problems = _check(model, rows, ("response",), "greedy", room=5)
    (problem,) = problems
    assert problem.startswith("row 0: several questions about one clip, but config.mo")
    _, problems = _check(model, rows[:3], ("response",), "greedy", room=5)
    assert not problems


@pytest.mark.long
def test_nothing_to_score_of_an_instruction():
    model = models.inspect(
        "random:llava_qwen-tiny", dtype="float32", prompt="<video>{question} {answer}"
    )
    _, problems = _check(model, [("", "a circle"), ("what", "a circle")])
    (problem,) = problems
    assert problem.startswith(
        "row 0: there is no text between the video and the answer"
    )
    assert not _check(model, [("", "a circle")], ("response",))[1]


def test_a_thousand_rows_a_second(model):
    rng = np.random.default_rng(0)
    words = "the a large circle red cross near blue star".split()
    rows = [
        (" ".join(rng.choice(words[:2], 10)), " ".join(rng.choice(words, 30)))
        for _ in range(2000)
    ]
    rows = [(q.replace("star", "a"), a.replace("star", "a")) for q, a in rows]
    start = time.process_time()
    found, problems = _check(model, rows)
    assert time.process_time() - start < 5
    assert not problems and len(found.texts) > 1_900
