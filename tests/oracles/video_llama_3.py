"""Tiny random VideoLLaMA3 models of transformers, with their own processors."""

import json
import pathlib
from typing import Any

import numpy as np
import torch
import transformers
from transformers.video_utils import VideoMetadata

from oracles import qwen_vl, randomise

PATCH, MERGE = 14, 2  # Patches along a side of a visual row.
TOKENIZER = qwen_vl.TOKENIZER
VIDEO_TOKEN = qwen_vl.VIDEO_TOKEN
TEMPLATE = qwen_vl.template("<|video_pad|>\\n")
# Of a frame at least, and of all frames together at most.
SIZE = {"shortest_edge": 4 * 28**2, "longest_edge": 60 * 28**2}
_SHARED = {"patch_size": PATCH, "temporal_patch_size": 1, **qwen_vl.NORMAL["qwen3_vl"]}


def make_model(
    *, kv_heads: int = 2, tied: bool = False, seed: int = 0, **tower: Any
) -> Any:
    """Returns a model with scaled-up weights, random norms and random biases.

    Args:
      kv_heads: Of keys and values; there are four of queries.
      tied: Whether the output layer is the embedding.
      seed: Of the weights.
      **tower: More of the tower's config.
    """
    torch.manual_seed(seed)
    config = transformers.VideoLlama3Config(
        vision_config=dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            patch_size=PATCH,
        )
        | tower,
        text_config=dict(
            model_type="qwen2",
            vocab_size=len(TOKENIZER) + 3,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            max_position_embeddings=2048,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            bos_token_id=TOKENIZER.pad_token_id,
            eos_token_id=TOKENIZER.eos_token_id,
        ),
        image_token_id=qwen_vl.IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        tie_word_embeddings=tied,
    )
    model = transformers.VideoLlama3ForConditionalGeneration(config)
    randomise(model)
    return model.eval()


def processor(*, prunes: bool = False, **video: Any) -> Any:
    """Returns the class's own processor.

    Args:
      prunes: Whether rows that hardly differ from those of the frame before are left
        out. The files of the hub say so.
      **video: More of the settings of videos.
    """
    return transformers.VideoLlama3Processor(
        image_processor=transformers.VideoLlama3ImageProcessor(**_SHARED, merge_size=1),
        tokenizer=TOKENIZER,
        video_processor=transformers.VideoLlama3VideoProcessor(
            **_SHARED
            | {"merge_size": MERGE, "use_token_compression": prunes}
            | {"size": dict(SIZE)}
            | video
        ),
        chat_template=TEMPLATE,
    )


def inputs(
    frames: np.ndarray,
    places: list[int],
    total: int,
    rate: float,
    turns: list[dict],
    *,
    prunes: bool = False,
    **video: Any,
) -> Any:
    """Returns what the processor makes of a clip and what is said of it.

    Args:
      frames: (frames, height, width, 3), uint8.
      places: Of the frames in their video.
      total: Frames of that video.
      rate: Frames of that video a second.
      turns: Of the conversation, as `texts.conversation` gives them.
      prunes: See `processor`.
      **video: More of the settings of videos.
    """
    made = processor(prunes=prunes, **video)
    ends = turns[-1]["role"] == "assistant"
    return made(
        text=[made.apply_chat_template(turns, add_generation_prompt=not ends)],
        videos=[frames],
        video_metadata=VideoMetadata(
            total_num_frames=total,
            fps=rate,
            duration=total / rate,
            frames_indices=list(places),
        ),
        do_sample_frames=False,
        return_tensors="pt",
    )


def logits(model: Any, ids, pixels, grid, kept=None) -> torch.Tensor:
    """Runs the torch model on a whole sequence, one video in it.

    Args:
      model: One of `make_model`.
      ids: Of the sequence.
      pixels: Patches of the video, as the processor gives them.
      grid: Frames, and patches along the height and the width of one.
      kept: Which rows of the video are in the sequence; None: all.
    """
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([[int(token) for token in ids]]),
            pixel_values_videos=torch.as_tensor(pixels),
            video_grid_thw=torch.tensor([[int(size) for size in grid]]),
            video_merge_sizes=torch.tensor([MERGE]),
            video_compression_mask=kept,
        ).logits[0]


def save(model: Any, folder: pathlib.Path, **settings: Any) -> pathlib.Path:
    """Writes a checkpoint as transformers 5 does it, with its processor."""
    model.save_pretrained(folder)
    processor(**settings).save_pretrained(folder)
    return folder


def save_as_published(model: Any, folder: pathlib.Path) -> pathlib.Path:
    """Writes the files of the hub, whose limits are of pixels and whose rows go."""
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    text = raw["text_config"]
    del raw["vision_config"]["rope_parameters"], text["pad_token_id"]
    raw["vision_config"]["dtype"] = text["dtype"] = raw["dtype"]
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    text |= {"architectures": ["Qwen2ForCausalLM"], "rope_scaling": None}
    text |= {"use_mrope": False, "max_window_layers": text["num_hidden_layers"]}
    if raw.pop("tie_word_embeddings"):  # The larger model's file says nothing of it.
        text["tie_word_embeddings"] = True
    done = ("do_convert_rgb", "do_normalize", "do_rescale", "do_resize")
    shared = {
        **_SHARED,
        **dict.fromkeys(done, True),
        "processor_class": "VideoLlama3Processor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
    }
    unset = (
        *("crop_size", "device", "do_center_crop", "do_pad", "fps"),
        *("input_data_format", "num_frames", "size_divisor", "video_metadata"),
    )
    video = {
        **shared,
        **dict.fromkeys(unset),
        "data_format": "channels_first",
        "default_to_square": True,
        "do_sample_frames": False,
        "max_frames": 180,
        "max_pixels": 12845056,
        "merge_size": MERGE,
        "min_frames": 4,
        "min_pixels": 12544,
        "return_metadata": True,
        "size": {"longest_edge": 12845056, "shortest_edge": 12544},
        "use_token_compression": True,
        "video_processor_type": "VideoLlama3VideoProcessor",
    }
    image = {
        **shared,
        "image_processor_type": "VideoLlama3ImageProcessor",
        "max_pixels": 3211264,
        "merge_size": 1,
        "min_pixels": 3136,
        "size": {"longest_edge": 3211264, "shortest_edge": 3136},
    }
    for name, content in (
        ("config.json", raw | {"transformers_version": "4.57.0.dev0"}),
        ("preprocessor_config.json", image),
        ("video_preprocessor_config.json", video),
    ):
        (folder / name).write_text(json.dumps(content, indent=2))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
