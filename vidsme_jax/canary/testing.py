"""Tests a finished audit with a key, and writes the result.

Variants are identified by the content of their files, whatever their names and roles.
The result is `canary-SCORE.json` in the work directory of the run:

    sets        of each: name, variants, rank, missing, p, adjusted_p (Holm)
    p           Fisher's, over the sets, by its exact distribution
    score       the score tested; `declared`: whether it is the declared headline
    key         SHA-256 of the key's file; `key_time`: when it was written
    model, corpus   fingerprints of the run
    statement   the result in words
"""

import collections
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import vidsme_jax
from vidsme_jax.base import AuditError, ScoreTable
from vidsme_jax.canary import ranks
from vidsme_jax.canary.key import Key
from vidsme_jax.canary.ranks import Tested
from vidsme_jax.run import sealed
from vidsme_jax.wording import counted, nearest, printable

FILE = "canary-{}.json"
_KIND = "vidsme canary test"
_REMEDY = "move it away, and run the command again"


def run(
    config: ConfigDict,
    about: Mapping[str, Any],
    key: Key,
    workdir: pathlib.Path,
    score: str | None,
) -> dict[str, Any]:
    """Tests a run and writes the result.

    Args:
      config: The configuration of the run.
      about: The content of its `config.json`.
      key: The key of the variants.
      workdir: The work directory of the run.
      score: The name of the score; None: the headline of the run.

    Returns:
      The content of the file, as JSON.

    Raises:
      AuditError: There is no run, it has not scored these variants or this score, or
        another result exists.
      OSError: The result cannot be written.
    """
    table, headline, alpha = _table(config, workdir)
    name = headline if score is None else score
    if name not in table.scores:
        known = list(table.scores)
        hint = nearest(name, known)
        listed = printable(", ".join(known), 300)
        problem = f"no score {printable(name, 100)!r}{hint}; it has: {listed}"
        raise AuditError([f"{workdir}: the run has {problem}"])
    values = by_content(key, table, name)
    _check_scored(key, values, table, workdir)
    tested = ranks.test(key.sets, values)
    p = ranks.fisher([x.rank for x in tested], [x.variants for x in tested])
    declared = name == headline
    content = {
        "kind": _KIND,
        "version": vidsme_jax.__version__,
        "statement": statement(tested, p, name, headline, alpha),
        "p": p,
        "score": name,
        "declared": declared,
        "key": key.digest,
        "key_time": key.time,
        "model": str(about["fingerprints"].get("model", "")),
        "corpus": str(about["fingerprints"].get("corpus", "")),
        "sets": [each._asdict() for each in tested],
    }
    return _stored(workdir / FILE.format(name), content)


def by_content(key: Key, table: ScoreTable, name: str) -> dict[str, float]:
    """Returns the scores of variants by the SHA-256 of their files: larger = member.

    The score of a variant with several rows is their mean. Variants with fewer rows
    than others of their set, or with a row without a score, are left out.

    Args:
      key: The key of the variants.
      table: The scores of the run.
      name: The name of the score.
    """
    sign = 1.0 if table.larger_is_member else -1.0
    rows = collections.defaultdict[str, list[float]](list)
    for file, value in zip(table.cluster.tolist(), table.scores[name], strict=True):
        rows[file].append(sign * float(value))
    found: dict[str, float] = {}
    for each in key.sets:
        most = max((len(rows[file]) for file in each.files if file in rows), default=0)
        for file in each.files:
            values = rows.get(file, [])
            if values and len(values) == most and np.isfinite(values).all():
                found[file] = float(np.mean(values))
    return found


def statement(
    tested: list[Tested], p: float, score: str, headline: str, alpha: float
) -> str:
    """Returns the result in words; `p` is Fisher's over the sets, `alpha` the level."""
    sizes = sorted({each.variants for each in tested})
    of = f"{sizes[0]} variants" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    first = sum(each.rank == 1 for each in tested)
    alone = [each for each in tested if each.adjusted_p <= alpha]
    lacking = sum(each.missing for each in tested)
    texts = [
        f"{counted(len(tested), 'set')} of {of}, by {score}: p = {p:.2g} (Fisher, over "
        f"the sets' exact p-values; the published variant ranks first in {first})."
    ]
    if p <= alpha:
        texts.append(
            "The model ranks the published variants above the others, more often than "
            f"chance does: had it not been trained on them, a p as small as {p:.2g} "
            f"would come up in at most {p:.2g} of all draws of the published variants, "
            "whatever the model and the clips."
        )
    else:
        texts.append(
            "This is no evidence that the model was trained on the published variants, "
            "and none that it was not."
        )
    texts.append(
        "This holds if the variants were drawn at random and published before the "
        "model was trained, and the key was secret."
    )
    if alone:
        names = printable(", ".join(each.name for each in alone[:10]), 300)
        texts.append(f"Alone, by Holm's p, at level {alpha:g}: {names}.")
    if lacking:
        texts.append(f"{counted(lacking, 'variant')} without a score count as above.")
    if score != headline:
        texts.append(
            f"The declared headline is {headline}: another score is a further test, "
            "which this p does not account for."
        )
    return " ".join(texts)


def _table(config: ConfigDict, workdir: pathlib.Path) -> tuple[ScoreTable, str, float]:
    """Returns the scores of a run, its headline and its level."""
    from vidsme_jax.run import asking

    asked = asking.ask(config, model=False)
    from vidsme_jax import report
    from vidsme_jax.run import stored

    failures = report.failures(workdir)
    stores = stored.open_signals(asked, workdir)
    table, _ = stored.score_table(asked, failures, *stores)
    return table, asked.headline, float(asked.settings.report.alpha)


def _check_scored(
    key: Key, values: Mapping[str, float], table: ScoreTable, workdir: pathlib.Path
) -> None:
    """Raises an `AuditError` if a run has not scored at least 90 % of the variants."""
    files = [file for each in key.sets for file in each.files]
    scored = sum(file in values for file in files)
    if not {*files} & {*table.cluster.tolist()}:
        problem = f"none of its videos is one of the {len(files)} variants of this key"
        raise AuditError(
            [f"{workdir}: {problem}; take the key of the variants audited"]
        )
    if len(files) - scored > ranks.MOST_MISSING * len(files):
        problem = f"only {scored} of the {len(files)} variants of the key have a score"
        raise AuditError([f"{workdir}: {problem}; audit all of variants.jsonl"])


def _stored(path: pathlib.Path, content: dict[str, Any]) -> dict[str, Any]:
    """Writes a result unless it exists; raises an `AuditError` if another does."""
    before = sealed.read(path, dict.fromkeys(content, lambda value: True), _REMEDY)
    if before is None:
        return sealed.write(path, content)
    if any(before[name] != value for name, value in content.items()):
        problem = "is the result of another key, run or version; it is not overwritten"
        raise AuditError([f"{path} {problem}: {_REMEDY}"])
    return before
