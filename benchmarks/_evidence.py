"""What the controlled benchmark found: AUC and TPR with intervals, tables, a figure.

Intervals are of the mean over seeds, by 1000 bootstrap resamples of seeds and of the
pool's sources, the same sources for all seeds and scores: a clip of a source that is
drawn twice counts twice in each seed. Differences of scores are paired, resample by
resample.

Axes: `scores`; `clips` of the pool; `resamples`.
"""

import collections
import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import _answers
import _lira
import numpy as np
from jaxtyping import Bool, Float, Float64

RESAMPLES = 1000
_LEVEL = (0.025, 0.975)
FPR = {"drawn": 0.01, "film": 0.05, "smollm": 0.05}
_FILE = re.compile(
    r"(?P<pool>\w+)-(?P<method>full|lora|projector)-(?P<seed>\d\d)-"
    r"(?P<snapshot>\w+?)(?P<kind>-greedy|-shuffled)?\.npz"
)


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of one snapshot of one seed.

    Attributes:
      names: Of the scores.
      values: (scores, clips), larger = member.
      member: Whether a clip was trained on.
      ids: Of the clips, sorted.
      motion: Flow variance and deviation of the brightness.
      tokens: Of the answers.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "scores clips"]
    member: Bool[np.ndarray, " clips"]
    ids: np.ndarray
    motion: Float[np.ndarray, "2 clips"]
    tokens: np.ndarray

    def of(self, name: str) -> Float[np.ndarray, " clips"]:
        """Returns the values of one score."""
        return self.values[self.names.index(name)]

    @property
    def gap(self) -> float:
        """Answer loss of non-members less that of members, nats a token."""
        loss = -self.of("response_loss")
        return float(loss[~self.member].mean() - loss[self.member].mean())


@dataclasses.dataclass(frozen=True)
class Setting:
    """A way of training and a snapshot, with the scores of every seed."""

    pool: str
    method: str
    snapshot: str
    kind: str
    part: str
    seeds: dict[int, Scored]

    @property
    def name(self) -> str:
        """Names it in tables."""
        return f"{self.pool} {self.method} {self.snapshot}{self.kind}"


def load(file: pathlib.Path, part: str = "pool") -> Scored | None:
    """Reads a part of what a cell kept; None if there is none."""
    with np.load(file) as arrays:
        if f"{part}/id" not in arrays:
            return None
        order = np.argsort(arrays[f"{part}/id"])
        return Scored(
            names=tuple(arrays[f"{part}/names"].tolist()),
            values=arrays[f"{part}/scores"].astype(np.float64)[:, order],
            member=arrays[f"{part}/member"][order],
            ids=arrays[f"{part}/id"][order],
            motion=arrays[f"{part}/motion"][:, order],
            tokens=arrays[f"{part}/tokens"][order],
        )


def settings(folder: pathlib.Path, part: str = "pool") -> list[Setting]:
    """Returns all settings of which there are cells, in order."""
    found: dict[tuple[str, ...], dict[int, Scored]] = collections.defaultdict(dict)
    for file in sorted(folder.glob("*.npz")):
        match = _FILE.fullmatch(file.name)
        if match is None or not _is_done(folder, match):
            continue
        scored = load(file, part)
        if scored is not None:
            key = (*match.group("pool", "method", "snapshot"), match["kind"] or "")
            found[key][int(match["seed"])] = scored
    places = {"drawn": 0, "film": 1, "smollm": 2, "full": 0, "lora": 1, "projector": 2}
    number = lambda x: math.inf if x == "end" else int(x)  # noqa: E731
    keys = sorted(found, key=lambda k: (places[k[0]], places[k[1]], k[3], number(k[2])))
    return [Setting(*key, part, found[key]) for key in keys]


def _is_done(folder: pathlib.Path, match: re.Match[str]) -> bool:
    name = "-".join(match.group("pool", "method", "seed"))
    return (folder / f"{name}.json").is_file()


