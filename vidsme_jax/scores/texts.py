"""Scores of text: of the question's rows, `instruction`, and the answer's, `response`.

Both slices have the same scores, after the name of the slice, and answers a few more.
The text on the video's rows in `exact` holds here, except that the target of a row is
the true token. To add one, name it in `_NAMES` with its slice, in the place of its
column, and say in `_MEANS` or `_ENDS`, without the slice, what it averages.
"""

from vidsme_jax.scores import statistics as rows
from vidsme_jax.scores.ends import ENTROPIES, RENYI, SME, likelihoods
from vidsme_jax.scores.profile import Score

_NAMES = """
instruction_loss instruction_loss_sum instruction_standardised_entropy
instruction_rank
instruction_min_k_prob_0 instruction_min_k_prob_5 instruction_min_k_prob_10
instruction_min_k_prob_30 instruction_min_k_prob_60 instruction_min_k_prob_90
instruction_min_k_plus_plus_0 instruction_min_k_plus_plus_5
instruction_min_k_plus_plus_10 instruction_min_k_plus_plus_30
instruction_min_k_plus_plus_60 instruction_min_k_plus_plus_90
instruction_min_k_plus_plus_100
instruction_max_renyi_05_0 instruction_max_renyi_05_5 instruction_max_renyi_05_10
instruction_max_renyi_05_30 instruction_max_renyi_05_60 instruction_max_renyi_05_90
instruction_mean_renyi_05 instruction_min_renyi_05_0 instruction_min_renyi_05_5
instruction_min_renyi_05_10 instruction_min_renyi_05_30 instruction_min_renyi_05_60
instruction_min_renyi_05_90
instruction_max_renyi_1_0 instruction_max_renyi_1_5 instruction_max_renyi_1_10
instruction_max_renyi_1_30 instruction_max_renyi_1_60 instruction_max_renyi_1_90
instruction_mean_renyi_1 instruction_min_renyi_1_0 instruction_min_renyi_1_5
instruction_min_renyi_1_10 instruction_min_renyi_1_30 instruction_min_renyi_1_60
instruction_min_renyi_1_90
instruction_max_renyi_2_0 instruction_max_renyi_2_5 instruction_max_renyi_2_10
instruction_max_renyi_2_30 instruction_max_renyi_2_60 instruction_max_renyi_2_90
instruction_mean_renyi_2 instruction_min_renyi_2_0 instruction_min_renyi_2_5
instruction_min_renyi_2_10 instruction_min_renyi_2_30 instruction_min_renyi_2_60
instruction_min_renyi_2_90
instruction_max_renyi_inf_0 instruction_max_renyi_inf_5 instruction_max_renyi_inf_10
instruction_max_renyi_inf_30 instruction_max_renyi_inf_60 instruction_max_renyi_inf_90
instruction_mean_renyi_inf instruction_min_renyi_inf_0 instruction_min_renyi_inf_5
instruction_min_renyi_inf_10 instruction_min_renyi_inf_30 instruction_min_renyi_inf_60
instruction_min_renyi_inf_90
instruction_vid_sme instruction_vid_sme_min_0 instruction_vid_sme_min_5
instruction_vid_sme_min_10 instruction_vid_sme_min_60 instruction_vid_sme_min_90
instruction_vid_sme_max_0 instruction_vid_sme_max_5 instruction_vid_sme_max_10
instruction_vid_sme_max_30 instruction_vid_sme_max_60 instruction_vid_sme_max_90
instruction_vid_sme_mean instruction_vid_sme_sequence
response_loss response_loss_sum response_standardised_entropy response_rank
response_min_k_prob_0 response_min_k_prob_5 response_min_k_prob_10
response_min_k_prob_30 response_min_k_prob_60 response_min_k_prob_90
response_min_k_plus_plus_0 response_min_k_plus_plus_5 response_min_k_plus_plus_10
response_min_k_plus_plus_30 response_min_k_plus_plus_60 response_min_k_plus_plus_90
response_min_k_plus_plus_100
response_max_renyi_05_0 response_max_renyi_05_5 response_max_renyi_05_10
response_max_renyi_05_30 response_max_renyi_05_60 response_max_renyi_05_90
response_mean_renyi_05 response_min_renyi_05_0 response_min_renyi_05_5
response_min_renyi_05_10 response_min_renyi_05_30 response_min_renyi_05_60
response_min_renyi_05_90
response_max_renyi_1_0 response_max_renyi_1_5 response_max_renyi_1_10
response_max_renyi_1_30 response_max_renyi_1_60 response_max_renyi_1_90
response_mean_renyi_1 response_min_renyi_1_0 response_min_renyi_1_5
response_min_renyi_1_10 response_min_renyi_1_30 response_min_renyi_1_60
response_min_renyi_1_90
response_max_renyi_2_0 response_max_renyi_2_5 response_max_renyi_2_10
response_max_renyi_2_30 response_max_renyi_2_60 response_max_renyi_2_90
response_mean_renyi_2 response_min_renyi_2_0 response_min_renyi_2_5
response_min_renyi_2_10 response_min_renyi_2_30 response_min_renyi_2_60
response_min_renyi_2_90
response_max_renyi_inf_0 response_max_renyi_inf_5 response_max_renyi_inf_10
response_max_renyi_inf_30 response_max_renyi_inf_60 response_max_renyi_inf_90
response_mean_renyi_inf response_min_renyi_inf_0 response_min_renyi_inf_5
response_min_renyi_inf_10 response_min_renyi_inf_30 response_min_renyi_inf_60
response_min_renyi_inf_90
response_vid_sme response_vid_sme_min_0 response_vid_sme_min_5 response_vid_sme_min_10
response_vid_sme_min_60 response_vid_sme_min_90 response_vid_sme_max_0
response_vid_sme_max_5 response_vid_sme_max_10 response_vid_sme_max_30
response_vid_sme_max_60 response_vid_sme_max_90 response_vid_sme_mean
response_vid_sme_sequence
response_pmi response_pmi_blank response_zlib response_wbc
"""
_LOG_P = "log p of the token"
_STANDARDISED = "minus the entropy over the root mean square of log p"
_WHERE = {"instruction": "question", "response": "answer"}

