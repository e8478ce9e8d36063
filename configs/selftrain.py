r"""The demo's model: a LLaVA-NeXT-Video of a million parameters, trained from scratch.

    python -m vidsme_jax.finetune --config configs/selftrain.py \
        --workdir vidsme_jax/demo/checkpoint --config.overwrite

This command made the checkpoint of the demo, on 100 captioned clips that
`demo.clips.write_corpus` drew (100 members, 100 matched and 100 shifted
non-members, seed 0). The first settings tried were kept. Measured on 2 shared CPU
cores: 890 steps of 10 clips, 89 epochs, in 110 to 190 s; mean loss of the answers, in
nats a token: members 0.0138, matched non-members 3.61, shifted non-members 3.54.

Variant `reference` made `demo/reference`, a model that has seen none of the demo's
clips: the same model after 100 steps on 100 other clips.

    python -c "import pathlib; from vidsme_jax.demo import clips; \
        clips.write_corpus(pathlib.Path('runs/others'), num_members=100, \
        num_matched=100, num_shifted=0, seed=999)"
    python -m vidsme_jax.finetune --config configs/selftrain.py:reference \
        --workdir vidsme_jax/demo/reference --config.overwrite
"""

from ml_collections import ConfigDict

from vidsme_jax.finetune import options


def get_config(variant: str = "demo") -> ConfigDict:
    """Returns the configuration of a variant; paths are relative to the repository."""
    folders = {"demo": "vidsme_jax/demo/corpus", "reference": "runs/others"}
    if variant not in folders:
        raise ValueError(f"no variant {variant!r}; known: {', '.join(folders)}")
    config = options.default()
    config.corpus.members = (f"{folders[variant]}/members.jsonl",)
    config.corpus.nonmembers = (f"{folders[variant]}/nonmembers.jsonl",)
    config.video.num_frames = 8
    config.model.checkpoint = "vidsme_jax/demo/checkpoint"
    config.model.init = "random"
    config.model.dtype = "bfloat16"
    config.train.batch_size = 10
    config.train.max_steps = 2000 if variant == "demo" else 100
    config.train.target_loss = 0.03
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 100
    config.train.weight_decay = 0.0
    config.train.clip_norm = 1.0
    config.train.seed = 0
    return config
