"""Scores: a statistic of each row, and which rows of a clip are averaged.

A score is a small pure function of `TokenSignals`, and each stands under its own name
in the table of a profile. In profile "exact" a larger score means "more likely a
member", for every score. In profile "official" names, arithmetic and sign (smaller =
member) are those of the paper's release.
"""

from collections.abc import Iterable

from vidsme_jax.base import AuditError, TokenSignals, nearest
from vidsme_jax.scores.exact import EXACT
from vidsme_jax.scores.official import OFFICIAL
from vidsme_jax.scores.profile import Profile

PROFILES: dict[str, Profile] = {each.name: each for each in (EXACT, OFFICIAL)}


def compute(
    signals: TokenSignals,
    q: float,
    r: float,
    names: Iterable[str],
    *,
    profile: str = "exact",
) -> dict[str, float]:
    """Computes the named scores of one clip.

    Args:
      signals: Arrays (2, rows, ...); see `base.TokenSignals`.
      q: Order, in [1, 2].
      r: Degree, >= 1.
      names: Of the profile's table.
      profile: "exact" (larger = member) or "official" (smaller = member).

    Example, of two rows whose log p of the argmax is -0.1 and -0.5:

    >>> import numpy as np
    >>> log_p = np.array([[-0.1, -0.5]] * 2)
    >>> signals = TokenSignals(None, None, None, log_p)
    >>> compute(signals, 1.5, 1.05, ["perplexity", "min_k_prob_0"])
    {'perplexity': -0.3, 'min_k_prob_0': -0.5}
    """
    return PROFILES[profile].compute(signals, q, r, names)


def resolve(
    text: str, profile: str, slices=("video",), reference=False
) -> tuple[str, ...]:
    """Turns `config.scores` into names.

    Args:
      text: Names separated by commas, or "all".
      profile: "exact" or "official".

    Raises:
      AuditError: Lists every unknown name with the nearest known one.
    """
    table = PROFILES[profile].table
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


def headline(name: str, profile: str, slices=("video",), reference=False) -> str:
    """Returns the headline's column: `vid_sme` is `Min_30.0% vetp` in the release.

    Raises:
      AuditError: The profile has no such score.
    """
    chosen = PROFILES[profile]
    name = chosen.aliases.get(name, name)
    if name not in chosen.table:
        hint = nearest(name, list(chosen.table))
        raise AuditError([f"config.headline: unknown score {name!r}{hint}"])
    return name


def needs_second_pass(names: Iterable[str], profile: str) -> bool:
    """Returns whether a score needs what the head's second pass computes."""
    return PROFILES[profile].needs_second_pass(names)


def needs_text_second_pass(names: Iterable[str], profile: str) -> bool:
    """Stand-in."""
    return False


def needs_blank(names: Iterable[str], profile: str) -> bool:
    """Stand-in."""
    return False


def describe(profile: str) -> str:
    """Returns the table of scores as text, one line each."""
    table = PROFILES[profile].table
    width = max(map(len, table))
    return "\n".join(f"{name:<{width}}  {s.description}" for name, s in table.items())
