"""Question and answer as tokens: those of transformers, cut between the two."""

import dataclasses
import json

import pytest
import tokenizers

from oracles import texts as oracle
from vidsme_jax import models
from vidsme_jax.base import Asked, AuditError
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import prompts, random
from vidsme_jax.models.interface import Options
from vidsme_jax.models.tokenising import question_of

QUESTION = "what happens in the video?"
ANSWERS = ("a red ball rolls down", "größer \n\n 🎈 it rains.", "\n\na dog", "b", " x ")
OPTIONS = ("a dog runs", "it rains")
KINDS = {
    "vicuna": (oracle.llama, {}, prompts.VICUNA),
    "yi": (oracle.llama, {"begins": False, "chat": True}, prompts.CHATML),
    "qwen": (oracle.qwen, {}, prompts.CHATML),
    "qwen base": (oracle.qwen, {"eos": "<|endoftext|>"}, prompts.CHATML),
}


def _asked(answer="", **more) -> Asked:
    return Asked(**{"key": "k", "question": QUESTION, "answer": answer} | more)


def _made(kind, prompt="family", hf=True, default=""):
    """Returns a tokenizer, the text of the prompt, `tokenise` and the problems."""
    make, given, style = KINDS[kind]
    tokenizer, problems = make(**given), []
    options = Options("float32", tokenizer, prompt)
    video = tokenizer.convert_tokens_to_ids("<video>") if hf else None
    text, tokenise = prompts.around_video(
        options, style, problems, default=default, video_token=video
    )
    return tokenizer, text, tokenise, problems


def _end(tokenizer):
    return "<|im_end|>" if "<|im_start|>" in tokenizer.get_vocab() else "</s>"


