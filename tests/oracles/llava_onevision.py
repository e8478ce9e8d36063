"""Tiny random LLaVA-OneVision models of transformers."""

import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

from oracles import llava_next_video, randomise
from vidsme_jax.demo import drawing

VIDEO_TOKEN = drawing.TOKENS.index("<video>")


def make_model(*, kv_heads: int = 2, tied: bool = False, seed: int = 0):
    """Returns a model with scaled-up weights, random norms and random biases."""
    torch.manual_seed(seed)
    config = transformers.LlavaOnevisionConfig(
        vision_config=dict(
            model_type="siglip_vision_model",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=70,
            patch_size=14,
            vision_use_head=False,
        ),
        text_config=dict(
            model_type="qwen2",
            vocab_size=128,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=tied,
        ),
        video_token_index=VIDEO_TOKEN,
        image_token_index=127,
        tie_word_embeddings=tied,
    )
    model = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
    randomise(model)
    return model


def save(model, folder: pathlib.Path, dialect: str = "A") -> pathlib.Path:
    """Writes a checkpoint with tokenizer and preprocessing, as published."""
    drawing.tokenizer_files(folder, chat=True)
    raw = json.loads(model.config.to_json_string())
    (folder / "config.json").write_text(json.dumps(raw))
    named = llava_next_video.tensors(model, dialect)
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    image = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_grid_pinpoints": [[70, 70]],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": 70, "width": 70},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    return folder


def logits(model, before, pixels, after) -> torch.Tensor:
    """Runs the torch model on ids, `pixels` (frames, 3, H, W), and ids."""
    rows = pixels.shape[0] * 9 + 1
    ids = torch.tensor([[*before, *[VIDEO_TOKEN] * rows, *after]])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values_videos=pixels[None]).logits[0]
