"""Implements `--check`: all that needs no decoding, no weights and no writing.

It asks what a run asks before its first clip, and reads besides what a work directory
holds. Nothing is fetched: a checkpoint of the hub is looked at where the cache has it.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax.addresses import is_url
from vidsme_jax.base import ROLES, AuditError, Item
from vidsme_jax.data import reading, sources
from vidsme_jax.run import asking, declaration, digests
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.problems import Problems
from vidsme_jax.store import signals, tables, workdirs
from vidsme_jax.store.files import unwritable
from vidsme_jax.store.records import damaged
from vidsme_jax.store.texts import restored
from vidsme_jax.wording import counted, printable

_HEAD = "nothing wrong was found; nothing was run or written"
_LONGEST = 200  # Characters of a name.
DECODING = "whether the videos decode, and near-duplicates among them"
MEMORY = "whether the memory of devices and host suffices for a batch"
MODEL = "the model: its config, tokenizer, prompt and weights"
_STORED = "which clips have signals in the object store, and whether these fit"
_HELD = "whether the signals have what the scores need"
_CHANGED = "whether videos were changed or lost since they were scored"
_UNSEEN = (
    DECODING,
    MEMORY,
    "the values of the weights",
    "whether another run is writing to the work directory",
)


def of_audit(config: ConfigDict, workdir: str) -> list[str]:
    """Checks an audit or a study as far as that takes no run.

    Args:
      config: See `settings.RULES`.
      workdir: The folder of the run; read, never written.

    Returns:
      Lines: the corpus, what is stored, the model, the devices, what the clips can
      show, what was declared, and what was not checked.

    Raises:
      AuditError: Lists all problems, those of model and tokenizer too.
    """
    _stay_offline()
    problems: list[str] = []
    asked = setup = devices = None
    folder, unseen = pathlib.Path(workdir), _UNSEEN
    try:
        asked = asking.ask(config, workdir=workdir)
        if is_url(workdir):
            with workdirs.opened(workdir, writes=False) as place:
                folder, unseen = place.path, (_STORED, *_UNSEEN)
    except AuditError as error:
        problems += error.problems
    unread = _not_cached(config)
    try:
        if unread:
            devices = _devices(config)
        else:
            from vidsme_jax.run import checks

            setup = checks.check(config, asked)
            devices = setup.devices
            if not setup.settings.overwrite and not setup.settings.study:
                its = checks.depends(setup)
                problems += signals.differences(folder / asking.SIGNALS, its)
    except AuditError as error:
        problems += error.problems
    if problems:
        raise AuditError(list(dict.fromkeys(problems)))
    assert asked is not None  # Or there is a problem.
    stored = _stored(asked, folder)
    lines = [_HEAD, *_of_corpus(asked.items, asked.left_out)]
    if not asked.settings.corpus.prepared:
        lines += _missing(asked.items)
    lines += [_of_clips(asked, stored, folder), *(_of_models(setup) if setup else ())]
    lines += [_of_devices(devices, asked.settings.batch_size)] if devices else []
    lines.append(_of_scores(asked))
    if not asked.settings.study:
        from vidsme_jax.run import power_notes

        said = power_notes.brief(asked.items, asked.settings.report)
        said += power_notes.unscored(asked)
        lines += [f"before the run: {each}" for each in said]
        lines += declaration.foreseen(asked, folder)
    return [*lines, *_not_checked([*unread, *unseen])]


def of_rows(items: Sequence[Item], unseen: Sequence[str]) -> list[str]:
    """Returns lines on a command that reads rows, and was checked by itself.

    Args:
      items: The rows of the command.
      unseen: What was not checked.
    """
    return [_HEAD, *_of_corpus(items), *_not_checked(unseen)]


def of_report(asked: Asked, workdir: pathlib.Path) -> list[str]:
    """Checks a report that is to be made again, as far as that reads no signals.

    Args:
      asked: What the report is asked.
      workdir: The folder of the finished run; read, never written.

    Returns:
      Lines: the corpus, the scores, what was declared, and what was not checked.

    Raises:
      AuditError: Results there were changed since, and would be overwritten; or the
        declaration is damaged.
    """
    if wrong := unwritable(workdir, "--workdir"):
        raise AuditError(wrong)
    digests.check_results(workdir)
    lines = [_HEAD, *_of_corpus(asked.items, asked.left_out), _of_scores(asked)]
    lines += declaration.foreseen(asked, workdir)
    return [*lines, *_not_checked([_HELD, _CHANGED])]


def _stay_offline() -> None:
    """Keeps this process from fetching, and JAX from taking most of a device."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _not_cached(config: ConfigDict) -> list[str]:
    """Returns which checkpoints are on the hub, and not all in the cache."""
    problems = Problems(config)
    given = problems.settings
    found: list[str] = []
    named = {
        "model.checkpoint": given.model.checkpoint,
        "reference.checkpoint": given.reference.checkpoint,
    }
    for key, name in named.items():
        if not problems.none_in(key) or not asking.is_on_hub(name):
            continue
        from vidsme_jax import models

        try:
            models.open_checkpoint(name, allow_pickle=given.model.allow_pickle)
        except AuditError:
            found.append(
                f"config.{key}, its tokenizer and prompt: {printable(name, _LONGEST)} "
                "is to be fetched from the hub, and the cache has not all of it"
            )
    return found


