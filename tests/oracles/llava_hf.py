"""Tiny random Video-LLaVA and LLaVA-NeXT-Video-32K models with their processors."""

import pathlib
from typing import Any

import torch
import transformers

from oracles import randomise, texts

SIDE = 56
_CLIP = dict(
    model_type="clip_vision_model",
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=SIDE,
    patch_size=14,
    projection_dim=16,
)
_TEXT = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    pad_token_id=0,
)
# As Vicuna's, with the video where it stands in the turn.
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
# "[INST] <video>\n... [/INST] ...</s> "
_MISTRAL = """
{%- for turn in messages -%}
{%- if turn.role == 'system' -%}
{{ '<<SYS>>\n' + turn.content[0].text + '\n<</SYS>>\n\n' }}
{%- elif turn.role == 'user' -%}
{{ '[INST] ' }}
{%- for part in turn.content if part.type == 'video' -%}{{ '<video>\n' }}{%- endfor -%}
{%- for part in turn.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{{ ' [/INST]' }}
{%- else -%}{{ ' ' + turn.content[0].text + '</s> ' }}
{%- endif -%}
{%- endfor -%}
"""
NAMES = ("video_llava", "llava_next_video-32k")


def make_processor(name: str) -> Any:
    """Returns the processor of the family, with a tokenizer as of Llama."""
    sizes = dict(size={"shortest_edge": SIDE})
    sizes |= dict(crop_size={"height": SIDE, "width": SIDE})
    tokenizer = texts.llama()
    if name == "video_llava":
        return transformers.VideoLlavaProcessor(
            image_processor=transformers.CLIPImageProcessorPil(**sizes),
            video_processor=transformers.VideoLlavaVideoProcessor(**sizes),
            tokenizer=tokenizer,
            patch_size=14,
            chat_template=_VICUNA,
        )
    return transformers.LlavaNextVideoProcessor(
        video_processor=transformers.LlavaNextVideoVideoProcessor(**sizes),
        image_processor=transformers.LlavaNextImageProcessorPil(**sizes),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=_MISTRAL,
    )


def make_model(name: str, tokenizer: Any, positions: int = 512) -> torch.nn.Module:
    """Returns a model with scaled-up weights, random norms and random biases."""
    torch.manual_seed(0)
    video, image = tokenizer.convert_tokens_to_ids(["<video>", "<image>"])
    text = _TEXT | dict(vocab_size=len(tokenizer), max_position_embeddings=positions)
    others = dict(video_token_index=video, image_token_index=image)
    if name == "video_llava":
        text |= dict(model_type="llama")
        config = transformers.VideoLlavaConfig(
            vision_config=_CLIP, text_config=text, **others
        )
        model = transformers.VideoLlavaForConditionalGeneration(config).eval()
    else:
        rope = {"rope_type": "default", "rope_theta": 1e6}
        text |= dict(model_type="mistral", sliding_window=None, rope_parameters=rope)
        config = transformers.LlavaNextVideoConfig(
            vision_config=_CLIP, text_config=text, **others
        )
        model = transformers.LlavaNextVideoForConditionalGeneration(config).eval()
    randomise(model)
    return model


def save(model: torch.nn.Module, processor: Any, folder: pathlib.Path) -> str:
    """Writes a checkpoint as transformers does."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def logits(model: torch.nn.Module, ids, pixels) -> torch.Tensor:
    """Runs the torch model on ids and normalised frames; all rows."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), pixel_values_videos=pixels)
    return out.logits[0]
