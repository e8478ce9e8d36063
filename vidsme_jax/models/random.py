"""Models with random weights: tiny checkpoints for trying a run, full sizes for timing.

`config.model.checkpoint = "random:NAME"` audits a tiny checkpoint that is written, with
its tokenizer, to a temporary folder and read like any other. Benchmarks draw a model of
any size straight onto devices. Weights are large enough that every part of the network
shows in its output: kernels scaled by their fan-in, an output layer that gives logits
of deviation 3, norms and biases off their neutral values.
"""

import atexit
import functools
import json
import math
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vidsme_jax.base import AuditError, nearest
from vidsme_jax.checkpoints import loading, writing
from vidsme_jax.models import dialects, plans, preprocessing
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.llava import LlavaConfig
from vidsme_jax.models.llava_next_video import params as llava_next_video
from vidsme_jax.models.llava_onevision import params as llava_onevision
from vidsme_jax.models.llava_qwen import params as llava_qwen
from vidsme_jax.models.rows import Text

SCHEME = "random:"
_PREFIX = 30  # Tokens before the video of a model without a tokenizer.
_SMALL = 2**24  # Parameters that are quicker drawn than a program is compiled.

_TINY_TOWER = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
_TINY_TOWERS = {
    "./clip": {"model_type": "clip_vision_model"} | _TINY_TOWER,
    "./siglip": {"model_type": "siglip_vision_model"}
    | _TINY_TOWER
    | {"image_size": 70},
}
_TINY_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "vocab_size": 512,
}
_LLAVA_QWEN = {
    "architectures": [llava_qwen.ARCHITECTURE],
    "model_type": "llava_qwen",
    "mm_patch_merge_type": "unires",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e9,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
    "max_position_embeddings": 224000,
}
_LLAVA_VIDEO = {
    **_LLAVA_QWEN,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "grid",
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
}


def _text(*sizes: int) -> dict[str, int]:
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers")
    keys += ("num_attention_heads", "num_key_value_heads")
    return dict(zip(keys, sizes, strict=True))


_QWEN2_SMALL = _text(896, 4864, 24, 14, 2)
_QWEN2_7B = _text(3584, 18944, 28, 28, 4)
_QWEN2_72B = _text(8192, 29568, 80, 64, 8)
_CLIP = llava_qwen.KNOWN_TOWERS["clip-vit-large-patch14-336"]
_SIGLIP = llava_qwen.KNOWN_TOWERS["siglip-so400m-patch14-384"] | {
    "num_hidden_layers": 26
}


def _next_video(vision: dict[str, Any], **text: Any) -> dict[str, Any]:
    return {
        "model_type": "llava_next_video",
        "vision_config": {"model_type": "clip_vision_model"} | vision,
        "text_config": {"model_type": "llama", "rms_norm_eps": 1e-5} | text,
    }


def _onevision(vision: dict[str, Any], **text: Any) -> dict[str, Any]:
    return {
        "model_type": "llava_onevision",
        "vision_config": {"model_type": "siglip_vision_model"} | vision,
        "text_config": {"model_type": "qwen2", "rope_theta": 1e6} | text,
    }


