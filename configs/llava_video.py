r"""LLaVA-Video-Qwen2, in its original format.

    python -m vidsme_jax.main --config configs/llava_video.py:7b \
        --workdir runs/llava_video \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/llava_video.py:tiny

Variants: 7b (default), 72b; tiny, random weights and eight drawn clips. The corpus is
yours; 16 frames (the model was made for 64), prompt `mcq`.

Fetched from the hub: 16 GB (7b), 146 GB (72b).
Cost by the count of operations at 16 frames: 7b 112 TFLOP a video (vision 10.7, two
prefills of 47.0, two heads of 3.7). Measured: `:tiny` in the test suite; no published
weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "7b": "lmms-lab/LLaVA-Video-7B-Qwen2",
    "72b": "lmms-lab/LLaVA-Video-72B-Qwen2",
    "tiny": "random:llava_video-tiny",
}


def get_config(variant: str = "7b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    return settings.variant(config, variant, CHECKPOINTS)
