"""Tiny random models in the original llava_qwen format, of transformers' parts.

"longva" has a CLIP tower, "llava_video" a SigLIP tower and learnt newlines. There is no
class of transformers for them: the two dozen lines between tower and decoder are
written here once more, in torch.
"""

import json
import math
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from oracles import randomise
from vidsme_jax.demo import drawing

TOWER = "model.vision_tower.vision_tower.vision_model."
PADDED = 40  # Rows of the vocabulary that the tokenizer does not know.
DEPTH = 3  # Layers of the tower's own repository.


class LlavaQwen(nn.Module):
    """Tower, projector, pooling, newlines, Qwen2."""

    def __init__(self, kind: str, kv_heads: int, newline: str, vocabulary: int):
        super().__init__()
        self.kind, self.newline = kind, newline
        sizes = dict(hidden_size=32, intermediate_size=64, patch_size=14)
        sizes |= dict(num_hidden_layers=DEPTH, num_attention_heads=4)
        if kind == "longva":
            config = transformers.CLIPVisionConfig(image_size=56, **sizes)
            self.tower = transformers.CLIPVisionModel(config)
        else:
            config = transformers.SiglipVisionConfig(
                image_size=70, vision_use_head=False, **sizes
            )
            self.tower = transformers.SiglipVisionModel(config)
        self.mm_projector = nn.Sequential(
            nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 48)
        )
        self.image_newline = nn.Parameter(torch.randn(48))
        self.decoder = transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(
                vocab_size=vocabulary,
                hidden_size=48,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=kv_heads,
                max_position_embeddings=512,
                rope_parameters={"rope_type": "default", "rope_theta": 1e9},
                tie_word_embeddings=False,
            )
        )

    def rows(self, pixels: torch.Tensor) -> torch.Tensor:
        """Frames (F, 3, H, W) to video rows."""
        hidden = self.tower(pixels, output_hidden_states=True).hidden_states
        # SigLIP's last layer is cut off by the original loader.
        features = hidden[-2][:, 1:] if self.kind == "longva" else hidden[-2]
        features = self.mm_projector(features)
        frames, patches, size = features.shape
        side = math.isqrt(patches)
        grid = features.transpose(1, 2).reshape(frames, size, side, side)
        if self.kind == "longva":
            return (
                nn.functional.avg_pool2d(grid, 2).permute(0, 2, 3, 1).reshape(-1, size)
            )
        to = math.ceil(side / 2)
        grid = nn.functional.interpolate(grid, size=(to, to), mode="bilinear")
        grid = grid.permute(0, 2, 3, 1)
        if self.newline == "grid":
            end = self.image_newline.expand(frames, to, 1, size)
            return torch.cat([grid, end], 2).reshape(-1, size)
        rows = grid.reshape(frames, -1, size)
        if self.newline == "frame":
            end = self.image_newline.expand(frames, 1, size)
            return torch.cat([rows, end], 1).reshape(-1, size)
        rows = rows.reshape(-1, size)
        if self.newline == "one_token":
            rows = torch.cat([rows, self.image_newline[None]])
        return rows

    def forward(self, before, pixels, after) -> torch.Tensor:
        """Ids, frames, ids to logits, as the loader leaves the vocabulary."""
        embed = self.decoder.get_input_embeddings()
        known = len(drawing.TOKENS) + 2
        parts = [embed(torch.tensor(before)), self.rows(pixels)]
        parts.append(embed(torch.tensor(after)))
        with torch.no_grad():
            return self.decoder(inputs_embeds=torch.cat(parts)[None]).logits[
                0, :, :known
            ]


def make_model(
    kind: str = "longva", *, kv_heads: int = 2, newline: str = "grid", seed: int = 0
) -> LlavaQwen:
    """Returns a model with scaled-up weights, random norms and random biases."""
    torch.manual_seed(seed)
    vocabulary = len(drawing.TOKENS) + 2 + PADDED
    model = LlavaQwen(kind, kv_heads, newline, vocabulary).eval()
    randomise(model)
    return model


def raw_config(model: LlavaQwen) -> dict:
    """The `config.json` as the original code writes it, with what training leaves."""
    text = model.decoder.config
    raw = {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "hidden_act": "silu",
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "max_position_embeddings": 512,
        "max_window_layers": 28,
        "mm_hidden_size": 32,
        "mm_patch_merge_type": "unires",
        "mm_projector_type": "mlp2x_gelu",
        "mm_projector_lr": None,
        "mm_resampler_type": None,
        "mm_spatial_pool_mode": "average",
        "mm_spatial_pool_stride": 2,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "./tower",
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "num_key_value_heads": text.num_key_value_heads,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": 1e9,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 32768,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float32",
        "use_mm_proj": True,
        "use_sliding_window": False,
        "vocab_size": text.vocab_size,
    }
    if model.kind == "llava_video":
        raw |= {
            "add_faster_video": False,
            "add_time_instruction": True,
            "force_sample": True,
            "image_aspect_ratio": "anyres_max_9",
            "mm_newline_position": model.newline,
            "mm_patch_merge_type": "spatial_unpad",
            "mm_spatial_pool_mode": "bilinear",
        }
    return raw


def tensors(model: LlavaQwen) -> dict[str, torch.Tensor]:
    """The names on disk; SigLIP's last layer and LongVA's newline are not there."""
    named = dict(model.decoder.state_dict())
    for name, value in model.tower.state_dict().items():
        if model.kind == "longva" or f"layers.{DEPTH - 1}." not in name:
            named[TOWER + name] = value
    for name, value in model.mm_projector.state_dict().items():
        named[f"model.mm_projector.{name}"] = value
    if model.kind == "llava_video":
        named["model.image_newline"] = model.image_newline
    return {name: x.detach().clone().contiguous() for name, x in named.items()}


def tower_files(model: LlavaQwen, folder: pathlib.Path, weights: bool = False) -> None:
    """Writes the tower's own repository."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(model.tower.config.to_json_string())
    if weights:
        named = {f"vision_model.{k}": v for k, v in model.tower.state_dict().items()}
        named |= {"logit_scale": torch.ones(()), "text_model.x": torch.ones(3)}
        save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


def save(model: LlavaQwen, folder: pathlib.Path, **changes) -> pathlib.Path:
    """Writes a checkpoint with tokenizer and, beside it, the tower's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    drawing.tokenizer_files(folder, chat=True)
    (folder / "config.json").write_text(json.dumps(raw_config(model) | changes))
    save_file(tensors(model), folder / "model.safetensors", metadata={"format": "pt"})
    tower_files(model, folder / "tower")
    return folder
