"""What stands before the video in a prompt, and the first token behind it.

The video precedes the question and the decoder is causal, so nothing that follows the
video can reach its rows. The one text token behind it matters for one number only: the
release's sequence score averages over a row too many where the tokenizer puts no token
in front of a text (`Prompt.suffix`).
"""

import dataclasses
from typing import Any

from vidsme_jax.base import nearest

PLACEHOLDER = "<video>"  # `<image>`, as original LLaVA prompts have it, is as good.

_START = (
    "Carefully watch this video and pay attention to every detail. Based on your "
    "observations, "
)
# The system prompts of the paper's release, by name.
SYSTEM = {
    "mcq": _START + "select the best option that accurately addresses the question.",
    "caption": _START + "answer the given questions.",
}


@dataclasses.dataclass(frozen=True)
class Style:
    """How a family writes its prompts: the system turn, and the user's up to there."""

    system: str
    user: str


VICUNA = Style("{} ", f"USER: {PLACEHOLDER}\n")
CHATML = Style(
    "<|im_start|>system\n{}<|im_end|>\n", f"<|im_start|>user\n{PLACEHOLDER}\n"
)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt up to the video's end.

    Attributes:
      text: With one `PLACEHOLDER`; the question would follow.
      prefix: Token ids before the video.
      suffix: The first token id behind the video if the tokenizer puts no token in
        front of a text, else empty: the row that the release's sequence score adds.
    """

    text: str
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()


def text_of(name: str, style: Style, default: str, problems: list[str]) -> str:
    """Returns the text of a prompt, with one placeholder.

    Args:
      name: "family", a key of `SYSTEM`, or a text that holds the placeholder.
      style: Of the family.
      default: The family's own system text, "" for none.
      problems: Receives what is wrong.
    """
    if name in ("family", *SYSTEM):
        system = SYSTEM.get(name, default)
        return (style.system.format(system) if system else "") + style.user
    text = name.replace("<image>", PLACEHOLDER)
    count = text.count(PLACEHOLDER)
    if count != 1:
        known = ["family", *SYSTEM]
        problems.append(
            f"config.model.prompt is {name!r}: it must be one of {', '.join(known)}, "
            f"or a text that holds {PLACEHOLDER} once; found {count}"
            f"{nearest(name, known)}"
        )
        return PLACEHOLDER
    return text


def around_token(
    tokenizer: Any, text: str, video_token: int, problems: list[str]
) -> Prompt:
    """Splits a prompt whose placeholder is a token of the tokenizer.

    Args:
      tokenizer: Of the checkpoint.
      text: From `text_of`.
      video_token: The id that the model's config gives the placeholder.
      problems: Receives what is wrong.
    """
    ids = tokenizer(text)["input_ids"]
    count = ids.count(video_token)
    if count != 1:
        found = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        problems.append(
            f"tokenizer: the prompt {text!r} holds the video token {video_token} "
            f"{count} times, expected once (the tokenizer's <video> is {found})"
        )
        return Prompt(text)
    place = ids.index(video_token)
    suffix = () if _begins(tokenizer) else ids[place + 1 : place + 2]
    return Prompt(text, tuple(ids[:place]), tuple(suffix))


def around_text(tokenizer: Any, text: str) -> Prompt:
    """Splits a prompt in text form and tokenises its two sides each by itself.

    Original LLaVA checkpoints have no token for the video: what stands behind it begins
    a text of its own.

    Args:
      tokenizer: Of the checkpoint.
      text: From `text_of`.
    """
    before, _, after = text.partition(PLACEHOLDER)
    begins = _begins(tokenizer)
    behind = [] if begins or not after else tokenizer(after)["input_ids"][:1]
    prefix = tokenizer(before)["input_ids"] if before or begins else []
    return Prompt(text, tuple(prefix), tuple(behind))


def _begins(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a token in front of every text."""
    first = tokenizer("a")["input_ids"][:1]
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
