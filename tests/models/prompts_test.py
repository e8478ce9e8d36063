"""Prompts: what stands before the video, and the token behind it."""

import pytest

from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.models import prompts


def test_named_prompts():
    mcq = prompts.text_of("mcq", prompts.CHATML, "x", [])
    assert mcq.startswith("<|im_start|>system\nCarefully watch this video and pay")
    assert mcq.endswith(
        "addresses the question.<|im_end|>\n<|im_start|>user\n<video>\n"
    )
    vicuna = prompts.text_of("caption", prompts.VICUNA, "", [])
    assert vicuna.endswith("answer the given questions. USER: <video>\n")
    assert prompts.text_of("family", prompts.VICUNA, "", []) == "USER: <video>\n"
    family = prompts.text_of("family", prompts.CHATML, "Be kind.", [])
    assert family.startswith("<|im_start|>system\nBe kind.<|im_end|>\n")


@pytest.mark.parametrize(
    ("text", "count"), [("mqc", 0), ("no video here", 0), ("<video> <image>", 2)]
)
@pytest.mark.parametrize("name", ["llava_qwen-tiny", "llava_next_video-tiny"])
def test_a_placeholder_that_is_missing_or_doubled(name, text, count):
    with pytest.raises(AuditError) as caught:
        models.inspect(f"random:{name}", dtype="float32", prompt=text)
    (problem,) = caught.value.problems
    assert problem.startswith(f"config.model.prompt is {text!r}")
    assert f"holds <video> once; found {count}" in problem
    assert ("did you mean 'mcq'" in problem) == (text == "mqc")


def test_an_unknown_placeholder():
    text = '<video> {quesion} of {"json"} {answer} {name}'
    with pytest.raises(AuditError) as caught:
        models.inspect("random:llava_qwen-tiny", dtype="float32", prompt=text)
    first, second = caught.value.problems
    assert first.endswith(
        "{quesion} is unknown; known: {question}, {answer}; did you mean '{question}'?"
    )
    assert "{name} is unknown" in second


def test_a_text_of_ones_own():
    text = "USER: <image>\nwhat"
    plan = models.inspect("random:llava_qwen-tiny", dtype="float32", prompt=text)
    assert plan.prompt == "USER: <video>\nwhat"
    own = plan.tokenise()
    # Qwen2 puts nothing in front of a text: the newline is the row behind the video.
    assert own.before == (4,) and own.after == (3,)
    plan = models.inspect("random:llava_next_video-tiny", dtype="float32", prompt=text)
    assert plan.tokenise().before == (1, 4) and plan.tokenise().after == ()


def test_nothing_around_the_video():
    plan = models.inspect("random:llava_qwen-tiny", dtype="float32", prompt="<video>")
    assert plan.tokenise().before == plan.tokenise().after == ()


def test_an_unknown_random_model():
    with pytest.raises(
        AuditError, match="no such random model; did you mean 'llava_qw"
    ):
        models.inspect("random:llava_qwem-tiny", dtype="float32")


def test_a_random_model_without_tokens_for_text():
    """Whose weights would take minutes to draw."""
    with pytest.raises(AuditError, match=r"no such random model.*known: ") as caught:
        models.inspect("random:llava_qwen-7b", dtype="float32")
    (problem,) = caught.value.problems
    assert "llava_qwen-tiny" in problem and "7b" not in problem.split("known")[1]