@pytest.mark.parametrize("options", [(), OPTIONS])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("prompt", ["family", "mcq"])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_chat_template(kind, prompt, answer, options):
    tokenizer, _, tokenise, problems = _made(kind, prompt)
    assert not problems
    text = tokenise(_asked(answer, candidates=options))
    question = QUESTION + "".join(
        f"\n{mark}. {x}" for mark, x in zip("AB", options, strict=False)
    )
    system, end = prompts.SYSTEM.get(prompt, ""), _end(tokenizer)
    whole = answer if kind != "vicuna" else answer + end
    turns = oracle.conversation(system, question, whole)
    before, behind = oracle.ids_around(tokenizer, turns)
    found = [*text.after, *text.answer]
    assert list(text.before) == before
    assert found == behind[: len(found)]
    assert tokenizer.decode(behind[len(found) :]).strip() == ""
    assert tokenizer.decode(text.answer[-1:]) == end
    assert len(text.answer) > 1
    # Until the answer is known there is what the model is given to begin with.
    open_ended = tokenise(_asked(ended="", candidates=options))
    assert open_ended.answer == ()
    _, theirs = oracle.ids_around(tokenizer, turns[:-1])
    assert list(open_ended.after) == theirs


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("system", ["", "You are a helpful assistant."])
@pytest.mark.parametrize("kind", ["vicuna", "qwen"])
def test_ids_are_those_of_original_llava(kind, system, answer):
    named = "family"
    prompt = f"<|im_start|>user\n<image>\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    if system:
        prompt = f"<|im_start|>system\n{system}<|im_end|>\n" + prompt
    if kind == "vicuna":
        prompt = f"{system} USER: <image>\n{QUESTION} ASSISTANT:".lstrip()
    if kind == "vicuna" and system:
        named = f"{system} USER: <image>\n{{question}}"
        system = ""
    tokenizer, _, tokenise, problems = _made(kind, named, False, system)
    assert not problems
    gap = " " if kind == "vicuna" else ""
    text = tokenise(_asked(answer))
    before, behind = oracle.original(tokenizer, prompt + gap + answer + _end(tokenizer))
    assert list(text.before) == before
    assert [*text.after, *text.answer] == behind
    assert (
        list(tokenise(_asked(ended="")).after) == oracle.original(tokenizer, prompt)[1]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_belongs_where_its_last_character_lies(kind):
    tokenizer, _, tokenise, _ = _made(kind)
    for answer in ANSWERS:
        text = tokenise(_asked(answer))
        said = tokenizer.decode(text.answer, skip_special_tokens=True)
        assert said.strip() == answer.strip()
        if kind == "vicuna":  # The space in front of an answer is part of it.
            assert text.after == tokenise(_asked(ended="")).after
    merged = tokenise(_asked("\n\na dog" if "qwen" in kind else "a dog"))
    if kind != "vicuna":  # The newline of the turn is in the first token.
        assert len(merged.after) == len(tokenise(_asked(ended="")).after) - 1
        assert tokenizer.decode(merged.answer[:1])[:1] == "\n"


class _Slow:
    """A tokenizer without offsets."""

    is_fast = False

    def __init__(self, tokenizer):
        self._its = tokenizer

    def __getattr__(self, name):
        return getattr(self._its, name)

    def __call__(self, text, **given):
        assert "return_offsets_mapping" not in given
        return self._its(text, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_without_offsets_the_cut_is_the_same(kind):
    tokenizer, _, fast, _ = _made(kind)
    style, problems = KINDS[kind][2], []
    video = tokenizer.convert_tokens_to_ids("<video>")
    _, slow = prompts.around_video(
        Options("float32", _Slow(tokenizer)), style, problems, video_token=video
    )
    for asked in (*map(_asked, ANSWERS), _asked(ended=""), _asked("a", question="")):
        assert slow(asked) == fast(asked)


def test_what_ended_an_answer():
    *_, tokenise, _ = _made("qwen")
    given = tokenise(_asked("it rains"))
    assert tokenise(_asked("it rains", ended="end")) == given
    cut = tokenise(_asked("it rains", ended="length"))
    assert cut.answer == given.answer[:-1] and cut.after == given.after
    begun = tokenise(_asked(ended=""))
    for ended in ("end", "length"):  # Own tokens are not tokenised again.
        own = tokenise(_asked("it <image>", ended=ended, ids=(5, 6, 7)))
        assert own == begun._replace(answer=(5, 6, 7))


def test_the_end_of_a_base_tokenizer_is_its_eos_token():
    tokenizer = oracle.llama()
    style = dataclasses.replace(prompts.VICUNA, end="<|eot|>")
    _, tokenise = prompts.around_video(Options("float32", tokenizer), style, [])
    assert tokenise(_asked("a")).answer[-1] == tokenizer.eos_token_id
    tokenizer.eos_token = None
    _, tokenise = prompts.around_video(Options("float32", tokenizer), style, [])
    with pytest.raises(AuditError, match="no token that ends an answer"):
        tokenise(_asked("a"))
    assert tokenise(_asked(ended="")).answer == ()


# ------------------------------------------------------------- prompts of one's own


@pytest.mark.parametrize(
    ("prompt", "after", "answer"),
    [
        ("<video>\n{question}\nBriefly.", "\nQ?\nBriefly.{turn}", "it rains{end}"),
        ("<video>{question} It is {answer}.", "Q? It is", " it rains."),
        ("<video>\nWhat is it? {answer}", "\nWhat is it?", " it rains{end}"),
        ("<video> hm", " hmQ?{turn}", "it rains{end}"),
        ("<video>{question} {answer}  ", "Q?", " it rains{end}"),
        ("<video>{question}\n{answer}\nNext", "Q?\n", "it rains\n"),
        ("<video>{question}{answer}<|endoftext|>x", "Q?", "it rains<|endoftext|>"),
    ],
)
def test_prompts_of_ones_own(prompt, after, answer):
    tokenizer, text, tokenise, problems = _made("qwen", prompt)
    assert not problems and text == prompt
    marks = {"{turn}": prompts.CHATML.turn, "{end}": "<|im_end|>"}
    for mark, stands in marks.items():
        after, answer = after.replace(mark, stands), answer.replace(mark, stands)
    # What looks like a placeholder in a question is no placeholder.
    found = tokenise(_asked("it rains", question="Q?"))
    assert tokenizer.decode(found.after) == after
    assert tokenizer.decode(found.answer) == answer
    curly = tokenise(_asked("{question}", question="{answer}"))
    assert "{question}" in tokenizer.decode(curly.answer)
    first = tokenise().after
    assert len(first) <= 1 and after.startswith(tokenizer.decode(first))


@pytest.mark.parametrize("hf", [True, False])
def test_a_question_that_begins_as_texts_do_keeps_its_token(hf):
    """The prompt alone says whether the tokenizer adds the token that begins texts."""
    tokenizer, _, tokenise, _ = _made("vicuna", "<video>{question} {answer}", hf)
    asked = _asked(ANSWERS[0])
    odd = dataclasses.replace(asked, question=f"<s>{QUESTION}")
    found = tokenise(odd).after
    assert found[0] == tokenizer.bos_token_id and found.count(found[0]) == 1
    own = tokenizer(f"<s>{QUESTION}", add_special_tokens=False)["input_ids"]
    assert list(found) == own


@pytest.mark.parametrize(
    "prompt",
    [
        "{question}<video>",
        "{answer}<video>",
        "<video>{answer}{question}",
        "<video>{question}{question}",
        "<video>{answer} {answer}",
    ],
)
def test_placeholders_out_of_order(prompt):
    *_, problems = _made("qwen", prompt)
    (problem,) = problems
    assert problem.startswith(f"config.model.prompt is {prompt!r}")
    assert "in this order, the last two at most once" in problem


def test_a_style_without_a_turn_needs_a_place_for_the_answer():
    style = dataclasses.replace(prompts.CHATML, turn="")
    tokenizer = oracle.qwen()
    _, tokenise = prompts.around_video(Options("float32", tokenizer), style, [])
    with pytest.raises(AuditError, match="no turn for an answer: put"):
        tokenise(_asked("a"))
    own = Options("float32", tokenizer, "<video>{question} {answer}")
    _, tokenise = prompts.around_video(own, style, [])
    assert len(tokenise(_asked("a")).answer) == 2


# ------------------------------------------------------------------ texts and options


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (_asked("a <video> b"), "contains the video token <video>"),
        (_asked("a", question="<image>\nwhat"), "contains the video token <image>"),
        (_asked("a", candidates=("<video>",)), "contains the video token <video>"),
        (_asked("a</s>"), "contains </s>, which ends a turn"),
        (_asked("a\ud800"), "has no UTF-8 encoding"),
    ],
)
def test_texts_that_cannot_be_scored(asked, problem):
    *_, tokenise, _ = _made("vicuna")
    with pytest.raises(AuditError, match=problem):
        tokenise(asked)


