"""Tiny random Qwen-VL models of transformers, with their own processors.

The kinds are the `model_type`s "qwen2_vl", "qwen2_5_vl" and "qwen3_vl". Positions,
pixels and text are those of training, wherever transformers has others by default.
"""

import json
import pathlib
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers.video_utils import VideoMetadata

from oracles import randomise, texts

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
PAIR, MERGE = 2, 2  # Frames of a patch, and patches along a side of a visual row.
PATCH = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16}
SENTENCES = (
    *texts.SENTENCES,
    "<0.3 seconds><1.5 seconds><12.0 seconds>",
    "Time 0.0s:, Time 1.0s:,Time 12.5s:",
)
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# What Qwen2-VL and Qwen2.5-VL are told where a conversation tells them nothing.
SYSTEM = "You are a helpful assistant."
_PLACE = "<|vision_start|><|video_pad|><|vision_end|>"
_TEMPLATE = """
{%- if 'SYSTEM' and messages[0].role != 'system' -%}
{{ '<|im_start|>system\nSYSTEM<|im_end|>\n' }}
{%- endif -%}
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\n' }}
{%- if turn.content is string -%}{{ turn.content }}
{%- else -%}
{%- for part in turn.content -%}
{{ 'PLACE' if part.type == 'video' else part.text }}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


def template(place: str, system: str = "") -> str:
    """Returns one that renders what those of the hub do of text and one video."""
    return _TEMPLATE.replace("PLACE", place).replace("SYSTEM", system)


TEMPLATE = {kind: template(_PLACE, SYSTEM * (kind != "qwen3_vl")) for kind in KINDS}


def tokenizer() -> Any:
    """Returns a tokenizer as of Qwen2, with the tokens of images and videos."""
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(texts.QWEN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.add_special_tokens(
        [tokenizers.AddedToken(x, special=True, normalized=False) for x in SPECIAL]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
        model_input_names=["input_ids", "attention_mask"],
    )


TOKENIZER = tokenizer()
VISION_START, VISION_END, VISION, IMAGE_TOKEN, VIDEO_TOKEN = (
    TOKENIZER.convert_tokens_to_ids(list(SPECIAL[3:]))
)
_TOKENS = {
    "image_token_id": IMAGE_TOKEN,
    "video_token_id": VIDEO_TOKEN,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": dict(depth=2, embed_dim=64, hidden_size=64, num_heads=4, mlp_ratio=2),
    "qwen2_5_vl": dict(
        depth=4,
        hidden_size=32,
        intermediate_size=40,
        num_heads=4,
        out_hidden_size=64,
        window_size=112,
        fullatt_block_indexes=[1, 3],
        tokens_per_second=2,
    ),
    "qwen3_vl": dict(
        depth=4,
        hidden_size=32,
        intermediate_size=40,
        num_heads=4,
        out_hidden_size=64,
        num_position_embeddings=36,
        deepstack_visual_indexes=[0, 2],
    ),
}
_ROPE = {
    "qwen2_vl": {"rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    "qwen2_5_vl": {"rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    "qwen3_vl": {
        "rope_theta": 5e6,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    },
}
_CLASS = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
}


def make_model(
    kind: str, *, kv_heads: int = 2, tied: bool = False, seed: int = 0, **tower: Any
) -> Any:
    """Returns a model with scaled-up weights, random norms and random biases.

    Args:
      kind: Its `model_type`.
      kv_heads: Of keys and values; there are four of queries.
      tied: Whether the output layer is the embedding.
      seed: Of the weights.
      **tower: More of the tower's config.
    """
    torch.manual_seed(seed)
    config = getattr(transformers, _CLASS[kind] + "Config")(
        vision_config=_VISION[kind]
        | dict(patch_size=PATCH[kind], temporal_patch_size=PAIR)
        | tower,
        text_config=dict(
            vocab_size=len(TOKENIZER) + 3,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            max_position_embeddings=2048,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default"} | _ROPE[kind],
            bos_token_id=TOKENIZER.pad_token_id,
            eos_token_id=TOKENIZER.eos_token_id,
        )
        | ({"head_dim": 16} if kind == "qwen3_vl" else {}),
        tie_word_embeddings=tied,
        **_TOKENS,
    )
    model = getattr(transformers, _CLASS[kind] + "ForConditionalGeneration")(config)
    randomise(model)
    return model.eval()


# Small budgets: of pixels of a frame, in Qwen3-VL of all frames together.
_SIZE = {
    "qwen2_vl": {"shortest_edge": 4 * 28**2, "longest_edge": 24 * 28**2},
    "qwen2_5_vl": {"shortest_edge": 4 * 28**2, "longest_edge": 24 * 28**2},
    "qwen3_vl": {"shortest_edge": 8 * 32**2, "longest_edge": 80 * 32**2},
}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
NORMAL = {"qwen2_vl": _CLIP, "qwen2_5_vl": _CLIP, "qwen3_vl": _HALF}


def processor(kind: str, **video: Any) -> Any:
    """Returns the class's own processor; `video` says more of that of videos."""
    shared = {
        "patch_size": PATCH[kind],
        "temporal_patch_size": PAIR,
        "merge_size": MERGE,
        **NORMAL[kind],
    }
    videos = shared | {"size": dict(_SIZE[kind])}
    if kind == "qwen3_vl":  # A frame's limit, but for eight frames and more.
        videos["max_video_tokens"] = 12
    name = "Qwen3VL" if kind == "qwen3_vl" else "Qwen2VL"
    return getattr(transformers, _CLASS[kind] + "Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**shared),
        tokenizer=TOKENIZER,
        video_processor=getattr(transformers, name + "VideoProcessor")(
            **(videos | video)
        ),
        chat_template=TEMPLATE[kind],
    )