# The content of `config.json`, by name.
CONFIGS: dict[str, dict[str, Any]] = {
    "llava_qwen-tiny": _LLAVA_QWEN | _TINY_TEXT | {"mm_vision_tower": "./clip"},
    "llava_qwen-small": _LLAVA_QWEN | _QWEN2_SMALL,
    "llava_qwen-7b": _LLAVA_QWEN | _QWEN2_7B,
    "llava_qwen-72b": _LLAVA_QWEN | _QWEN2_72B,
    "llava_video-tiny": _LLAVA_VIDEO | _TINY_TEXT | {"mm_vision_tower": "./siglip"},
    "llava_video-7b": _LLAVA_VIDEO | _QWEN2_7B,
    "llava_video-72b": _LLAVA_VIDEO | _QWEN2_72B,
    "llava_next_video-tiny": _next_video(_TINY_TOWER, **_TINY_TEXT),
    "llava_next_video-7b": _next_video(
        _CLIP,
        **_text(4096, 11008, 32, 32, 32),
        vocab_size=32064,
        max_position_embeddings=4096,
        rope_scaling={"type": "linear", "factor": 2.5},
    ),
    "llava_next_video-34b": _next_video(
        _CLIP,
        **_text(7168, 20480, 60, 56, 8),
        vocab_size=64064,
        max_position_embeddings=4096,
        rope_theta=5e6,
    ),
    "llava_onevision-tiny": _onevision(_TINY_TOWER | {"image_size": 70}, **_TINY_TEXT),
    "llava_onevision-0.5b": _onevision(
        _SIGLIP, **_QWEN2_SMALL, vocab_size=152000, tie_word_embeddings=True
    ),
    "llava_onevision-7b": _onevision(_SIGLIP, **_QWEN2_7B, vocab_size=152128),
}


def configuration(name: str, dtype: str = "bfloat16") -> tuple[str, LlavaConfig]:
    """Returns the family and the hyperparameters of a model in `CONFIGS`.

    Raises:
      AuditError: There is no such name.
    """
    if name not in CONFIGS:
        known = list(CONFIGS)
        raise AuditError(
            [
                f"checkpoint {SCHEME}{name}: no such random model{nearest(name, known)}"
                f"; known: {', '.join(known)}"
            ]
        )
    raw, kind, problems = CONFIGS[name], jnp.dtype(dtype), []
    family = raw["model_type"]
    if family == "llava_qwen":
        vision = llava_qwen.read_tower(_tower(raw), kind, problems)
        prepare = _preprocessing(vision.kind, vision.image_size)
        config = llava_qwen.read_config(
            raw, vision, None, kind, prepare.mean, prepare.std, problems, []
        )
    else:
        siglip = family == "llava_onevision"
        size = raw["vision_config"]["image_size"]
        prepare = _preprocessing("siglip" if siglip else "clip", size)
        reader = llava_onevision if siglip else llava_next_video
        config, _ = reader.read_config(raw, kind, prepare.mean, prepare.std, problems)
    assert not problems, problems
    return family, config


def draw(
    name: str,
    *,
    dtype: str = "bfloat16",
    seed: int = 0,
    shardings: loading.Shardings | None = None,
) -> LoadedModel:
    """Draws a model of any size on its devices; see `describe`.

    Args:
      name: A key of `CONFIGS`.
      dtype: "bfloat16" or "float32".
      seed: Of the weights.
      shardings: Where each parameter lies; by default on the first device.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    model = describe(name, dtype=dtype, seed=seed)
    return model.load(shardings or (lambda *_: device))


def describe(name: str, *, dtype: str = "bfloat16", seed: int = 0) -> Model:
    """Returns a model that is drawn when it is loaded, without tokenizer and files.

    Args:
      name: A key of `CONFIGS`.
      dtype: "bfloat16" or "float32".
      seed: Of the weights.
    """
    family, config = configuration(name, dtype)
    prepare = _preprocessing(config.vision.kind, config.vision.image_size)
    ids = np.random.default_rng(seed).integers(config.text.vocab_size, size=_PREFIX + 1)
    text = Text(tuple(ids[:_PREFIX].tolist()), tuple(ids[_PREFIX:].tolist()))
    return plans.describe(
        config,
        family=family,
        fingerprint=f"{SCHEME}{name}:{seed}",
        dtype=dtype,
        remarks=(),
        prompt="",
        names=_names(family).names(config),
        prepare=prepare,
        tokenise=lambda item=None: text,
        fill=functools.partial(_random_state, seed),
    )


@functools.lru_cache(maxsize=8)
def folder(name: str) -> pathlib.Path:
    """Returns the folder of a checkpoint, the same bytes each time it is written.

    It is removed when the process ends.
    """
    configuration(name)
    target = pathlib.Path(tempfile.mkdtemp(prefix="vidsme-random-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    write(target, name)
    return target


def write(target: pathlib.Path, name: str, *, seed: int = 0) -> None:
    """Writes a checkpoint with config, tokenizer, preprocessing and weights.

    Args:
      target: The folder, made if need be.
      name: A key of `CONFIGS`.
      seed: Of the weights.
    """
    from vidsme_jax.demo import drawing

    family, config = configuration(name, "float32")
    chat = family != "llava_next_video"
    drawing.tokenizer_files(target, chat=chat)
    raw = dict(CONFIGS[name])
    if family != "llava_qwen":
        raw["video_token_index"] = drawing.TOKENS.index("<video>")
    (target / "config.json").write_text(json.dumps(raw, indent=1))
    prepare = _preprocessing(config.vision.kind, config.vision.image_size)
    if family == "llava_qwen":
        files = target / raw["mm_vision_tower"]
        files.mkdir(exist_ok=True)
        (files / "config.json").write_text(json.dumps(_tower(raw), indent=1))
    else:
        files = target
    image = json.dumps(prepare.to_json(), indent=1)
    (files / "preprocessor_config.json").write_text(image)
    model = draw(name, dtype="float32", seed=seed)
    vision = config.vision
    shape = (vision.hidden_size, 3, vision.patch_size, vision.patch_size)
    writing.save(
        target / "model.safetensors",
        model.state,
        model.model.names.rules,
        shapes={"vision_tower/patch_embedding/kernel": shape},
    )


def _names(family: str) -> Any:
    return llava_qwen if family == "llava_qwen" else dialects


def _tower(raw: dict[str, Any]) -> dict[str, Any]:
    """Returns the config of an original-format model's tower."""
    name = raw["mm_vision_tower"]
    return llava_qwen.known_tower(name) or _TINY_TOWERS[name]


