"""Scores: a statistic of each row, and which rows of a slice are averaged.

A score is a small pure function of `TokenSignals`, and each stands under its own name
in the table of a profile: those of the video's rows by themselves, those of the rows of
a question or an answer with the prefix `instruction_` or `response_`. With a reference
model each has a form that ends in `_ref`: the model's value less the reference's. In
profile "exact" a larger score means "more likely a member", for every score. In profile
"official" names, arithmetic and sign (smaller = member) are those of the paper's
release, which scores the video's rows only.
"""

# Arguments are checked, whatever their annotations say.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vidsme_jax.arguments import number, one_of, require, text_list
from vidsme_jax.base import SLICES, AuditError, ScoredText, TokenSignals
from vidsme_jax.names import CALIBRATED, is_calibrated, uncalibrated
from vidsme_jax.scores import statistics
from vidsme_jax.scores.exact import EXACT
from vidsme_jax.scores.official import OFFICIAL
from vidsme_jax.scores.profile import Profile, Revealed
from vidsme_jax.wording import nearest

PROFILES: dict[str, Profile] = {each.name: each for each in (EXACT, OFFICIAL)}
# Reported with a headline of the video's rows; declared here, before any result.
SECOND = "response_min_k_plus_plus_100"
GREEDY_SECOND = "response_mean_renyi_1"  # Where `needs_given_answers` rules it out.


class Beside(NamedTuple):
    """A further score of a report, and its declared role."""

    score: str
    role: str


def compute(
    signals: TokenSignals | None,
    q: float,
    r: float,
    names: Iterable[str],
    *,
    profile: str = "exact",
    text: ScoredText | None = None,
    reference: Revealed | None = None,
) -> dict[str, float]:
    """Computes the named scores of one clip and of one text about it.

    Args:
      signals: Of the video's rows, (2, rows, ...) each, see `base.TokenSignals`; None
        where only scores of text are asked for.
      q: Order, in [1, 2].
      r: Degree, >= 1.
      names: Of the profile's table; with a reference also ending in `_ref`.
      profile: "exact" (larger = member) or "official" (smaller = member).
      text: Needed by the scores of its rows.
      reference: What the reference model reveals of the same clip and text; needed by
        the scores that end in `_ref` and by those that compare the two models. Where it
        has no rows of theirs they are NaN, and of two models that split the answer into
        different tokens, `response_wbc`.

    Raises:
      AuditError: q or r is out of range, a name is unknown (the message has the nearest
        one), or what a score reads is not there.

    Example, of two rows whose log p of the argmax is -0.1 and -0.5, and of a model that
    is less certain:

    >>> import numpy as np
    >>> log_p = np.array([[-0.1, -0.5]] * 2)
    >>> unread = np.zeros((2, 2, 15)), np.zeros((2, 2)), np.zeros((2, 2))
    >>> signals = TokenSignals(*unread, log_p)
    >>> compute(signals, 1.5, 1.05, ["perplexity", "min_k_prob_0"])
    {'perplexity': -0.3, 'min_k_prob_0': -0.5}
    >>> other = Revealed(TokenSignals(*unread, 2 * log_p))
    >>> compute(signals, 1.5, 1.05, ["perplexity_ref"], reference=other)
    {'perplexity_ref': 0.3}
    """
    chosen, names = _profile(profile), text_list("names", names, "vid_sme")
    q, r = number("q", q, 1, 2), number("r", r, 1)
    for name in names:
        score = chosen.score(name)
        require(
            score.slice != "video" or signals is not None,
            f"{name} is of the video's rows; signals is None",
        )
        require(
            score.slice == "video" or text is not None,
            f"{name} is of rows of text; text is None",
        )
        require(
            not (is_calibrated(name) or score.compares) or reference is not None,
            f"{name} needs a reference model's; reference is None",
        )
    given: dict[str, tuple[Any, type]]
    given = {"text": (text, ScoredText), "reference": (reference, Revealed)}
    for key, (value, kind) in given.items():
        where = "base" if kind is ScoredText else "scores"
        require(
            value is None or isinstance(value, kind),
            f"{key} is {value!r}; it must be a {where}.{kind.__name__} or None",
        )
    theirs = reference and reference.text and reference.text.signals
    read = signals, text and text.signals, reference and reference.signals, theirs
    for each in read:
        _check_signals(each)
    try:
        return chosen.compute(signals, q, r, names, text=text, reference=reference)
    except TypeError as error:  # Of None, in place of an array.
        lacking = dict.fromkeys(f for each in read for f in _lacking(each))
        if not lacking:
            raise
        said = f"the signals lack what a chosen score needs ({', '.join(names)})"
        raise AuditError([f"{said}; these are None: {', '.join(lacking)}"]) from error


