"""Which parameters are trained, their first values, and the module that they make.

Trained parameters are float32, frozen ones in the type of the products. Both are flat,
{path: array}; the path of a dense layer with a low-rank update is that of `lora.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from vidsme_jax.checkpoints import trees
from vidsme_jax.finetune.lora import Lora
from vidsme_jax.finetune.options import Train
from vidsme_jax.finetune.source import Source
from vidsme_jax.models.interface import Model
from vidsme_jax.parallel import Split

Leaves = dict[str, Any]
_DECODER = "language_model"
_DEVIATION = 0.02  # Of embeddings, and of other parameters that a module makes zero.


@dataclasses.dataclass(frozen=True)
class Form:
    """A module without the values of its parameters; hashable.

    Attributes:
      graphdef: Of the module.
      abstract: Its state without values, in the type of the products.
      trained: Paths of the trained parameters.
      lora: The low-rank updates; None if there are none.
      split: See `interface.Model`.
    """

    graphdef: nnx.GraphDef
    abstract: nnx.State = dataclasses.field(compare=False)
    trained: frozenset[str]
    lora: Lora | None
    split: tuple[Split, ...]

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all parameters, by path."""
        return {path: x.shape for path, x in trees.flat(self.abstract).items()}

    def module(self, trained: Mapping[str, Array], frozen: Mapping[str, Array]) -> Any:
        """Returns the module of these parameters, in the type of the products."""
        values = {**trained, **frozen}
        leaves = {
            path: values[path].astype(leaf.dtype)
            for path, leaf in trees.flat(self.abstract).items()
        }
        state = trees.fill(jax.tree.map(lambda x: x, self.abstract), leaves)
        return nnx.merge(self.graphdef, state)


@dataclasses.dataclass(frozen=True)
class Trainee:
    """A model in training.

    Attributes:
      source: The checkpoint or architecture that it starts from.
      form: Its module, and the paths of its trained parameters.
    """

    source: Source
    form: Form

    @classmethod
    def of(cls, source: Source, train: Train) -> "Trainee":
        """Returns the model of a configuration.

        Args:
          source: The checkpoint or architecture that it starts from.
          train: Of the configuration.

        Raises:
          AuditError: As of `Lora.of`.
        """
        model, lora = source.model, None
        paths = trees.flat(model.abstract()[1])
        if train.method == "lora":
            lora = Lora.of(train, paths, model.names)

        def make() -> nnx.Module:
            module = model.make(nnx.Rngs(0))
            return module if lora is None else lora.adapt(module)

        graphdef, abstract = nnx.split(nnx.eval_shape(make))
        is_trained = _chooser(model, train, lora)
        trained = frozenset(filter(is_trained, trees.flat(abstract)))
        return cls(source, Form(graphdef, abstract, trained, lora, model.split))

    @property
    def num_bytes(self) -> int:
        """Bytes on devices: parameters, gradients and two moments."""
        leaves, trained = trees.flat(self.form.abstract), self.form.trained
        frozen = sum(
            leaf.size * leaf.dtype.itemsize
            for path, leaf in leaves.items()
            if path not in trained
        )
        return frozen + 16 * sum(leaves[path].size for path in trained)

    def start(
        self, shardings: Callable[[str, tuple[int, ...]], Any], seed: int
    ) -> tuple[Leaves, Leaves]:
        """Returns the first trained and frozen parameters, on their devices.

        Args:
          shardings: Returns the sharding of a parameter by its path and shape.
          seed: Of parameters that are drawn.
        """
        model, form = self.source.model, self.form
        lora = form.lora
        moved = (lambda path: path) if lora is None else lora.path
        plain = model.abstract()[1]
        for path, variable in nnx.to_flat_state(plain):
            leaf = variable.get_value()
            name = moved("/".join(map(str, path)))
            dtype = jnp.float32 if name in form.trained else leaf.dtype
            variable.set_value(jax.ShapeDtypeStruct(leaf.shape, dtype))
        if self.source.is_random:
            filled = _random(model, plain, shardings, seed)
        else:
            assert model.fill is not None  # A source that is not random has tensors.
            filled = trees.flat(model.fill(plain, shardings))
        leaves = {moved(path): value for path, value in filled.items()}
        if lora is not None:
            for path, value in lora.start(form.shapes, seed).items():
                leaves[path] = jax.device_put(value, shardings(path, value.shape))
        trained = {path: leaves.pop(path) for path in sorted(form.trained)}
        return trained, leaves

    def plain(self, trained: Leaves, frozen: Leaves) -> nnx.State:
        """Returns the state of the plain module, low-rank updates added to kernels."""
        leaves = {**trained, **frozen}
        if self.form.lora is not None:
            leaves = self.form.lora.merged(leaves)
        return trees.fill(self.source.model.abstract()[1], leaves)


def _chooser(model: Model, train: Train, lora: Lora | None) -> Callable[[str], bool]:
    """Returns the function that says whether the parameter of a path is trained."""
    if lora is not None:
        return lora.is_factor
    frozen: tuple[str, ...] = ()
    if train.method == "projector":
        frozen = (*model.towers, _DECODER)
    elif train.tower == "frozen":
        frozen = model.towers
    return lambda path: path.split("/")[0] not in frozen


def _random(
    model: Model,
    abstract: nnx.State,
    shardings: Callable[[str, tuple[int, ...]], Any],
    seed: int,
) -> Leaves:
    """Draws parameters: kernels by their fan-in, embeddings with deviation 0.02.

    Other parameters that a new module makes zero, such as a class token, are drawn like
    embeddings; biases stay zero.
    """
    state = nnx.state(model.make(nnx.Rngs(seed)))
    shapes, leaves = trees.flat(abstract), {}
    for place, (path, value) in enumerate(trees.flat(state).items()):
        if not path.endswith("bias") and not np.asarray(value).any():
            rng = np.random.default_rng([seed, place])
            value = _DEVIATION * rng.standard_normal(value.shape, np.float32)
        leaf = shapes[path]
        where = shardings(path, leaf.shape)
        leaves[path] = jax.device_put(jnp.asarray(value).astype(leaf.dtype), where)
    return leaves
