"""Draws of the simulations of `validity.py`: a world, and what the program makes of it.

A cell is a name and the arguments of its world; a draw returns numbers from 0 to 1 by
name, most of them 0 or 1, whose means over draws are the result.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import _worlds
import numpy as np
import scipy.special

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import (
    adjusted,
    blind,
    clustered,
    family_tests,
    groups,
    intervals,
    metrics,
    power,
    ranking,
    sets,
    splitting,
    suspects,
    validity,
    verdicts,
)
from vidsme_jax.evaluation import placebo as placebos
from vidsme_jax.evaluation.sources import Sources, halves

Cells = Iterator[tuple[str, dict[str, Any]]]
Draw = Callable[..., dict[str, float]]

ALPHA = 0.05
PERMUTATIONS = 199  # p <= 0.05 has a chance of exactly 10 in 200 where nothing is.
SOURCES, PER = (20, 50, 100), (1, 5)
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
RATES = (0.05, 0.1)
LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


# --- intervals -----------------------------------------------------------------------


def interval_cells() -> Cells:
    """Yields numbers of sources, clips a source and ties; then maxT."""
    for n in (10, 20, 30, 100):
        for per, icc in ((1, 0.0), (5, 0.5), (5, 0.1)):
            for ties in (False, True):
                of = f"{n} sources of {per}" + (f", ICC {icc:g}" if per > 1 else "")
                about = {"sources": n, "per": per, "icc": icc, "ties": ties}
                yield f"{of}{', ties' * ties}", about
    for n in (20, 100):
        for per in PER:
            yield f"maxT, {n} sources of {per}", {"sources": n, "per": per, "maxt": 77}


def interval_draw(
    rng: np.random.Generator,
    sources: int,
    per: int,
    icc: float = 0.5,
    ties: bool = False,
    maxt: int = 0,
) -> dict[str, float]:
    """Says of each AUC which intervals hold the truth, or whether maxT errs."""
    unit = np.repeat(np.arange(sources), per)
    if maxt:
        both = _worlds.scores(rng, sources, per, maxt).T
        half = sources * per
        found = clustered.influences(
            both[:, :half], both[:, half:], unit, unit + sources
        )
        p = clustered.adjusted([found], 1999, _seed(rng))[0]
        return {"family-wise error": float(p.min() <= ALPHA)}
    results = {}
    for auc in AUCS:
        d = _worlds.shift_of(auc)
        members = _worlds.clips(rng, sources, per, icc)[:, 0] + d
        others = _worlds.clips(rng, sources, per, icc)[:, 0]
        if ties:
            members, others = np.round(members), np.round(others)
        found = clustered.influences(members[None], others[None], unit, unit + sources)
        low, high = found.interval(0)
        truth = _true_auc(d) if ties else auc
        results[f"auc {auc:g} covered"] = float(low <= truth <= high)
        results[f"auc {auc:g} above"] = float(low > truth)
        effective = intervals.effective(unit)
        for rate in RATES:
            if effective * rate >= 1 - 1e-9:
                low, high = intervals.rate_at_quantile(
                    members, others, (effective, effective), rate
                )
                held = low <= _true_tpr(d, rate, ties) <= high
                results[f"tpr {rate:g} {auc:g} covered"] = float(held)
        results |= _accuracy(members, others, unit, d, ties, _seed(rng), f"{auc:g}")
    return results


def _accuracy(
    members: np.ndarray,
    others: np.ndarray,
    unit: np.ndarray,
    d: float,
    ties: bool,
    seed: int,
    name: str,
) -> dict[str, float]:
    """Looks whether the interval holds the accuracy of the thresholds that were used.

    And the best one, which is that of any threshold.
    """
    units = unit, unit + int(unit.max()) + 1
    found = splitting.accuracy(members, others, *units, seed)
    values, label = np.concatenate([members, others]), np.arange(2 * len(unit))
    label = label < len(unit)
    half = halves(np.concatenate(units), label, np.random.default_rng([seed, 4]))
    true = []
    for test in (half, ~half):
        threshold = splitting._best(values[~test], label[~test])
        true.append(_true_accuracy(threshold, d, ties))
    # Of the normal law the middle is best; of rounded values one of the steps is.
    steps = np.arange(-8, 16).tolist() if ties else [d / 2]
    best = max(_true_accuracy(float(at), d, ties) for at in steps)
    low, high = found["low"], found["high"]
    return {
        f"accuracy {name} covered": float(low <= np.mean(true) <= high),
        f"accuracy {name} best covered": float(low <= best <= high),
        f"accuracy {name} above": float(low > np.mean(true)),
    }


def _true_accuracy(threshold: float, d: float, ties: bool) -> float:
    edge = np.ceil(threshold) - 0.5 if ties and np.isfinite(threshold) else threshold
    return float((_cdf(d - edge) + _cdf(edge)) / 2)


def _true_auc(d: float) -> float:
    """Returns the AUC of rounded values."""
    steps = np.arange(-12, 20)
    members = _cdf(steps + 0.5 - d) - _cdf(steps - 0.5 - d)
    others = _cdf(steps + 0.5) - _cdf(steps - 0.5)
    return float((members * (np.cumsum(others) - others / 2)).sum())


def _true_tpr(d: float, rate: float, ties: bool) -> float:
    """Returns the largest TPR of the population whose FPR is at most this."""
    threshold = -scipy.special.ndtri(rate)
    if ties:
        threshold = np.ceil(threshold + 0.5) - 0.5
    return float(_cdf(d - threshold))


def _cdf(values: Any) -> Any:
    return scipy.special.ndtr(values)


# --- blind ---------------------------------------------------------------------------


def blind_cells() -> Cells:
    """Yields nothing that differs, and one column of each family."""
    for shifted in ("", *_worlds.SIZES):
        for n in SOURCES:
            for per in PER:
                what = f"{shifted} 0.95" if shifted else "size"
                about = {"sources": n, "per": per, "shifted": shifted}
                yield f"{what}, {n} sources of {per}", about


def blind_draw(
    rng: np.random.Generator, sources: int, per: int, shifted: str
) -> dict[str, float]:
    """Tests all 44 columns together."""
    world = _worlds.features(rng, sources, per, shifted, 0.95)
    families, found = _worlds.families(world)
    seed = _seed(rng)
    joint = blind.joint(families, found, found.permuted(PERMUTATIONS, seed), seed)
    named = float(joint.p <= ALPHA and joint.family == shifted)
    numbers = {f"p <= {a:g}": float(joint.p <= a) for a in LEVELS}
    return numbers | ({"found and named": named} if shifted else {})


# --- adjusted ------------------------------------------------------------------------


def adjusted_cells() -> Cells:
    """Yields how the roles differ and what the score has to do with it."""
    for what, (auc, rho, columns) in {
        "nothing differs, score independent": (0.5, 0.0, 4),
        "nothing differs, score depends": (0.5, 0.5, 4),
        "blind 0.7, score independent": (0.7, 0.0, 4),
        "blind 0.9, score independent": (0.9, 0.0, 4),
        "blind 0.7 by 1 column, score depends": (0.7, 0.5, 1),
        "blind 0.7 by 4 columns, score depends": (0.7, 0.5, 4),
        "blind 0.7 by 10 columns, score depends": (0.7, 0.5, 10),
        "blind 0.9 by 4 columns, score depends": (0.9, 0.5, 4),
        "blind 0.9 by 10 columns, score depends": (0.9, 0.5, 10),
    }.items():
        world = {"blind": auc, "rho": rho, "columns": columns}
        for n in SOURCES:
            for per in PER:
                about = {"sources": n, "per": per} | world
                yield f"{what}, {n} sources of {per}", about


def adjusted_draw(
    rng: np.random.Generator, sources: int, per: int, **about: Any
) -> dict[str, float]:
    """Tests a score that knows nothing of membership, with and without adjustment."""
    world = _worlds.confounded(rng, sources, per, **about)
    families, found = _worlds.families(world)
    assert world.score is not None
    seed, ranked = _seed(rng), ranking.ranks(world.score[:, None])
    fitted = adjusted.Adjustment.of(families, found, seed)
    p_r = fitted.p_values(found.means(ranked), fitted.permuted(PERMUTATIONS, seed))[0]
    p_s = ranking.p_values(ranked, found, found.permuted(PERMUTATIONS, seed))[0]
    propensity = blind.propensity(families, found, seed)
    return {
        "p_r <= 0.05": float(p_r <= ALPHA),
        "p_s <= 0.05": float(p_s <= ALPHA),
        "both": float(max(p_r, p_s) <= ALPHA),
        "blind auc": blind.auc(propensity, found),
    }


# --- verdicts ------------------------------------------------------------------------


def verdict_cells() -> Cells:
    """Yields null worlds, and worlds with an effect."""
    null = (
        *(("measured", 0.5, 0.0), ("measured", 0.7, 0.5), ("unmeasured", 0.7, 0.5)),
        *(("measured", 0.9, 0.5), ("unmeasured", 0.9, 0.5), ("measured", 0.6, 0.5)),
    )
    for kind, auc, rho in null:
        world = {"blind": auc, "rho": rho, "measured": kind == "measured"}
        for n in SOURCES:
            for per in PER:
                name = f"null, {kind} {auc:g}, {n} sources of {per}"
                yield name, {"sources": n, "per": per} | world
    for effect in (0.6, 0.7, 0.9):
        for auc, rho in ((0.5, 0.0), (0.6, 0.5)):
            world = {"blind": auc, "rho": rho, "effect": effect}
            for n in SOURCES:
                for per in PER:
                    name = f"effect {effect:g}, measured {auc:g}, {n} sources of {per}"
                    yield name, {"sources": n, "per": per} | world
    nothing = {"blind": 0.5, "rho": 0.0}
    for effect, (n, per), fewer in (
        *((0.5, (30, 10), (30, 1)), (0.5, (200, 10), (20, 1)), (0.5, (50, 5), (50, 1))),
        (0.9, (30, 10), (30, 1)),
    ):
        what = "null" if effect == 0.5 else f"effect {effect:g}"
        name = f"{what}, {fewer[0]} sources of {fewer[1]} against {n} of {per}"
        about = {"sources": n, "per": per, "members": fewer, "effect": effect}
        yield name, about | nothing


def verdict_draw(
    rng: np.random.Generator,
    sources: int,
    per: int,
    members: Sequence[int] = (),
    **about: Any,
) -> dict[str, float]:
    """Judges a world by the program, with the reference model and without.

    Args:
      rng: The only source of chance.
      sources: Of each role.
      per: Clips a source.
      members: Other numbers of sources and of clips a source, not larger, of members.
      about: Of `_worlds.confounded`.
    """
    world = _worlds.confounded(rng, sources, per, **about)
    if members:
        world = _worlds.fewer(world, *members)
    evidence, smallest = judged(world, _seed(rng))
    numbers = {}
    for name, each in (
        ("placebo", evidence),
        ("none", evidence._replace(p_d=None, p_c=None)),
    ):
        verdict = verdicts.of_score(each, ALPHA, smallest)["verdict"]
        numbers |= {f"{name} {v}": float(v == verdict) for v in verdicts.NAMES}
    for name in ("p_s", "p_b", "p_r", "p_d"):
        numbers[f"{name} <= 0.05"] = float(getattr(evidence, name) <= ALPHA)
    return numbers | {"blind auc": evidence.blind_auc or 0.5}


def judged(world: _worlds.World, seed: int) -> tuple[verdicts.Evidence, float]:
    """Returns what the program's verdict of a world with a reference model is of.

    That is `validity.judge` without what no verdict depends on (duplicates, the ROC
    curve); `whole` is all of it. Without the reference model all but `p_d` is
    the same. A test holds both against the program.
    """
    table, tests = _table(world), validity.Procedure(number=PERMUTATIONS, seed=seed)
    of = groups.comparisons(table)["all"]
    traits = family_tests.Traits(table)
    between = traits.between(of.members, of.nonmembers)
    score = table.scores["s"]
    permuted = between.sources.permuted(tests.number, tests.seed)
    its = between, permuted, validity.joint_test(traits, between, permuted, tests)
    pairs = [placebos.pair(table, "s")]
    evidence = validity._tested(its, score[:, None], pairs, tests)[0]
    units, split = np.unique(table.units, return_inverse=True)[1], len(of.members)
    found = clustered.influences(
        score[None, :split], score[None, split:], units[:split], units[split:]
    )
    low, high = found.interval(0)
    auc = {"value": float(found.auc[0]), "low": low, "high": high}
    return evidence._replace(auc=auc), tests.smallest


def whole(world: _worlds.World, seed: int, *, placebo: bool) -> dict[str, Any]:
    """Returns what the whole program says of a world, with a reference or without."""
    table, tests = _table(world), validity.Procedure(number=PERMUTATIONS, seed=seed)
    if not placebo:
        table = dataclasses.replace(table, reference={})
    evaluated = metrics.evaluate(table, (), 1, seed, ("s",))
    return validity.judge(table, evaluated, tests)["all"]["verdicts"]["s"]


def _table(world: _worlds.World) -> ScoreTable:
    assert world.score is not None and world.reference is not None
    return _worlds.table(world, {"s": world.score}, {"s": world.reference})


# --- suspects ------------------------------------------------------------------------


def suspect_cells() -> Cells:
    """Yields sets that were not used, sets that were, lists and the whole program."""
    for auc in (0.5, 0.65):
        for n, per in ((20, 1), (20, 5), (50, 5), (100, 1), (100, 5)):
            yield (
                f"set, AUC {auc:g}, {n} sources of {per}",
                {"kind": "set", "sources": n, "per": per, "auc": auc},
            )
    for suspects_, known in ((50, 19), (50, 100), (50, 500), (100, 100)):
        for per in PER:
            yield (
                f"list, {suspects_} suspects, {known} calibration clips of {per}",
                {"kind": "list", "sources": suspects_, "per": per, "known": known},
            )
    worlds = {"exchangeable": 0.5, "pixels 0.8": 0.8, "pixels 0.95": 0.95}
    for what, auc in worlds.items():
        for n in (20, 100):
            yield (
                f"program, {what}, {n} sources of 1",
                {"kind": "program", "sources": n, "per": 1, "auc": auc},
            )


def suspect_draw(
    rng: np.random.Generator,
    kind: str,
    sources: int,
    per: int,
    auc: float = 0.5,
    known: int = 0,
) -> dict[str, float]:
    """Tests suspects; suspects take the place of members."""
    return {"set": _set, "list": _list, "program": _program}[kind](
        rng, sources, per, known or auc
    )


def _set(
    rng: np.random.Generator, sources: int, per: int, auc: float
) -> dict[str, float]:
    """Tests the set, by one score and by twenty together."""
    label = np.repeat([True, False], sources * per)
    unit = np.repeat(np.arange(2 * sources), per)
    found, seed = Sources.of(unit[label], unit[~label]), _seed(rng)
    columns = _worlds.scores(rng, sources, per, 20)
    columns += label[:, None] * _worlds.shift_of(auc)
    p = sets.p_of_set(columns[:, 0], found, PERMUTATIONS, seed)
    numbers = {f"set p <= {a:g}": float(p <= a) for a in LEVELS}
    named = {f"score {k}": x for k, x in enumerate(columns.T)}
    its = sets.dataset_inference(named, found, seed)
    if its is not None:
        numbers |= {f"inference p <= {a:g}": float(its["p"] <= a) for a in LEVELS}
    return numbers


def _list(
    rng: np.random.Generator, sources: int, per: int, known: float
) -> dict[str, float]:
    """Lists suspects of which none was used; sources of suspects are of `per`."""
    number = int(known)
    its = _worlds.clips(rng, sources // per, per, 0.5)[:, 0]
    others = _worlds.clips(rng, -(-number // per), per, 0.5)[:number, 0]
    p = suspects.conformal_p_values(its, others, np.arange(number) // per)
    return {
        "any listed": float(suspects.benjamini_hochberg(p).min() <= ALPHA),
        "one p <= 0.05": float(p[0] <= ALPHA),
    }


def _program(
    rng: np.random.Generator, sources: int, per: int, auc: float
) -> dict[str, float]:
    """Runs the program; where the sets differ, the score follows the difference."""
    world = _worlds.confounded(rng, sources, per, blind=auc, rho=0.5)
    assert world.score is not None
    roles = "suspects", "calibration"
    table = _worlds.table(world, {"s": world.score}, roles=roles)
    tests = validity.Procedure(number=PERMUTATIONS, seed=_seed(rng))
    found = suspects.suspects(table, "s", 0.05, tests)
    tested = found["set"] is not None
    return {
        "not tested": float(not tested),
        "set found": float(tested and found["set"]["found"]),
        "any listed": float(bool(found["num_listed"])),
    }


# --- power ---------------------------------------------------------------------------


def power_cells() -> Cells:
    """Yields numbers of clips of both sides, and clips a source."""
    for first, second, per in (
        *((20, 20, 1), (30, 30, 1), (100, 100, 1), (500, 500, 1), (30, 300, 1)),
        *((100, 100, 5), (250, 250, 5), (500, 500, 5), (100, 500, 5)),
    ):
        name = f"{first} against {second} clips, {per} a source"
        yield name, {"first": first, "second": second, "per": per}


def power_draw(
    rng: np.random.Generator, first: int, second: int, per: int
) -> dict[str, float]:
    """Tests scores at the smallest AUC that `vidsme power` names."""
    sides = [power.Clips.of("clips", number, per) for number in (first, second)]
    least = power.smallest_auc(sides[0], sides[1])
    one, other = (
        _worlds.clips(rng, number // per, per, power.ICC) for number in (first, second)
    )
    score = np.concatenate([one + _worlds.shift_of(least), other])
    unit = np.arange(first + second) // per
    found = Sources.of(unit[:first], unit[first:])
    permuted = found.permuted(PERMUTATIONS, _seed(rng))
    p = ranking.p_values(ranking.ranks(score), found, permuted)[0]
    return {"found": float(p <= ALPHA), "smallest auc": least}
