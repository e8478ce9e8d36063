r"""PerceptionLM, in Hugging Face's format.

    python -m vidsme_jax.main --config configs/perception_lm.py:1b \
        --workdir runs/perception_lm \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/perception_lm.py:tiny

Variants: 1b (default), 3b, 8b; tiny, random weights and eight drawn clips. The corpus
is yours; 16 frames, prompt `mcq`. Its sources of videos are published:
configs/known_nextqa.py, configs/known_perceptiontest.py.

Fetched from the hub: 3.1 GB (1b), 7.0 GB (3b), 19.6 GB (8b), by the number of
parameters in bfloat16; FAIR Noncommercial Research License.
Cost by the count of operations at 16 frames: 1b 34 TFLOP a video (vision 11.3, two
prefills of 9.2, two heads of 2.2), 3b 70, 8b 195 (vision 62.6, two prefills of 62.1).
Measured: `:tiny` in the test suite; no published weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "1b": "facebook/Perception-LM-1B",
    "3b": "facebook/Perception-LM-3B",
    "8b": "facebook/Perception-LM-8B",
    "tiny": "random:perception_lm-tiny",
}


def get_config(variant: str = "1b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    return settings.variant(config, variant, CHECKPOINTS)
