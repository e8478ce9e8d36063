r"""The demo's model: a LLaVA-NeXT-Video of a million parameters, trained from scratch.

    vidsme demo --workdir runs/made

draws the clips and trains the model and the reference again; this file is their
configuration alone, to train with other settings:

    vidsme finetune --config configs/selftrain.py --workdir DIR

Variants: demo (default), on the 100 members of `vidsme_jax/demo/corpus`; reference, on
100 other clips, which the first command leaves in `runs/made/others`.

Measured on 2 busy CPU cores: demo, 800 steps of 10 clips, 80 epochs, in 151 s; mean
loss of the answers, in nats a token: members 0.0023, matched non-members 3.55, shifted
non-members 3.63. Reference, 100 steps in 20 s: its own members 1.04, others 1.19.
"""

import pathlib

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.commands import demo as demo_command

FOLDERS = {"demo": settings.DEMO, "reference": pathlib.Path("runs/made")}
VARIANTS = tuple(FOLDERS)


def get_config(variant: str = "demo") -> ConfigDict:
    """Returns the configuration of a variant."""
    if variant not in FOLDERS:
        raise ValueError(f"no variant {variant!r}; known: {', '.join(FOLDERS)}")
    return demo_command.configuration(FOLDERS[variant], variant)
