"""Opens the stored signals of a run and scores them, without a model."""

import pathlib

from absl import logging

from vidsme_jax import progress, scores
from vidsme_jax.base import AuditError, Failure, Sample, ScoreTable
from vidsme_jax.run import asking, digests, failing
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.checks import REFERENCE, SIGNALS, one_order
from vidsme_jax.run.runs import Wanted
from vidsme_jax.scores import tables
from vidsme_jax.scores.kept import FOLDER, Kept
from vidsme_jax.store import received, signals


def open_signals(
    asked: Asked, workdir: pathlib.Path, *, indexed: bool = True
) -> tuple[signals.Signals, signals.Signals | None]:
    """Opens the signals of a finished run.

    Args:
      asked: What is going to be scored.
      workdir: The folder of the run.
      indexed: Whether indices of parts are trusted.

    Returns:
      Those of the audited model, and those of the reference model if there is one, as
      far as they have what the scores need.

    Raises:
      AuditError: There are none, they are damaged, or scores compare two orders of the
        frames of which they have one.
    """
    given = asked.settings
    store = _stored(workdir / SIGNALS, indexed)
    if store is None:
        raise AuditError([f"{workdir}: no signals of a run are there"])
    _check_orders(asked, store, "")
    if not asking.has_reference(given):
        return store, None
    reference = _stored(workdir / REFERENCE, indexed)
    if reference is None:
        raise AuditError([f"{workdir}: no signals of a reference model are there"])
    _check_orders(asked, reference, "reference ")
    wanted = Wanted.by(asked.scores, given.profile, given.slices)
    reference.keep(wanted.video, wanted.text)
    return store, reference


def kept(asked: Asked, workdir: pathlib.Path, code: str) -> Kept:
    """Opens what is kept of scores that were computed before.

    What the digest of the work directory does not list is not taken.

    Args:
      asked: What is asked.
      workdir: The folder of the run.
      code: Tells the program that computes from other versions of it.
    """
    given, motion = asked.settings, asked.settings.motion
    about = {
        "code": code,
        "profile": given.profile,
        "motion": [motion.q_scale, motion.r_scale, motion.bounds],
        "slices": given.slices,
        "response": given.response,
    }
    usable = digests.fit(workdir, FOLDER)
    if not usable:
        logging.warning("%s/: ignored, since it is not as it was written", FOLDER)
    return Kept(workdir, about, usable=usable)


def score_table(
    asked: Asked,
    failures: list[Failure],
    store: signals.Signals,
    *reference: signals.Signals | None,
    kept: Kept | None = None,
) -> tuple[ScoreTable, dict[str, list[str]]]:
    """Returns the scores of rows that have not failed, and warnings by video.

    Args:
      asked: What is asked; its rows make the table.
      failures: Rows that have failed.
      store: The signals.
      reference: Those of the reference model, if there is one.
      kept: The result of `kept`; None: all is computed.

    Raises:
      AuditError: No row has scores; lists the causes of failures too.
    """
    progress.stage("computing scores, tests and the report")
    logging.info("computing scores, tests and the report")
    given = asked.settings
    items = asked.without({failure.id for failure in failures}).items
    try:
        return tables.score_table(
            *(items, store, asked.scores, given.profile, given.motion),
            slices=given.slices,
            response=given.response,
            reference=next(iter(reference), None),
            allow_duplicates=given.corpus.allow_duplicates,
            kept=kept,
        )
    except AuditError as error:
        problems = error.problems + failing.causes(failures)
        raise AuditError(problems, scored=error.scored) from error


def check_held(asked: Asked, store: signals.Signals, workdir: pathlib.Path) -> None:
    """Checks that stored signals have what is asked of them.

    Raises:
      AuditError: They lack what a score needs; names the scores.
    """
    held, profile = _held(asked.samples, store), asked.settings.profile
    lacking: list[str] = []
    for name in asked.scores:
        of = scores.PROFILES[profile].score(name).slice
        if not Wanted.by([name], profile, [of]).within(held):
            lacking.append(name)
    if lacking:
        raise AuditError(
            [
                f"{workdir}: the signals lack what {', '.join(lacking[:5])} need"
                f"{' and others' if len(lacking) > 5 else ''}; take other scores, "
                "or run the audit with them"
            ]
        )


def _check_orders(asked: Asked, store: signals.Signals, whose: str) -> None:
    if store.has_one_order:
        problems = one_order(asked.scores, asked.settings.profile, whose)
        if problems:
            raise AuditError(problems)


def _held(asked: tuple[Sample, ...], store: signals.Signals) -> Wanted:
    """Returns what all rows hold that are stored of some samples."""
    video: list[frozenset[str]] = []
    texts: list[frozenset[str]] = []
    for sample in asked:
        known = store.finished.get(sample.clip.key)
        if known is not None:
            video += [known.video.holds] if known.video else []
            held = (known.texts.get(text.key) for text in sample.texts)
            texts += [each.holds for each in held if each]
    return Wanted(*(x[0].intersection(*x) if x else None for x in (video, texts)))


def _stored(folder: pathlib.Path, indexed: bool) -> signals.Signals | None:
    with received.refused(folder):
        recorded = signals.recorded(folder)
    return received.opened(folder, recorded, indexed=indexed) if recorded else None
