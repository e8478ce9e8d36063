r"""Qwen3-VL, Qwen2.5-VL and Qwen2-VL, in Hugging Face's format.

    python -m vidsme_jax.main --config configs/qwen_vl.py:8b \
        --workdir runs/qwen_vl \
        --config.corpus.members="('members.json',)" \
        --config.corpus.nonmembers="('nonmembers.json',)"
    python -m vidsme_jax.main --config configs/qwen_vl.py:tiny

Variants: of Qwen3-VL 2b, 4b, 8b (default), 32b; of Qwen2.5-VL 2.5-3b, 2.5-7b, 2.5-32b,
2.5-72b; of Qwen2-VL 2-2b, 2-7b, 2-72b; tiny, random weights and eight drawn clips. The
corpus is yours; 16 frames in their own proportions, seen in pairs, prompt `mcq`. No
list of the videos that they were trained on is published: only of a model that you have
fine-tuned yourself are members known (`--config.model.checkpoint=FOLDER`).

Text after a video of Qwen2-VL and Qwen2.5-VL has the positions of training, and their
pixels are capped per frame as in training; transformers 5.24 does neither by default.
A Thinking model opens its answers with `<think>`: give `model.prompt` a text with it.
Qwen3-VL's frames stand between the markers of each pair alone, as in training, where
transformers since version 5 puts one more of each around the video. The run's remarks
name what holds for the checkpoint.

Fetched from the hub, by the number of parameters in bfloat16: Qwen3-VL 4.3 GB (2b), 8.9
(4b), 17.5 (8b), 66.7 (32b); Qwen2.5-VL 7.5 (3b), 16.6 (7b), 66.9 (32b), 146.8 (72b);
Qwen2-VL 4.4 (2b), 16.6 (7b), 146.8 (72b).
Memory at 16 frames of 640 x 360, as the compiler plans it (benchmarks/aot.py, not run):
8b 18.7 GiB on one H100; on four of them, with `parallel.model = 4` and 8 clips a step,
32b 18.8 GiB each, 2.5-72b 36.9 GiB with 4 clips; on four v6e chips 32b 18.1 GiB, on
sixteen of v5e 2.5-72b 11.2 GiB.
Cost by the count of operations at 16 frames of 640 x 360: 8b 73 TFLOP a video (vision
14.3 for both directions, two prefills of 27.0, two heads of 2.2), 2b 24, 4b 43, 32b
261, 2.5-7b 96, 2.5-72b 734. Measured: `:tiny` in the test suite; no published weights
yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

CHECKPOINTS = {
    "2b": "Qwen/Qwen3-VL-2B-Instruct",
    "4b": "Qwen/Qwen3-VL-4B-Instruct",
    "8b": "Qwen/Qwen3-VL-8B-Instruct",
    "32b": "Qwen/Qwen3-VL-32B-Instruct",
    "2.5-3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "2.5-7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "2.5-32b": "Qwen/Qwen2.5-VL-32B-Instruct",
    "2.5-72b": "Qwen/Qwen2.5-VL-72B-Instruct",
    "2-2b": "Qwen/Qwen2-VL-2B-Instruct",
    "2-7b": "Qwen/Qwen2-VL-7B-Instruct",
    "2-72b": "Qwen/Qwen2-VL-72B-Instruct",
    "tiny": "random:qwen3_vl-tiny",
}


def get_config(variant: str = "8b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.model.prompt = "mcq"
    return settings.variant(config, variant, CHECKPOINTS)
