r"""SmolVLM2, in Hugging Face's format.

    python -m vidsme_jax.main --config configs/smolvlm.py:500m \
        --workdir runs/smolvlm \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/smolvlm.py:tiny

Variants: 256m, 500m (default), 2.2b; tiny, random weights and eight drawn clips. The
corpus is yours; 16 frames, whose times the prompt has as text (a clip without a rate of
frames fails by name), prompt `mcq`. Which videos it was trained on is published:
configs/known_nextqa.py.

Fetched from the hub: 0.5 GB (256m), 1.0 GB (500m), 4.5 GB (2.2b), by the number of
parameters in bfloat16.
Cost by the count of operations at 16 frames: 256m 4.2 TFLOP a video (vision 3.4, two
prefills of 0.32, two heads of 0.06), 500m 5.4, 2.2b 21.6 (vision 10.7, two prefills of
5.2). Measured: `:tiny` in the test suite; no published weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "256m": "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
    "500m": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "2.2b": "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    "tiny": "random:smolvlm-tiny",
}


def get_config(variant: str = "500m") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    return settings.variant(config, variant, CHECKPOINTS)
