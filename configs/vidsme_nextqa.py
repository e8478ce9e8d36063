r"""Vid-SME's NExT-QA corpus: the official training videos against the test videos.

    python -m vidsme_jax.main --config configs/vidsme_nextqa.py \
        --workdir runs/vidsme_nextqa
    python -m vidsme_jax.main --config configs/vidsme_nextqa.py:tiny

Variants: 7b (default); tiny, random weights and eight drawn clips, to try it out.

What must be there first: the release, `git clone https://github.com/LiQiiiii/Vid-SME
data/Vid-SME`, whose `video_json` holds the questions; the videos they name, in
`data/Vid-SME/video_json/videos` (they are not in the release); and room for the
checkpoint, 16 GB, fetched from the hub's LIQIIIII/Vid-SME.

Settings are the release's: 16 frames, float16, prompt `mcq`, beta1 1.0, beta2
0.1, its scores, names and sign (`--config.profile=exact` gives the corrected ones from
the same signals). A video is scored once, however many rows name it, and intervals are
by video. It is the only one of the paper's corpora whose two sides
are of one source.

Cost by the count of operations: 75 TFLOP a video (vision 6.2, two prefills of 32.0, two
heads of 2.5), about 338 PFLOP for its 4,501 videos (17,128 rows):
nine minutes of one H200 if it sustains 600 TFLOP/s, which is an assumption.
Measured: `:tiny`, in the test suite (`tests/configs_test.py`). Nothing of the paper's
table has been reproduced yet: neither weights nor videos were available.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

RELEASE = "data/Vid-SME/video_json"
CHECKPOINTS = {
    "7b": "LIQIIIII/Vid-SME/Vid-SME-NExTQA-7B",
    "tiny": "random:llava_qwen-tiny",
}


def get_config(variant: str = "7b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.corpus.members = (f"{RELEASE}/nextqa_train_official.json",)
    config.corpus.nonmembers = (f"{RELEASE}/nextqa_test_official.json",)
    config.corpus.video_root = f"{RELEASE}/videos"
    config.video.num_frames = 16
    config.motion.q_scale = 1.0
    config.motion.r_scale = 0.1
    config.model.dtype = "float16"
    config.model.prompt = "mcq"
    config.profile = "official"
    return settings.variant(config, variant, CHECKPOINTS)
