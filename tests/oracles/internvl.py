"""Tiny random InternVL models of transformers, with their own processors."""

import json
import pathlib
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from oracles import randomise, texts

SIDE, PATCH = 56, 14  # Pixels along a side of what the tower takes, and of a patch.
ROWS = 4  # Of one frame: 4 x 4 patches in blocks of 2 x 2.
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
SENTENCES = (*texts.SENTENCES, "Frame1: \nFrame2: \nFrame10: \n")
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Renders what the published template renders.
_TEMPLATE = """
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\n' }}
{%- if turn.content is string -%}{{ turn.content }}
{%- else -%}
{%- for part in turn.content -%}
{{ '<video>\n' if part.type == 'video' else part.text }}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


def tokenizer() -> Any:
    """Returns a tokenizer as of Qwen2, with InternVL's special tokens."""
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(_QWEN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet)
    )
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values()]
    made.add_special_tokens(
        [tokenizers.AddedToken(x, special=True, normalized=False) for x in special]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=NAMED,
        model_input_names=["input_ids", "attention_mask"],
    )


TOKENIZER = tokenizer()
CONTEXT = TOKENIZER.convert_tokens_to_ids("<IMG_CONTEXT>")


def processor() -> Any:
    """Returns the class's own processor, of the tiny tower."""
    settings = {
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    return transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(**settings),
        tokenizer=TOKENIZER,
        video_processor=transformers.InternVLVideoProcessor(**settings),
        image_seq_length=ROWS,
        chat_template=_TEMPLATE,
    )


def make_model(
    decoder: str = "qwen2", *, tied: bool = False, seed: int = 0, **tower: Any
) -> Any:
    """Returns a model with scaled-up weights, random norms and random biases.

    Args:
      decoder: Its `model_type`.
      tied: Whether the output layer is the embedding.
      seed: Of the weights.
      **tower: More of the tower's config.
    """
    torch.manual_seed(seed)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}
    config = transformers.InternVLConfig(
        vision_config=dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=[SIDE, SIDE],
            patch_size=[PATCH, PATCH],
            attention_bias=True,
        )
        | tower,
        text_config=dict(
            model_type=decoder,
            vocab_size=len(TOKENIZER) + 3,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=12,
            max_position_embeddings=512,
            rope_parameters=rope,
            eos_token_id=TOKENIZER.eos_token_id,
        ),
        image_token_id=CONTEXT,
        image_seq_length=ROWS,
        tie_word_embeddings=tied,
    )
    model = transformers.InternVLForConditionalGeneration(config).eval()
    randomise(model)
    return model


def save(model: Any, folder: pathlib.Path) -> pathlib.Path:
    """Writes a checkpoint as transformers does it, with its processor."""
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def change(folder: pathlib.Path, name: str, **changes: Any) -> None:
    """Writes other values into a JSON file; a dictionary changes the one it meets."""
    raw = json.loads((folder / name).read_text())
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(raw.get(key), dict)
        raw[key] = raw[key] | value if both else value
    (folder / name).write_text(json.dumps(raw))


def logits(model: Any, ids, pixels) -> torch.Tensor:
    """Runs the torch model on the ids of a sequence and `pixels` (frames, 3, H, W)."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)]), pixel_values=pixels).logits[0]
