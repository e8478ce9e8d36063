"""Checks a configuration before JAX is imported: values, scores, corpus, checkpoints.

The commands call it first; `checks` then continues with model and devices.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import scores
from vidsme_jax.addresses import is_url, no_folder
from vidsme_jax.base import SLICES, AuditError, Clip, Item, Sample
from vidsme_jax.checkpoints import content, files, opening, refused
from vidsme_jax.data import corpora, samples
from vidsme_jax.data.left_out import LeftOut
from vidsme_jax.data.reading import Reader
from vidsme_jax.data.sources import some
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.run import (
    control_record,
    corpus_rows,
    digests,
    gate,
    other_corpus,
    published_result,
)
from vidsme_jax.run.problems import Problems
from vidsme_jax.settings import views
from vidsme_jax.store import buckets, signals
from vidsme_jax.store.files import unwritable

SIGNALS = "signals"  # The folder in a work directory.
# Of the corpus, what can be wrong without hiding what else is.
HARMLESS = ("corpus.max_clips", "corpus.seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a corpus; needs no model.

    `corpus` is of all rows that the sources have, also where `items` are fewer.
    """

    settings: views.Settings
    items: tuple[Item, ...]
    corpus: corpus_rows.Listed
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    clips: tuple[Clip, ...]
    samples: tuple[Sample, ...]
    reader: Reader
    scores: tuple[str, ...]
    headline: str
    control: control_record.Control | None = None
    published: dict[str, Any] | None = None

    def without(self, ids: Collection[str]) -> "Asked":
        """Returns the same of a corpus without some rows."""
        given = self.settings
        items = tuple(item for item in self.items if item.id not in ids)
        clips = corpora.unique_clips(items)
        asked = samples.samples(clips, given.slices, given.response)
        return dataclasses.replace(self, items=items, clips=clips, samples=asked)


def ask(config: ConfigDict, *, model: bool = True, workdir: str | None = None) -> Asked:
    """Checks values, scores, corpus and, as far as they are local, checkpoints.

    Args:
      config: See `settings.RULES`.
      model: Whether a model is going to be read; stored signals need none.
      workdir: Of an audit, whose signals must not be of other settings; not checked if
        it is None or in an object store.

    Raises:
      AuditError: Lists all problems.
    """
    problems = Problems(config)
    found = collect(problems, model=model)
    if workdir is not None and problems.none_in("video", "model", "overwrite", "study"):
        given, remote = problems.settings, is_url(workdir)
        if remote:
            of_study = no_folder(workdir, "--workdir of a study") if given.study else []
            problems.add(*of_study or filter(None, [buckets.problem(workdir)]))
        elif wrong := unwritable(pathlib.Path(workdir), "--workdir"):
            problems.add(*wrong)
        elif not given.overwrite and not given.study:
            with problems.collected():
                folder = pathlib.Path(workdir)
                its = depends(given)
                problems.add(*signals.differences(folder / SIGNALS, its))
                digests.check_results(folder)
            with problems.collected():
                other_corpus.check(found["items"], pathlib.Path(workdir))
    problems.close()
    return Asked(**found)


