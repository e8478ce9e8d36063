"""The programs of training, on one device or many: gradients, updates, losses.

In mode "pmap" each device holds all parameters and a share of the clips; gradients are
summed over devices, and every device makes the same update. In mode "mesh" parameters
and moments are split as the model says (`parallel`). On one device both are the same
program.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from vidsme_jax.finetune.loss import answer_nll
from vidsme_jax.finetune.options import Train
from vidsme_jax.finetune.parameters import Form, Leaves
from vidsme_jax.models import gradients as of_models
from vidsme_jax.models.batches import Batch
from vidsme_jax.parallel import Devices

_AXIS = "data"
_COMPILED = ("learning_rate", "warmup_steps", "weight_decay", "clip_norm")
_COMPILED += ("rematerialise",)
_END = 0.1  # Of the learning rate, at the last step.


class State(NamedTuple):
    """What a step changes.

    Attributes:
      trained: Parameters that learn, float32, by path.
      moments: The optimizer's.
      step: Steps that were made.
      good: False once a loss or a gradient was not finite; nothing changes then.
    """

    trained: Leaves
    moments: Any
    step: Int[Array, "*copies"]
    good: Bool[Array, "*copies"]


def make_schedule(train: Train, steps: int) -> optax.Schedule:
    """Returns the learning rates: they warm up, then fall as a cosine to a tenth.

    Args:
      train: Of the configuration.
      steps: Of the whole training.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=train.learning_rate,
        warmup_steps=train.warmup_steps,
        decay_steps=max(steps, train.warmup_steps + 1),
        end_value=_END * train.learning_rate,
    )


def make_optimizer(train: Train, steps: int) -> optax.GradientTransformation:
    """Returns AdamW with clipped gradients.

    Args:
      train: Of the configuration.
      steps: Of the whole training; see `make_schedule`.
    """

    def decayed(leaves: Leaves) -> Any:  # Matrices, not norms, biases or embeddings.
        return {path: "kernel" in path or "lora_" in path for path in leaves}

    rate = make_schedule(train, steps)
    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.adamw(rate, b2=0.98, weight_decay=train.weight_decay, mask=decayed),
    )


