"""Scores: a statistic of each row, and which rows of a clip are averaged.

A score is a small pure function of `TokenSignals`. In profile "exact" a larger score
means "more likely a member", for every score. In profile "official" the names, the
arithmetic and the sign (smaller = member) are those of the paper's release, whose 85
names are 70 distinct rankings: there, Min-K% Prob of a row whose target is its own
argmax is Max-K% Renyi-inf, and ln ppl is its mean. "exact" lists each ranking once.

References:
  [1] Li, Yu and Wang, 2025. Vid-SME. https://arxiv.org/abs/2506.03179
  [2] Li et al., 2024. Max-Renyi. https://arxiv.org/abs/2411.02902
  [3] Shi et al., 2023. Min-K% Prob. https://arxiv.org/abs/2310.16789
  [4] Zhang et al., 2024. Min-K%++. https://arxiv.org/abs/2404.02936
  [5] Song and Mittal, 2021. Modified entropy. https://arxiv.org/abs/2003.10595
  [6] Carlini et al., 2021. Perplexity. https://arxiv.org/abs/2012.07805
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.base import AuditError, TokenSignals, nearest
from vidsme_jax.entropy import definitions

Rows = Float[np.ndarray, " rows"]

RATIOS = (0.0, 0.05, 0.1, 0.3, 0.6, 0.9)
_SHANNON, _TWO, _INF = 1, 13, 14  # Places in the Renyi profile.


@dataclasses.dataclass(frozen=True)
class Score:
    """Which rows of which statistic are averaged.

    Attributes:
      statistic: A key of `_STATISTICS`, or "sequence".
      tail: "max" or "min": the largest or smallest rows; "mean": all of them.
      ratio: Of the rows, at least one; ignored for "mean".
      description: One line.
      source: Number in this module's references.
    """

    statistic: str
    tail: str
    ratio: float
    description: str
    source: int


@dataclasses.dataclass(frozen=True)
class Clipwise:
    """What a statistic may look at: one clip's signals and its entropy orders."""

    signals: TokenSignals
    q: float
    r: float
    official: bool


def vid_sme_rows(c: Clipwise) -> Rows:
    """Sharma-Mittal entropy, natural less reversed, position by position [1]."""
    natural, backward = _sharma_mittal_rows(c)
    return natural - backward


def sharma_mittal(
    signals: TokenSignals, q: float, r: float, *, profile: str = "exact"
) -> Float[np.ndarray, "2 rows"]:
    """Sharma-Mittal entropy of every row, natural and reversed [1], in nats."""
    return _sharma_mittal_rows(Clipwise(signals, q, r, profile == "official"))


def sharma_mittal_points(
    signals: TokenSignals,
    q: Float[np.ndarray, " points"],
    r: Float[np.ndarray, " points"],
    *,
    profile: str = "exact",
) -> Float[np.ndarray, "points 2 rows"]:
    """`sharma_mittal` at many (q, r), the same numbers; each distinct q costs once."""
    orders, place = np.unique(q, return_inverse=True)
    renyi = definitions.renyi_at_order(signals.renyi[..., 1:14], orders[:, None, None])
    renyi = np.asarray(renyi)[place]
    return _deform(renyi, q[:, None, None], r[:, None, None], profile == "official")


def _sharma_mittal_rows(c: Clipwise) -> Float[np.ndarray, "2 rows"]:
    renyi = definitions.renyi_at_order(c.signals.renyi[..., 1:14], c.q)
    return _deform(renyi, c.q, c.r, c.official)


def sequence(c: Clipwise) -> float:
    """Sharma-Mittal entropy of the mean distribution, natural less reversed [1].

    The release averages one text row too many where the tokenizer adds no first token.
    """
    nodes = c.signals.mean_renyi[:, int(c.official), 1:14]
    renyi = definitions.renyi_at_order(nodes, c.q)
    natural, backward = _deform(renyi, c.q, c.r, c.official)
    return float(natural - backward)


def renyi_half_rows(c: Clipwise) -> Rows:
    """Renyi-1/2 of the natural clip [2]; the release's is of clamped probabilities."""
    s = c.signals
    return s.renyi_half_clamped[0] if c.official else s.renyi[0, :, 0]


def min_k_plus_plus_rows(c: Clipwise) -> Rows:
    """(mean of log p under p - log p of the target) / its deviation [4].

    For a point mass both are 0; the limit of their ratio is 0 too.
    """
    s = c.signals
    surprise = -s.renyi[0, :, _SHANNON] - s.log_prob[0]
    deviation = np.sqrt(s.varentropy[0])
    return np.where(deviation > 0, surprise / np.maximum(deviation, 1e-12), 0.0)


def _place(k: int) -> Callable[[Clipwise], Rows]:
    return lambda c: c.signals.renyi[0, :, k]


def _modified(k: int) -> Callable[[Clipwise], Rows]:
    return lambda c: c.signals.modified[0, :, k]


