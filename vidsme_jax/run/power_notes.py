"""States what the clips of a corpus can show, before any of them is decoded."""

import collections
from collections.abc import Sequence

from absl import logging

from vidsme_jax.base import Item
from vidsme_jax.evaluation import power
from vidsme_jax.evaluation.power import ICC, Clips, Number
from vidsme_jax.run import corpus_rows
from vidsme_jax.run.asking import Asked
from vidsme_jax.settings import views
from vidsme_jax.wording import counted

_OF_ANSWERS = "response_min_k_plus_plus_100"  # The headline where answers are known.


def log(asked: Asked) -> None:
    """Logs the smallest AUC that an audit finds, and how many suspects it can list."""
    for said in (*brief(asked.items, asked.settings.report), *unscored(asked)):
        logging.info("before the run: %s", said)


def unscored(asked: Asked) -> list[str]:
    """Says which answers of the corpus are not scored, if any."""
    given, rows = asked.settings, len(asked.items)
    answered = sum(bool(item.answer) for item in asked.items)
    if not answered or "response" in given.slices:
        return []
    return [
        f"{answered} of {counted(rows, 'row')} have answers, which are not scored; "
        "training puts its loss on answers: --config.slices=video,response "
        f"--config.headline={_OF_ANSWERS} scores them"
    ]


def brief(items: Sequence[Item], given: views.Report) -> list[str]:
    """Returns the shortest that can be said of a corpus; see `report`."""
    found = []
    pair = roles(items, given.comparison)
    if pair is not None:
        found = [power.found_auc(*pair, given.alpha, given.smallest_auc)]
        found += power.no_verdict(*pair)
    pair = suspects(items)
    if pair is not None:
        can = power.listable(pair[0].number, pair[1].sources, given.fdr)
        found += power.no_test(*pair) or [can]
    return found


def report(
    items: Sequence[Item], given: views.Report, icc: Number = ICC
) -> list[tuple[str, list[str]]]:
    """Returns all that can be said of a corpus: a heading and its sentences each.

    Args:
      items: The rows.
      given: Comparison, level, rates and smallest AUC of the settings.
      icc: Correlation of the scores of clips of one source.

    Raises:
      AuditError: A number is out of its range.
    """
    known, asked = roles(items, given.comparison), suspects(items)
    return of_pairs(known, asked, given, icc, given.comparison)


def of_pairs(
    known: tuple[Clips, Clips] | None,
    asked: tuple[Clips, Clips] | None,
    given: views.Report,
    icc: Number = ICC,
    comparison: str = corpus_rows.ALL,
) -> list[tuple[str, list[str]]]:
    """Returns the same of numbers of clips; see `report`.

    Args:
      known: Members and non-members.
      asked: Suspects, and what they are compared with.
      given: The report's settings.
      icc: Correlation within sources.
      comparison: The comparison of members with non-members.
    """
    found: list[tuple[str, list[str]]] = []
    if known is not None:
        lines = power.of_roles(
            *known, alpha=given.alpha, auc=given.smallest_auc, fprs=given.fprs, icc=icc
        )
        of = "" if comparison == corpus_rows.ALL else f", comparison {comparison}"
        found.append((f"{_named(known, 'members', 'non-members')}{of}", lines))
    if asked is not None:
        lines = power.of_suspects(*asked, alpha=given.alpha, fdr=given.fdr, icc=icc)
        found.append((_named(asked, "suspects", "calibration clips"), lines))
    return found


def roles(items: Sequence[Item], comparison: str) -> tuple[Clips, Clips] | None:
    """Returns the members and the non-members of a comparison; None without both."""
    known = corpus_rows.comparisons(items)
    if comparison not in known:
        return None
    group = known[comparison]
    rows = {
        role: [x for x in items if x.role == role] for role in ("members", "nonmembers")
    }
    if group is not None:
        its = {role: [x for x in of if x.group == group] for role, of in rows.items()}
        rows = {role: of or rows[role] for role, of in its.items()}
    return _clips(rows["members"]), _clips(rows["nonmembers"])


def suspects(items: Sequence[Item]) -> tuple[Clips, Clips] | None:
    """Returns suspects and what they are compared with; None without both."""
    tested = [item for item in items if item.role == "suspects"]
    against = [item for item in items if item.role == "calibration"]
    against = against or [item for item in items if item.role == "nonmembers"]
    return (_clips(tested), _clips(against)) if tested and against else None


def _clips(items: Sequence[Item]) -> Clips:
    """Counts the videos of some rows by what they were cut from."""
    sources = {x.clip: (bool(x.source), x.source or x.clip) for x in items}
    return Clips.of_sources(collections.Counter(sources.values()).values())


def _named(pair: tuple[Clips, Clips], *names: str) -> str:
    sides = [
        f"{each.number} {name}"
        + (f" of {counted(each.sources, 'source')}" if each.per_source > 1 else "")
        for each, name in zip(pair, names, strict=True)
    ]
    return " against ".join(sides)
