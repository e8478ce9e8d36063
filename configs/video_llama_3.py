r"""VideoLLaMA3, in Hugging Face's format.

    python -m vidsme_jax.main --config configs/video_llama_3.py:7b \
        --workdir runs/video_llama_3 \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/video_llama_3.py:tiny

Variants: 2b, 7b (default); tiny, random weights and eight drawn clips. The corpus is
yours; 16 frames in their own proportions, whose times the prompt has as text (a clip
without a rate of frames fails by name), prompt `mcq`.

The published processor leaves out rows that hardly differ from those of the frame
before (`use_token_compression`). The two directions then differ in their rows, and
scores that compare them, `vid_sme` among them, are refused: 2b and 7b take scores of
the natural order, `min_k_prob_30` as headline. For `vid_sme` fetch the checkpoint, put
false in its video_preprocessor_config.json, and give the folder with
`--config.model.checkpoint=FOLDER --config.headline=vid_sme --config.scores=all`.

Fetched from the hub, by the number of parameters in bfloat16: 3.9 GB (2b), 16.1 GB
(7b).
Cost by the count of operations at 16 frames of 640 x 360: 7b 168 TFLOP a video (vision
18.8, two prefills of 69.2, two heads of 5.2), 2b 53. Measured: `:tiny` in the test
suite; no published weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "2b": "lkhl/VideoLLaMA3-2B-Image-HF",
    "7b": "lkhl/VideoLLaMA3-7B-Image-HF",
    "tiny": "random:video_llama_3-tiny",
}
NATURAL = ("min_k_prob_30", "min_k_plus_plus_30", "perplexity", "modified_entropy")
NATURAL += ("max_renyi_05_10", "mean_renyi_05", "mean_renyi_1", "mean_renyi_2")


def get_config(variant: str = "7b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    if variant != "tiny":
        config.headline, config.scores = NATURAL[0], NATURAL
    return settings.variant(config, variant, CHECKPOINTS)
