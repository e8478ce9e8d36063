"""Tokenises questions and answers about a video.

A text is tokenised as a whole, as a family's processor does it, and then split: a token
belongs to the question or to the answer, whichever has its last character.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vidsme_jax.base import Asked, AuditError
from vidsme_jax.models import tokenizer_files
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.models.tokenizer_files import Tokenizer
from vidsme_jax.wording import printable

_VIDEOS = ("<video>", "<image>")
_SHOWN = 5  # Words in a message.
_LONG = 40  # Characters of a word in a message.
_LONGEST = 200  # Characters of a prompt in a message.


class Template(NamedTuple):
    """A prompt without its question and answer (`prompts.template_of`).

    Attributes:
      before: The text before the video.
      opening: The text between the video and the question.
      asks: Whether there is a question.
      turn: The text between the question and the answer.
      gap: Spaces before the answer, which belong to it: a word and the space before it
        are one token.
      end: The text that ends the answer; "" for the style's end.
      answered: Whether there is a place for an answer.
    """

    before: str
    opening: str
    asks: bool
    turn: str
    gap: str
    end: str
    answered: bool


class Framing(NamedTuple):
    """The text that a family's processor writes for a video.

    Attributes:
      token: The special token that is replaced by visual rows.
      opens: Returns the text before each frame's token, or each group's; None if one
        run of tokens is replaced by the rows of all frames.
      close: The special tokens after each of these.
      outro: The text after the video, tokenised with the question.
      typical: About how many tokens of text each frame has, for models without a
        tokenizer.
    """

    token: str = _VIDEOS[0]
    opens: Callable[[Shown], Sequence[str]] | None = None
    close: str = ""
    outro: str = ""
    typical: int = 0

    def text(self, shown: Shown) -> str:
        """Returns the text without the outro: one token a frame, or one for all."""
        opens = [""] if self.opens is None else self.opens(shown)
        return "".join(f"{opening}{self.token}{self.close}" for opening in opens)

    def untokenised(self, shown: Shown) -> Text:
        """Returns `typical` tokens for each frame, and no others."""
        count = 0 if self.opens is None else len(self.opens(shown))
        return Text((), frames=((0,) * self.typical,) * count)


def markers(tokenizer: Tokenizer | None, texts: Mapping[str, str]) -> list[str]:
    """Returns special tokens, as a family's processor takes them from its tokenizer.

    `texts` are their defaults, by the tokenizer's attribute.
    """
    return [getattr(tokenizer, name, text) for name, text in texts.items()]


class Tokeniser:
    """`Model.tokenise` of a checkpoint."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        end: str | None,
        video_token: int | None,
        framing: Framing,
    ):
        """Tokenises the prompt around a clip of one frame, to check it.

        Args:
          tokenizer: The tokenizer.
          template: The prompt's template.
          end: The style's end; None if the tokenizer has no such token.
          video_token: See `prompts.around_video`.
          framing: The family's text for a video.

        Raises:
          AuditError: The tokenizer splits or changes the video's tokens.
        """
        self._tokenizer, self._framing = tokenizer, framing
        self._template = template._replace(opening=framing.outro + template.opening)
        self._end, self._video_token = end, video_token
        self._around = functools.lru_cache(maxsize=1024)(self._around_clip)
        # A prompt that begins with the BOS token gets no other, as in
        # `apply_chat_template` of transformers' processors.
        first = tokenizer.bos_token
        adds = not (first and template.before.startswith(first))
        self._encode = functools.partial(tokenizer, add_special_tokens=adds)
        self._front, self._skipped = "", int(adds and begins(tokenizer))
        if video_token is not None:  # Up to the last token of the video.
            self._front = template.before + framing.text(Shown(1))
            prompt = self._around(Shown(1))
            self._skipped = len(prompt.before) + 1 + sum(map(len, prompt.frames))
        fixed = self._template.opening + template.turn
        self._unknown = self._unknown_in(self._cut(fixed, ())[0])

    def __call__(self, asked: Asked | None = None, shown: Shown | None = None) -> Text:
        """Returns the tokens of a text or of a prompt; see `interface.Tokenise`."""
        if asked is None:
            return self._around(Shown(1) if shown is None else shown)
        template = self._template
        question = question_of(asked) if template.asks else ""
        head = template.opening + question + template.turn
        if asked.ids or not asked.ended:
            whole, ends = head, [len(head)]
        else:
            gap = template.gap if asked.answer else ""
            whole = head + gap + asked.answer
            ends = [len(head), len(whole)]
        stops = len(ends) == 2 and asked.ended != "length"
        answer = "" if asked.ids else asked.answer
        problems = self._faults(question + answer, stops)
        if problems:
            raise AuditError(problems)
        if stops:
            whole += template.end or str(self._end)
        ids, places = tokenizer_files.guarded(lambda: self._cut(whole, ends))
        last = places[-1] + stops
        if last > len(ids):
            problems.append(
                "config.model.prompt: the text after {answer} gives no token"
            )
        if self._video_token in ids:
            problems.append("its text contains the video token")
        if self._unknown_in(ids[: places[-1]]) > self._unknown:
            problems.append(
                "words that the tokenizer does not know"
                + self._words(question + " " + answer)
            )
        if len(ends) == 2 and asked.answer.strip() and places[0] == places[1]:
            problems.append(
                "no token ends within its answer: the tokenizer has none for it, or "
                "joins it with what follows"
            )
        if problems:
            raise AuditError(problems)
        before = self._around(Shown(1)).before
        answered = asked.ids or ids[places[0] : last]
        return Text(before, tuple(ids[: places[0]]), tuple(answered))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of an answer, without special tokens and surrounding spaces.

        Tokenising the text again may give other tokens.
        """
        text = tokenizer_files.guarded(
            lambda: self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        return text.strip()

    def _around_clip(self, shown: Shown) -> Text:
        """Returns the tokens of a prompt around a clip."""
        template, framing = self._template, self._framing
        if self._video_token is None:
            first = begins(self._tokenizer)
            before = self._ids(template.before) if template.before or first else []
            behind = self._ids(template.opening) if template.opening else []
            return Text(tuple(before), () if first else tuple(behind[:1]))
        whole = template.before + framing.text(shown) + template.opening
        pieces: list[list[int]] = [[]]
        for token in self._ids(whole):
            if token == self._video_token:
                pieces.append([])
            else:
                pieces[-1].append(token)
        count = 1 if framing.opens is None else len(framing.opens(shown))
        if len(pieces) != count + 1:
            expected = "once" if count == 1 else f"{count} times"
            found = self._tokenizer.convert_tokens_to_ids(framing.token)
            raise AuditError(
                [
                    f"tokenizer: the prompt {printable(whole, _LONGEST)!r} has the "
                    f"video token {self._video_token} {len(pieces) - 1} times, "
                    f"expected {expected} (the tokenizer's {framing.token} is {found})"
                ]
            )
        close = self._closing()
        if pieces[-1][: len(close)] != close:
            raise AuditError(
                [
                    f"tokenizer: {framing.close} after the frames of the prompt "
                    f"{printable(whole, _LONGEST)!r} is not the token {close}"
                ]
            )
        before, *between, last = map(tuple, pieces)
        frames = (*between, last[: len(close)]) if framing.opens else ()
        first = () if begins(self._tokenizer) else last[len(close) :][:1]
        return Text(before, first, frames=frames)

    def _closing(self) -> list[int]:
        """Returns the ids of the special tokens after a frame."""
        close = self._framing.close
        if not close:
            return []
        ids = self._ids(close, add_special_tokens=False)
        special = self._tokenizer.get_added_vocab().values()
        if not ids or not set(ids) <= set(special):
            raise AuditError(
                [f"tokenizer: {close}, which ends a frame, is not a special token"]
            )
        return ids

    def _ids(self, text: str, **more: Any) -> list[int]:
        return tokenizer_files.guarded(
            lambda: list(self._encode(text, verbose=False, **more)["input_ids"])
        )

    def _faults(self, text: str, stops: bool) -> list[str]:
        """Returns the problems of a text before it is tokenised."""
        problems = []
        if not self._template.answered:
            problems.append(
                "config.model.prompt has no turn for an answer: put {answer} at the "
                "answer's place"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            problems.append(f"its text has no UTF-8 encoding ({error})")
        framing = self._framing
        for name in dict.fromkeys((*_VIDEOS, framing.token, framing.close)):
            if name and name in text:
                problems.append(
                    f"its text contains the video token {name}: remove it, the prompt "
                    "puts the video before the question"
                )
        if stops and not self._template.end and self._end is None:
            problems.append(
                "the tokenizer has no token that ends an answer (eos_token)"
            )
        elif self._end is not None and self._end in text:
            problems.append(f"its text contains {self._end}, which ends a turn")
        return problems

    def _unknown_in(self, ids: Sequence[int]) -> int:
        return ids.count(self._tokenizer.unk_token_id)

    def _words(self, text: str) -> str:
        """Returns the words that the tokenizer does not know, for a message."""
        every = dict.fromkeys(text.split())
        ids = (self._tokenizer(x, add_special_tokens=False)["input_ids"] for x in every)
        unknown = [
            x for x, tokens in zip(every, ids, strict=True) if self._unknown_in(tokens)
        ]
        shown = [printable(x, _LONG) for x in unknown[:_SHOWN]]
        rest = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        return f": {', '.join(shown)}{rest}" if shown else ""

    def _cut(self, text: str, ends: Sequence[int]) -> tuple[list[int], list[int]]:
        """Returns the tokens after the video, and how many end by each character."""
        whole, shift = self._front + text, len(self._front)
        if not self._tokenizer.is_fast:
            ids = self._encode(whole)["input_ids"]
            places = [self._ended(ids, whole, shift + end) for end in ends]
        else:
            found = self._encode(whole, return_offsets_mapping=True)
            ids = found["input_ids"]
            last = [end for _, end in found["offset_mapping"]]
            while last and last[-1] == 0:  # Added after the text.
                last.pop()
            ids = ids[: len(last)]
            places = [
                next((k for k, at in enumerate(last) if at > shift + end), len(last))
                for end in ends
            ]
        skipped = self._skipped
        return ids[skipped:], [max(0, place - skipped) for place in places]

    def _ended(self, ids: Sequence[int], whole: str, end: int) -> int:
        """Returns how many tokens end by a character, without offsets.

        They are those of the longest prefix, up to that character, whose tokens are
        also the text's.
        """
        for stop in range(end, -1, -1):
            start = self._encode(whole[:stop])["input_ids"]
            if start == ids[: len(start)]:
                return len(start)
        return 0


def question_of(asked: Asked) -> str:
    """Returns the question with its options, each a line with its letter.

    The form `A. a red ball` is that of common evaluations of video models, such as
    Video-MME [1]; the paper's release omits options. Options that already have these
    letters (`A. `, `A) `, `A: `, `(A) `) are unchanged.

    Example:
      >>> asked = Asked(key="", question="What?", candidates=("a dog", "rain"))
      >>> print(question_of(asked))
      What?
      A. a dog
      B. rain

    [1] Fu et al., 2024. Video-MME. https://arxiv.org/abs/2405.21075
    """
    options = asked.candidates
    letters = [_letter(place) for place in range(len(options))]
    for form in ("{}. ", "{}) ", "{}: ", "({}) "):
        marks = map(form.format, letters)
        if all(o.startswith(mark) for o, mark in zip(options, marks, strict=True)):
            break
    else:
        options = [f"{a}. {o}" for a, o in zip(letters, options, strict=True)]
    return "\n".join([*filter(None, [asked.question]), *options])


def _letter(place: int) -> str:
    """Returns A, ..., Z, AA, AB, ..."""
    first, last = divmod(place, 26)
    return (_letter(first - 1) if first else "") + chr(ord("A") + last)


def begins(tokenizer: Tokenizer) -> bool:
    """Returns whether the tokenizer adds a BOS token to texts."""
    first = tokenizer("a")["input_ids"][:1]
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]


def end_token(tokenizer: Tokenizer, *texts: str) -> str | None:
    """Returns the first text that is an added token, else `eos_token` (may be None)."""
    special = tokenizer.get_added_vocab()
    named = [text for text in texts if text in special]
    return named[0] if named else tokenizer.eos_token
