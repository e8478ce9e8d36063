"""Plans a positive control, and checks it before JAX is imported."""

import dataclasses
import hashlib
import json
import math
import pathlib
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import scores, settings
from vidsme_jax.addresses import no_folder
from vidsme_jax.arguments import require
from vidsme_jax.base import ROLES, SLICES, AuditError, Item
from vidsme_jax.data.sources import is_address, some
from vidsme_jax.finetune import options, pool
from vidsme_jax.finetune.options import MEMBERS, NONMEMBERS
from vidsme_jax.names import uncalibrated
from vidsme_jax.run import asking
from vidsme_jax.run.control_record import settings_of
from vidsme_jax.run.problems import Problems
from vidsme_jax.scores.exact import EXACT
from vidsme_jax.settings import views
from vidsme_jax.store.files import unwritable, write_atomically

CORPUS = "corpus:"  # In place of a source: all clips of the configuration.
_BEGUN = "begun.json"
MODEL, AUDIT = "model", "audit"  # Folders.
MOST = 200  # Clips, where corpus.max_clips does not say how many.
EPOCHS, STEPS = 150, 1500  # At most: whichever are more.
CHECKPOINT = "random:llava_next_video-tiny"
_TRAIN: dict[str, Any] = {
    "train.member_share": 0.5,
    "train.tower": "frozen",
    "train.batch_size": 10,
    "train.learning_rate": 4e-3,
    "train.warmup_steps": 50,
    "train.target_loss": 0.05,
    "parallel.data": 1,
}
# Scores that are reported after the headline, by config.response.
_REPORTED = {
    "given": ("response_min_k_plus_plus_100", "response_loss", "vid_sme"),
    "greedy": ("response_mean_renyi_1", "response_loss", "vid_sme"),
}
# Of the audit's configuration: the groups that are read, the keys that the training
# copies, and the beginnings of those that the audit of its model copies.
_READ = ("corpus", "video", "motion", "report", "profile", "slices", "response")
_READ += ("response_tokens", "scores", "headline", "batch_size", "workers")
_READ += ("compile_cache", "overwrite")
_HOST = ("workers", "compile_cache", "overwrite")
_TRAINED = ("corpus.video_root", "corpus.allow_outside", "corpus.seed", *_HOST)
_TRAINED += ("video.num_frames", "video.sampling", "video.max_pixels")
_TRAINED += ("video.max_seconds",)
_AUDITED = ("video.", "motion.", "report.", "response", "batch_size", *_HOST)
_REMEDY = "take another --workdir, or --config.overwrite=true"
_NO_ANSWERS = (
    "a control trains a model on answers and audits it: give every row an "
    "`answer` (the caption, or the answer, that a model may have been trained on) and, "
    "if there is one, its `question`, in a manifest (.json, .jsonl, .csv or .parquet; "
    '{"video": "a.mp4", "question": "What happens?", "answer": "A door opens."})'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A control, checked as far as that needs no model.

    Attributes:
      workdir: The folder of model, audit and `control.json`.
      training: The configuration of the training.
      auditing: The configuration of the audit.
      items: The rows of the pool.
      settings: Those that it shares with the audit that it is made for, by key.
      reported: The scores in `control.json`, the headline first.
    """

    workdir: pathlib.Path
    training: ConfigDict
    auditing: ConfigDict
    items: tuple[Item, ...]
    settings: dict[str, Any]
    reported: tuple[str, ...]


def make(config: ConfigDict, source: str, workdir: str | pathlib.Path | None) -> Plan:
    """Plans a control and checks it; JAX is not imported.

    Args:
      config: Of the audit that it is made for; see `settings.RULES`.
      source: Of the clips, as `corpus.members`; `corpus:` takes those of the
        configuration, in all roles.
      workdir: Receives the control; None is a problem.

    Raises:
      AuditError: Lists the problems of configuration, clips, answers and folder.
    """
    problems = Problems(config, groups=_READ)
    if workdir is None:
        problems.add("--workdir is missing: it receives the control")
    elif wrong := no_folder(str(workdir), "--workdir"):
        problems.add(*wrong)
    else:
        problems.add(*unwritable(pathlib.Path(workdir), "--workdir"))
    given, items = problems.settings, ()
    training = _training(given, config, source)
    if problems.none_in("corpus", "video"):
        with problems.collected("corpus"):
            items = _answered(training)
            training.train.epochs = _epochs(len(items), training.train.batch_size)
    slices = tuple(x for x in SLICES if x in {*given.slices, "video", "response"})
    shared: dict[str, Any] = {}
    reported = names = ("",)
    if problems.none_in("profile", "slices", "scores", "headline", "response"):
        with problems.collected():
            shared, reported, names = _scores(given, slices)
    problems.close()
    assert workdir is not None  # `problems.close` has raised otherwise.
    workdir = pathlib.Path(workdir)
    auditing = settings.default()
    flat = settings.flatten(config)
    auditing.update_from_flattened_dict(
        {key: value for key, value in flat.items() if key.startswith(_AUDITED)}
        | {
            "model.checkpoint": str(workdir.absolute() / MODEL),
            "model.dtype": "float32",
            "corpus.members": (str(workdir.absolute() / MODEL / MEMBERS),),
            "corpus.nonmembers": (str(workdir.absolute() / MODEL / NONMEMBERS),),
            "corpus.allow_outside": True,  # The training wrote the manifests.
            "video.sampling": training.video.sampling,
            "parallel.data": 1,
            "slices": slices,
            "scores": names,
            "headline": reported[0],
            "report.control": "",
            "report.comparison": "all",  # Its groups need not be the audit's.
        }
    )
    if given.video.sampling == "fps":
        shared["video.sampling"] = "uniform"
    plan = Plan(
        workdir=workdir,
        training=training,
        auditing=auditing,
        items=items,
        settings=shared,
        reported=reported,
    )
    _check_begun(plan)
    return plan


def begin(plan: Plan) -> None:
    """Writes `begun.json`, which identifies the control of a folder.

    Raises:
      OSError: It cannot be written; names it.
    """
    plan.workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_identity(plan), indent=1) + "\n"
    write_atomically(plan.workdir / _BEGUN, text.encode())


def read(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file that an earlier run has written.

    Raises:
      AuditError: It is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise AuditError([f"{path}: damaged ({error}); {_REMEDY}"]) from error


def _check_begun(plan: Plan) -> None:
    """Raises an `AuditError` if the folder holds another control."""
    path = plan.workdir / _BEGUN
    if plan.training.overwrite or not path.exists():
        return
    if not (plan.workdir / MODEL).exists():  # It was refused before its first step.
        return
    if read(path) != json.loads(json.dumps(_identity(plan))):
        raise AuditError(
            [
                f"{plan.workdir} holds a control of other clips, answers or settings: "
                f"{_REMEDY}"
            ]
        )


def _identity(plan: Plan) -> dict[str, Any]:
    """Returns what the model of a control depends on."""
    rows = [
        [x.id, x.clip, x.question, list(x.candidates), x.answer, x.source]
        for x in plan.items
    ]
    flat = settings.flatten(plan.training)
    return {
        "training": {key: value for key, value in flat.items() if key not in _HOST},
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    }


def _training(given: views.Settings, config: ConfigDict, source: str) -> Any:
    """Returns the configuration of the training, a `ConfigDict`."""
    corpus = given.corpus
    every = tuple(x for role in ROLES for x in getattr(corpus, role))
    sources = tuple(dict.fromkeys(every)) if source == CORPUS else (source,)
    fields = (x for x in corpus.fields if not x.startswith("label="))
    flat = settings.flatten(config)
    training: Any = options.default()
    training.update_from_flattened_dict(
        {key: flat[key] for key in _TRAINED if key in flat}
        | _TRAIN
        | {
            "model.checkpoint": CHECKPOINT,
            "corpus.members": sources,
            "corpus.fields": (*fields, "label="),  # All are one pool.
            "corpus.max_clips": corpus.max_clips or MOST,
        }
    )
    if given.video.sampling == "fps":  # A training has one number of frames.
        training.video.sampling = "uniform"
    return training


def _answered(training: ConfigDict) -> tuple[Item, ...]:
    """Returns the rows of the pool.

    Raises:
      AuditError: There are no clips, or some have no answer or are examples of a
        dataset; or as of `pool.rows`.
    """
    if not training.corpus.members:
        raise AuditError(
            [
                f"--control={CORPUS} takes the clips of the configuration, and its "
                "config.corpus names none: give --control a manifest"
            ]
        )
    given = Problems(training, options.RULES).settings
    items = pool.rows(given, options.train_of(training)).items
    empty = [item.id for item in items if not item.answer.strip()]
    if empty:
        which = f"{len(empty)} of {len(items)} rows have no answer: {some(empty)}"
        raise AuditError([f"{which}; {_NO_ANSWERS}"])
    if there := [item.video for item in items if is_address(item.clip)]:
        raise AuditError(
            [
                f"{len(there)} clips are examples of a dataset ({some(there)}): a "
                "control divides video files, so write each to a file"
            ]
        )
    return items


def _epochs(num_rows: int, batch_size: int) -> int:
    """Returns the most epochs of a training on half of the rows."""
    members = math.ceil(num_rows * _TRAIN["train.member_share"])
    return max(EPOCHS, math.ceil(STEPS / math.ceil(members / batch_size)))


def _scores(
    given: views.Settings, slices: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Returns the shared settings, the scores that are reported, and all scores.

    Raises:
      AuditError: A control cannot have the audit's profile or headline.
    """
    require(
        given.profile == "exact",
        f"config.profile is {given.profile}, which has no scores of answers: a control "
        "needs --config.profile=exact and a headline of that profile",
    )
    known = given.profile, slices, asking.has_reference(given)
    headline = scores.headline(given.headline, *known)
    names = scores.resolve(given.scores, *known)
    first = uncalibrated(headline)
    require(
        not _compares(first),
        f"config.headline is {headline}, which compares two models, and a control has "
        f"one: set a score of one model, such as {_REPORTED[given.response][0]}",
    )
    require(
        not (given.response == "greedy" and scores.needs_given_answers(first)),
        f"config.headline is {headline}, and config.response is greedy: Min-K%++ and "
        "ranks are of given answers; set response_mean_renyi_1 or response_loss",
    )
    reported = tuple(dict.fromkeys([first, *_REPORTED[given.response]]))
    plain = [x for name in names if not _compares(x := uncalibrated(name))]
    every = tuple(dict.fromkeys([*reported, *plain]))
    return settings_of(given, headline), reported, every


def _compares(name: str) -> bool:
    return EXACT.score(name).compares
