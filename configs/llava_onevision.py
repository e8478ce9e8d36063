r"""LLaVA-OneVision, in Hugging Face's format.

    python -m vidsme_jax.main --config configs/llava_onevision.py:0.5b \
        --workdir runs/llava_onevision \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/llava_onevision.py:tiny

Variants: 0.5b (default, the cheapest published model there is here), 7b, 72b; tiny,
random weights and eight drawn clips. The corpus is yours; 16 frames, prompt `mcq`.

Fetched from the hub: 2 GB (0.5b), 16 GB (7b), 146 GB (72b).
Cost by the count of operations at 16 frames: 0.5b 17 TFLOP a video (vision 10.3, two
prefills of 2.7, two heads of 0.85), 7b 105. Measured: `:tiny` in the test suite; no
published weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "0.5b": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    "7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "72b": "llava-hf/llava-onevision-qwen2-72b-ov-hf",
    "tiny": "random:llava_onevision-tiny",
}


def get_config(variant: str = "0.5b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    return settings.variant(config, variant, CHECKPOINTS)