def _preprocessing(kind: str, size: int) -> preprocessing.Preprocessing:
    if kind == "siglip":
        return preprocessing.siglip(size)
    return preprocessing.from_json(None, size, [])


def _random_state(
    seed: int, abstract: nnx.State, shardings: loading.Shardings
) -> nnx.State:
    """Draws every parameter, small models on the host and large ones on devices."""
    shapes = loading.flat_shapes(abstract)
    small = sum(leaf.size for leaf in shapes.values()) < _SMALL
    filled = {}
    for place, (path, leaf) in enumerate(shapes.items()):
        scale, offset = _moments(path, leaf.shape)
        where = shardings(path, leaf.shape)
        if small:
            rng = np.random.default_rng([seed, place])
            drawn = scale * rng.standard_normal(leaf.shape, np.float32) + offset
            filled[path] = jax.device_put(drawn.astype(leaf.dtype), where)
        else:
            key = jax.random.fold_in(jax.random.key(seed), place)
            make = _maker(leaf.shape, leaf.dtype, where)
            filled[path] = make(key, *(np.float32(x) for x in (scale, offset)))
    pure = nnx.to_pure_dict(abstract)
    tree = jax.tree_util.tree_map_with_path(
        lambda path, _: filled["/".join(str(key.key) for key in path)], pure
    )
    nnx.replace_by_pure_dict(abstract, tree)
    return abstract


@functools.lru_cache(maxsize=64)
def _maker(shape: tuple[int, ...], dtype: Any, sharding: jax.sharding.Sharding) -> Any:
    """Compiles the drawing of one shape."""

    def make(key, scale, offset):
        noise = jax.random.normal(key, shape, dtype)
        return noise * scale.astype(dtype) + offset.astype(dtype)

    return jax.jit(make, out_shardings=sharding)


def _moments(path: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Returns the deviation and the mean of a parameter."""
    if path.endswith(("lm_head/weight", "embed_tokens/weight")):
        return 3 / math.sqrt(shape[-1]), 0.0
    if "norm" in path and path.endswith("weight"):
        return 0.1, 1.0
    if path.endswith("kernel"):
        return 1 / math.sqrt(shape[-2]), 0.0
    if path.endswith("bias"):
        return 0.1, 0.0
    return 0.3, 0.0  # Positions, the class token, the newline.
