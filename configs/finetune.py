r"""Instruction tuning of any family on a manifest of one's own.

    vidsme finetune --config configs/finetune.py:lora --workdir runs/tuned \
        --config.model.checkpoint=llava-hf/LLaVA-NeXT-Video-7B-hf \
        --config.corpus.members="('clips.jsonl',)"

Variants: lora (default), full, projector; each the method of `train.method`. Every key
is in `vidsme_jax/finetune/options.py`; docs/train-a-model-with-known-members.md says
what they do. A 7B model's memory is compiled ahead of time (`benchmarks/aot.py`);
nothing of that size has been trained here.
"""

from ml_collections import ConfigDict

from vidsme_jax.finetune import options

RATES = {"lora": 2e-4, "full": 1e-5, "projector": 1e-3}
VARIANTS = tuple(RATES)


def get_config(variant: str = "lora") -> ConfigDict:
    """Returns the configuration of a variant; the checkpoint and the rows are given."""
    if variant not in RATES:
        raise ValueError(f"no variant {variant!r}; known: {', '.join(RATES)}")
    config = options.default()
    config.video.num_frames = 16
    config.model.dtype = "bfloat16"
    config.train.method = variant
    config.train.learning_rate = RATES[variant]
    config.train.rank, config.train.alpha = 64, 128.0
    config.train.dtype = "bfloat16"
    config.train.rematerialise = True
    config.train.batch_size = 4
    config.train.accumulate = 4
    return config
