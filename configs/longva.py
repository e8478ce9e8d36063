r"""LongVA, and Video-XL's weights run as a plain LongVA.

    python -m vidsme_jax.main --config configs/longva.py:7b --workdir runs/longva \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/longva.py:tiny

Variants: 7b (default), 7b-dpo, video-xl; tiny, random weights and eight drawn clips.
The corpus is yours; 16 frames, the release's prompt `mcq`, beta1 1.0, beta2 0.1.

Fetched from the hub: 16 GB (video-xl 17 GB; its beacon tensors are left out, so that is
not the model as published, and the log and the report say so).
Cost by the count of operations at 16 frames: 75 TFLOP a video (vision 6.2, two prefills
of 32.0, two heads of 2.5), 0.13 s of one H100 (`benchmarks/README.md`, random weights).
Measured: `:tiny` in the test suite; no published weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "7b": "lmms-lab/LongVA-7B",
    "7b-dpo": "lmms-lab/LongVA-7B-DPO",
    "video-xl": "sy1998/Video_XL/VideoXL_weight_8",
    "tiny": "random:llava_qwen-tiny",
}


def get_config(variant: str = "7b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    return settings.variant(config, variant, CHECKPOINTS)
