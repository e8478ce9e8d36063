"""The LLaVA families as torch modules, put together from the parts of transformers.

One class serves all of them, as `vidsme_jax.models.llava` does; the weights are those
of a JAX model, carried over by name.
"""

import contextlib
from collections.abc import Collection, Iterator

import jax
import numpy as np
import torch
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vidsme_jax.checkpoints import writing
from vidsme_jax.models import layers
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.llava import params
from vidsme_jax.models.llava.modeling import LlavaConfig

_PATTERNS = params.Patterns(
    tower=r"tower\.",
    projector=(r"projector\.0", r"projector\.2"),
    decoder=r"llm\.model\.",
    head=r"llm\.lm_head",
    newline="newline",
)


class TorchLlava(nn.Module):
    """Vision tower up to the layer that is used, projector, pooling, decoder, head."""

    def __init__(self, config: LlavaConfig, attention: str):
        super().__init__()
        self.config = config
        v, t = config.vision, config.text
        sizes = dict(
            hidden_size=v.hidden_size,
            intermediate_size=v.intermediate_size,
            num_hidden_layers=config.vision_depth,
            num_attention_heads=v.num_attention_heads,
            image_size=v.image_size,
            patch_size=v.patch_size,
            layer_norm_eps=v.layer_norm_eps,
            attn_implementation=attention,
        )
        if v.kind == "clip":
            tower = transformers.CLIPVisionModel(
                transformers.CLIPVisionConfig(hidden_act="quick_gelu", **sizes)
            )
        else:
            tower = transformers.SiglipVisionModel(
                transformers.SiglipVisionConfig(
                    hidden_act="gelu_pytorch_tanh", vision_use_head=False, **sizes
                )
            )
        self.tower = getattr(tower, "vision_model", tower)
        self.projector = nn.Sequential(
            nn.Linear(v.hidden_size, t.hidden_size),
            nn.GELU(),
            nn.Linear(t.hidden_size, t.hidden_size),
        )
        if config.newline != "none":
            self.newline = nn.Parameter(torch.zeros(t.hidden_size))
        linear = t.rope_factor != 1.0
        rope = {"rope_type": "linear" if linear else "default"}
        rope |= {"rope_theta": t.rope_theta} | (
            {"factor": t.rope_factor} if linear else {}
        )
        text = dict(
            hidden_size=t.hidden_size,
            intermediate_size=t.intermediate_size,
            num_hidden_layers=t.num_hidden_layers,
            num_attention_heads=t.num_attention_heads,
            num_key_value_heads=t.num_key_value_heads,
            head_dim=t.head_dim,
            vocab_size=t.vocab_size,
            rms_norm_eps=t.rms_norm_eps,
            max_position_embeddings=t.max_positions,
            tie_word_embeddings=t.tie_word_embeddings,
            rope_parameters=rope,
            attn_implementation=attention,
        )
        if t.attention_bias:
            self.llm = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**text))
        else:
            self.llm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**text))
        mean, std = (
            torch.tensor(x, dtype=torch.float32).view(1, 3, 1, 1)
            for x in (config.image_mean, config.image_std)
        )
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.projector[0].weight.device

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (frames, height, width, 3) in uint8 to rows (frames, rows, embed)."""
        c = self.config
        pixels = (frames.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        pixels = pixels.to(self.projector[0].weight.dtype)
        x = self.tower(pixels, output_hidden_states=True).hidden_states[-1]
        if c.vision.kind == "clip":
            x = x[:, 1:]
        if not c.pool_first:
            x = self.projector(x)
        x = x.transpose(1, 2).unflatten(2, (c.vision.grid, c.vision.grid))
        if c.pool == "average":
            x = nn.functional.avg_pool2d(x, c.pool_stride)
        else:
            size = (c.side, c.side)
            x = nn.functional.interpolate(x, size=size, mode="bilinear")
        x = x.permute(0, 2, 3, 1)
        if c.pool_first:
            x = self.projector(x)
        if c.newline == "row":
            x = torch.cat([x, self.newline.expand(*x.shape[:2], 1, -1)], dim=2)
        x = x.flatten(1, 2)
        if c.newline == "frame":
            x = torch.cat([x, self.newline.expand(len(x), 1, -1)], dim=1)
        return x

    def prompt(self, video: torch.Tensor, before, after) -> torch.Tensor:
        """Puts text ids around the rows of clips (clips, rows, embed)."""
        parts = [self._text(before, len(video)), video]
        if self.config.newline == "video":
            parts.append(self.newline.expand(len(video), 1, -1))
        return torch.cat([*parts, self._text(after, len(video))], dim=1)

    def _text(self, ids, clips: int) -> torch.Tensor:
        tokens = torch.tensor(ids, dtype=torch.long, device=self.device)
        return self.llm.get_input_embeddings()(tokens).expand(clips, -1, -1)


@contextlib.contextmanager
def fast_attention(ours: Collection[str]) -> Iterator[None]:
    """Lets SDPA take fused kernels only, where our side runs cuDNN's.

    Without a mask a decoder's keys are not repeated (`enable_gqa`), and flash attention
    and cuDNN take them so. Elsewhere torch chooses as it likes.

    Args:
      ours: The kernels of our side; see `models.attention.kernel`.

    Raises:
      RuntimeError: From SDPA, where no fused kernel takes the shapes.
    """
    if set(ours) != {"cudnn"}:
        yield
        return
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]):
        yield


def carry(model: LoadedModel, config: LlavaConfig, attention: str) -> TorchLlava:
    """Returns a torch model with the weights of a JAX model, on a GPU if there is one.

    Args:
      model: On one device.
      config: Its hyperparameters.
      attention: "sdpa" or "eager".

    Raises:
      ValueError: A weight has no place, or a place no weight.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, model.model.dtype)
    with _defaults(dtype), torch.device(device):
        module = TorchLlava(config, attention).eval()
    names = params.names(config, _PATTERNS, canonical=str)
    arrays = writing.named(layers.stacked(model.state), names)
    tensors = {name: _tensor(array) for name, array in arrays.items()}
    missing, surplus = module.load_state_dict(tensors, strict=False)
    tied = {"llm.lm_head.weight"} if config.text.tie_word_embeddings else set()
    missing = [m for m in missing if "post_layernorm" not in m and m not in tied]
    if missing or surplus:
        raise ValueError(f"not carried over: missing {missing}, surplus {surplus}")
    return module


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == jax.numpy.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@contextlib.contextmanager
def _defaults(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
