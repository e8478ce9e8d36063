"""Prompts of LLaVA-NeXT-Video, and the token ids before the video."""

from typing import Any

from vidsme_jax.models.prompts import SYSTEM

# What stands before the video. 7B is a Vicuna, 34B speaks ChatML.
_VICUNA = "{system}USER: <video>\n"
_CHATML = "{system}<|im_start|>user\n<video>\n"


def prompt_text(tokenizer: Any, name: str) -> str:
    """Returns the text up to the video's end; the question would follow.

    Args:
      tokenizer: Of the checkpoint; one that knows <|im_start|> gets ChatML.
      name: "family" for no system text, else a key of `prompts.SYSTEM`.
    """
    chatml = "<|im_start|>" in tokenizer.get_vocab()
    if name == "family":
        system = ""
    elif chatml:
        system = f"<|im_start|>system\n{SYSTEM[name]}<|im_end|>\n"
    else:
        system = f"{SYSTEM[name]} "
    return (_CHATML if chatml else _VICUNA).format(system=system)


def prefix_ids(
    tokenizer: Any, text: str, video_token: int, problems: list[str]
) -> tuple[int, ...]:
    """Returns the ids before the one `<video>` placeholder of a prompt.

    Args:
      tokenizer: Of the checkpoint.
      text: A prompt.
      video_token: The id that the model's config gives the placeholder.
      problems: Receives what is wrong.
    """
    ids = tokenizer(text)["input_ids"]
    count = ids.count(video_token)
    if count != 1:
        found = tokenizer.convert_tokens_to_ids("<video>")
        problems.append(
            f"tokenizer: the prompt {text!r} holds the video token {video_token} "
            f"{count} times, expected once (the tokenizer's <video> is {found})"
        )
        return ()
    return tuple(ids[: ids.index(video_token)])