def collect(problems: Problems, *, model: bool = True) -> dict[str, Any]:
    """Returns the fields of `Asked`, or adds to the problems; see `ask`."""
    given = problems.settings
    corpus = corpora.Corpus(())
    reader: Any = None
    names: tuple[str, ...] = ()
    headline = ""
    chosen = given.slices, has_reference(given)
    if not problems.none_in("slices"):
        chosen = SLICES, True  # Names of scores are checked all the same.
    prepared = ("video", "studies.frames") if given.corpus.prepared else ()
    if problems.none_in("corpus", *prepared, but=HARMLESS):
        with problems.collected():
            corpus, reader = open_corpus(given, _counts(given), looks=model)
    of_scores = problems.none_in("profile")
    if of_scores and problems.none_in("scores"):
        with problems.collected():
            names = scores.resolve(given.scores, given.profile, *chosen)
    if of_scores and problems.none_in("headline"):
        with problems.collected():
            headline = scores.headline(given.headline, given.profile, *chosen)
        if is_greedy(given) and scores.needs_given_answers(headline):
            problems.add(
                f"config.headline is {headline}, but with config.response = greedy the "
                "target of a row is the model's most probable token: Min-K%++ then "
                "ranks memorised answers below others, and a rank is always 1. Take "
                "response_mean_renyi_1 or response_loss"
            )
    smallest = 1 / (given.report.num_permutations + 1)
    if (
        problems.none_in("report.alpha", "report.num_permutations")
        and given.report.alpha < smallest
    ):
        problems.add(
            f"config.report.alpha is {given.report.alpha:g}, but no p-value of "
            f"{given.report.num_permutations} permutations is below {smallest:.2g}: "
            "raise config.report.num_permutations or config.report.alpha"
        )
    control = None
    if headline and problems.none_in("report", "motion", "video", "scores"):
        with problems.collected():
            control = control_record.opened(given, headline)
    items, published = corpus.items, None
    if problems.none_in("report"):
        with problems.collected():
            published = published_result.opened(given.report.published, items)
    if headline and names and problems.none_in("gate", "report", "study"):
        problems.add(*gate.problems(given, (headline, *names), items))
    if items and problems.none_in("report.comparison"):
        wrong = corpus_rows.problem(given.report.comparison, items)
        problems.add(*([wrong] if wrong else []))
    clips = corpora.unique_clips(items)
    if len(clips) == 1 and given.motion.bounds is None:
        problems.add(
            "the corpus has one clip, but q and r are scaled by the range over a "
            "corpus: add clips, or give config.motion.bounds = (phi_min, phi_max, "
            "b_min, b_max)"
        )
    if model:
        if problems.none_in("slices", "response"):
            chosen = given.slices, given.response, given.headline
            problems.add(*answers_missing(items, *chosen))
        if problems.none_in("share", "overwrite", "study"):
            problems.add(*_of_share(given))
        if given.study and problems.none_in("slices", "reference"):
            problems.add(*_of_study(given, items))
        _find_checkpoints(problems)
    if headline not in names:
        names = (headline, *names)
    return {
        "settings": given,
        "items": items,
        "corpus": corpus_rows.listed(items),
        "left_out": corpus.left_out,
        "notes": corpus.notes,
        "clips": clips,
        "samples": samples.samples(clips, given.slices, given.response),
        "reader": reader,
        "scores": names,
        "headline": headline,
        "control": control,
        "published": published,
    }


def depends(given: views.Settings) -> dict[str, Any]:
    """Returns what signals depend on as far as the settings alone determine it."""
    return {
        "model.dtype": given.model.dtype,
        "video.num_frames": given.video.num_frames,
        "video.sampling": given.video.sampling,
        "video.fps": given.video.fps,
        "video.against": given.video.against,
    }


def has_reference(given: views.Settings) -> bool:
    """Returns whether there is a reference model."""
    return bool(given.reference.checkpoint or given.reference.adapter)


def is_greedy(given: views.Settings) -> bool:
    """Returns whether answers are generated."""
    return "response" in given.slices and given.response == "greedy"


def with_two(counts: Collection[int]) -> set[int]:
    """Returns the numbers of frames to read: one frame's motion is that of two."""
    return {*counts, *((2,) if 1 in counts else ())}


def answers_missing(
    items: Sequence[Item], slices: Sequence[str], response: str, headline: str
) -> list[str]:
    """Returns what is wrong if answers are scored and rows have none.

    The remedies are flags, with a headline that fits; names in `config.scores` stay.
    """
    if "response" not in slices or response != "given":
        return []
    empty = [item.id for item in items if not item.answer.strip()]
    if not empty:
        return []
    which = f"{len(empty)} of {len(items)} rows have no answer: {some(empty)}"
    if len(empty) == len(items):
        which = f"no row of the corpus has an answer: {some(empty)}"
    rest = tuple(name for name in slices if name != "response") or ("video",)
    own, without = "--config.response=greedy", f'--config.slices="{rest}"'
    if scores.needs_given_answers(headline):
        own += " --config.headline=response_mean_renyi_1"
    if headline.startswith("response_"):
        without += f" --config.headline={scores.headline_of(rest)}"
    return [
        f"config.slices has 'response', but {which}; give them answers (the column "
        f"'answer'), score the model's own ({own}), or leave 'response' out ({without})"
    ]


