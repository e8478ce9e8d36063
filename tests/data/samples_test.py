"""Samples: the distinct texts that the rows of a clip ask."""

import pytest

from vidsme_jax.base import Clip, Item, text_key
from vidsme_jax.data.samples import samples, text_of

ROWS = (
    ("why", (), "so"),
    ("what", ("x", "y"), "x"),
    ("why", (), "so"),
    ("why", (), "because"),
    ("what", (), "x"),
    ("", (), "so"),
)


@pytest.fixture
def clip():
    about = {"video": "a", "clip": "/a", "role": "members"}
    return Clip(
        "/a",
        tuple(
            Item(id=str(k), question=q, candidates=c, answer=a, **about)
            for k, (q, c, a) in enumerate(ROWS)
        ),
    )


def _keys(clip, slices, response):
    (sample,) = samples([clip], slices, response)
    assert sample.clip is clip
    keys = [text_of(item, slices, response) for item in clip.items]
    # In order of first appearance, each once.
    assert [text.key for text in sample.texts] == [k for k in dict.fromkeys(keys) if k]
    return sample.texts, keys


def test_the_video_alone_has_no_texts(clip):
    texts, keys = _keys(clip, ("video",), "given")
    assert texts == () and set(keys) == {""}


@pytest.mark.parametrize(
    "slices", [("response",), ("video", "instruction", "response")]
)
def test_given_answers(clip, slices):
    texts, keys = _keys(clip, slices, "given")
    assert len(texts) == 5 and keys[0] == keys[2]
    for text, number in zip(texts, (0, 1, 3, 4, 5), strict=True):
        assert (text.question, text.candidates, text.answer) == ROWS[number]
        assert (text.ended, text.ids) == ("given", ())
        assert text.key == text_key(*ROWS[number])


@pytest.mark.parametrize(
    ("slices", "response"),
    [(("instruction",), "given"), (("video", "response"), "greedy")],
)
def test_texts_without_their_answers(clip, slices, response):
    texts, keys = _keys(clip, slices, response)
    assert [(t.question, t.candidates) for t in texts] == [
        ("why", ()),
        ("what", ("x", "y")),
        ("what", ()),
        ("", ()),
    ]
    assert all((t.answer, t.ended) == ("", "") for t in texts)
    own = text_key("why", (), None, generated="response" in slices)
    assert keys[0] == keys[2] == keys[3] == own
