r"""Video-LLaVA, as transformers reads it: each frame by itself.

    python -m vidsme_jax.main --config configs/video_llava.py:7b \
        --workdir runs/video_llava \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/video_llava.py:tiny

Variants: 7b (default); tiny, random weights and eight drawn clips. The corpus is yours;
8 frames, as in training (its positions hold 15), prompt `mcq`.

Its original format attends over time and is another model, which is refused.

Fetched from the hub: 14.7 GB.
Cost by the count of operations at 8 frames: 59 TFLOP a video (vision 1.3, two prefills
of 28.2, two heads of 0.5). Measured: `:tiny` in the test suite; no published weights
yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "7b": "LanguageBind/Video-LLaVA-7B-hf",
    "tiny": "random:video_llava-tiny",
}


def get_config(variant: str = "7b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    config.video.num_frames = 8
    return settings.variant(config, variant, CHECKPOINTS)
