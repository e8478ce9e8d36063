"""Profile "exact": the mathematics, larger = member, each of 77 rankings once.

These are the scores of the video's rows; `texts` has those of questions and answers. A
score is the mean of a statistic over all rows, or over the K % at one end of them,
where K ends its name. To add one, name it in `_NAMES`, in the place of its column, and
say in `_MEANS` or `_ENDS` what it averages.
"""

from typing import Any

from vidsme_jax.entropy import stored
from vidsme_jax.scores import statistics as rows
from vidsme_jax.scores.ends import ENTROPIES, RENYI, SME, likelihoods
from vidsme_jax.scores.profile import Profile, Score
from vidsme_jax.scores.texts import TEXTS

_NAMES = """
vid_sme vid_sme_min_0 vid_sme_min_5 vid_sme_min_10 vid_sme_min_60 vid_sme_min_90
vid_sme_max_0 vid_sme_max_5 vid_sme_max_10 vid_sme_max_30 vid_sme_max_60 vid_sme_max_90
vid_sme_mean vid_sme_sequence perplexity
min_k_prob_0 min_k_prob_5 min_k_prob_10 min_k_prob_30 min_k_prob_60 min_k_prob_90
min_k_plus_plus_0 min_k_plus_plus_5 min_k_plus_plus_10 min_k_plus_plus_30
min_k_plus_plus_60 min_k_plus_plus_90 min_k_plus_plus_100
modified_entropy modified_renyi_05 modified_renyi_2 max_prob_gap
max_renyi_05_0 max_renyi_05_5 max_renyi_05_10
max_renyi_05_30 max_renyi_05_60 max_renyi_05_90 mean_renyi_05
min_renyi_05_0 min_renyi_05_5 min_renyi_05_10
min_renyi_05_30 min_renyi_05_60 min_renyi_05_90
max_renyi_1_0 max_renyi_1_5 max_renyi_1_10
max_renyi_1_30 max_renyi_1_60 max_renyi_1_90 mean_renyi_1
min_renyi_1_0 min_renyi_1_5 min_renyi_1_10 min_renyi_1_30 min_renyi_1_60 min_renyi_1_90
max_renyi_2_0 max_renyi_2_5 max_renyi_2_10
max_renyi_2_30 max_renyi_2_60 max_renyi_2_90 mean_renyi_2
min_renyi_2_0 min_renyi_2_5 min_renyi_2_10 min_renyi_2_30 min_renyi_2_60 min_renyi_2_90
min_renyi_inf_0 min_renyi_inf_5 min_renyi_inf_10
min_renyi_inf_30 min_renyi_inf_60 min_renyi_inf_90
"""
_LOG_P = "log p of the argmax"
_MODIFIED = "minus the modified {}entropy"

# By name: the statistic, and its description.
_MEANS = {
    "vid_sme_mean": (rows.vid_sme, SME),
    "vid_sme_sequence": (rows.vid_sme_sequence, SME),
    "perplexity": (rows.nll, f"{_LOG_P} (minus the log of the perplexity)"),
    "min_k_plus_plus_100": (rows.min_k_plus_plus, f"{_LOG_P}, standardised"),
    "modified_entropy": (rows.modified_entropy, _MODIFIED.format("")),
    "modified_renyi_05": (rows.modified_renyi_05, _MODIFIED.format("Renyi-1/2 ")),
    "modified_renyi_2": (rows.modified_renyi_2, _MODIFIED.format("Renyi-2 ")),
    "max_prob_gap": (rows.gap, "log p of the first less the second class"),
    "mean_renyi_05": (rows.renyi_05, RENYI.format("1/2")),
    "mean_renyi_1": (rows.renyi_1, RENYI.format("1")),
    "mean_renyi_2": (rows.renyi_2, RENYI.format("2")),
}
# By name without K: the statistic, which end of it, and that end as described.
_ENDS = ENTROPIES | likelihoods(_LOG_P)


def _score(name: str) -> Score:
    if name in _MEANS:
        statistic, text = _MEANS[name]
        whole = statistic is rows.vid_sme_sequence
        over = "of the rows' mean distribution" if whole else "mean over all video rows"
        return Score(name, statistic, "mean", 1.0, f"{text}, {over}")
    family, k = (name, 30) if name == "vid_sme" else name.rsplit("_", 1)
    statistic, tail, text, end = _ENDS[family]
    over = f"mean of the {k} % {end} rows" if int(k) else f"the {end} row"
    return Score(family, statistic, tail, int(k) / 100, f"{text}, {over}")


def _deform(renyi: Any, q: Any, r: Any) -> Any:
    return stored.sharma_mittal_of_renyi(renyi, r)


EXACT = Profile(
    name="exact",
    sign=-1.0,
    deform=_deform,
    table={name: _score(name) for name in _NAMES.split()} | TEXTS,
)
