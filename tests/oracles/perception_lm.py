"""Tiny random PerceptionLM models of transformers, with timm's tower."""

import json
import pathlib
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from oracles import randomise
from oracles.texts import SENTENCES

SIDE, PATCH = 56, 14  # Pixels along a side of what the tower takes, and of a patch.
ROWS = 4  # Of one frame: 4 x 4 patches in blocks of 2 x 2.
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the "
    "visual content that the user provides, and assist the user with a variety of "
    "tasks using natural language."
)
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|image|>", "<|video|>"]
SPECIAL += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
# As Llama 3 divides a text.
_LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Renders what the checkpoints' template renders.
_TEMPLATE = """
{%- set start, end = '<|start_header_id|>', '<|end_header_id|>\n\n' -%}
{{ bos_token }}
{%- if messages[0].role != 'system' -%}
{{ start + 'system' + end + SYSTEM + '<|eot_id|>' }}
{%- endif -%}
{%- for turn in messages -%}
{{ start + turn.role + end }}
{%- if turn.content is string -%}{{ turn.content | trim }}
{%- else -%}
{%- for part in turn.content if part.type == 'video' -%}{{ '<|video|>' }}{%- endfor -%}
{%- for part in turn.content if part.type == 'text' -%}
{{ part.text | trim }}
{%- endfor -%}
{%- endif -%}
{{ '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ start + 'assistant' + end }}{%- endif -%}
""".replace("SYSTEM", repr(SYSTEM))


def tokenizer(adds: bool = True) -> Any:
    """Returns a tokenizer as of Llama 3, with PerceptionLM's special tokens.

    Args:
      adds: The first of them in front of every text, as the published one does.
    """
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(_LLAMA), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        (*SENTENCES, SYSTEM),
        trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet),
    )
    made.add_special_tokens(
        [tokenizers.AddedToken(x, special=True, normalized=False) for x in SPECIAL]
    )
    first = SPECIAL[0]
    begins = processors.TemplateProcessing(
        single=f"{first} $A",
        pair=f"{first}:0 $A:0 {first}:1 $B:1",
        special_tokens=[(first, made.token_to_id(first))],
    )
    level = processors.ByteLevel(trim_offsets=False)
    made.post_processor = processors.Sequence([level, begins] if adds else [level])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=first,
        eos_token="<|eot_id|>",
        model_input_names=["input_ids", "attention_mask"],
        extra_special_tokens={
            "image_token": "<|image|>",
            "video_token": "<|video|>",
            "pad_token": "<|end_of_text|>",
        },
    )


def processor(adds: bool = True) -> Any:
    """Returns the class's own processor, of the tiny tower; see `tokenizer`."""
    return transformers.PerceptionLMProcessor(
        video_processor=transformers.PerceptionLMVideoProcessor(
            size={"height": SIDE, "width": SIDE}
        ),
        image_processor=transformers.PerceptionLMImageProcessor(tile_size=SIDE),
        tokenizer=tokenizer(adds),
        patch_size=PATCH,
        pooling_ratio=2,
        chat_template=_TEMPLATE,
    )


def make_model(
    *,
    class_token: bool = True,
    kv_heads: int = 2,
    tied: bool = False,
    scaled: bool = True,
    seed: int = 0,
    **args: Any,
) -> Any:
    """Returns a model with scaled-up weights, random norms and random biases.

    Args:
      class_token: Whether the tower is one of 1B and 3B, or of 8B.
      kv_heads: Of the decoder's 4 heads.
      tied: Whether the output layer is the embedding.
      scaled: Whether positions are scaled as Llama 3's.
      seed: Of the weights.
      **args: More of timm's arguments.
    """
    torch.manual_seed(seed)
    words = tokenizer()
    large = "vit_pe_core_large_patch14_336"
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 5e5}
    if scaled:
        rope = {
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    tower: dict[str, Any] = {
        "depth": 2,
        "embed_dim": 32,
        "global_pool": "",
        "img_size": (SIDE, SIDE),
        "init_values": 0.1,
        "num_heads": 4,
        "ref_feat_shape": (SIDE // PATCH, SIDE // PATCH),
        "use_post_transformer_norm": False,
    }
    config = transformers.PerceptionLMConfig(
        vision_config=dict(
            model_type="timm_wrapper",
            architecture=large if class_token else "vit_pe_core_gigantic_patch14_448",
            model_args=tower | args,
        ),
        text_config=dict(
            model_type="llama",
            vocab_size=len(words),
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            max_position_embeddings=512,
            rope_parameters=rope,
            tie_word_embeddings=tied,
        ),
        vision_use_cls_token=class_token,
        projector_pooling_ratio=2,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        tie_word_embeddings=tied,
    )
    model = transformers.PerceptionLMForConditionalGeneration(config).eval()
    randomise(model)
    model.generation_config.eos_token_id = words.convert_tokens_to_ids(
        ["<|end_of_text|>", "<|eot_id|>"]
    )
    return model


def save(model: Any, folder: pathlib.Path) -> pathlib.Path:
    """Writes a checkpoint as transformers does it, with its processor."""
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def change(folder: pathlib.Path, name: str, **changes: Any) -> None:
    """Writes other values into a JSON file; a dictionary changes the one it meets."""
    raw = json.loads((folder / name).read_text())
    _merge(raw, changes)
    (folder / name).write_text(json.dumps(raw))


def _merge(raw: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(raw.get(key), dict):
            _merge(raw[key], value)
        else:
            raw[key] = value


def logits(model: Any, before, pixels, after) -> torch.Tensor:
    """Runs the torch model on ids, `pixels` (frames, 3, H, W), and ids."""
    rows = [model.config.video_token_id] * (len(pixels) * ROWS)
    ids = torch.tensor([[*before, *rows, *after]])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values_videos=pixels[None]).logits[0]
