r"""Studies: one setting is varied, on the demo's clips and model.

    vidsme audit --config studies:frames --workdir runs/frames

Variants: frames, k (default), scales, orders, against, natural, each also with -tiny
behind it: six clips and few values. Give a model and a corpus of your own as in an
audit, by `--model`, `--members` and `--nonmembers`.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.settings import rules

_SOME = "vid_sme,vid_sme_max_30,perplexity,min_k_prob_10,min_k_plus_plus_10"
_SOME += ",max_renyi_1_10"

VARIANTS = tuple(f"{x}{size}" for x in rules.STUDIES for size in ("", "-tiny"))


def get_config(variant: str = "k") -> ConfigDict:
    """Returns the configuration of a study, STUDY or STUDY-tiny."""
    study, dash, size = variant.partition("-")
    if study not in rules.STUDIES or dash + size not in ("", "-tiny"):
        known = ", ".join(rules.STUDIES)
        raise ValueError(
            f"configs/studies.py has no variant {variant!r}; known: {known}, each also "
            "with -tiny behind it"
        )
    config = settings.default()
    config.study = study
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype = "float32"
    config.corpus.members = (str(settings.DEMO / "corpus/members.jsonl"),)
    config.corpus.nonmembers = (str(settings.DEMO / "corpus/nonmembers.jsonl"),)
    config.video.num_frames = 8
    config.batch_size = 16
    config.scores = _SOME
    config.report.fprs = (0.05,)
    if study == "orders":
        config.studies.k = (30,)
    if size == "tiny":
        config.corpus.max_clips = 6
        config.report.num_permutations = 100
        config.video.num_frames = 4
        config.batch_size = 4
        config.studies.frames = (1, 2, 4)
        config.studies.k = (0, 30, 100)
        config.studies.q_scales = (0.5, 1.0)
        config.studies.r_scales = (0.1, 0.5)
        config.studies.against = ("reversed", "shuffled:0")
    return config
