"""Files of the video processors of Qwen-VL and VideoLLaMA3, and how they are read."""

import json
import pathlib

from transformers import (
    Qwen2VLVideoProcessor,
    Qwen3VLVideoProcessor,
    VideoLlama3VideoProcessor,
)

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import smart_resize

CLASSES = {
    "qwen2": Qwen2VLVideoProcessor,
    "qwen3": Qwen3VLVideoProcessor,
    "video_llama_3": VideoLlama3VideoProcessor,
}
PATCHES = {"qwen2": (14, 2), "qwen3": (16, 2), "video_llama_3": (14, 1)}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
# As the processors save themselves; the budgets are those of published files.
FLAGS = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "return_metadata": False,
}
VIDEO = {
    "qwen2": {
        **FLAGS,
        "crop_size": None,
        "data_format": "channels_first",
        "default_to_square": True,
        "device": None,
        "do_center_crop": None,
        "do_pad": None,
        "do_sample_frames": False,
        "fps": None,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "input_data_format": None,
        "max_frames": 768,
        "max_pixels": 12845056,
        "merge_size": 2,
        "min_frames": 4,
        "min_pixels": 3136,
        "num_frames": None,
        "patch_size": 14,
        "processor_class": "Qwen2_5_VLProcessor",
        "size": {"longest_edge": 12845056, "shortest_edge": 3136},
        "size_divisor": None,
        "temporal_patch_size": 2,
        "video_metadata": None,
        "video_processor_type": "Qwen2VLVideoProcessor",
    },
    "qwen3": {
        **FLAGS,
        "do_sample_frames": True,
        "fps": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_frames": 768,
        "merge_size": 2,
        "min_frames": 4,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "size": {"longest_edge": 25165824, "shortest_edge": 4096},
        "temporal_patch_size": 2,
        "video_processor_type": "Qwen3VLVideoProcessor",
    },
    "video_llama_3": {
        **FLAGS,
        "do_sample_frames": False,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_frames": 180,
        "merge_size": 2,
        "min_frames": 4,
        "patch_size": 14,
        "processor_class": "VideoLlama3Processor",
        "return_metadata": True,
        "size": {"longest_edge": 12845056, "shortest_edge": 12544},
        "temporal_patch_size": 1,
        "use_token_compression": True,
        "video_processor_type": "VideoLlama3VideoProcessor",
    },
}
IMAGES = {  # Of Qwen2-VL's and Qwen2.5-VL's repositories.
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
CAP = (
    "the pixels of a frame are capped as in training; transformers 5.24 does so only "
    "with cap_pixels_per_frame=True"
)


def read_files(folder, kind, files, **change):
    """Writes files and reads them; returns the resizing, remarks and problems."""
    for name, raw in files.items():
        (folder / name).write_text(json.dumps(raw))
    patch, temporal = PATCHES[kind]
    sizes = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": temporal}
    problems: list[str] = []
    made, remarks = smart_resize.read(
        Checkpoint("x", (pathlib.Path(folder),), {}, {}),
        kind,
        **(sizes | change),
        problems=problems,
    )
    return made, remarks, problems


def read_video(folder, kind, **change):
    """Does so with the file of a video processor, changed."""
    raw = VIDEO[kind] | change
    return read_files(folder, kind, {"video_preprocessor_config.json": raw})


def size_of(least, most):
    """Returns a budget as the files have it."""
    return {"size": {"shortest_edge": least, "longest_edge": most}}
