r"""Models that were trained on Perception Test: its training videos against the others.

    python -m vidsme_jax.main --config configs/known_perceptiontest.py:blind \
        --workdir runs/known_perceptiontest/blind
    python -m vidsme_jax.main --workdir runs/known_perceptiontest/placebo \
        --config configs/known_perceptiontest.py:placebo_llava_video_7b
    python -m vidsme_jax.main --workdir runs/known_perceptiontest/llava_video_7b \
        --config configs/known_perceptiontest.py:llava_video_7b
    python -m vidsme_jax.main --config configs/known_perceptiontest.py:tiny

Variants, their order and how to read them: as in known_nextqa.py. Blind first, then the
placebo, then the model; what counts is by how much it is above the placebo.

The non-members are two groups of the report, `test` and `valid`. Where the end of a
test video gives an answer away it was cut off, so that test videos are shorter; the
lines of docs/reproduce-the-paper.md, which write the manifests
(`data/known/perceptiontest`), end the others where their publishers say that the cut
would be. An AUC that differs between the groups shows the cut, not membership.
One group alone:
`--config.corpus.nonmembers="('data/known/perceptiontest/valid.json',)"`.

LLaVA-Video: the training videos that are in LLaVA-Video-178K. SmolVLM2: no video is a
sure member: its published mixtures draw 13 % of the rows of clips up to 30 seconds,
and have none of 30 to 60; if a share p of the members were seen, an AUC is
0.5 + p (AUC of those - 0.5). PerceptionLM: not verified at all.

What must be there first:
- `data/perception_test/videos`: the videos of train_videos.zip (26.5 GB),
  test_videos.zip (41.8 GB) and valid_videos.zip (70.2 GB); beside it the annotations
  of the three (31, 1 and 82 MB) and cut_frame_mapping_train.json and _valid.json, all
  from https://github.com/google-deepmind/perception_test (CC BY 4.0).
- the lists of lmms-lab/LLaVA-Video-178K, 3 MB, for research and education only:
  `hf download lmms-lab/LLaVA-Video-178K --repo-type dataset
  --include "*perceptiontest/*processed.json" --local-dir data/LLaVA-Video-178K`
- the checkpoints, as in known_nextqa.py.

The video's tokens alone are scored: whether the published test questions have answers
was not checked. With answers, against valid alone:
`--config.slices="('video', 'response')"
--config.headline=response_min_k_plus_plus_100`.
Cost by the count of operations: 112 TFLOP a video, llava_video_7b at 16 frames; 11,609
videos at most, 1,300 PFLOP. Measured: `:tiny`, in the test suite; no published weights
yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

LISTS = "data/known/perceptiontest"
CHECKPOINTS = {
    "blind": "random:llava_video-tiny",
    "placebo_llava_video_7b": "llava-hf/llava-onevision-qwen2-7b-si-hf",
    "placebo_llava_video_72b": "llava-hf/llava-onevision-qwen2-72b-si-hf",
    "llava_video_7b": "lmms-lab/LLaVA-Video-7B-Qwen2",
    "llava_video_72b": "lmms-lab/LLaVA-Video-72B-Qwen2",
    "smolvlm2_256m": "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
    "smolvlm2_500m": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "smolvlm2_2.2b": "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    "perception_lm_1b": "facebook/Perception-LM-1B",
    "perception_lm_3b": "facebook/Perception-LM-3B",
    "perception_lm_8b": "facebook/Perception-LM-8B",
    "tiny": "random:llava_video-tiny",
}


def get_config(variant: str = "llava_video_7b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    config.corpus.members = (f"{LISTS}/members.json",)
    config.corpus.nonmembers = (f"{LISTS}/test.json", f"{LISTS}/valid.json")
    config.corpus.video_root = "data/perception_test/videos"
    return settings.variant(config, variant, CHECKPOINTS)
