"""Models of every family in torch, on the weights of a JAX model.

The LLaVA families are put together from the parts of transformers: one class serves all
of them, as `vidsme_jax.models.llava_hf` does. The others are transformers' own classes,
taken apart: another family is a line of `PEERS`.
"""

import contextlib
import functools
import importlib.metadata
import re
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import transformers
from flax import nnx
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vidsme_jax.checkpoints import writing
from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.models import layers, random
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.llava_hf import tensors
from vidsme_jax.models.llava_hf.modeling import LlavaConfig
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.models.video_llama_3 import params as video_llama_3

# PyPI's torchvision is built for a torch with CUDA: beside one without it, its import,
# which is transformers', fails for operators that are neither declared nor called.
with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    _local = "+" in importlib.metadata.version("torchvision")
    _declared = hasattr(torch.ops.torchvision, "nms")
    if torch.version.cuda is None and not _local and not _declared:
        _OPERATORS = torch.library.Library("torchvision", "DEF")
        for _name in ("nms", "qnms"):
            _OPERATORS.define(
                f"{_name}(Tensor boxes, Tensor scores, float most) -> Tensor"
            )

_PATTERNS = tensors.Patterns(
    tower=r"tower\.",
    projector=(r"projector\.0", r"projector\.2"),
    decoder=r"llm\.model\.",
    head=r"llm\.lm_head",
    newline="newline",
)


class Video(NamedTuple):
    """What a tower gives of clips.

    Attributes:
      shown: Of each clip.
      rows: (clips, groups of frames, rows, embed).
      deep: What is added to these rows behind the decoder's first layers.
    """

    shown: Shown
    rows: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()