# Statistics of a row, all oriented so that smaller = member, as in the release.
_STATISTICS: dict[str, Callable[[Clipwise], Rows]] = {
    "sme": vid_sme_rows,
    "renyi_05": renyi_half_rows,
    "renyi_1": _place(_SHANNON),
    "renyi_2": _place(_TWO),
    "renyi_inf": _place(_INF),
    "nll": lambda c: -c.signals.log_prob[0],
    "modified_entropy": _modified(0),
    "modified_renyi_05": _modified(1),
    "modified_renyi_2": _modified(2),
    "gap": lambda c: -c.signals.gap[0],
    "min_k_plus_plus": min_k_plus_plus_rows,
}
_SECOND_PASS = {"sequence", "modified_entropy", "modified_renyi_05", "modified_renyi_2"}


def needs_second_pass(names: Iterable[str], profile: str) -> bool:
    """Tells whether any of the scores needs what the head's second pass gives."""
    table = TABLES[profile]
    statistics = {table[name].statistic for name in names}
    clamped = profile == "official" and "renyi_05" in statistics
    return clamped or bool(statistics & _SECOND_PASS)


def resolve(text: str, profile: str) -> tuple[str, ...]:
    """Turns `config.scores` into names.

    Args:
      text: Names separated by commas, or "all".
      profile: "exact" or "official".

    Raises:
      AuditError: Lists every unknown name with the nearest known one.
    """
    table = TABLES[profile]
    if text == "all":
        return tuple(table)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in table]
    if unknown or not names:
        raise AuditError(
            [
                f"config.scores: unknown score {name!r} in profile {profile}"
                f"{nearest(name, list(table))}; --config.scores=list shows all"
                for name in unknown or ("",)
            ]
        )
    return names


def headline(name: str, profile: str) -> str:
    """Returns the headline's column: `vid_sme` is `Min_30.0% vetp` in the release.

    Raises:
      AuditError: The profile has no such score.
    """
    if name == "vid_sme" and profile == "official":
        name = "Min_30.0% vetp"
    if name not in TABLES[profile]:
        known = list(TABLES[profile])
        raise AuditError(
            [f"config.headline: unknown score {name!r}{nearest(name, known)}"]
        )
    return name


def compute(
    signals: TokenSignals,
    q: float,
    r: float,
    names: Iterable[str],
    *,
    profile: str = "exact",
) -> dict[str, float]:
    """Returns the named scores of one clip.

    Args:
      signals: Arrays (2, rows, ...); see `base.TokenSignals`.
      q: Order, in [1, 2].
      r: Degree, >= 1.
      names: Keys of `TABLES[profile]`.
      profile: "exact" (larger = member) or "official" (smaller = member).
    """
    official = profile == "official"
    clip = Clipwise(signals, q, r, official)
    sign = 1.0 if official else -1.0
    ordered: dict[str, np.ndarray] = {}
    out = {}
    for name in names:
        score = TABLES[profile][name]
        if score.statistic == "sequence":
            out[name] = sign * sequence(clip)
            continue
        if score.statistic not in ordered:
            ordered[score.statistic] = ordered_rows(clip, score.statistic)
        value = float(tail_mean(ordered[score.statistic], score.tail, score.ratio))
        if official and name == "ppl":
            value = float(np.exp(value))
        out[name] = sign * value
    return out


def describe(profile: str) -> str:
    """Returns the table of scores as text, one line each."""
    table = TABLES[profile]
    width = max(map(len, table))
    return "\n".join(f"{name:<{width}}  {s.description}" for name, s in table.items())


def ordered_rows(clip: Clipwise, statistic: str) -> Rows:
    """A statistic of every row, ascending, smaller = member."""
    return np.sort(_STATISTICS[statistic](clip).astype(np.float64))


def tail_mean(
    ordered: Float[np.ndarray, "*series rows"], tail: str, ratio: float
) -> Float[np.ndarray, "*series"] | np.floating:
    """Averages one end of ascending rows: max(1, int(n * ratio)) of them."""
    if tail == "mean":
        return ordered.mean(-1)
    k = max(1, int(ordered.shape[-1] * ratio))
    return (ordered[..., :k] if tail == "min" else ordered[..., -k:]).mean(-1)


def _deform(renyi: Any, q: Any, r: Any, official: bool):
    if official:
        return definitions.sharma_mittal_of_log_power_sum((1.0 - q) * renyi, q, r)
    return definitions.sharma_mittal_of_renyi(renyi, r)


def _percent(ratio: float) -> int:
    return round(100 * ratio)