def _of_corpus(items: Sequence[Item], left_out: Sequence[Any] = ()) -> list[str]:
    counts = {role: sum(item.role == role for item in items) for role in ROLES}
    roles = ", ".join(f"{count} {role}" for role, count in counts.items() if count)
    clips = len({item.clip for item in items})
    lines = [f"corpus: {counted(len(items), 'row')} ({roles}) of {_clips(clips)}"]
    for each in left_out:
        source = printable(each.source or each.role or "the corpus", _LONGEST)
        what = counted(each.count, each.what.removesuffix("s"))
        lines.append(f"left out: {what} of {source}: {printable(each.why, _LONGEST)}")
    return lines


def _missing(items: Sequence[Item]) -> list[str]:
    """Returns a line about rows whose files do not exist, if there are any."""
    lost = [x for x in items if reading.stamp(x.clip) == reading.ABSENT]
    lost = [x for x in lost if not sources.is_address(x.clip)]
    if not lost:
        return []
    some = ", ".join(printable(x.video, 100) for x in lost[:3])
    return [
        f"missing: the files of {counted(len(lost), 'row')}, such as {some}: a run "
        "lists them as failures, and ends with status 3"
    ]


def _of_scores(asked: Asked) -> str:
    return f"scores: {len(asked.scores)}, the headline {asked.headline}"


def _of_clips(asked: Asked, stored: dict[str, set[str]], workdir: pathlib.Path) -> str:
    there = sum(sample.clip.key in stored for sample in asked.samples)
    texts = [(x.clip.key, text.key) for x in asked.samples for text in x.texts]
    known = sum(text in stored.get(key, ()) for key, text in texts)
    said = f"; of {counted(len(texts), 'text')} about them {known}" if texts else ""
    folder = printable(str(workdir), _LONGEST)
    return (
        f"work directory: {folder} has something stored of {there} of "
        f"{_clips(len(asked.samples))}{said}"
    )


def _clips(number: int) -> str:
    return counted(number, "clip")


def _devices(config: ConfigDict) -> Any:
    """Returns the devices, for a model of which nothing is known."""
    from vidsme_jax import parallel

    problems = Problems(config)
    if not problems.none_in("parallel"):
        return None  # `asking.ask` has said so.
    return parallel.make_devices(**dataclasses.asdict(problems.settings.parallel))


def _of_models(setup: Any) -> list[str]:
    """Returns lines on the models of a `checks.Setup`."""
    from vidsme_jax.parallel import in_gib

    lines: list[str] = []
    for what, model in (("model", setup.model), ("reference", setup.reference)):
        if model is not None:
            size = in_gib(model.num_bytes)
            lines.append(f"{what}: {model.family}, {model.dtype}, parameters of {size}")
            lines += [f"{what}: {printable(each)}" for each in model.remarks]
    return lines


def _of_devices(devices: Any, batch_size: int) -> str:
    first = devices.mesh.devices.flat[0]
    grid = " x ".join(map(str, devices.mesh.devices.shape))
    return (
        f"devices: {grid} (data x model) of {first.device_kind}, {devices.mode}; "
        f"{_clips(devices.batch_size(batch_size))} a batch"
    )


def _stored(asked: Asked, workdir: pathlib.Path) -> dict[str, set[str]]:
    """Returns the clips that have signals, and the texts of each; reads alone.

    Raises:
      AuditError: Lists the parts that are damaged.
    """
    found: dict[str, set[str]] = {}
    problems: list[str] = []
    if asked.settings.overwrite or asked.settings.study:
        return found
    for part in sorted((workdir / asking.SIGNALS).glob("part-*.parquet")):
        try:
            with tables.opened(part) as file:
                table = file.read(["key", "text"], use_threads=False)
            columns = (table.column(x).to_pylist() for x in ("key", "text"))
            for key, text in zip(*columns, strict=True):
                found.setdefault(restored(key), set()).add(restored(text))
        except (ValueError, TypeError, AttributeError) as error:
            problems.append(damaged(part, error))
    if problems:
        raise AuditError(problems)
    return found


def _not_checked(what: Sequence[str]) -> list[str]:
    return ["not checked:", *(f"  - {each}" for each in what)]
