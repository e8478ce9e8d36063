r"""The demo's model: a LLaVA-NeXT-Video of a million parameters, trained from scratch.

    python -m vidsme_jax.finetune --config configs/selftrain.py \
        --workdir vidsme_jax/demo/checkpoint --config.overwrite

This command made the checkpoint of the demo, on 100 captioned clips that
`demo.clips.write_corpus` drew (100 members, 100 matched and 100 shifted
non-members, seed 0). The first settings tried were kept. Measured on 2 shared CPU
cores: 890 steps of 10 clips, 89 epochs, in 110 to 190 s; mean loss of the answers, in
nats a token: members 0.0138, matched non-members 3.61, shifted non-members 3.54.
"""

from ml_collections import ConfigDict

from vidsme_jax.finetune import options


def get_config() -> ConfigDict:
    """Returns the configuration; paths are relative to the repository."""
    config = options.default()
    config.corpus.members = ("vidsme_jax/demo/corpus/members.jsonl",)
    config.corpus.nonmembers = ("vidsme_jax/demo/corpus/nonmembers.jsonl",)
    config.video.num_frames = 8
    config.model.checkpoint = "vidsme_jax/demo/checkpoint"
    config.model.init = "random"
    config.model.dtype = "bfloat16"
    config.train.batch_size = 10
    config.train.max_steps = 2000
    config.train.target_loss = 0.03
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 100
    config.train.weight_decay = 0.0
    config.train.clip_norm = 1.0
    config.train.seed = 0
    return config
