"""Rotary position embeddings [1]: their settings, frequencies and rotation.

| kind | frequencies | positions that it supports |
|---|---|---|
| default | theta^(-2k / head_dim) | those of the config |
| linear [2] | the default ones divided by `factor` | those times `factor` |
| llama3 [3] | the default ones, low ones divided by `factor` | those of the config |
| dynamic | the default ones, within the config's positions | those of the config |

A position has one axis, or three (M-RoPE [4]: time, height and width). Each frequency
reads one axis: the frequencies of an axis follow one another, or the axes alternate.

The config's positions are its `max_position_embeddings`. Beyond them "dynamic" has
other frequencies for every length, in all rows: that is not built, and a clip of more
rows is refused as for every model without more positions.

Axes: `batch`, `tokens`, `heads`, `head_dim`; `axes` of a position; `half` of head_dim.

[1] Su et al., 2021. RoFormer. https://arxiv.org/abs/2104.09864
[2] Chen et al., 2023. https://arxiv.org/abs/2306.15595
[3] Dubey et al., 2024. The Llama 3 herd of models. https://arxiv.org/abs/2407.21783
[4] Wang et al., 2024. Qwen2-VL. https://arxiv.org/abs/2409.12191
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import Fields

KINDS = ("default", "linear", "llama3", "dynamic")
# Far beyond any published model.
_THETA_RANGE, _FACTOR_RANGE = (1e-3, 1e15), (1e-3, 1e6)
_UNUSED = {"factor": "no scaling"}

Tables = Float[Array, "batch tokens head_dim"]  # Cosines, or sines.


class Sections(NamedTuple):
    """Defaults of a model whose positions have three axes.

    Attributes:
      default: See `Rope.sections`.
      half: Half of a head's size, which the sections add up to.
      interleaved: The required `mrope_interleaved`; None: the config has no such key,
        and the axes do not alternate.
    """

    default: tuple[int, ...]
    half: int
    interleaved: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """The settings of one rotary embedding.

    Attributes:
      theta: The base of the wavelengths.
      kind: One of `KINDS`.
      factor: The factor of the table in the module's docstring.
      low_freq_factor: llama3: frequencies that turn less often than this within the
        original positions are divided by `factor`.
      high_freq_factor: llama3: frequencies that turn more often are unchanged; in
        between the two are interpolated.
      original_positions: llama3: the positions of the first training.
      sections: How many frequencies read the time, the height and the width of a
        position; empty where it has one axis.
      interleaved: Whether the axes alternate: frequency 3k + 1 reads the height and
        3k + 2 the width, up to their counts in `sections`; all others read the time.
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192
    sections: tuple[int, ...] = ()
    interleaved: bool = False

    def axes(self, half: int) -> Int[np.ndarray, " half"]:
        """Returns the axis of positions that each frequency reads.

        Example:
          >>> Rope(theta=1e4, sections=(1, 2, 1)).axes(4).tolist()
          [0, 1, 1, 2]
          >>> Rope(theta=1e4, sections=(2, 1, 1), interleaved=True).axes(4).tolist()
          [0, 1, 2, 0]
        """
        out = np.zeros(half, np.int32)
        if self.interleaved:
            for axis, count in enumerate(self.sections[1:], 1):
                out[axis : 3 * count : 3] = axis
        elif self.sections:
            out[:] = np.repeat(np.arange(3), self.sections)
        return out

    def frequencies(self, head_dim: int) -> Float32[np.ndarray, " half"]:
        """Returns the angle, in radians a position, by which each pair is rotated."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        out = 1 / np.float32(self.theta) ** exponents
        if self.kind == "linear":
            out = out / np.float32(self.factor)
        elif self.kind == "llama3":
            low, high = self.low_freq_factor, self.high_freq_factor
            turns = self.original_positions * out / (2 * math.pi)
            share = np.clip((turns - low) / (high - low), 0, 1)
            out = out * ((1 - share) / self.factor + share)
        return out.astype(np.float32)

    def max_positions(self, embeddings: int) -> int:
        """Returns how many positions it supports, given `max_position_embeddings`."""
        return int(embeddings * self.factor) if self.kind == "linear" else embeddings


def read(
    fields: Fields,
    embeddings: int,
    *,
    scaled: bool = True,
    theta: float = 10000.0,
    sections: Sections | None = None,
) -> Rope:
    """Reads either spelling of the settings in a decoder's config.

    Before transformers 5 they were `rope_theta` and `rope_scaling`, since then both
    are in `rope_parameters`, whose `rope_theta` wins.

    Args:
      fields: The decoder's config.
      embeddings: Its `max_position_embeddings`.
      scaled: Whether positions may be scaled; see `DecoderConfig.from_qwen2`.
      theta: The default of `rope_theta`.
      sections: For a model whose positions have three axes.
    """
    theta = fields.number("rope_theta", theta, *_THETA_RANGE)
    scaling = fields.take("rope_scaling", dict, None) or {}
    parameters = fields.take("rope_parameters", dict, None) or {}
    if not scaled and "rope_theta" not in scaling:
        scaling = {}
    if scaling and parameters and _settings(scaling) != _settings(parameters):
        fields.problems.append(
            f"{fields.where}: rope_scaling {content.shown(scaling)} and "
            f"rope_parameters {content.shown(parameters)} contradict each other; "
            "remove one of the two"
        )
    where = "rope_parameters" if parameters else "rope_scaling"
    inner = Fields(parameters or scaling, f"{fields.where}.{where}", fields.problems)
    built = KINDS if scaled else KINDS[:1]
    if sections is not None:  # In older files three axes are a separate kind.
        built = *built, "mrope"
    older = inner.expect("type", None, *built)
    kind = inner.expect("rope_type", *built) if "rope_type" in inner.raw else older
    inner.expect("partial_rotary_factor", 1.0, None)
    theta = inner.number("rope_theta", theta, *_THETA_RANGE)
    kind = "default" if kind in (None, "mrope") else kind
    rope = Rope(theta=theta, kind=kind)
    if rope.kind != "default":
        factor = _needed(inner, "factor", *_FACTOR_RANGE)
        rope = dataclasses.replace(rope, factor=factor)
    if rope.kind == "llama3":
        rope = _llama3(inner, rope, embeddings)
    if sections is not None:
        rope = _three_axes(inner, rope, sections)
    inner.close(_UNUSED if rope.kind == "default" else {})
    return rope


def _llama3(inner: Fields, rope: Rope, embeddings: int) -> Rope:
    """Reads the keys that only llama3 has."""
    low, high = (
        _needed(inner, f"{key}_freq_factor", *_FACTOR_RANGE) for key in ("low", "high")
    )
    original = inner.size("original_max_position_embeddings", embeddings)
    if low >= high:
        inner.problems.append(
            f"{inner.where}: low_freq_factor {low:g} is not below high_freq_factor "
            f"{high:g}"
        )
        return rope
    return dataclasses.replace(
        rope, low_freq_factor=low, high_freq_factor=high, original_positions=original
    )


def _three_axes(inner: Fields, rope: Rope, sections: Sections) -> Rope:
    """Reads the keys that only positions of three axes have."""
    given = inner.take("mrope_section", list, list(sections.default))
    whole = all(type(x) is int and 0 <= x <= sections.half for x in given)
    alternates = sections.interleaved
    if alternates is not None:
        inner.expect("mrope_interleaved", alternates)
    total = sum(given) if whole and len(given) == 3 else -1
    # Axes that alternate must not reach beyond the last frequency.
    reached = not (alternates and total >= 0) or 3 * max(given[1:]) <= sections.half
    if total != sections.half or not reached:
        inner.problems.append(
            f"{inner.where}: mrope_section is {content.shown(given)}; expected three "
            "whole numbers, for time, height and width, that add up to "
            f"{sections.half}, half of a head's size"
            + (", the last two at most a third of it" if alternates else "")
        )
        return rope
    return dataclasses.replace(
        rope, sections=tuple(given), interleaved=bool(alternates)
    )


def _needed(inner: Fields, key: str, low: float, high: float) -> float:
    """Reads a number that is required."""
    if inner.raw.get(key) is None:
        inner.problems.append(f"{inner.where}: {key} is missing")
    return inner.number(key, 1.0, low, high)


def _settings(rope: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings without theta, under the names of transformers 5."""
    named = rope.get("rope_type", rope.get("type"))
    kind = {"rope_type": "default" if named in (None, "", "mrope") else named}
    given = {key: value for key, value in rope.items() if value is not None}
    return {k: v for k, v in (given | kind).items() if k not in ("type", "rope_theta")}


def rope_tables(
    positions: Int[Array, "batch tokens axes"], rope: Rope, head_dim: int
) -> tuple[Tables, Tables]:
    """Returns cosines and sines in float32, in transformers' half-split layout."""
    frequencies = jnp.asarray(rope.frequencies(head_dim))
    axes = rope.axes(head_dim // 2)
    wide = positions.astype(jnp.float32)[..., None] * frequencies[None, None, None]
    angles = wide[:, :, 0]
    for axis in set(axes.tolist()) - {0}:
        angles = jnp.where((axes == axis)[None, None], wide[:, :, axis], angles)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(
    x: Float[Array, "batch tokens heads head_dim"],
    cos: Tables,
    sin: Tables,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Rotates queries or keys by their positions."""
    x1, x2 = jnp.split(x, 2, axis=-1)
    rotated = jnp.concatenate([-x2, x1], axis=-1)
    cos, sin = (t.astype(x.dtype)[:, :, None] for t in (cos, sin))
    return x * cos + rotated * sin
