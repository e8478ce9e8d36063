"""Trains a model with known members: steps, evaluations, states, export."""

import collections
import dataclasses
import errno
import itertools
import math
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vidsme_jax.base import AuditError
from vidsme_jax.finetune import (
    examples,
    export,
    options,
    pool,
    preparing,
    record,
    steps,
)
from vidsme_jax.finetune.examples import Cut
from vidsme_jax.finetune.parameters import Leaves
from vidsme_jax.finetune.preparing import Prepared
from vidsme_jax.finetune.reporting import Reporter
from vidsme_jax.finetune.states import States
from vidsme_jax.finetune.steps import State
from vidsme_jax.run import memory
from vidsme_jax.run.stopping import Stop
from vidsme_jax.store import files, lock

_LAG = 2  # Steps in flight before the loss of the first is read.


def run(
    config: ConfigDict, workdir: pathlib.Path, stop: Stop | None = None
) -> dict[str, Any]:
    """Trains, evaluates and writes the model; resumes a stopped training.

    Args:
      config: See `options.RULES`.
      workdir: Receives the checkpoint or the adapter, and `training.json`; made if need
        be.
      stop: Checked between steps; if it is set, the state is saved.

    Returns:
      The content of `training.json`. Its losses are means over rows of the mean of an
      answer's tokens, in nats a token, with products in `train.dtype`.

    Raises:
      AuditError: Lists the problems of configuration, corpus and checkpoint; or the
        loss or a gradient is no longer finite, the device fails, or another process is
        writing to the folder.
      OSError: The folder cannot be written; names the file.
      KeyboardInterrupt: `stop` was set; the state is saved.
    """
    training = _Training(
        preparing.prepare(config, workdir), config, workdir, stop or Stop()
    )
    workdir.mkdir(parents=True, exist_ok=True)  # Before the work, not after it.
    if not os.access(workdir, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(workdir))
    try:
        with lock.locked(workdir, "another training is writing to it"):
            return training.run()
    except jax.errors.JaxRuntimeError as error:
        cause = f"the device failed: {memory.one_line(error)}"
        if memory.is_lacking(error):
            cause += (
                "; set a smaller config.train.batch_size with a larger "
                "config.train.accumulate, config.train.rematerialise = true, or "
                "config.parallel.mode = mesh"
            )
        raise AuditError([cause]) from error


def _absolute(name: str) -> str:
    """Returns the absolute path of a base that is a folder, else its hub id."""
    path = pathlib.Path(name).expanduser()
    return str(path.absolute()) if path.is_dir() else name