def _check_signals(signals: Any) -> None:
    """Checks that the arrays of a clip have two directions and the same rows."""
    if signals is None:
        return
    require(
        isinstance(signals, TokenSignals),
        f"signals is a {type(signals).__name__}; it must be base.TokenSignals",
    )
    arrays = {k: np.shape(v) for k, v in signals._asdict().items() if v is not None}
    rows = {shape[:2] for name, shape in arrays.items() if name != "mean_renyi"}
    same = len(rows) <= 1 and all(len(x) == 2 and x[0] == 2 and x[1] > 0 for x in rows)
    listed = ", ".join(f"{name} {shape}" for name, shape in arrays.items())
    require(
        same,
        f"the signals have shapes {listed}; each must begin with (2, rows), one clip's "
        "two directions",
    )
    for name in arrays:
        require(
            np.isfinite(getattr(signals, name)).all(),
            f"{name} of the signals is not finite",
        )


def _lacking(signals: TokenSignals | None) -> list[str]:
    fields = signals._asdict() if signals is not None else {}
    return [name for name, value in fields.items() if value is None]


def needs_given_answers(name: str) -> bool:
    """Returns whether a score says nothing of answers that the model generated."""
    return uncalibrated(name).startswith(("response_min_k_plus_plus", "response_rank"))


def named(given: Any) -> tuple[str, ...]:
    """Returns the names that `config.scores` lists, each once.

    Args:
      given: Names in a tuple or list, or in one text with commas between them.

    Raises:
      AuditError: It is neither.

    Example:
      >>> named("vid_sme, perplexity") == named(["vid_sme", "perplexity"])
      True
    """
    several: Sequence[Any] = given.split(",") if isinstance(given, str) else given
    require(
        isinstance(given, str | tuple | list)
        and all(isinstance(text, str) for text in several),
        f"scores are {given!r}; give a tuple of names, such as ('vid_sme', "
        "'perplexity'), one text, such as 'vid_sme,perplexity', or 'all'",
    )
    parts = (text.strip() for text in several)
    return tuple(dict.fromkeys(part for part in parts if part))


def resolve(
    given: str | Sequence[str],
    profile: str,
    slices: Iterable[str] = ("video",),
    reference: bool = False,
) -> tuple[str, ...]:
    """Turns `config.scores` into names.

    Args:
      given: Names, see `named`, or "all": of the chosen slices, with a reference also
        in their calibrated forms.
      profile: "exact" or "official".
      slices: Whose rows are scored.
      reference: Whether there is a reference model.

    Raises:
      AuditError: Lists every name that is unknown, with the nearest known one, and
        every one of which rows or reference are not chosen, with the remedy.
    """
    slices, chosen = _slices(slices), _profile(profile)
    names, known = named(given), chosen.names(slices, reference)
    if names == ("all",):
        if not known:
            of = " and ".join(slices)
            raise AuditError(
                [
                    f"config.slices is {of}, of which profile {profile} has no scores: "
                    "add video, or give config.profile=exact"
                ]
            )
        return known
    lines = "--config.scores=list shows all"
    problems = [
        f"config.scores: {problem}"
        for name in names or ("",)
        if (problem := _problem(name, chosen, slices, reference, f"; {lines}"))
    ]
    if problems:
        raise AuditError(problems)
    return names


def headline(
    name: str,
    profile: str,
    slices: Iterable[str] = ("video",),
    reference: bool = False,
) -> str:
    """Returns the headline's column: `vid_sme` is `Min_30.0% vetp` in the release.

    Raises:
      AuditError: The profile has no such score, or its rows or the reference that it
        needs are not chosen.
    """
    chosen = _profile(profile)
    require(isinstance(name, str), f"the headline is {name!r}; give one score's name")
    name = _by_alias(name, chosen)
    slices = _slices(slices)
    if problem := _problem(name, chosen, slices, reference):
        known = name in chosen.names(SLICES, True)
        if known and (other := headline_of(slices)) in chosen.names(slices):
            if chosen.score(name).slice not in slices:
                of = "video" if "video" in slices else slices[0]
                problem += f", or set config.headline to a score of the {of}, such as "
                problem += other
        raise AuditError([f"config.headline: {problem}"])
    return name