class Programs:
    """The compiled programs of one training.

    Parameters and gradients lie as `spread` returns them.

    Attributes:
      form: Of the model.
    """

    def __init__(
        self,
        form: Form,
        optimizer: optax.GradientTransformation,
        devices: Devices,
        *,
        remat: bool = False,
    ):
        """Compiles nothing yet.

        Args:
          form: Of the model.
          optimizer: From `make_optimizer`.
          devices: Where to train.
          remat: See `models.gradients.wanted`.
        """
        self.form, self._devices, self._optimizer = form, devices, optimizer
        self._shardings = {
            path: devices.shardings(form.split)(path, shape)
            for path, shape in form.shapes.items()
        }
        self._copies = devices.mode == "pmap" and devices.num_data > 1
        axis = _AXIS if self._copies else None

        def gradients(
            trained: Leaves, frozen: Leaves, batch: Batch, weight: Any, total: Any
        ) -> tuple[Any, Any]:
            def loss(trained: Leaves) -> Array:
                with of_models.wanted(remat=remat):
                    nll, _ = answer_nll(form.module(trained, frozen), batch)
                return weight * jnp.sum(nll)

            value, found = jax.value_and_grad(loss)(trained)
            found = self._kept_apart(found)
            if axis is not None:
                value, found = jax.lax.psum((value, found), axis)
            if total is None:
                return found, value
            summed, before = total
            return jax.tree.map(jnp.add, summed, found), before + value

        def update(state: State, total: Any) -> tuple[State, Any]:
            found, loss = total
            norm = optax.tree.norm(found)
            good = state.good & jnp.isfinite(loss) & jnp.isfinite(norm)

            with jax.numpy_dtype_promotion("standard"):  # Optax mixes its counts.
                updates, moments = optimizer.update(found, state.moments, state.trained)
            trained: Any = optax.apply_updates(state.trained, updates)
            new = State(trained, moments, state.step + 1, good)
            # Not `lax.cond`, whose program for a GPU holds the state several times.
            kept = jax.tree.map(lambda x, old: jnp.where(good, x, old), new, state)
            return self._kept_apart(kept._replace(good=good)), (loss, norm, good)

        def losses(
            trained: Leaves, frozen: Leaves, batch: Batch
        ) -> tuple[Array, Array]:
            return answer_nll(form.module(trained, frozen), batch)

        batched = (0, 0, 0, None, 0)
        self._gradients = self._compiled(gradients, batched, donate=(4,))
        self._update = self._compiled(update, (0, 0), donate=(0,))
        self._losses = self._compiled(losses, (0, 0, 0))

    def start(self, trained: Leaves) -> State:
        """Returns the state before the first step."""
        return jax.jit(self._begin)(trained)

    def lower(self, trained: Leaves, frozen: Leaves, batch: Batch) -> tuple[Any, Any]:
        """Returns the programs of gradients and of an update, to be compiled.

        The devices need not be here: what is given has shapes and no values.

        Args:
          trained: Shapes of the parameters that learn, with their shardings.
          frozen: Of the others.
          batch: Of the batch.
        """
        weight = jax.ShapeDtypeStruct((), jnp.float32)
        with jax.set_mesh(self._devices.mesh):
            state = self._lying(jax.eval_shape(self._begin, trained))
            found = self._gradients.lower(trained, frozen, batch, weight, None)
            return found, self._update.lower(state, self._lying(found.out_info))

    def spread(self, tree: Any) -> Any:
        """Copies to each device what "pmap" has a copy of; else returns it as it is."""
        if not self._copies:
            return tree
        count = self._devices.num_data
        where = NamedSharding(self._devices.mesh, PartitionSpec(_AXIS))
        copy = lambda x: jnp.broadcast_to(x[None], (count, *x.shape))
        return jax.jit(lambda x: jax.tree.map(copy, x), out_shardings=where)(tree)

    def gathered(self, tree: Any) -> Any:
        """Undoes `spread`."""
        return jax.tree.map(lambda x: x[0], tree) if self._copies else tree

    def gradients(
        self, state: State, frozen: Leaves, batch: Batch, weight: float, total: Any
    ) -> tuple[Leaves, Float[Array, "*copies"]]:
        """Returns gradients and loss, summed with those of earlier batches of a step.

        Args:
          state: Of the training.
          frozen: Parameters that do not learn.
          batch: Of this process, on the host.
          weight: Of a token: one over those of the step.
          total: What an earlier batch of the step gave, which is used up; None of the
            first one.
        """
        trained = state.trained
        placed = self._placed(batch)
        return self._gradients(trained, frozen, placed, np.float32(weight), total)

    def update(self, state: State, total: Any) -> tuple[State, Array, Array, Array]:
        """Returns the next state, the loss, the gradient's norm, whether all is finite.

        The state is used up.
        """
        state, outcome = self._update(state, total)
        return state, *self.gathered(outcome)

    def losses(
        self, state: State, frozen: Leaves, batch: Batch
    ) -> tuple[Float[np.ndarray, " clips"], Float[np.ndarray, " clips"]]:
        """Returns what `loss.answer_nll` does."""
        found = self._losses(state.trained, frozen, self._placed(batch))
        nll, tokens = (np.asarray(x).reshape(-1) for x in found)
        return nll, tokens

    def _begin(self, trained: Leaves) -> State:
        moments = self._kept_apart(self._optimizer.init(trained))
        return State(trained, moments, jnp.int32(0), jnp.bool_(True))

    def _where(self, path: tuple[Any, ...]) -> NamedSharding:
        """Returns the sharding of an array that belongs to a parameter, or to none."""
        whole = NamedSharding(self._devices.mesh, PartitionSpec())
        name = str(getattr(path[-1], "key", "")) if path else ""
        return self._shardings.get(name, whole)

    def _kept_apart(self, tree: Any) -> Any:
        """Constrains the shardings of arrays that belong to parameters."""
        if self._copies or self._devices.mesh.size == 1:
            return tree

        def placed(path: tuple[Any, ...], x: Array) -> Array:
            return jax.lax.with_sharding_constraint(x, self._where(path))

        return jax.tree_util.tree_map_with_path(placed, tree)

    def _lying(self, tree: Any) -> Any:
        """Returns the shapes and shardings of a tree."""

        def shaped(path: tuple[Any, ...], x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._where(path))

        return jax.tree_util.tree_map_with_path(shaped, tree)

    def _placed(self, batch: Batch) -> Batch:
        devices = self._devices
        where = NamedSharding(devices.mesh, PartitionSpec(_AXIS))
        if self._copies:
            count = devices.num_data
            fold = lambda x: x.reshape(count, len(x) // count, *x.shape[1:])
            batch = jax.tree.map(fold, batch)
        return jax.device_put(batch, where)

    def _compiled(
        self,
        function: Callable[..., Any],
        axes: tuple[int | None, ...],
        donate: tuple[int, ...] = (),
    ) -> Any:
        """Compiles a function for the devices.

        Args:
          function: Of arguments of which `axes` says what "pmap" splits.
          axes: 0, or None for what is the same everywhere.
          donate: Arguments that are used up.
        """
        devices = self._devices
        if self._copies:
            every = list(devices.mesh.devices.flat)
            return jax.pmap(
                function,
                axis_name=_AXIS,
                in_axes=axes,
                devices=every,
                donate_argnums=donate,
            )
        compiled = jax.jit(function, donate_argnums=donate)
        if devices.mesh.size == 1:
            return compiled

        return _OnMesh(compiled, devices.mesh)


class _OnMesh:
    """A compiled function whose program knows the mesh that it runs on."""

    def __init__(self, compiled: Any, mesh: Mesh):
        self._compiled, self._mesh = compiled, mesh

    def __call__(self, *arguments: Any) -> Any:
        with jax.set_mesh(self._mesh):
            return self._compiled(*arguments)

    def lower(self, *arguments: Any) -> Any:
        with jax.set_mesh(self._mesh):
            return self._compiled.lower(*arguments)


def programs(form: Form, train: Train, steps: int, devices: Devices) -> Programs:
    """Returns the programs of a training; equal ones are compiled once."""
    # What else the configuration says, such as the seed, is in no program.
    kept = {name: getattr(train, name) for name in _COMPILED}
    return _programs(form, Train(**kept), steps, devices)


@functools.lru_cache(maxsize=8)
def _programs(form: Form, train: Train, steps: int, devices: Devices) -> Programs:
    optimizer = make_optimizer(train, steps)
    return Programs(form, optimizer, devices, remat=train.rematerialise)
