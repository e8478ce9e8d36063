"""The compiled programs of training, on one device or many.

In mode "pmap" each device holds all parameters and a share of the clips; gradients are
summed over devices, and every device makes the same update. In mode "mesh" parameters
and moments are split by the model's rules (`parallel`). On one device both modes are
the same program.
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
_END = 0.1  # Last learning rate, as a share of the highest.


class State(NamedTuple):
    """The arrays that a step changes.

    Attributes:
      trained: Trained parameters, float32, by path.
      moments: The optimizer's state.
      step: Steps made so far.
      good: False once a loss or a gradient was not finite; then steps change nothing.
    """

    trained: Leaves
    moments: Any
    step: Int[Array, "*copies"]
    good: Bool[Array, "*copies"]


def make_schedule(train: Train, steps: int) -> optax.Schedule:
    """Returns the learning rates: a linear warm-up, then a cosine down to a tenth.

    Args:
      train: Of the configuration.
      steps: Of the whole training.

    Example:
      >>> rate = make_schedule(Train(learning_rate=1e-3, warmup_steps=10), 100)
      >>> [round(float(rate(step)), 6) for step in (0, 5, 10, 55, 100)]
      [0.0, 0.0005, 0.001, 0.00055, 0.0001]
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

    States, parameters and gradients are laid out on devices as by `spread`.

    Attributes:
      form: The module without values.
    """

    def __init__(
        self,
        form: Form,
        optimizer: optax.GradientTransformation,
        devices: Devices,
        *,
        remat: bool = False,
    ):
        """Defines the programs; compiles nothing yet.

        Args:
          form: The module without values.
          optimizer: From `make_optimizer`.
          devices: Those that train.
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
            found = self._constrained(found)
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
            return self._constrained(kept._replace(good=good)), (loss, norm, good)

        def losses(
            trained: Leaves, frozen: Leaves, batch: Batch
        ) -> tuple[Array, Array]:
            return answer_nll(form.module(trained, frozen), batch)

        batched = (0, 0, 0, None, 0)
        self._gradients = self._compiled(gradients, batched, donate=(4,))
        self._update = self._compiled(update, (0, 0), donate=(0,))
        self._losses = self._compiled(losses, (0, 0, 0))

    def start(self, trained: Leaves) -> State:
        """Returns the state before the first step, without copies for devices."""
        return jax.jit(self._begin)(trained)

    def lower(self, trained: Leaves, frozen: Leaves, batch: Batch) -> tuple[Any, Any]:
        """Returns the lowered programs of gradients and of an update.

        The devices need not exist here, as arguments have shapes and no values.

        Args:
          trained: Shapes and shardings of trained parameters, by path.
          frozen: Those of frozen parameters.
          batch: Those of a batch.
        """
        weight = jax.ShapeDtypeStruct((), jnp.float32)
        with jax.set_mesh(self._devices.mesh):
            state = self._shapes(jax.eval_shape(self._begin, trained))
            found = self._gradients.lower(trained, frozen, batch, weight, None)
            return found, self._update.lower(state, self._shapes(found.out_info))

    def spread(self, tree: Any) -> Any:
        """Copies a tree to every device in mode "pmap"; else returns it unchanged."""
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
        """Returns gradients and loss, summed over the batches of a step so far.

        Args:
          state: Of the training.
          frozen: Frozen parameters.
          batch: On the host.
          weight: Of a token: one over the tokens of the step.
          total: Result of the step's previous batch, which is donated; None for the
            first.
        """
        trained = state.trained
        placed = self._placed(batch)
        return self._gradients(trained, frozen, placed, np.float32(weight), total)

    def update(self, state: State, total: Any) -> tuple[State, Array, Array, Array]:
        """Returns the next state, the loss, the gradient's norm, whether all is finite.

        Args:
          state: Before the step; is donated.
          total: Result of `gradients` of the step's last batch.
        """
        state, outcome = self._update(state, total)
        return state, *self.gathered(outcome)

    def losses(
        self, state: State, frozen: Leaves, batch: Batch
    ) -> tuple[Float[np.ndarray, " clips"], Float[np.ndarray, " clips"]]:
        """Returns the result of `loss.answer_nll` for a batch."""
        found = self._losses(state.trained, frozen, self._placed(batch))
        nll, tokens = (np.asarray(x).reshape(-1) for x in found)
        return nll, tokens

    def _begin(self, trained: Leaves) -> State:
        moments = self._constrained(self._optimizer.init(trained))
        return State(trained, moments, jnp.int32(0), jnp.bool_(True))

    def _where(self, path: tuple[Any, ...]) -> NamedSharding:
        """Returns the sharding of an array's parameter; without one, it is whole."""
        whole = NamedSharding(self._devices.mesh, PartitionSpec())
        name = str(getattr(path[-1], "key", "")) if path else ""
        return self._shardings.get(name, whole)

    def _constrained(self, tree: Any) -> Any:
        """Constrains the shardings of arrays that belong to parameters."""
        if self._copies or self._devices.mesh.size == 1:
            return tree

        def placed(path: tuple[Any, ...], x: Array) -> Array:
            return jax.lax.with_sharding_constraint(x, self._where(path))

        return jax.tree_util.tree_map_with_path(placed, tree)

    def _shapes(self, tree: Any) -> Any:
        """Returns the shapes and shardings of a tree's arrays."""

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
          function: Of arrays and trees of them.
          axes: For each argument the axis that "pmap" splits, or None.
          donate: Places of the arguments that are donated.
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
    """Calls a compiled function in the context of its mesh."""

    def __init__(self, compiled: Any, mesh: Mesh):
        self._compiled, self._mesh = compiled, mesh

    def __call__(self, *arguments: Any) -> Any:
        with jax.set_mesh(self._mesh):
            return self._compiled(*arguments)

    def lower(self, *arguments: Any) -> Any:
        with jax.set_mesh(self._mesh):
            return self._compiled.lower(*arguments)


def programs(form: Form, train: Train, steps: int, devices: Devices) -> Programs:
    """Returns the programs of a training; equal ones are compiled once.

    Args:
      form: The module without values.
      train: Of the configuration.
      steps: Of the whole training.
      devices: Those that train.
    """
    # Other keys, such as the seed, change no program.
    compiled = {name: getattr(train, name) for name in _COMPILED}
    return _programs(form, Train(**compiled), steps, devices)


@functools.lru_cache(maxsize=8)
def _programs(form: Form, train: Train, steps: int, devices: Devices) -> Programs:
    optimizer = make_optimizer(train, steps)
    return Programs(form, optimizer, devices, remat=train.rematerialise)
