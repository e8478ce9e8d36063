"""Low-rank updates of dense layers: added to any module, initialised and merged.

A layer x @ W becomes x @ W + s x @ A @ B, with s = alpha / rank [1], or alpha /
sqrt(rank) [2]. Models have no code for it: layers of the module are replaced.

[1] Hu et al., 2021. LoRA. https://arxiv.org/abs/2106.09685
[2] Kalajdzievski, 2023. rsLoRA. https://arxiv.org/abs/2312.03732
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import layouts
from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.finetune.options import Train
from vidsme_jax.wording import nearest

_KERNEL, _BASE, _A, _B = "/kernel", "base", "lora/lora_a", "lora/lora_b"
_SHOWN = 8  # Layers that a message names.


@dataclasses.dataclass(frozen=True)
class Lora:
    """The layers that have updates, and the size and scale of the updates.

    Attributes:
      layers: Their paths, such as "language_model/layers/self_attn/q_proj".
      rank: Columns of A, rows of B.
      scale: s.
    """

    layers: tuple[str, ...]
    rank: int
    scale: float

    @classmethod
    def of(cls, train: Train, paths: Iterable[str], names: Names) -> "Lora":
        """Returns the updates of a configuration.

        Args:
          train: Of the configuration.
          paths: Of the model's parameters.
          names: Of its tensors.

        Raises:
          AuditError: The pattern is no regular expression, matches no dense layer, or
            one whose tensor has another layout.
        """
        known = set(paths)
        dense = {
            rule.path.removesuffix(_KERNEL): rule.layout
            for rule in names.rules
            if rule.path in known and rule.path.endswith(_KERNEL)
        }
        try:
            pattern = re.compile(train.pattern)
        except re.error as error:
            raise AuditError(
                [
                    f"config.train.pattern is {train.pattern!r}, expected a regular "
                    f"expression: {error}"
                ]
            ) from error
        layers = [path for path in dense if pattern.fullmatch(path)]
        shown = ", ".join(list(dense)[:_SHOWN])
        if not layers:
            raise AuditError(
                [
                    f"config.train.pattern is {train.pattern!r}, which matches no "
                    f"dense layer of the model{nearest(train.pattern, list(dense))}; "
                    f"it must match a whole path, such as {shown}"
                ]
            )
        odd = [path for path in layers if dense[path] is not layouts.LINEAR]
        if odd:
            raise AuditError(
                [
                    f"config.train.pattern is {train.pattern!r}, which matches "
                    f"{', '.join(odd)}: no plain dense layer in the checkpoint, so an "
                    "adapter of it cannot be written; leave it out"
                ]
            )
        root = train.rank**0.5 if train.rslora else train.rank
        return cls(tuple(layers), train.rank, train.alpha / root)

    def adapt(self, module: nnx.Module) -> nnx.Module:
        """Replaces the layers of a module in place, and returns the module."""
        for path in self.layers:
            *parts, last = path.split("/")
            parent: Any = module
            for part in parts:
                parent = getattr(parent, part)
            setattr(parent, last, Adapted(getattr(parent, last), self))
        return module

    def path(self, path: str) -> str:
        """Returns the adapted module's path of a parameter of the plain module."""
        layer, _, name = path.rpartition("/")
        return f"{layer}/{_BASE}/{name}" if layer in self.layers else path

    def start(
        self, shapes: Mapping[str, tuple[int, ...]], seed: int
    ) -> dict[str, Float32[np.ndarray, "..."]]:
        """Returns the first A and B by path; A as PEFT draws it, B zero.

        A is uniform in [-1 / sqrt(inputs), 1 / sqrt(inputs)].

        Args:
          shapes: Of the adapted module's parameters, by path.
          seed: Of A.
        """
        drawn = {}
        for place, layer in enumerate(self.layers):
            a, b = f"{layer}/{_A}", f"{layer}/{_B}"
            rng, bound = np.random.default_rng([seed, place]), shapes[a][-2] ** -0.5
            drawn[a] = rng.uniform(-bound, bound, shapes[a]).astype(np.float32)
            drawn[b] = np.zeros(shapes[b], np.float32)
        return drawn

    def is_factor(self, path: str) -> bool:
        """Returns whether a parameter of the adapted module is an A or a B."""
        return path.endswith((_A, _B))

    def factors(
        self, leaves: Mapping[str, Any]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns A and B of each layer, from the adapted module's parameters."""
        return {
            layer: (
                np.asarray(leaves[f"{layer}/{_A}"]),
                np.asarray(leaves[f"{layer}/{_B}"]),
            )
            for layer in self.layers
        }

    def merged(self, leaves: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the plain module's parameters with the updates added."""
        plain = {}
        for path, value in leaves.items():
            if self.is_factor(path):
                continue
            layer, _, name = path.rpartition("/")
            layer = layer.removesuffix(f"/{_BASE}")
            if layer in self.layers and name == "kernel":
                a, b = (leaves[f"{layer}/{x}"] for x in (_A, _B))
                update = jnp.matmul(a, b, precision="highest")
                wide = value.astype(jnp.float32) + self.scale * update
                value = wide.astype(value.dtype)
            plain[f"{layer}/{name}" if layer else name] = value
        return plain


class Adapted(nnx.Module):
    """A dense layer, or stacked dense layers, with a low-rank update."""

    def __init__(self, base: nnx.Linear, lora: Lora):
        """Wraps a layer; A and B are zero until `Lora.start` fills them."""
        self.base, self.scale = base, lora.scale
        self.precision = "highest" if base.dtype == jnp.float32 else None
        *stacked, inputs, outputs = base.kernel.get_value().shape
        self.out_features = outputs
        self.lora = nnx.LoRA(
            inputs, lora.rank, outputs, dtype=base.dtype, rngs=nnx.Rngs(0)
        )
        sizes = (inputs, lora.rank), (lora.rank, outputs)
        a, b = (jnp.zeros((*stacked, *size), jnp.float32) for size in sizes)
        self.lora.lora_a, self.lora.lora_b = nnx.LoRAParam(a), nnx.LoRAParam(b)

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch _"]:
        # `nnx.LoRA` has no precision, and a GPU would round the operands of float32.
        with jax.default_matmul_precision(self.precision):
            return self.base(x) + self.scale * self.lora(x)

    @property
    def kernel(self) -> nnx.Param:
        """The kernel of the wrapped layer, for `layers.project`."""
        return self.base.kernel