# By name without the slice: the statistic, and its description.
_MEANS = {
    "loss": (rows.nll, f"{_LOG_P}, mean"),
    "loss_sum": (rows.nll_sum, f"{_LOG_P}, sum (its length counts)"),
    "standardised_entropy": (rows.standardised_entropy, f"{_STANDARDISED}, mean"),
    "rank": (rows.log_rank, "minus the log of the token's rank, mean"),
    "min_k_plus_plus_100": (rows.min_k_plus_plus, f"{_LOG_P}, standardised, mean"),
    "mean_renyi_05": (rows.renyi_05, f"{RENYI.format('1/2')}, mean"),
    "mean_renyi_1": (rows.renyi_1, f"{RENYI.format('1')}, mean"),
    "mean_renyi_2": (rows.renyi_2, f"{RENYI.format('2')}, mean"),
    "mean_renyi_inf": (rows.renyi_inf, f"{RENYI.format('inf')}, mean"),
    "vid_sme_mean": (rows.vid_sme, f"{SME}, mean"),
    "vid_sme_sequence": (rows.vid_sme_sequence, f"{SME}, of the mean distribution"),
    "pmi": (
        rows.pmi,
        f"{_LOG_P}, with the natural minus with the reversed frames, mean",
    ),
    "pmi_blank": (
        rows.pmi_blank,
        f"{_LOG_P}, with the video minus with a grey one, mean",
    ),
    "zlib": (
        rows.nll_per_zlib_byte,
        f"{_LOG_P}, sum, divided by the answer's bytes in zlib",
    ),
    "wbc": (
        rows.windows,
        f"share of runs of 2 to 40 tokens of higher {_LOG_P} than the reference's",
    ),
}
# By name without slice and K: the statistic, which end of it, and that end in words.
_ENDS = ENTROPIES | likelihoods(_LOG_P)
# Of a memorised answer both orders lose entropy, so that their differences shrink.
_CONTROL = "; a control: below chance where answers are memorised"
# The most probable token of a peaked row is hardly above the row's mean log p.
_GIVEN = "; for given answers: on greedy answers memorised clips rank below"


def _score(name: str) -> Score:
    slice_, _, short = name.partition("_")
    where = f"{_WHERE[slice_]}: "
    if short in _MEANS:
        statistic, text = _MEANS[short]
        text += _GIVEN if name == "response_min_k_plus_plus_100" else ""
        return Score(name, statistic, "mean", 1.0, where + text, slice_)
    family, k = (short, 30) if short == "vid_sme" else short.rsplit("_", 1)
    statistic, tail, text, end = _ENDS[family]
    over = f"mean of the {k} % {end} rows" if int(k) else f"the {end} row"
    is_control = slice_ == "response" and family in ("vid_sme", "vid_sme_min")
    text = f"{where}{text}, {over}{_CONTROL if is_control else ''}"
    return Score(f"{slice_}_{family}", statistic, tail, int(k) / 100, text, slice_)


TEXTS = {name: _score(name) for name in _NAMES.split()}
