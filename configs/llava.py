r"""LLaVA-NeXT-Video: the demo, and the published models.

    python -m vidsme_jax.main --config configs/llava.py
    python -m vidsme_jax.main --config configs/llava.py:tiny
    python -m vidsme_jax.main --config configs/llava.py:7b --workdir runs/llava7b \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"

Variants: demo (default), 7b, 7b-dpo, 34b; tiny, random weights and eight drawn clips.

demo: 300 clips with their captions, video and response rows, in 39 s with programs in
the compile cache, 0.9 GB, 2 CPU cores; on matched non-members the headline,
`response_min_k_plus_plus_100`, and `response_loss` AUC 1.00 [0.98, 1.00], `vid_sme`
0.53 [0.45, 0.61]; `vid_sme` on shifted ones 0.25 [0.19, 0.33] (brightness alone: 1.00).
The published models: nothing measured yet. By the count of operations 7b takes about
71 TFLOP a clip at 16 frames (both directions) and 14 GB of bfloat16 weights, 34b about
337 TFLOP and 69 GB.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "demo": str(settings.DEMO / "checkpoint"),
    "7b": "llava-hf/LLaVA-NeXT-Video-7B-hf",
    "7b-dpo": "llava-hf/LLaVA-NeXT-Video-7B-DPO-hf",
    "34b": "llava-hf/LLaVA-NeXT-Video-34B-hf",
    "tiny": "random:llava_next_video-tiny",
}


def get_config(variant: str = "demo") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.variant(settings.default(), variant, CHECKPOINTS)
    if variant == "demo":
        config.corpus.members = (str(settings.DEMO / "corpus/members.jsonl"),)
        config.corpus.nonmembers = (str(settings.DEMO / "corpus/nonmembers.jsonl"),)
        config.video.num_frames = 8
        config.model.dtype = "float32"
        config.batch_size = 16
        config.slices = ("video", "response")
        config.headline = "response_min_k_plus_plus_100"
    return config