def inputs(
    kind: str,
    frames: np.ndarray,
    places: list[int],
    total: int,
    rate: float,
    turns: list[dict],
    *,
    capped: bool | None = True,
    wrapped: bool = False,
    **video: Any,
) -> Any:
    """Returns what the processor makes of a clip and what is said of it.

    Args:
      kind: The `model_type`.
      frames: (frames, height, width, 3), uint8.
      places: Of the frames in their video.
      total: Frames of that video.
      rate: Frames of that video a second.
      turns: Of the conversation, as `texts.conversation` gives them.
      capped: Whether pixels are capped frame by frame, as in training; None: unsaid.
      wrapped: Whether the frames of Qwen3-VL stand between one more start and end of
        vision. Until transformers 5 the processor took those of the template away.
      **video: More of the settings of videos.
    """
    made = processor(kind, **video)
    ends = turns[-1]["role"] == "assistant"
    text = made.apply_chat_template(turns, add_generation_prompt=not ends)
    if kind == "qwen3_vl" and not wrapped:
        text = text.replace(_PLACE, "<|video_pad|>")
    said = {} if capped is None else {"cap_pixels_per_frame": capped}
    return made(
        text=[text],
        videos=[frames],
        video_metadata=VideoMetadata(
            total_num_frames=total,
            fps=rate,
            duration=total / rate,
            frames_indices=list(places),
        ),
        do_sample_frames=False,
        return_tensors="pt",
        **said,
    )