def _counts(given: views.Settings) -> set[int]:
    """Returns the numbers of frames that clips are read at."""
    frames = given.studies.frames if given.study == "frames" else ()
    return with_two(frames or (given.video.num_frames,))


def _of_share(given: views.Settings) -> list[str]:
    """Returns the settings that contradict a share."""
    found: list[str] = []
    if given.share and given.overwrite:
        found.append(
            f"config.share is {given.share} and config.overwrite is true, which would "
            "delete what other shares have scored: delete the work directory before "
            "the first share begins"
        )
    if given.share and given.study:
        found.append(
            f"config.share is {given.share}: a study is not divided; leave the share "
            "out, or make an audit"
        )
    return found


def _of_study(given: views.Settings, items: Sequence[Item]) -> list[str]:
    """Returns what a study lacks, and the settings that only an audit has."""
    problems: list[str] = []
    if items and "members" not in {item.role for item in items}:
        problems.append(
            "a study compares members with nonmembers: give corpus.members and "
            "corpus.nonmembers"
        )
    if set(given.slices) - {"video"}:
        problems.append(
            f"config.slices is {given.slices!r}: a study is of the rows of the video "
            "alone; give --config.slices=\"('video',)\" --config.headline=vid_sme"
        )
    if has_reference(given):
        problems.append(
            "config.reference: a study scores one model; leave it out, or make an audit"
        )
    if given.report.control:
        problems.append(
            "config.report.control: a study has no verdict to show it with; "
            "leave it out"
        )
    return problems


def _find_checkpoints(problems: Problems) -> None:
    """Looks at the files of local checkpoints; those of the hub are left alone."""
    given, chosen = problems.settings.model, problems.settings.reference
    if problems.none_in("model"):
        with problems.collected("model.checkpoint"):
            find_local(given.checkpoint, allow_pickle=given.allow_pickle)
    if not problems.none_in("reference"):
        return
    if chosen.checkpoint and chosen.adapter:
        problems.add(
            f"config.reference.adapter is {chosen.adapter}, and "
            f"config.reference.checkpoint is {chosen.checkpoint}: give one of them"
        )
    with problems.collected("reference.checkpoint"):
        try:
            find_local(chosen.checkpoint, allow_pickle=given.allow_pickle)
        except AuditError as error:
            named = f"config.reference.checkpoint is {chosen.checkpoint}"
            raise AuditError([f"{named}: {p}" for p in error.problems]) from error


def find_local(
    checkpoint: str, *, allow_pickle: bool = False, weights: bool = True
) -> None:
    """Looks whether a checkpoint is there if it is a folder; nothing is fetched.

    Args:
      checkpoint: A value of `model.checkpoint`.
      allow_pickle: Whether pickled weights may be read.
      weights: Whether headers of weight files are read, to find those that are missing,
        cut short or pointers of git-lfs.

    Raises:
      AuditError: It is not there, holds no checkpoint or one that cannot be read, or
        weight files are missing or damaged.
    """
    scheme = checkpoint.startswith("random:")
    if not checkpoint or scheme or is_on_hub(checkpoint):
        return
    folder = files.find(checkpoint, ())
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        if why := refused.reason(files.read_config(checkpoint, folder)):
            raise AuditError([f"checkpoint {checkpoint}: {why}"])
    if not weights:
        return
    base = content.read_json(adapter) if adapter.is_file() else {}
    if not is_on_hub(base.get("base_model_name_or_path"), folder):
        opening.open_checkpoint(checkpoint, allow_pickle=allow_pickle)


def is_on_hub(name: Any, near: pathlib.Path | None = None) -> bool:
    """Returns whether a checkpoint would be fetched.

    Args:
      name: A value of `model.checkpoint`.
      near: A folder that a relative path is tried against first.
    """
    if not isinstance(name, str):
        return False
    parts = len(name.rstrip("/").split("/"))
    try:
        path = pathlib.Path(name).expanduser()
        there = path.exists() or (near is not None and (near / path).exists())
    except (OSError, RuntimeError, ValueError):  # Opening it names what is wrong.
        return False
    return parts in (2, 3) and not name.startswith((".", "/", "~")) and not there