def _exact_table() -> dict[str, Score]:
    mean = "mean over all video rows"

    def end(tail: str, ratio: float) -> str:
        which = "largest" if tail == "max" else "smallest"
        return (
            f"the {which} row"
            if ratio == 0
            else (f"mean of the {_percent(ratio)} % {which} rows")
        )

    sme = "minus SME of natural less reversed frames"
    table = {"vid_sme": Score("sme", "min", 0.3, f"{sme}, {end('min', 0.3)}", 1)}
    for tail in ("min", "max"):
        for ratio in RATIOS:
            if (tail, ratio) != ("min", 0.3):
                name = f"vid_sme_{tail}_{_percent(ratio)}"
                table[name] = Score("sme", tail, ratio, f"{sme}, {end(tail, ratio)}", 1)
    table["vid_sme_mean"] = Score("sme", "mean", 1.0, f"{sme}, {mean}", 1)
    table["vid_sme_sequence"] = Score(
        "sequence", "mean", 1.0, f"{sme}, of the rows' mean distribution", 1
    )
    table["perplexity"] = Score("nll", "mean", 1.0, f"log p of the argmax, {mean}", 6)
    for ratio in RATIOS:
        text = f"log p of the argmax, {end('min', ratio)}"
        table[f"min_k_prob_{_percent(ratio)}"] = Score("nll", "max", ratio, text, 3)
    for ratio in RATIOS:
        text = f"log p of the argmax, standardised, {end('min', ratio)}"
        table[f"min_k_plus_plus_{_percent(ratio)}"] = Score(
            "min_k_plus_plus", "max", ratio, text, 4
        )
    text = f"log p of the argmax, standardised, {mean}"
    table["min_k_plus_plus_100"] = Score("min_k_plus_plus", "mean", 1.0, text, 4)
    for name, text in (
        ("modified_entropy", "minus the modified entropy"),
        ("modified_renyi_05", "minus the modified Renyi-1/2 entropy"),
        ("modified_renyi_2", "minus the modified Renyi-2 entropy"),
    ):
        source = 5 if name == "modified_entropy" else 2
        table[name] = Score(name, "mean", 1.0, f"{text}, {mean}", source)
    table["max_prob_gap"] = Score(
        "gap", "mean", 1.0, f"log p of the first less the second class, {mean}", 2
    )
    for order in ("05", "1", "2", "inf"):
        label = f"minus the Renyi-{order.replace('05', '1/2')} entropy"
        if order != "inf":
            for ratio in RATIOS:
                name = f"max_renyi_{order}_{_percent(ratio)}"
                text = f"{label}, {end('max', ratio)}"
                table[name] = Score(f"renyi_{order}", "max", ratio, text, 2)
            name = f"mean_renyi_{order}"
            table[name] = Score(f"renyi_{order}", "mean", 1.0, f"{label}, {mean}", 2)
        for ratio in RATIOS:
            name = f"min_renyi_{order}_{_percent(ratio)}"
            text = f"{label}, {end('min', ratio)}"
            table[name] = Score(f"renyi_{order}", "min", ratio, text, 2)
    return table


def _official_table() -> dict[str, Score]:
    """The release's 85 names in its order."""

    def label(ratio: float) -> str:
        return {0.0: "0%", 1.0: "100%"}.get(ratio, f"{ratio * 100}%")

    table = {"ppl": Score("nll", "mean", 1.0, "perplexity of the argmax", 6)}
    for ratio in RATIOS:
        text = "minus mean log p of the lowest rows"
        table[f"Min_{label(ratio)} Prob"] = Score("nll", "max", ratio, text, 3)
    for name, statistic, text in (
        ("Modified_entropy", "modified_entropy", "modified entropy"),
        ("Modified_renyi_05", "modified_renyi_05", "modified Renyi-1/2 entropy"),
        ("Modified_renyi_2", "modified_renyi_2", "modified Renyi-2 entropy"),
        ("Max_Prob_Gap", "gap", "minus the gap of log p of the two largest classes"),
    ):
        table[name] = Score(statistic, "mean", 1.0, text, 2)
    for tail in ("max", "min"):
        for ratio in (*RATIOS, 1.0):
            for order in ("05", "1", "2", "inf"):
                name = f"{tail.capitalize()}_{label(ratio)} renyi_{order}"
                text = f"mean of the {tail}imal rows of Renyi-{order}"
                table[name] = Score(f"renyi_{order}", tail, ratio, text, 2)
    text = "SME of natural less reversed frames"
    for name, tail in (("Max_vetp", "max"), ("Min_vetp", "min"), ("Mean_vetp", "mean")):
        table[name] = Score("sme", tail, 0.0, f"{text}, one {tail}", 1)
    for ratio in (*RATIOS, 1.0):
        for tail in ("max", "min"):
            name = f"{tail.capitalize()}_{label(ratio)} vetp"
            table[name] = Score("sme", tail, ratio, f"{text}, {tail}imal rows", 1)
    table["sequence_vetp"] = Score(
        "sequence", "mean", 1.0, f"{text}, of the mean distribution", 1
    )
    return table


TABLES: dict[str, dict[str, Score]] = {
    "exact": _exact_table(),
    "official": _official_table(),
}