def positions(
    kind: str, ids, grid, second_per_grid: float = 1.0, tokens_per_second: int = 2
) -> np.ndarray:
    """Returns the positions of training, (3, rows): time, row and column.

    Args:
      kind: The `model_type`.
      ids: Of the whole sequence.
      grid: Pairs of frames, and patches along the height and the width of one.
      second_per_grid: Seconds from one pair to the next.
      tokens_per_second: Positions of a second. Qwen2.5-VL alone reads both.
    """
    pairs, height, width = (int(size) for size in grid)
    interval = np.float32(1)
    if kind == "qwen2_5_vl":
        interval = np.float32(tokens_per_second) * np.float32(second_per_grid)
    if kind == "qwen3_vl":  # Every pair stands by itself, behind its time as text.
        pairs = 1
    found: list[tuple[int, int, int]] = []
    free, at, ids = 0, 0, [int(token) for token in ids]
    while at < len(ids):
        if ids[at] != VIDEO_TOKEN:
            block = [(free, free, free)]
        else:
            block = []
            for pair in range(pairs):
                for row in range(height // MERGE):
                    for column in range(width // MERGE):
                        time = int(np.float32(pair) * interval)
                        block.append((free + time, free + row, free + column))
            assert set(ids[at : at + len(block)]) == {VIDEO_TOKEN}
        found += block
        free = max(max(place) for place in block) + 1
        at += len(block)
    return np.array(found, np.int64).T


def logits(model: Any, ids, pixels, grid, places: np.ndarray) -> torch.Tensor:
    """Runs the torch model on a whole sequence, one video in it.

    Args:
      model: One of `make_model`.
      ids: Of the sequence.
      pixels: Patches of the video, as the processor gives them.
      grid: Pairs of frames, and patches along the height and the width of one.
      places: The positions, (3, rows).
    """
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([[int(token) for token in ids]]),
            pixel_values_videos=torch.as_tensor(pixels),
            video_grid_thw=torch.tensor([[int(size) for size in grid]]),
            position_ids=torch.from_numpy(places)[:, None],
        ).logits[0]


def _published_config(raw: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns a config with the keys of the hub in place of transformers 5's."""
    text, vision = raw["text_config"], raw["vision_config"]
    rope = text.pop("rope_parameters")
    del vision["rope_parameters"], text["pad_token_id"]
    vision["model_type"] = kind
    if kind == "qwen3_vl":
        text["rope_theta"] = int(rope.pop("rope_theta"))
        text["rope_scaling"] = rope
        text["dtype"] = raw.pop("dtype")
        if raw["tie_word_embeddings"]:
            text["tie_word_embeddings"] = True
        return raw | {"transformers_version": "4.57.0.dev0"}
    for key in ("initializer_range", "in_channels", "model_type"):
        del vision[key]
    if kind == "qwen2_vl":
        del vision["hidden_act"]
    vision |= {"in_chans": 3, "spatial_patch_size": vision["patch_size"]}
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    del text["layer_types"], text["model_type"], raw["text_config"], raw["dtype"]
    return (
        text
        | {"sliding_window": 32768, "max_window_layers": text["num_hidden_layers"]}
        | {"vision_token_id": VISION, "torch_dtype": "float32"}
        | raw
        | {"transformers_version": "4.41.2"}
    )


def _published_processors(kind: str) -> dict[str, dict[str, Any]]:
    """Returns the files of the hub that say how images and videos are processed."""
    patches = {
        "patch_size": PATCH[kind],
        "temporal_patch_size": PAIR,
        "merge_size": MERGE,
        **NORMAL[kind],
        "processor_class": _CLASS[kind] + "Processor",
    }
    image = {"image_processor_type": "Qwen2VLImageProcessor"}
    if kind != "qwen3_vl":
        limits = {"min_pixels": 3136, "max_pixels": 12845056}
        return {"preprocessor_config.json": limits | patches | image}
    fast = {"image_processor_type": "Qwen2VLImageProcessorFast"}
    limits = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}}
    video = {"video_processor_type": "Qwen3VLVideoProcessor"}
    return {
        "preprocessor_config.json": limits | patches | fast,
        "video_preprocessor_config.json": {
            "size": {"longest_edge": 25165824, "shortest_edge": 4096}
        }
        | patches
        | video,
    }


def save_as_published(model: Any, kind: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes the files of the hub, with its limits of pixels.

    Those of Qwen2-VL and Qwen2.5-VL say the limits of images alone: transformers takes
    them for videos too, training took others.
    """
    model.save_pretrained(folder)  # Tensors have the names of the hub.
    TOKENIZER.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    files = {
        "config.json": _published_config(config, kind),
        "chat_template.json": {"chat_template": TEMPLATE[kind]},
        **_published_processors(kind),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    return folder


def save(model: Any, kind: str, folder: pathlib.Path, **video: Any) -> pathlib.Path:
    """Writes a checkpoint as transformers 5 does it, with its processor."""
    model.save_pretrained(folder)
    processor(kind, **video).save_pretrained(folder)
    return folder