class _Training:
    """One training, from its first or last state to its files."""

    def __init__(
        self, prepared: Prepared, config: ConfigDict, workdir: pathlib.Path, stop: Stop
    ):
        self._all, self._train = prepared, prepared.train
        self._config, self._workdir, self._stop = config, workdir, stop
        self._members, train = prepared.members, prepared.train
        self._per_epoch = -(-len(self._epoch(0)) // train.accumulate)
        self._total = train.epochs * self._per_epoch
        if train.max_steps:
            self._total = min(self._total, train.max_steps)
        self._check()
        self._programs = steps.programs(
            prepared.trainee.form, train, self._total, prepared.devices
        )
        self._log = record.Log()

    def _check(self) -> None:
        """Checks that the steps suffice for snapshots, and warns of a long warm-up."""
        train = self._train
        epochs = self._total // self._per_epoch
        if late := [epoch for epoch in train.snapshots if epoch > epochs]:
            raise AuditError(
                [
                    f"config.train.snapshots is {train.snapshots!r}, and the training "
                    f"ends after {self._total} steps, before epoch {late[0]} (an epoch "
                    f"has {self._per_epoch}): raise config.train.max_steps"
                ]
            )
        if train.warmup_steps >= self._total:
            rate = steps.make_schedule(train, self._total)(self._total - 1)
            logging.warning(
                "config.train.warmup_steps is %d and the training has %d steps: its "
                "learning rate ends at %.3g, config.train.learning_rate is %.3g; lower "
                "config.train.warmup_steps",
                *(train.warmup_steps, self._total, rate, train.learning_rate),
            )

    def run(self) -> dict[str, Any]:
        """Trains, evaluates and writes the model; returns the record."""
        prepared, workdir = self._all, self._workdir
        states = States(
            workdir / options.STATE,
            record.depends(self._config, prepared),
            restart=bool(self._config.overwrite),
        )
        if states.latest is None:
            for path in options.snapshots_in(workdir):  # Of an earlier training.
                shutil.rmtree(path)
        for path in options.snapshots_in(workdir):
            files.sweep(path)
        if prepared.train.divides:
            items = [row.item for row in prepared.rows]
            if root := pool.write_manifests(workdir, items):
                logging.info(
                    "members.jsonl and nonmembers.jsonl name videos outside %s: an "
                    "audit of them needs --config.corpus.video_root=%s",
                    *(workdir, root),
                )
        started = time.monotonic()
        state, frozen = self._begin(states)
        done = False
        try:
            state = self._learn(state, frozen, states)
            self._log.seconds += time.monotonic() - started
            found = self._finish(state, frozen)
            done = True
        finally:
            states.close(done=done)
        return found

    def _begin(self, states: States) -> tuple[State, Leaves]:
        """Returns the first or the saved state, and the frozen parameters."""
        prepared, programs = self._all, self._programs
        trainee, devices = prepared.trainee, prepared.devices
        where = devices.shardings(trainee.form.split)
        trained, frozen = trainee.start(where, self._train.seed)
        state = programs.start(trained)
        if states.latest is not None:
            state, saved = states.restore(state)
            self._log = record.Log(**saved)
        return programs.spread(state), programs.spread(frozen)

    def _learn(self, state: State, frozen: Leaves, states: States) -> State:
        """Makes the remaining steps; returns the last state, which is saved."""
        train, log, programs = self._train, self._log, self._programs
        reporter = Reporter(self._all, self._total, self._per_epoch, log.steps)
        started = time.monotonic()
        flying: collections.deque[tuple[Sequence[Cut], Any]] = collections.deque()

        def settle(most: int) -> None:
            """Reads the losses of all but the last `most` steps in flight."""
            while len(flying) > most:
                cuts, (loss, norm, good) = flying.popleft()
                if not bool(good):
                    raise AuditError([self._diverged(cuts, float(loss), float(norm))])
                log.curve.append(round(float(loss), 6))
                reporter.step(cuts, log.curve[-1])

        def save() -> None:
            settle(0)
            saved = dataclasses.asdict(log)
            saved["seconds"] += time.monotonic() - started
            states.save(log.steps, programs.gathered(state), saved)

        try:
            with reporter:
                for cuts in self._stop.between(self._steps(log.steps)):
                    weight = 1 / sum(x.num_tokens for cut in cuts for x in cut.examples)
                    total = None
                    for each in cuts:
                        total = programs.gradients(
                            state, frozen, each.batch, weight, total
                        )
                    state, *outcome = programs.update(state, total)
                    flying.append((cuts, outcome))
                    settle(_LAG)
                    made = log.steps + len(flying)
                    if made % self._per_epoch == 0:
                        settle(0)
                        if self._epoch_ends(made // self._per_epoch, state, frozen):
                            break
                    if train.checkpoint_every and made % train.checkpoint_every == 0:
                        save()
                save()  # The evaluation and the export may be interrupted, too.
        except KeyboardInterrupt:
            save()
            raise
        except AuditError as error:
            # Steps after one that is not finite change nothing; those before it, or
            # before a clip that cannot be read, count.
            while flying:
                _, (loss, _, good) = flying.popleft()
                if bool(good):
                    log.curve.append(round(float(loss), 6))
            state = state._replace(good=programs.spread(np.bool_(True)))
            try:
                save()
            except OSError as full:
                raise AuditError([*error.problems, str(full)]) from error
            raise
        return state

    def _epoch_ends(self, epoch: int, state: State, frozen: Leaves) -> bool:
        """Evaluates and writes a snapshot if due; returns whether training ends."""
        train, log = self._train, self._log
        if train.evaluate_every and epoch % train.evaluate_every == 0:
            log.losses.append([epoch, self._measure(state, frozen)])
        if epoch in train.snapshots:
            self._write(self._workdir / f"epoch-{epoch}", state, frozen)
        return self._is_reached()

    def _is_reached(self) -> bool:
        """Returns whether the last epoch is complete and its loss below the target."""
        losses = self._log.curve[-self._per_epoch :]
        if not losses or self._log.steps % self._per_epoch:
            return False
        return math.fsum(losses) / len(losses) < self._train.target_loss

    def _diverged(self, cuts: Sequence[Cut], loss: float, norm: float) -> str:
        """Returns the message for a step whose loss or gradient is not finite."""
        names = [x.item.video for cut in cuts for x in cut.examples]
        rest = f" and {len(names) - 8} more" * (len(names) > 8)
        shown = ", ".join(names[:8]) + rest
        problem = f"the loss is {loss}"
        if math.isfinite(loss):
            problem = f"the loss is {loss:.4f} and the norm of its gradient {norm}"
        rate = "config.train.learning_rate"
        if self._train.method == "lora":
            rate += " or config.train.alpha"
        return (
            f"{problem} at step {self._log.steps + 1}, of the clips {shown}; the state "
            f"before it is in {self._workdir / options.STATE}. Lower {rate}, with "
            "--config.overwrite=true or another --workdir, or check these clips"
        )

    def _epoch(self, epoch: int) -> list[list[int]]:
        """Returns the batches of an epoch, a function of train.seed and its number."""
        rng = np.random.default_rng([self._train.seed, epoch])
        return examples.batches_of(self._members, self._train.batch_size, rng)

    def _steps(self, done: int) -> Iterator[tuple[Cut, ...]]:
        """Yields the batches of each remaining step."""
        accumulate = self._train.accumulate
        if self._is_reached():  # By an earlier run.
            return
        while done < self._total and not self._stop.asked:
            epoch, start = divmod(done, self._per_epoch)
            plan = self._epoch(epoch)
            until = min(self._total - epoch * self._per_epoch, self._per_epoch)
            plan = plan[start * accumulate : until * accumulate]
            cuts = examples.cut(
                self._members,
                plan,
                self._all.clips,
                self._all.trainee.source.model,
                self._train.batch_size,
            )
            while step := tuple(itertools.islice(cuts, accumulate)):
                yield step
                done += 1
                if self._stop.asked:
                    return

    def _measure(self, state: State, frozen: Leaves) -> dict[str, float]:
        """Returns the mean loss of each role and group, in nats a token."""
        rows, model = self._all.rows, self._all.trainee.source.model
        size = self._train.batch_size
        plan = examples.batches_of(rows, size, None)
        groups: dict[str, list[float]] = collections.defaultdict(list)
        for cut in examples.cut(rows, plan, self._all.clips, model, size):
            nll, tokens = self._programs.losses(state, frozen, cut.batch)
            for k, example in enumerate(cut.examples):
                group = f"{example.item.role} {example.item.group}".strip()
                groups[group].append(float(nll[k] / tokens[k]))
        return {name: round(float(np.mean(groups[name])), 5) for name in sorted(groups)}

    def _finish(self, state: State, frozen: Leaves) -> dict[str, Any]:
        """Writes the model, then the record; returns the record."""
        log = self._log
        losses = self._measure(state, frozen)
        found = record.of(self._config, self._all, log, losses)
        epochs = log.steps // self._per_epoch
        if late := [epoch for epoch in self._train.snapshots if epoch > epochs]:
            logging.warning(
                "config.train.target_loss was reached after %d epochs, before the "
                "snapshots of %s",
                *(epochs, ", ".join(map(str, late))),
            )
        # Weights without a record mark a training that is not finished.
        (self._workdir / options.RECORD).unlink(missing_ok=True)
        self._write(self._workdir, state, frozen)
        record.write(self._workdir, found)
        return found

    def _write(self, folder: pathlib.Path, state: State, frozen: Leaves) -> None:
        """Writes the current model, whole or as an adapter."""
        trainee, train = self._all.trainee, self._train
        source, lora = trainee.source, trainee.form.lora
        trained = self._programs.gathered(state.trained)
        folder.mkdir(parents=True, exist_ok=True)
        if lora is not None and train.writes_adapter:
            export.adapter(
                folder,
                source.checkpoint,
                source.model,
                lora.factors(trained),
                rank=train.rank,
                alpha=train.alpha,
                rslora=train.rslora,
                base=_absolute(source.name),
            )
            return
        plain = trainee.plain(trained, self._programs.gathered(frozen))
        dtype = self._config.model.dtype
        export.whole(folder, source.checkpoint, source.model, plain, dtype=dtype)
