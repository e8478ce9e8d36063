"""The text around a video, and its tokens.

The video precedes the question and the decoder is causal, so nothing that follows the
video can reach its rows. The first token behind it matters for one number only: the
release's sequence score averages over a row too many where the tokenizer puts no token
in front of a text (`rows.SEQUENCE_MEAN`); there the prompt's text has that token.
"""

import dataclasses
import warnings
from typing import Any

from vidsme_jax.base import Asked, AuditError, nearest
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models.interface import Options, Tokenise
from vidsme_jax.models.rows import Text

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
    """How a family writes its prompts.

    Attributes:
      system: The system turn.
      user: The user's turn, up to the question.
      turn: What stands between the question and the answer.
    """

    system: str
    user: str
    turn: str


VICUNA = Style("{} ", f"USER: {PLACEHOLDER}\n", " ASSISTANT:")
CHATML = Style(
    "<|im_start|>system\n{}<|im_end|>\n",
    f"<|im_start|>user\n{PLACEHOLDER}\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)


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


def around_video(
    options: Options,
    style: Style,
    problems: list[str],
    *,
    default: str = "",
    video_token: int | None = None,
) -> tuple[str, Tokenise]:
    """Returns the text around a video and `Model.tokenise`.

    Without a tokenizer the text is empty.

    Args:
      options: Which prompt, and the tokenizer.
      style: Of the family.
      problems: Receives what is wrong.
      default: The family's own system text, "" for none.
      video_token: The id that the model's config gives the placeholder. Original LLaVA
        checkpoints have none: the two sides are tokenised each by itself.
    """
    tokenizer = options.tokenizer
    if tokenizer is None:
        return "", lambda asked=None: Text(())
    text = text_of(options.prompt, style, default, problems)
    begins = _begins(tokenizer)
    if video_token is None:
        before, _, after = text.partition(PLACEHOLDER)
        prefix = tokenizer(before)["input_ids"] if before or begins else []
        behind = tokenizer(after)["input_ids"] if after else []
    else:
        ids, after = tokenizer(text)["input_ids"], text
        count = ids.count(video_token)
        if count != 1:
            found = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
            problems.append(
                f"tokenizer: the prompt {text!r} holds the video token {video_token} "
                f"{count} times, expected once (the tokenizer's <video> is {found})"
            )
            return text, lambda asked=None: Text(())
        place = ids.index(video_token)
        prefix, behind = ids[:place], ids[place + 1 :]
    prompt = Text(tuple(prefix), () if begins else tuple(behind[:1]))

    def tokenise(asked: Asked | None = None) -> Text:
        if asked is None:
            return prompt
        ids = tokenizer(after + asked.question + style.turn)["input_ids"]
        if video_token is not None:
            ids = ids[len(prefix) + 1 :]
        return _with_answer(tokenizer, asked, prompt.before, ids, video_token)

    return text, tokenise


def _with_answer(
    tokenizer: Any,
    asked: Asked,
    before: tuple[int, ...],
    after: list[int],
    video_token: int | None,
) -> Text:
    """Returns the text that is asked.

    Raises:
      AuditError: Its text cannot be tokenised.
    """
    if tokenizer.eos_token_id is None:
        problem = "the tokenizer has no token that ends an answer (eos_token)"
        raise AuditError([problem])
    answer = tokenizer(asked.answer, add_special_tokens=False)["input_ids"]
    problems = []
    if video_token in after + answer:
        problems.append("its text holds the video token")
    if tokenizer.unk_token_id in after + answer:
        problems.append("words that the tokenizer does not know")
    if problems:
        raise AuditError(problems)
    return Text(before, tuple(after), (*answer, tokenizer.eos_token_id))


def _begins(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a token in front of every text."""
    first = tokenizer("a")["input_ids"][:1]
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]


def read_tokenizer(checkpoint: Checkpoint, problems: list[str]) -> Any:
    """Returns the tokenizer of transformers, or None with a problem."""
    from transformers import AutoTokenizer, logging

    # It warns of each model that it has no class for, and of old keys in its config.
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    causes = []
    try:
        for folder in checkpoint.folders:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return AutoTokenizer.from_pretrained(
                        str(folder), local_files_only=True, trust_remote_code=False
                    )
            except Exception as error:  # Any kind: there is no usable tokenizer.
                cause = (str(error).strip() or "?").splitlines()[0]
                causes.append(f"{type(error).__name__}: {cause}")
    finally:
        logging.set_verbosity(before)
    problems.append(f"no usable tokenizer ({causes[0]})")
    return None
