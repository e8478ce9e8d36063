"""Tiny random LLaVA-NeXT-Video models of transformers, in every name dialect."""

import json
import pathlib
import re

import torch
import transformers
from safetensors.torch import save_file

from oracles import randomise

VIDEO_TOKEN = 120


def make_model(
    *, heads: int = 4, kv_heads: int = 2, linear_rope: bool = True, seed: int = 0
) -> transformers.LlavaNextVideoForConditionalGeneration:
    """Returns a model with scaled-up weights, random norms and random biases."""
    torch.manual_seed(seed)
    rope = {"rope_type": "linear", "factor": 2.5, "rope_theta": 1e4}
    if not linear_rope:
        rope = {"rope_type": "default", "rope_theta": 5e6}
    config = transformers.LlavaNextVideoConfig(
        vision_config=dict(
            model_type="clip_vision_model",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=56,
            patch_size=14,
            projection_dim=16,
        ),
        text_config=dict(
            model_type="llama",
            vocab_size=128,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            pad_token_id=0,
            rope_parameters=rope,
        ),
        video_token_index=VIDEO_TOKEN,
        image_token_index=121,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        spatial_pool_mode="average",
        spatial_pool_stride=2,
    )
    model = transformers.LlavaNextVideoForConditionalGeneration(config).eval()
    randomise(model)
    return model


def tensors(model: torch.nn.Module, dialect: str) -> dict[str, torch.Tensor]:
    """Returns the parameters under the names of dialect "A", "B" or "C"."""
    out = {}
    for name, parameter in model.named_parameters():
        if dialect != "B":
            name = re.sub(r"^model\.language_model\.", "language_model.model.", name)
            name = re.sub(r"^lm_head", "language_model.lm_head", name)
            name = re.sub(r"^model\.", "", name)
        if dialect == "A":
            name = name.replace("vision_tower.", "vision_tower.vision_model.")
        out[name] = parameter.detach().clone().contiguous()
    return out


def save(
    model: torch.nn.Module, folder: pathlib.Path, dialect: str = "A", shards: int = 1
) -> pathlib.Path:
    """Writes config and weights, in one file or several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(model.config.to_json_string())
    named = tensors(model, dialect)
    if shards == 1:
        save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    index = {}
    for k in range(shards):
        file = f"model-{k + 1:05}-of-{shards:05}.safetensors"
        part = {n: t for i, (n, t) in enumerate(named.items()) if i % shards == k}
        save_file(part, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


def save_complete(model: torch.nn.Module, folder: pathlib.Path) -> pathlib.Path:
    """Writes a checkpoint with a tokenizer, whose `<video>` the config then names."""
    from vidsme_jax.demo import drawing

    model.config.video_token_index = drawing.TOKENS.index("<video>")
    drawing.tokenizer_files(save(model, folder))
    return folder


def logits(model: torch.nn.Module, before, pixels, after) -> torch.Tensor:
    """Runs the torch model on ids, `pixels` (frames, 3, H, W), and ids."""
    rows = pixels.shape[0] * 4
    video = model.config.video_token_index
    ids = torch.tensor([[*before, *[video] * rows, *after]])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values_videos=pixels[None]).logits[0]