class TorchModel(nn.Module):
    """What the pipelines of the benchmarks call.

    Attributes:
      llm: A causal language model of transformers: `model`, `lm_head`.
      views: Orders of the frames that the tower must see for both directions.
    """

    llm: Any
    views = 1

    def __init__(self, image_mean: Sequence[float], image_std: Sequence[float]):
        super().__init__()
        mean, std = (
            torch.tensor(x, dtype=torch.float32).view(1, 3, 1, 1)
            for x in (image_mean, image_std)
        )
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.llm.lm_head.weight.device

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (frames, height, width, 3) in uint8 to rows (frames, rows, embed)."""
        pixels = (frames.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return self.see(pixels.to(self.llm.lm_head.weight.dtype))

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised frames (frames, 3, height, width) to rows."""
        raise NotImplementedError

    def video(self, clips: torch.Tensor) -> Video:
        """Clips (clips, frames, ...) in uint8 to rows."""
        rows = self.encode(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        return Video(Shown(clips.shape[1]), rows)

    def look(self, clips: torch.Tensor) -> Video:
        """Rows of the views: the clips, then these reversed if there are two."""
        every = clips if self.views == 1 else torch.cat([clips, clips.flip(1)])
        return self.video(every)

    def both(self, video: Video) -> Video:
        """Rows of the clips, then of the reversed ones, from those of the views."""
        if self.views > 1:
            return video
        return video._replace(rows=torch.cat([video.rows, video.rows.flip(1)]))

    def inputs(self, video: Video, text: Text) -> dict[str, Any]:
        """What the decoder is given of clips with a text around them."""
        return {"inputs_embeds": self.prompt(video.rows.flatten(1, 2), text)}

    def after(self, video: Video, text: Text, rows: torch.Tensor) -> dict[str, Any]:
        """What it is given behind `inputs`, whose keys and values it has."""
        return {"inputs_embeds": rows}

    def tail(self) -> torch.Tensor | None:
        """The rows behind the last frame, if there are any."""
        return None

    def prompt(self, video: torch.Tensor, text: Text) -> torch.Tensor:
        """Puts the ids of a text around the rows of clips (clips, rows, embed)."""
        clips = len(video)
        parts = [self._text(text.before, clips)]
        for place, rows in enumerate(video.chunk(len(text.frames) or 1, dim=1)):
            parts.append(rows)
            if text.frames:
                parts.append(self._text(text.frames[place], clips))
        if (tail := self.tail()) is not None:
            parts.append(tail.expand(clips, -1, -1))
        return torch.cat([*parts, self._text(text.after, clips)], dim=1)

    def _text(self, ids: Sequence[int], clips: int) -> torch.Tensor:
        tokens = torch.tensor(ids, dtype=torch.long, device=self.device)
        return self.llm.get_input_embeddings()(tokens).expand(clips, -1, -1)


def kept(rows: torch.Tensor, text: Text, more: int = 0) -> torch.Tensor:
    """Returns of the rows of prompts those of the video, then those of `text.after`.

    Args:
      rows: (clips, rows, ...), as `TorchModel.prompt` puts them.
      text: Around the video.
      more: Rows behind them.
    """
    end, at = rows.shape[1] - more, len(text.before)
    if not text.frames:
        return rows[:, at:end]
    between = [len(ids) for ids in text.frames]
    each = (end - at - sum(between) - len(text.after)) // len(between)
    places = []
    for count in between:
        places += range(at, at + each)
        at += each + count
    return rows[:, [*places, *range(at, end)]]


class TorchLlava(TorchModel):
    """Vision tower up to the layer that is used, projector, pooling, decoder, head."""

    def __init__(self, name: str, config: LlavaConfig, attention: str):
        super().__init__(config.image_mean, config.image_std)
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
        raw = _config(name)
        raw = raw.get("text_config", raw)
        rope = {"rope_type": "default", "rope_theta": raw.get("rope_theta", 1e4)}
        if scaling := raw.get("rope_scaling"):
            rope |= {"rope_type": scaling["type"], "factor": scaling["factor"]}
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

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Tower, pooling, projector, and the newlines within a frame."""
        c = self.config
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

    def tail(self) -> torch.Tensor | None:
        """The newline of the video's end."""
        return self.newline[None, None] if self.config.newline == "video" else None


class _Decoder(nn.Module):
    """The decoder and the output layer of a larger class."""

    def __init__(self, model: nn.Module, lm_head: nn.Module):
        super().__init__()
        self.model, self.lm_head = model, lm_head

    def get_input_embeddings(self) -> Any:
        """Returns the embeddings of tokens."""
        return self.model.get_input_embeddings()

    def forward(self, inputs_embeds: torch.Tensor, **options: Any) -> Any:
        """Returns the logits of all rows."""
        hidden = self.model(inputs_embeds=inputs_embeds, **options)[0]
        return types.SimpleNamespace(logits=self.lm_head(hidden))


class Peer(NamedTuple):
    """How a class of transformers is taken apart.

    Attributes:
      name: Of the class.
      decoder: Of its `model`, the name of the decoder.
      see: From its `model` and normalised frames to the rows of each frame; of a class
        that takes frames of any size, from the patches of clips and their grids to the
        class's own output.
      unused: A pattern of the names of weights that its video has no use for.
    """

    name: str
    decoder: str
    see: Callable[..., Any]
    unused: str = r"(?!)"


def _of_grids(model: Any, patches: torch.Tensor, grids: torch.Tensor) -> Any:
    return model.get_video_features(patches, grids)


# By `model_type`.
PEERS = {
    "smolvlm": Peer(
        "SmolVLMForConditionalGeneration",
        "text_model",
        lambda model, x: model.get_image_features(x[None]).pooler_output,
    ),
    "internvl": Peer(
        "InternVLForConditionalGeneration",
        "language_model",
        lambda model, x: model.get_image_features(x).pooler_output,
    ),
    "perception_lm": Peer(
        "PerceptionLMForConditionalGeneration",
        "language_model",
        lambda model, x: model.get_image_features(x[None]).pooler_output,
    ),
    "video_llava": Peer(
        "VideoLlavaForConditionalGeneration",
        "language_model",
        lambda model, x: model.get_video_features(x[None]).pooler_output,
        r"model\.(image_tower|video_tower\.(post_layernorm|encoder\.layers\.\d+))\..*",
    ),
    "qwen2_vl": Peer("Qwen2VLForConditionalGeneration", "language_model", _of_grids),
    "qwen2_5_vl": Peer(
        "Qwen2_5_VLForConditionalGeneration", "language_model", _of_grids
    ),
    "qwen3_vl": Peer("Qwen3VLForConditionalGeneration", "language_model", _of_grids),
    "video_llama_3": Peer(
        "VideoLlama3ForConditionalGeneration",
        "language_model",
        lambda model, x, grids: model.get_video_features(
            x, grids, torch.full_like(grids[:, 0], video_llama_3.MERGE)
        ),
    ),
}


class TorchPeer(TorchModel):
    """A class of transformers."""

    def __init__(self, whole: Any, peer: Peer, config: Any):
        super().__init__(config.image_mean, config.image_std)
        self.inner, self._peer = whole.model, peer
        self.llm = _Decoder(getattr(whole.model, peer.decoder), whole.lm_head)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """The features that the class puts in place of its placeholders."""
        found = torch.cat(list(self._peer.see(self.inner, pixels)))
        return found.reshape(len(pixels), -1, found.shape[-1])


class TorchTiles(TorchPeer):
    """A class of transformers that takes frames of any size, as `Tiling.cut` has them.

    It is given the positions of `Model.lay_out`: see `models.qwen_vl.processing`.
    """

    def __init__(self, whole: Any, peer: Peer, config: Any, model: Model):
        super().__init__(whole, peer, config)
        assert model.tiling is not None
        self._tiling = model.tiling
        self.views = len(model.views(np.arange(2)[::-1]))
        self._lay_out = model.lay_out
        self._placed = functools.lru_cache(self._place)

    def video(self, clips: torch.Tensor) -> Video:
        """Tower and projector, on all groups of frames of all clips."""
        tiling, (count, frames, down, across) = self._tiling, clips.shape[:4]
        groups, p = tiling.groups(frames), tiling.patch_size
        last = clips[:, -1:].expand(-1, -frames % tiling.group, -1, -1, -1)
        patches = torch.cat([clips, last], dim=1)
        shape = count, groups, tiling.group, down * across * tiling.block, p, p, 3
        # Numbers of a patch: channel, frame, row, column.
        patches = patches.reshape(shape).permute(0, 1, 3, 6, 2, 4, 5).flatten(0, 2)
        mean, std = (x[..., None] for x in (self.mean, self.std))
        patches = ((patches.float() / 255 - mean) / std).flatten(1)
        grid = groups, down * tiling.merge, across * tiling.merge
        grids = torch.tensor([grid] * count, device=self.device)
        patches = patches.to(self.llm.lm_head.weight.dtype)
        found = self._peer.see(self.inner, patches, grids)
        rows, *deep = (
            torch.cat(list(x)).reshape(count, groups, down * across, -1)
            for x in (found.pooler_output, *getattr(found, "deepstack_features", ()))
        )
        return Video(Shown(frames, grid=(down, across)), rows, tuple(deep))

    def inputs(self, video: Video, text: Text) -> dict[str, Any]:
        """Rows with their positions, and where deeper features are added."""
        given = super().inputs(video, text)
        clips, rows = given["inputs_embeds"].shape[:2]
        positions, visual = self._placed(video.shown, text)
        if positions.shape[1] > 1:
            given["position_ids"] = positions.T[:, None].expand(-1, clips, rows)
        if video.deep:
            given["visual_pos_masks"] = visual.expand(clips, rows)
            given["deepstack_visual_embeds"] = [x.flatten(0, 2) for x in video.deep]
        return given

    def after(self, video: Video, text: Text, rows: torch.Tensor) -> dict[str, Any]:
        """Rows with positions that go on behind the largest one."""
        given = super().after(video, text, rows)
        positions, _ = self._placed(video.shown, text)
        if (axes := positions.shape[1]) > 1:
            own = torch.arange(rows.shape[1], device=self.device) + positions.max() + 1
            given["position_ids"] = own.expand(axes, *rows.shape[:2])
        return given

    def _place(self, shown: Shown, text: Text) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the positions of rows, (rows, axes), and which are the video's."""
        rows = self._lay_out(shown, text, np.arange(shown.num_frames, dtype=np.int32))
        both = torch.from_numpy(rows.position), torch.from_numpy(rows.feature >= 0)
        position, visual = (x.to(self.device) for x in both)
        return position, visual


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


def carry(name: str, model: LoadedModel, config: Any, attention: str) -> TorchModel:
    """Returns a torch model with the weights of a JAX model, on a GPU if there is one.

    Args:
      name: A key of `random.sizes`.
      model: On one device.
      config: Its hyperparameters.
      attention: "sdpa" or "eager".

    Raises:
      ValueError: A weight has no place, or a place no weight.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype, state = getattr(torch, model.model.dtype), layers.stacked(model.state)
    if (peer := PEERS.get(model.model.family)) is not None:
        return _carried(name, model, config, peer, attention).to(device)
    with _defaults(dtype), torch.device(device):
        module = TorchLlava(name, config, attention).eval()
    names = tensors.names(config, _PATTERNS, canonical=str)
    missing, surplus = module.load_state_dict(_tensors(state, names), strict=False)
    tied = {"llm.lm_head.weight"} if config.text.tie_word_embeddings else set()
    missing = [m for m in missing if "post_layernorm" not in m and m not in tied]
    _check(missing, surplus)
    return module


def _carried(
    name: str, model: LoadedModel, config: Any, peer: Peer, attention: str
) -> TorchPeer:
    """Returns a class of transformers, which reads the names of published files."""
    raw = _config(name)
    made = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    whole, loaded = getattr(transformers, peer.name).from_pretrained(
        None,
        config=made,
        state_dict=_tensors(layers.stacked(model.state), model.model.names),
        dtype=getattr(torch, model.model.dtype),
        attn_implementation=attention,
        output_loading_info=True,
    )
    used = [x for x in loaded["missing_keys"] if not re.fullmatch(peer.unused, x)]
    _check(used, loaded["unexpected_keys"])
    if model.model.tiling is not None:
        return TorchTiles(whole, peer, config, model.model).eval()
    return TorchPeer(whole, peer, config).eval()


def _config(name: str) -> dict[str, Any]:
    """Returns the `config.json` of a random model."""
    return dict(random.sizes()[name].sizes[name]["config.json"])


def _check(missing: Collection[str], surplus: Collection[str]) -> None:
    if missing or surplus:
        raise ValueError(f"not carried over: missing {missing}, surplus {surplus}")


def _tensors(state: nnx.State, names: Names) -> dict[str, torch.Tensor]:
    return {name: _tensor(x) for name, x in writing.named(state, names).items()}


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
