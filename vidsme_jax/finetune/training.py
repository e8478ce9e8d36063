"""The training loop: prepare, train, measure, write.

Axes: `clips` of a batch.
"""

import collections
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict
from safetensors import SafetensorError

from vidsme_jax import progress, settings
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import writing
from vidsme_jax.finetune import options
from vidsme_jax.finetune.batches import Clips, Row, tokenise
from vidsme_jax.finetune.source import Source, open_source
from vidsme_jax.models.batches import Batch
from vidsme_jax.run import memory
from vidsme_jax.run.asking import Problems
from vidsme_jax.store.files import write_atomically

_PACKAGES = ("vidsme-jax", "jax", "flax", "optax", "numpy", "av")
_SECONDS = 10.0  # Between two log lines.


def run(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains, measures and writes the checkpoint.

    Args:
      config: See `options.RULES`.
      workdir: Receives the checkpoint and `training.json`; made if need be.

    Returns:
      The content of `training.json`. Its losses are means over clips of `answer_nll`,
      in nats a token, under the parameters as they are stored.

    Raises:
      AuditError: Lists all that is wrong with configuration, corpus and checkpoint; or
        the loss is no longer finite, or the device fails.
      OSError: The folder cannot be written; names the file.
    """
    source, rows, clips = _prepare(config, workdir)
    made = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)  # Before the work, not after it.
    if not os.access(workdir, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(workdir))
    try:
        return _run(config, workdir, source, rows, clips)
    except jax.errors.JaxRuntimeError as error:
        cause = f"the device failed: {memory.one_line(error)}"
        raise AuditError([cause]) from error
    finally:
        if made and not any(workdir.iterdir()):
            workdir.rmdir()


def _run(
    config: ConfigDict,
    workdir: pathlib.Path,
    source: Source,
    rows: list[Row],
    clips: Clips,
) -> dict[str, Any]:
    """Trains, measures and writes what was checked."""
    members = [row for row in rows if row.item.role == "members"]
    graphdef, state = source.start()
    state = jax.device_put(state, jax.devices()[0])
    started = time.monotonic()
    state, curve = _train(config, graphdef, state, members, clips)
    seconds = time.monotonic() - started
    dtype = jnp.dtype(settings.flatten(config)["model.dtype"])
    stored = jax.tree.map(lambda x: x.astype(dtype), state)
    state = jax.tree.map(lambda x: x.astype(jnp.float32), stored)
    record = {
        "config": settings.flatten(config),
        "parameters": sum(x.size for x in jax.tree.leaves(state)),
        "steps": len(curve),
        "seconds": round(seconds, 1),
        "losses": _measure(graphdef, state, rows, clips),
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "data": _fingerprint(members, clips),
        "members": [row.item.id for row in members],
        "curve": [round(loss, 4) for loss in curve],
    }
    _write(workdir, source, stored, record)
    return record


def _prepare(
    config: ConfigDict, workdir: pathlib.Path
) -> tuple[Source, list[Row], Clips]:
    """Checks everything before the first step, and decodes every clip once."""
    problems = Problems(config, options.RULES)
    items, source = options.collect(problems, config, workdir), None
    c: Any = config
    if problems.none_in("model", "train"):
        with problems.collected():
            seed = c.train.seed if c.model.init == "random" else None
            source = open_source(c.model.checkpoint, random_seed=seed)
    found = problems.found
    if source is None or not items or not problems.none_in(""):  # Of any key.
        raise AuditError(found)
    rows = tokenise(items, source.model, c.video.num_frames, found)
    clips = Clips(c, source.model.prepare)
    found += clips.broken(items)
    if found:
        raise AuditError(found)
    return source, rows, clips


def answer_nll(model: Any, batch: Batch) -> Float[Array, " clips"]:
    """Returns the mean negative log-likelihood of each answer, in nats a token.

    Args:
      model: Any family's module.
      batch: Of one direction, of which the rows of the slice "response" are kept.
    """
    hidden, _ = model.read(model.see(batch.pixels), batch)
    hidden = hidden[:, 0]
    target = jnp.asarray(batch.target)[:, 0]
    logits = (hidden @ model.head.T).astype(jnp.float32)
    own = jnp.maximum(target, 0)[..., None]
    picked = jnp.take_along_axis(logits, own, axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - picked
    answer = (target >= 0).astype(jnp.float32)
    return jnp.sum(nll * answer, axis=-1) / jnp.sum(answer, axis=-1)


def make_optimizer(train: Any) -> optax.GradientTransformation:
    """AdamW with clipped gradients; the rate warms up, then falls as a cosine to 0.1.

    Args:
      train: The `train` part of the configuration.
    """
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=train.learning_rate,
        warmup_steps=train.warmup_steps,
        decay_steps=max(train.max_steps, train.warmup_steps + 1),
        end_value=0.1 * train.learning_rate,
    )

    def decayed(state: Any) -> Any:  # Matrices, not norms, biases or embeddings.
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "kernel" in jax.tree_util.keystr(path), state
        )

    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.adamw(rate, b2=0.98, weight_decay=train.weight_decay, mask=decayed),
    )


def make_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Callable[..., Any]:
    """Returns `step(state, moments, batch)`: the next two, and the loss."""

    def step(state, moments, batch):
        def loss(state):
            return jnp.mean(answer_nll(nnx.merge(graphdef, state), batch))

        value, gradients = jax.value_and_grad(loss)(state)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes its own counts.
            updates, moments = optimizer.update(gradients, moments, state)
        return optax.apply_updates(state, updates), moments, value

    return step


def _train(
    config: Any,
    graphdef: nnx.GraphDef,
    state: nnx.State,
    members: list[Row],
    clips: Clips,
) -> tuple[nnx.State, list[float]]:
    """Returns the trained parameters and the loss of every step."""
    train = config.train
    optimizer = make_optimizer(train)
    # On the device like the parameters, or the second step would be compiled anew.
    moments = jax.device_put(optimizer.init(state), jax.devices()[0])
    step = jax.jit(make_step(graphdef, optimizer), donate_argnums=(0, 1))
    rng = np.random.default_rng(train.seed)
    curve: list[float] = []
    mean, told = math.inf, time.monotonic()
    total = train.max_steps
    with progress.bar(total, "training", "step") as bar:
        while mean >= train.target_loss and len(curve) < total:
            order = rng.permutation(len(members)).tolist()
            losses: list[Array] = []
            for batch in clips.batches([members[k] for k in order]):
                state, moments, loss = step(state, moments, batch)
                losses.append(loss)
                bar.update()
                if len(curve) + len(losses) == total:
                    break
            curve += [float(loss) for loss in losses]
            mean = sum(curve[-len(losses) :]) / len(losses)
            bar.set_postfix(loss=f"{mean:.4f}")
            if not math.isfinite(mean):
                where = f"the loss is {mean} after {len(curve)} steps"
                raise AuditError([f"{where}: lower config.train.learning_rate"])
            if bar.disable and (
                time.monotonic() - told > _SECONDS or len(curve) == total
            ):
                told = time.monotonic()
                logging.info("step %d of %d, loss %.4f", len(curve), total, mean)
    return state, curve


def _measure(graphdef, state, rows: list[Row], clips: Clips):
    """Returns the mean loss of the members and of each group of non-members."""

    @jax.jit
    def losses_of(state, batch):
        return answer_nll(nnx.merge(graphdef, state), batch)

    losses = [np.asarray(losses_of(state, batch)) for batch in clips.batches(rows)]
    groups: dict[str, list[float]] = collections.defaultdict(list)
    # The last batch was filled up: its surplus is left out.
    for row, loss in zip(rows, np.concatenate(losses), strict=False):
        groups[f"{row.item.role} {row.item.group}".strip()].append(float(loss))
    return {name: round(float(np.mean(groups[name])), 5) for name in sorted(groups)}


def _fingerprint(members: list[Row], clips: Clips) -> str:
    """A SHA-256 over id, content, question and answer of every member."""
    facts = [
        [row.item.id, clips.hashes[row.item.clip], row.item.question, row.item.answer]
        for row in members
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _write(
    workdir: pathlib.Path, source: Source, state: nnx.State, record: dict[str, Any]
) -> None:
    """Writes the checkpoint, the weights last: they are all there, or none are."""
    folder, raw = source.checkpoint.folder, dict(source.checkpoint.config)
    if workdir.resolve() != folder.resolve():
        for path in folder.iterdir():
            if "token" in path.name or path.suffix in (".model", ".jinja"):
                write_atomically(workdir / path.name, path.read_bytes())
    dtype = record["config"]["model.dtype"]
    raw.pop("torch_dtype", None)
    raw |= {"architectures": ["LlavaNextVideoForConditionalGeneration"], "dtype": dtype}
    prepare: Any = source.model.prepare
    for name, content in (
        ("config.json", raw),
        ("preprocessor_config.json", prepare.to_json()),
        ("training.json", record),
    ):
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(workdir / name, text.encode())
    part = workdir / "model.part"
    try:
        writing.save(part, state, source.model.names)
    except SafetensorError as error:  # Of the disk; it is no OSError.
        part.unlink(missing_ok=True)
        raise OSError(f"{part}: {error}") from error
    part.chmod(0o644)  # As any file; safetensors makes it private.
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(workdir / "model.safetensors")