def headline_of(slices: Sequence[str]) -> str:
    """Returns a score that may be the headline where these slices are scored.

    Example:
      >>> headline_of(("video", "response"))
      'vid_sme'
    """
    return "vid_sme" if "video" in slices else f"{slices[0]}_mean_renyi_1"


def beside(
    headline: str, names: Iterable[str], profile: str, *, greedy: bool = False
) -> Beside | None:
    """Returns the further score that a report states, None for none.

    It is a rule, and no choice after the results: the paper's `vid_sme` as a control
    of any other headline; `SECOND` with a headline of the video's rows, or
    `GREEDY_SECOND` where answers are the model's own.

    Args:
      headline: Declared in advance.
      names: Of the scores that were computed.
      profile: "exact" or "official".
      greedy: Whether the model generated the answers.
    """
    chosen, names = _profile(profile), set(text_list("names", names, "vid_sme"))
    paper = _by_alias("vid_sme", chosen)
    if headline != paper and paper in names:
        return Beside(paper, "control")
    of_video = chosen.score(headline).slice == "video"
    second = GREEDY_SECOND if greedy else SECOND
    return Beside(second, "second score") if of_video and second in names else None


def needs_second_pass(names: Iterable[str], profile: str) -> bool:
    """Returns whether a score of the video needs what the head's second pass finds."""
    found = _profile(profile).statistics_of(_several(names), video=True)
    return bool(found & statistics.SECOND_PASS)


def needs_text_second_pass(names: Iterable[str], profile: str) -> bool:
    """Returns whether a score of text needs what the head's second pass finds."""
    found = _profile(profile).statistics_of(_several(names), video=False)
    return bool(found & statistics.SECOND_PASS)


def needs_blank(names: Iterable[str], profile: str) -> bool:
    """Returns whether a score needs the rows of text after a grey video."""
    found = _profile(profile).statistics_of(_several(names), video=False)
    return bool(found & statistics.BLANK)


def compares_orders(name: str, profile: str) -> bool:
    """Returns whether a score compares the two orders of the frames.

    Example:
      >>> compares_orders("vid_sme", "exact"), compares_orders("perplexity", "exact")
      (True, False)
    """
    return _profile(profile).score(name).statistic in statistics.ORDERS


def description(name: str, profile: str) -> str:
    """Returns what a score is, in one line."""
    text = _profile(profile).score(name).description
    return f"{text}; less the reference model's" if is_calibrated(name) else text


def describe(profile: str) -> str:
    """Returns the table of scores as text, one line each."""
    table = _profile(profile).table
    width = max(map(len, table))
    lines = [f"{name:<{width}}  {s.description}" for name, s in table.items()]
    lines.append(f"{f'NAME{CALIBRATED}':<{width}}  any of them less the reference's")
    return "\n".join(lines)


def _profile(name: str) -> Profile:
    return PROFILES[one_of("profile", name, PROFILES)]


def _slices(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        one_of("slice", x, SLICES) for x in text_list("slices", given, "video")
    )


def _several(names: Iterable[str]) -> Iterable[str]:
    require(not isinstance(names, str), f"names is {names!r}, one text; give a list")
    return names


def _by_alias(name: str, profile: Profile) -> str:
    plain = uncalibrated(name)
    return profile.aliases.get(plain, plain) + name[len(plain) :]


def _problem(
    name: str,
    profile: Profile,
    slices: tuple[str, ...],
    reference: bool,
    more: str = "",
) -> str:
    """Says why a score cannot be computed, and the remedy; "" if it can."""
    if name in profile.names(slices, reference):
        return ""
    if name not in profile.names(SLICES, True):
        if profile is OFFICIAL and name in EXACT.names(SLICES, True):
            return (
                f"unknown score {name!r} in profile official; config.profile=exact has "
                "it"
            )
        hint = nearest(name, profile.names(slices, reference))
        return f"unknown score {name!r} in profile {profile.name}{hint}{more}"
    if (where := profile.score(name).slice) not in slices:
        return (
            f"{name} is a score of the {where} slice, and config.slices is "
            f"{', '.join(slices)}: add {where!r} to config.slices"
        )
    return (
        f"{name} compares with a reference model, and there is none: give "
        "config.reference.checkpoint, or config.reference.adapter=off"
    )
