"""Checks and decodes all that a training needs, before its first step."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vidsme_jax import parallel
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import examples, options, pool
from vidsme_jax.finetune.examples import Clips, Example
from vidsme_jax.finetune.options import Train
from vidsme_jax.finetune.parameters import Trainee
from vidsme_jax.finetune.source import open_source
from vidsme_jax.parallel import Devices
from vidsme_jax.run.problems import Problems


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A training, checked.

    Attributes:
      train: Of the configuration; batches hold no more clips than there are members.
      trainee: The model.
      rows: Of the corpus, laid out.
      clips: Decodes their frames.
      devices: Those that train.
    """

    train: Train
    trainee: Trainee
    rows: list[Example]
    clips: Clips
    devices: Devices

    @property
    def members(self) -> list[Example]:
        """The rows that are trained on."""
        return [row for row in self.rows if row.item.role == "members"]


def prepare(config: ConfigDict, workdir: pathlib.Path) -> Prepared:
    """Checks everything before the first step, and decodes every clip once.

    Args:
      config: See `options.RULES`.
      workdir: Receives the model.

    Raises:
      AuditError: Lists every problem.
    """
    problems = Problems(config, options.RULES)
    options.collect(problems, config, workdir)
    c: Any = config
    train, found, source = options.train_of(config), None, None
    if problems.none_in("corpus", "train.member_share", "video"):
        with problems.collected("corpus"):
            found = pool.rows(problems.settings, train)
    if problems.none_in("model", "train"):
        with problems.collected():
            texts = pool.texts(found.items) if found is not None else ()
            source = open_source(
                c.model.checkpoint,
                dtype=train.dtype,
                is_random=c.model.init == "random",
                allow_pickle=c.model.allow_pickle,
                texts=texts,
                seed=train.seed,
            )
    if source is None or found is None or not problems.none_in(""):  # Of any key.
        raise AuditError(problems.found)
    parallel.keep_programs(c.compile_cache)
    model, trainee, devices = source.model, None, None
    if source.checkpoint.adapter is not None and train.writes_adapter:
        problems.add(
            f"checkpoint {source.name} is an adapter itself, and an adapter of it "
            "would have no base: set config.train.merged = true"
        )
    with problems.collected():
        trainee = Trainee.of(source, train)
        devices = parallel.make_devices(
            *(c.parallel.mode, c.parallel.data, c.parallel.model),
            num_bytes=trainee.num_bytes,
            dtype=train.dtype,
        )
        if devices.num_processes > 1:
            problems.add(
                f"training runs in one process, and JAX has {devices.num_processes} "
                "here: start one process"
            )
        if train.batch_size % devices.num_data:
            problems.add(
                f"config.train.batch_size is {train.batch_size}; it must be a multiple "
                f"of the {devices.num_data} devices that share a batch"
            )
    problems.add(*examples.unreadable(found.items, model))
    problems.close()  # Decoding may take hours.
    clips = Clips(
        found.reader, model, c.video.num_frames, c.cache_mib * 2**20, c.workers
    )
    problems.add(*clips.look(found.items))
    problems.close()
    with problems.collected():
        looked = clips.looked
        prints = {key: clip.fingerprint for key, clip in looked.items()}
        digests = {key: clip.content_hash for key, clip in looked.items()}
        items = found.divided(train, prints, digests)
        rows, wrong = examples.lay_out(items, model, looked)
        problems.add(*wrong)
    problems.close()
    assert trainee is not None and devices is not None  # `problems.close` has raised.
    train = _limited(train, rows, devices.num_data)
    return Prepared(train, trainee, rows, clips, devices)


def _limited(train: Train, rows: Sequence[Example], devices: int) -> Train:
    """Returns the training with no more clips in a batch than there are members."""
    members = sum(row.item.role == "members" for row in rows)
    most = -(-members // devices) * devices
    if train.batch_size <= most:
        return train
    logging.info(
        "config.train.batch_size is %d; batches hold %d clips, as there are %d members",
        *(train.batch_size, most, members),
    )
    return dataclasses.replace(train, batch_size=most)
