r"""Models that were trained on NExT-QA: its training videos against its test videos.

    python -m vidsme_jax.main --config configs/known_nextqa.py:blind \
        --workdir runs/known_nextqa/blind
    python -m vidsme_jax.main --config configs/known_nextqa.py:placebo_llava_video_7b \
        --workdir runs/known_nextqa/placebo
    python -m vidsme_jax.main --config configs/known_nextqa.py:llava_video_7b \
        --workdir runs/known_nextqa/llava_video_7b
    python -m vidsme_jax.main --config configs/known_nextqa.py:tiny

In this order:

1. blind: a tiny model of random weights. Read in its report alone whether the sets
   differ without the model. Where they do, stop.
2. placebo_llava_video_7b, _72b: LLaVA-OneVision-SI, trained on images alone, which
   LLaVA-Video was made from. An AUC away from 0.5 is the split, not membership.
3. llava_video_7b (default), _72b; smolvlm2_256m, _500m, _2.2b; perception_lm_1b, _3b,
   _8b. What counts is by how much the AUC is above that of the placebo. The same clip
   by clip, scores ending in `_ref`: llava_video_7b with
   `--config.reference.checkpoint=llava-hf/llava-onevision-qwen2-7b-si-hf`.

tiny, tiny_placebo, tiny_smolvlm2, tiny_perception_lm: random weights, eight drawn
clips. No placebo of the others is read: SmolVLM2 began as SmolVLM (idefics3), which saw
images alone; of PerceptionLM no such checkpoint is known.

Who is a member, by which source, and what was not checked: see
docs/reproduce-the-paper.md, whose few lines also write the manifests
(`data/known/nextqa`). LLaVA-Video: the training videos that are in LLaVA-Video-178K.
SmolVLM2: those of one to three minutes, against test videos as long, since of shorter
ones an eighth or none of the rows were drawn. PerceptionLM: not verified at all.

What must be there first:
- `data/NExTVideo`, unpacked: all videos, both sides from one source, 24 GB; the link is
  in https://github.com/doc-doc/NExT-QA (videos of VidOR; no licence stated).
- `data/NExT-QA`, `data/Vid-SME`: clones of that repository (MIT) and of
  https://github.com/LiQiiiii/Vid-SME (no licence), for splits and questions.
- the lists of lmms-lab/LLaVA-Video-178K, 16 MB, for research and education only:
  `hf download lmms-lab/LLaVA-Video-178K --repo-type dataset
  --include "*nextqa/*processed.json" --local-dir data/LLaVA-Video-178K`
- the checkpoints, from the hub: llava_video and placebo 16 GB (7b), 146 GB (72b);
  smolvlm2 0.5, 1 and 4.5 GB; perception_lm 3, 7 and 20 GB, FAIR Noncommercial Research
  License (both by their numbers of parameters in bfloat16).

The answers' tokens are scored, too, and the headline is of them: training puts its loss
there. They are the texts of the options; in LLaVA-Video-178K the letter precedes them.
Cost by the count of operations at 16 frames, without texts: llava_video_7b 112 TFLOP a
video, about 500 PFLOP for 4,501; placebo 105; smolvlm2_2.2b 20. Measured: the tiny
variants, in the test suite; no published weights yet.
"""

from ml_collections import ConfigDict

from vidsme_jax import settings

LISTS = "data/known/nextqa"
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
    "tiny_placebo": "random:llava_onevision-tiny",
    "tiny_smolvlm2": "random:smolvlm-tiny",
    "tiny_perception_lm": "random:perception_lm-tiny",
}


def get_config(variant: str = "llava_video_7b") -> ConfigDict:
    """Returns the configuration of a variant."""
    config = settings.default()
    long = "_1_3_m" if variant.startswith("smolvlm2") else ""
    config.corpus.members = (f"{LISTS}/members{long}.json",)
    config.corpus.nonmembers = (f"{LISTS}/nonmembers{long}.json",)
    config.corpus.video_root = "data/NExTVideo"
    if variant != "blind":  # Its tokenizer knows none of the texts.
        config.slices = ("video", "response")
        config.headline = "response_min_k_plus_plus_100"
    settings.variant(config, variant, CHECKPOINTS)
    if variant.startswith("tiny"):
        settings.variant(config, "tiny", {"tiny": CHECKPOINTS[variant]})
    return config
