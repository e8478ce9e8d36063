"""Tokenizers of transformers as published checkpoints have them, tiny.

Their merges are learnt from a few sentences; normalizers, pre-tokenizers, special
tokens and what stands in front of a text are those of Llama, Yi and Qwen2. The chat
templates render what those of the checkpoints render.
"""

import json
from typing import Any

import tokenizers
import transformers
from tokenizers import (
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SENTENCES = (
    "USER: what happens in this video? ASSISTANT: a red ball rolls down the stairs.",
    "system\nuser\nassistant\nYou are a helpful assistant.\n\n",
    "Carefully watch this video and pay attention to every detail. Based on your "
    "observations, select the best option that accurately addresses the question.\n\n",
    "A. a dog runs\nB. it rains\nC. the street is größer\n\n\nAnswer with the letter.",
)
# As Qwen2 divides a text.
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VIDEO = {"type": "video"}
# "USER: <video>\n... ASSISTANT: ... "
_VICUNA = """
{%- for turn in messages -%}
{%- if turn.role != 'system' -%}{{ turn.role.upper() + ': ' }}{%- endif -%}
{%- for part in turn.content if part.type == 'video' -%}{{ '<video>\n' }}{%- endfor -%}
{%- for part in turn.content if part.type == 'text' -%}
{{ part.text + ' ' }}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""
# "<|im_start|>user\n<video>\n...<|im_end|>\n<|im_start|>assistant\n...<|im_end|>\n"
_CHATML = """
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\n' }}
{%- for part in turn.content if part.type == 'video' -%}{{ '<video>\n' }}{%- endfor -%}
{%- for part in turn.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


def llama(*, begins: bool = True, chat: bool = False) -> Any:
    """Returns a tokenizer as of Vicuna, or with `chat` as of Nous-Hermes-2-Yi."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    special = ["<unk>", "<s>", "</s>"]
    trained.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(special_tokens=[*special, *bytes_], vocab_size=700),
    )
    learnt = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    made = tokenizers.Tokenizer(
        models.BPE(
            learnt["vocab"],
            merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    return _wrapped(made, special, chat, bos_token="<s>", unk_token="<unk>")


def qwen(*, eos: str = "<|im_end|>") -> Any:
    """Returns a tokenizer as of Qwen2."""
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet)
    )
    return _wrapped(made, ["<|endoftext|>"], True, eos_token=eos)


def _wrapped(made, special: list[str], chat: bool, **named) -> Any:
    """Returns the tokenizer of transformers, with the tokens of image and video."""
    special = special + ["<|im_start|>", "<|im_end|>"] * chat + ["<video>", "<image>"]
    made.add_special_tokens(
        [tokenizers.AddedToken(x, special=True, normalized=False) for x in special]
    )
    named.setdefault("eos_token", "<|im_end|>" if chat else "</s>")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
        **named,
    )


def conversation(system: str, question: str, answer: str | None) -> list[dict]:
    """Returns the turns about one video."""
    turns = [("user", [VIDEO, {"type": "text", "text": question}])]
    if system:
        turns.insert(0, ("system", [{"type": "text", "text": system}]))
    if answer is not None:
        turns.append(("assistant", [{"type": "text", "text": answer}]))
    return [{"role": role, "content": content} for role, content in turns]


def ids_around(tokenizer: Any, turns: list[dict]) -> tuple[list[int], list[int]]:
    """Returns the tokens that a processor puts before and behind a video.

    The processors of both families render the template, repeat the video's token once
    a visual row and tokenise the result as one text.
    """
    chatml = "<|im_start|>" in tokenizer.get_vocab()
    text = tokenizer.apply_chat_template(
        turns,
        chat_template=_CHATML if chatml else _VICUNA,
        add_generation_prompt=turns[-1]["role"] == "user",
        tokenize=False,
    )
    ids = tokenizer(text.replace("<video>", "<video>" * 8)).input_ids
    token = tokenizer.convert_tokens_to_ids("<video>")
    first = ids.index(token)
    assert ids[first : first + 8] == [token] * 8
    return ids[:first], ids[first + 8 :]


def original(tokenizer: Any, prompt: str) -> tuple[list[int], list[int]]:
    """Returns the tokens that original LLaVA code puts before and behind a video.

    It tokenises both sides of the placeholder by themselves and leaves out the token
    that the tokenizer puts in front of the second.
    """
    before, behind = (tokenizer(part).input_ids for part in prompt.split("<image>"))
    if before[:1] == [tokenizer.bos_token_id]:
        assert behind[0] == tokenizer.bos_token_id
        behind = behind[1:]
    return before, behind
