"""The text around a video: a prompt, and the places of question and answer in it.

The video precedes the question and the decoder is causal, so nothing that follows the
video affects its rows. The first token after it matters for one number only: the
release's sequence score averages over one row too many if the tokenizer adds no BOS
token (`rows.SEQUENCE_MEAN`); then the prompt's text includes that token.
"""

import dataclasses
import re

from vidsme_jax.base import Asked, AuditError
from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import MAX_SIZE
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import tokenizer_files
from vidsme_jax.models.interface import Options, Tokenise
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.models.tokenising import Framing, Template, Tokeniser, end_token
from vidsme_jax.models.tokenizer_files import Tokenizer
from vidsme_jax.wording import nearest

PLACEHOLDER = "<video>"  # Or `<image>`, as in original LLaVA prompts.
QUESTION, ANSWER = "{question}", "{answer}"

UNFRAMED = Framing()  # One placeholder for the rows of all frames.
_MOST_ENDS = 64  # The most tokens that may end an answer.
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
    """The format of a family's prompts.

    Attributes:
      system: The system turn.
      user: The user's turn, up to the question.
      turn: The text between the question and the answer; spaces at its end belong to
        the answer, because a word and the space before it are one token.
      end: The token that ends an answer in training.
      start: The text before the system turn; None: the BOS token, if there is one.
    """

    system: str
    user: str
    turn: str
    end: str
    start: str | None = ""


VICUNA = Style("{} ", f"USER: {PLACEHOLDER}\n", " ASSISTANT: ", "</s>")
CHATML = Style(
    "<|im_start|>system\n{}<|im_end|>\n",
    f"<|im_start|>user\n{PLACEHOLDER}\n",
    "<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|>",
)


def text_of(name: str, style: Style, default: str, problems: list[str]) -> str:
    """Returns the text of a prompt, with one placeholder of the video.

    Args:
      name: "family", a key of `SYSTEM`, or a text: see `template_of`.
      style: The family's style.
      default: The family's own system text, "" for none.
      problems: Receives problems.
    """
    if name in ("family", *SYSTEM):
        system = SYSTEM.get(name, default)
        turn = style.system.format(system) if system else ""
        return (style.start or "") + turn + style.user
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
    places = [text.find(part) for part in (PLACEHOLDER, QUESTION, ANSWER)]
    found = [place for place in places if place >= 0]
    again = [part for part in (QUESTION, ANSWER) if text.count(part) > 1]
    for part in dict.fromkeys(re.findall(r"\{\w+\}", text)):
        if part not in (QUESTION, ANSWER):
            problems.append(
                f"config.model.prompt is {name!r}: {part} is unknown; known: "
                f"{QUESTION}, {ANSWER}{nearest(part, (QUESTION, ANSWER))}"
            )
    if again or found != sorted(found):
        problems.append(
            f"config.model.prompt is {name!r}: {PLACEHOLDER}, {QUESTION} and {ANSWER} "
            "must be in this order, the last two at most once"
        )
        return PLACEHOLDER
    return text


def template_of(text: str, style: Style) -> Template:
    """Returns the parts of a prompt around its question and answer.

    `{question}` and `{answer}` mark their places. With neither, the question follows
    the text and the style's turn follows the question; with `{question}` alone, the
    style's turn follows the text; with `{answer}` alone, the text is every row's
    question. The first token after `{answer}` ends the answer; if there are only
    spaces, the style's end does.

    Example:
      >>> template_of("USER: <video>\\n", VICUNA)[1:5]
      ('\\n', True, ' ASSISTANT:', ' ')
      >>> template_of("<video>{question} It is {answer}.", VICUNA)[1:6]
      ('', True, ' It is', ' ', '.')
    """
    before, _, rest = text.partition(PLACEHOLDER)
    answered = ANSWER in rest or bool(style.turn)
    if ANSWER not in rest:
        rest += ("" if QUESTION in rest else QUESTION) + style.turn + ANSWER
    lead, _, end = rest.partition(ANSWER)
    body = lead.rstrip(" ")
    opening, asks, turn = body.partition(QUESTION)
    gap = lead[len(body) :]
    end = end if end.strip(" ") else ""
    return Template(before, opening, bool(asks), turn, gap, end, answered)


def around_video(
    options: Options,
    style: Style,
    problems: list[str],
    *,
    default: str = "",
    video_token: int | None = None,
    framing: Framing = UNFRAMED,
) -> tuple[str, Tokenise]:
    """Returns the text around a video and `Model.tokenise`.

    Without a tokenizer the text is empty except for `framing.typical`.

    Args:
      options: Which prompt, and the tokenizer.
      style: The family's style.
      problems: Receives problems.
      default: The family's own system text, "" for none.
      video_token: The placeholder's id in the model's config. Original LLaVA
        checkpoints have none: the two sides are tokenised separately.
      framing: The text that the family's processor writes for a video.
    """
    tokenizer = options.tokenizer

    def none(asked: Asked | None = None, shown: Shown | None = None) -> Text:
        return framing.untokenised(shown or Shown(1))

    if tokenizer is None:
        return "", none
    if style.start is None:
        style = dataclasses.replace(style, start=tokenizer.bos_token or "")
    text = text_of(options.prompt, style, default, problems)
    template, end = template_of(text, style), end_token(tokenizer, style.end)
    try:
        return text, Tokeniser(tokenizer, template, end, video_token, framing)
    except AuditError as error:
        problems += error.problems
        return text, none


def ends(
    checkpoint: Checkpoint, options: Options, style: Style, problems: list[str]
) -> tuple[int, ...]:
    """Returns `Model.ends`.

    Args:
      checkpoint: Only `eos_token_id` of its `generation_config.json` is read.
      options: Which prompt, and the tokenizer; without one there are no ends.
      style: The family's style.
      problems: Receives problems.
    """
    tokenizer = options.tokenizer
    if tokenizer is None:
        return ()
    name = "generation_config.json"
    found = (checkpoint.json(name) or {}).get("eos_token_id")
    listed = found if isinstance(found, list) else [] if found is None else [found]
    whole = all(type(token) is int and 0 <= token <= MAX_SIZE for token in listed)
    if not whole or len(listed) > _MOST_ENDS:
        problems.append(
            f"{name}: eos_token_id is {content.shown(found)}; expected a token's id, "
            f"or a list of at most {_MOST_ENDS}"
        )
        listed = []
    after = template_of(text_of(options.prompt, style, "", []), style).end
    special = tokenizer.get_added_vocab().values()
    ids = tokenizer_files.guarded(
        lambda: tokenizer(after, add_special_tokens=False)["input_ids"][:1]
    )
    if not set(ids) & set(special):
        end = end_token(tokenizer, style.end)
        ids = [] if end is None else [tokenizer.convert_tokens_to_ids(end)]
    return tuple(dict.fromkeys([*ids, *listed]))


def read_tokenizer(checkpoint: Checkpoint, problems: list[str]) -> Tokenizer | None:
    """Returns the checkpoint's tokenizer, or None and adds a problem."""
    causes = []
    for folder in checkpoint.folders:
        try:
            return tokenizer_files.read(folder)
        except AuditError as error:
            causes += error.problems
    problems.append(f"no usable tokenizer ({'; '.join(causes)})")
    return None
