r"""InternVL3 and InternVL3.5, in Hugging Face's format.

    python -m vidsme_jax.main --config configs/internvl.py:8b \
        --workdir runs/internvl \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/internvl.py:tiny

Variants: 8b (InternVL3, default), 3.5-8b; tiny, random weights and eight drawn clips.
The corpus is yours; 16 frames, each a tile with its number in front, prompt `mcq`.

Fetched from the hub: 15.9 GB (8b), 17.1 GB (3.5-8b).
Cost by the count of operations at 16 frames: 8b 138 TFLOP a video (vision 11.8, two
prefills of 58.7, two heads of 4.5), 3.5-8b 150. Measured: `:tiny` in the test suite; no
published weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "8b": "OpenGVLab/InternVL3-8B-hf",
    "3.5-8b": "OpenGVLab/InternVL3_5-8B-HF",
    "tiny": "random:internvl-tiny",
}


def get_config(variant: str = "8b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    return settings.variant(config, variant, CHECKPOINTS)