class Resampled:
    """The AUC of scores under resamples of seeds and sources.

    Attributes:
      seeds: That are resampled.
    """

    def __init__(self, setting: Setting, sources: dict[str, str], seed: int = 0):
        """Draws the resamples.

        Args:
          setting: Whose scores.
          sources: Of each clip, by id; a clip without one is its own.
          seed: Of the draws.
        """
        self._setting, rng = setting, np.random.default_rng(seed)
        self.seeds = sorted(setting.seeds)
        ids = np.unique(np.concatenate([x.ids for x in setting.seeds.values()]))
        names = sorted({sources.get(str(x), str(x)) for x in ids})
        place = {name: k for k, name in enumerate(names)}
        count = len(names)
        drawn = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        drawn[0] = 1  # The first one is the sample itself.
        number = len(self.seeds)
        self._chosen = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES)
        self._chosen[0] = 1
        self._weights = {}
        for key, scored in setting.seeds.items():
            at = [place[sources.get(str(x), str(x))] for x in scored.ids]
            self._weights[key] = drawn[:, at].astype(np.float32)

    def auc(self, values: dict[int, np.ndarray]) -> Float64[np.ndarray, " resamples"]:
        """Returns the mean AUC over seeds in each resample; the first is the sample's.

        Args:
          values: Of a score, by seed; NaN counts as the smallest.
        """
        return self._mean([self._curves(s, values[s])[0] for s in self.seeds])

    def tpr(
        self, values: dict[int, np.ndarray], fpr: float
    ) -> Float64[np.ndarray, " resamples"]:
        """Returns the mean TPR at a false-positive rate, by resample."""
        found = []
        for seed in self.seeds:
            _, tpr, fprs = self._curves(seed, values[seed])
            allowed = fprs <= fpr + 1e-9
            found.append(np.where(allowed, tpr, 0.0).max(axis=1))
        return self._mean(found)

    def _mean(self, of_seeds: Sequence[np.ndarray]) -> Float64[np.ndarray, " _"]:
        stacked = np.stack(of_seeds, axis=1)
        return (stacked * self._chosen).sum(1) / self._chosen.sum(1)

    def _curves(self, seed: int, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns AUC, and TPR and FPR at every distinct threshold, by resample."""
        member = self._setting.seeds[seed].member
        values = np.nan_to_num(values, nan=-np.inf)
        order = np.argsort(-values, kind="stable")
        weights = self._weights[seed][:, order]
        ends = np.flatnonzero(np.diff(values[order], append=np.nan) != 0)
        true = np.cumsum(weights * member[order], axis=1, dtype=np.float64)[:, ends]
        false = np.cumsum(weights * ~member[order], axis=1, dtype=np.float64)[:, ends]
        true /= np.maximum(true[:, -1:], 1e-9)
        false /= np.maximum(false[:, -1:], 1e-9)
        step = np.diff(false, axis=1, prepend=0.0)
        before = np.concatenate([np.zeros((len(true), 1)), true[:, :-1]], axis=1)
        return (step * (true + before) / 2).sum(axis=1), true, false


def interval(resampled: np.ndarray) -> dict[str, float]:
    """Returns the value of the sample and its interval."""
    low, high = np.quantile(resampled[1:], _LEVEL)
    return {"value": float(resampled[0]), "low": float(low), "high": float(high)}


def by_seed(setting: Setting, name: str) -> dict[int, np.ndarray]:
    """Returns the values of a score for every seed."""
    return {seed: scored.of(name) for seed, scored in setting.seeds.items()}


def evaluated(
    setting: Setting, sources: dict[str, str], names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Returns AUC and TPR of every score of a setting, with intervals.

    Args:
      setting: With at least one seed.
      sources: See `Resampled`.
      names: Of scores; None: all that every seed has.
    """
    draws = Resampled(setting, sources)
    first = next(iter(setting.seeds.values()))
    found: dict[str, Any] = {
        "pool": setting.pool,
        "method": setting.method,
        "snapshot": setting.snapshot,
        "kind": setting.kind,
        "part": setting.part,
        "seeds": len(setting.seeds),
        "members": int(first.member.sum()),
        "nonmembers": int((~first.member).sum()),
        "gap": _mean(scored.gap for scored in setting.seeds.values()),
        "member_loss": _mean(
            -x.of("response_loss")[x.member].mean() for x in setting.seeds.values()
        ),
    }
    blind = {
        "motion": {s: x.motion[0] for s, x in setting.seeds.items()},
        "brightness": {s: x.motion[1] for s, x in setting.seeds.items()},
        "answer_tokens": {s: x.tokens.astype(float) for s, x in setting.seeds.items()},
    }
    found["blind"] = {
        name: {"auc": interval(draws.auc(x))} for name, x in blind.items()
    }
    fpr = FPR[setting.pool]
    base = draws.tpr(by_seed(setting, "vid_sme"), fpr)
    found["fpr"], found["scores"] = fpr, {}
    of = {
        name: by_seed(setting, name)
        for name in names or first.names
        if name in first.names
    }
    if setting.part == "pool" and not setting.kind:
        of |= _lira.ceilings(setting.seeds)
    for name, its in of.items():
        if any(np.isnan(x).all() for x in its.values()):
            continue
        tpr = draws.tpr(its, fpr)
        found["scores"][name] = {
            "auc": interval(draws.auc(its)),
            "tpr": interval(tpr),
            "tpr_less_vid_sme": interval(tpr - base),
        }
    return found


def _mean(values: Iterator[Any]) -> float:
    return float(np.mean([float(x) for x in values]))


def read_sources(folder: pathlib.Path) -> dict[str, str]:
    """Returns the source of each clip of a pool that has them."""
    rows = map(json.loads, (folder / "pool.jsonl").read_text().splitlines())
    return {row["id"]: row["source"] for row in rows if row.get("source")}


def answers(folder: pathlib.Path) -> dict[str, str]:
    """Returns the answer of each clip of a pool, by id."""
    rows = map(json.loads, (folder / "pool.jsonl").read_text().splitlines())
    return {row["id"]: row["answer"] for row in rows}


def of_words(
    setting: Setting, sources: dict[str, str], known: dict[str, str]
) -> dict[str, Any]:
    """Returns what the answers' words alone find, without a network.

    Args:
      setting: Of any snapshot: the split counts.
      sources: See `Resampled`.
      known: Answers by id.
    """
    draws, found = Resampled(setting, sources), {}
    for order in (1, 2):
        its = {
            seed: _answers.ngram_scores(
                [known[str(x)] for x in scored.ids], scored.member.tolist(), order
            )
            for seed, scored in setting.seeds.items()
        }
        found[f"{order}_gram"] = interval(draws.auc(its))
    found["shared_answers"] = _mean(
        _answers.shared(
            [known[str(x)] for x in scored.ids[scored.member]],
            [known[str(x)] for x in scored.ids[~scored.member]],
        )
        for scored in setting.seeds.values()
    )
    return found


def of_overlap(
    setting: Setting,
    sources: dict[str, str],
    known: dict[str, str],
    said: dict[int, dict[str, str]],
) -> dict[str, float]:
    """Returns the AUC of the words that greedy answers share with the true ones."""
    of = {}
    for seed, scored in setting.seeds.items():
        common = _answers.overlaps(said[seed], known)
        of[seed] = np.array([common[str(x)] for x in scored.ids])
    return interval(Resampled(setting, sources).auc(of))


def clips_needed(auc: float, calibration: int) -> int | None:
    """Returns how many suspects a rank-sum test needs for 80 % power at 5 %.

    Args:
      auc: Of a member against a non-member.
      calibration: Clips that are compared with.

    Returns:
      None if no number suffices.
    """
    # (m + n + 1) / (12 m n) <= ((AUC - 1/2) / 2.487)^2, solved for m.
    if auc <= 0.5:
        return None
    wanted = 12 * calibration * ((auc - 0.5) / 2.487) ** 2 - 1
    return math.ceil((calibration + 1) / wanted) if wanted > 0 else None