def test_words_that_the_tokenizer_does_not_know():
    model = models.inspect("random:llava_next_video-tiny", dtype="float32")
    known = _asked("the large circle", question="describe the video")
    assert len(model.tokenise(known).answer) == 4
    for asked, words in (
        (dataclasses.replace(known, answer="the zebra"), "zebra"),
        (dataclasses.replace(known, question="zebra", answer="yak"), "zebra, yak"),
        (dataclasses.replace(known, answer="q w e r t y"), "q, w, e, r, t and 1 more"),
        (dataclasses.replace(known, answer="z" * 50), "z" * 37),
    ):
        with pytest.raises(AuditError) as caught:
            model.tokenise(asked)
        (problem,) = caught.value.problems
        assert problem.startswith(f"words that the tokenizer does not know: {words}")


def _without_tildes():
    tokenizer = oracle.qwen()
    its = tokenizer.backend_tokenizer
    its.normalizer = tokenizers.normalizers.Replace("~", "")
    return tokenizer


def test_an_end_of_which_no_token_is_left():
    own = Options("float32", _without_tildes(), "<video>{question} {answer}~")
    _, tokenise = prompts.around_video(own, prompts.CHATML, [])
    with pytest.raises(AuditError, match="gives no token"):
        tokenise(_asked("it rains"))


def test_an_answer_of_which_no_token_is_left():
    tokenizer = _without_tildes()
    _, tokenise = prompts.around_video(
        Options("float32", tokenizer), prompts.CHATML, []
    )
    with pytest.raises(AuditError, match="no token ends within its answer"):
        tokenise(_asked("~~"))


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (("x", "y"), ["A. x", "B. y"]),
        (("A. x", "B. y"), ["A. x", "B. y"]),
        (("(A) x", "(B) y"), ["(A) x", "(B) y"]),
        (("A) x", "y"), ["A. A) x", "B. y"]),
        (("A dog", "B"), ["A. A dog", "B. B"]),
    ],
)
def test_options_have_letters(options, lines):
    asked = _asked(candidates=options)
    assert question_of(asked).split("\n") == [QUESTION, *lines]
    alone = dataclasses.replace(asked, question="")
    assert question_of(alone).split("\n") == lines


def test_more_options_than_letters():
    lines = question_of(_asked(candidates=("x",) * 28)).split("\n")
    assert lines[26:] == ["Z. x", "AA. x", "AB. x"]


# ------------------------------------------------------------- what ends an answer


@pytest.mark.parametrize("name", ["llava_next_video-tiny", "llava_qwen-tiny"])
@pytest.mark.parametrize(
    ("stored", "more"), [(None, []), (2, [2]), ([90, 91, 90], [90, 91])]
)
def test_ends_of_a_generated_answer(tmp_path, name, stored, more):
    random.write(tmp_path, name)
    if stored is not None:
        content = {"eos_token_id": stored, "temperature": 0.2, "bos_token_id": 1}
        (tmp_path / "generation_config.json").write_text(json.dumps(content))
    model = models.inspect(str(tmp_path), dtype="float32")
    own = model.tokenise(_asked("the circle", question="describe")).answer[-1]
    assert model.ends == tuple(dict.fromkeys([own, *more]))


@pytest.mark.parametrize("stored", ["2", [2, None], -1, True])
def test_ends_that_are_no_tokens(tmp_path, stored):
    random.write(tmp_path, "llava_qwen-tiny")
    content = json.dumps({"eos_token_id": stored})
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(AuditError, match="eos_token_id is"):
        models.inspect(str(tmp_path), dtype="float32")


def test_a_prompt_that_ends_answers_otherwise(tmp_path):
    tokenizer = oracle.qwen()
    special = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    usual = tokenizer.convert_tokens_to_ids("<|im_end|>")

    bare = Checkpoint("x", (tmp_path,), {}, {})

    def ends(prompt):
        options = Options("float32", tokenizer, prompt)
        return prompts.ends(bare, options, prompts.CHATML, [])

    assert ends("<video>{question}{answer}<|endoftext|>\n") == (special,)
    assert ends("<video>{question}{answer}.") == (usual,)
    assert ends("family") == (usual,)
