"""One end of a statistic of entropies, which rows of the video and of text have alike.

A score of the K % rows at one end of a statistic has the name of that end, then K.
"""

from vidsme_jax.scores import statistics as rows
from vidsme_jax.scores.statistics import Statistic

# The statistic, which end of it, its description, and that end as described.
End = tuple[Statistic, str, str, str]

SME = "SME with the reversed minus with the natural frames"
RENYI = "minus the Renyi-{} entropy"

# By name without slice and K.
ENTROPIES: dict[str, End] = {
    "vid_sme": (rows.vid_sme, "min", SME, "largest"),  # The sign is turned.
    "vid_sme_min": (rows.vid_sme, "min", SME, "largest"),
    "vid_sme_max": (rows.vid_sme, "max", SME, "smallest"),
    "max_renyi_05": (rows.renyi_05, "max", RENYI.format("1/2"), "largest"),
    "min_renyi_05": (rows.renyi_05, "min", RENYI.format("1/2"), "smallest"),
    "max_renyi_1": (rows.renyi_1, "max", RENYI.format("1"), "largest"),
    "min_renyi_1": (rows.renyi_1, "min", RENYI.format("1"), "smallest"),
    "max_renyi_2": (rows.renyi_2, "max", RENYI.format("2"), "largest"),
    "min_renyi_2": (rows.renyi_2, "min", RENYI.format("2"), "smallest"),
    "max_renyi_inf": (rows.renyi_inf, "max", RENYI.format("inf"), "largest"),
    "min_renyi_inf": (rows.renyi_inf, "min", RENYI.format("inf"), "smallest"),
}


def likelihoods(log_p: str) -> dict[str, End]:
    """Returns the ends of likelihoods, whose targets `log_p` describes."""
    standardised = f"{log_p}, standardised"
    return {
        "min_k_prob": (rows.nll, "max", log_p, "smallest"),
        "min_k_plus_plus": (rows.min_k_plus_plus, "max", standardised, "smallest"),
    }
