"""Returns the peak rate of a device, in operations a second: known, or measured."""

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging
from jax.typing import DTypeLike
from jaxtyping import Array

from vidsme_jax.parallel import JaxRuntimeError

# Dense products (no sparsity) in bfloat16 and float16, accumulated in float32, and in
# float32 with every bit of the operands ("highest": no TF32; a TPU composes it of
# several products in bfloat16, so that its rate is for measuring). By the whole name
# that JAX prints: a part of a card (MIG) or a slower variant is another device.
_PEAKS: dict[str, tuple[float, float | None]] = {
    # NVIDIA A100 Tensor Core GPU, data sheet of 2021: 312 and 19.5 TFLOP/s.
    r"NVIDIA A100-(SXM4|PCIE)-(40|80)GB": (312e12, 19.5e12),
    r"NVIDIA A100 80GB PCIe": (312e12, 19.5e12),
    # NVIDIA H100 Tensor Core GPU, data sheet: 1,979 (SXM), 1,513 (PCIe) and 1,671 (NVL)
    # with sparsity, which doubles them; 67, 51 and 60 in float32.
    r"NVIDIA H100 80GB HBM3": (989e12, 67e12),
    r"NVIDIA H100 PCIe": (756e12, 51e12),
    r"NVIDIA H100 NVL": (835e12, 60e12),
    # NVIDIA H200 Tensor Core GPU, data sheet: 1,979 with sparsity, 67 in float32.
    r"NVIDIA H200": (989e12, 67e12),
    # NVIDIA HGX B200, data sheet: 36 PFLOP/s of eight with sparsity.
    r"NVIDIA B200": (2250e12, None),
    # NVIDIA L4, data sheet: 242 with sparsity, 30.3 in float32.
    r"NVIDIA L4": (121e12, 30.3e12),
    # NVIDIA L40S, data sheet: 362.05 dense, 91.6 in float32.
    r"NVIDIA L40S": (362e12, 91.6e12),
    # NVIDIA Ada GPU architecture, white paper, table of the RTX 4090: 165.2 dense with
    # float32 accumulation, 82.6 in float32.
    r"NVIDIA GeForce RTX 4090": (165.2e12, 82.6e12),
    # Google Cloud TPU, documentation of each version, "peak compute per chip (bf16)".
    r"TPU v4": (275e12, None),
    r"TPU v5 lite|TPU v5e": (197e12, None),
    r"TPU v5|TPU v5p": (459e12, None),
    r"TPU v6 lite|TPU v6e": (918e12, None),
}
_SIZES = (8192, 4096, 2048, 1024)  # Of the matrices, the largest that fits.
_SHARE = 4  # The operands and the product may take this part of the free memory.


class Peak(NamedTuple):
    """The operations per second that one device can do."""

    rate: float
    known: bool  # From a data sheet; else measured.


def known_rate(device_kind: str, dtype: DTypeLike) -> float | None:
    """Returns the dense peak of a device in operations per second, None if unknown.

    Args:
      device_kind: JAX's name, such as "NVIDIA H100 80GB HBM3" or "TPU v5 lite".
      dtype: The type of the operands: bfloat16, float16 or float32.
    """
    wide = jnp.dtype(dtype) == jnp.float32
    for pattern, (narrow_rate, wide_rate) in _PEAKS.items():
        if re.fullmatch(pattern, device_kind):
            return wide_rate if wide else narrow_rate
    return None


def peak(device: Any, dtype: DTypeLike) -> Peak | None:
    """Returns the peak of a device; one that is not known is measured.

    Measuring takes a few products of the first local device, and a part of its memory
    that is free.

    Args:
      device: One of `jax.local_devices()`.
      dtype: The type of the operands.

    Returns:
      None for a CPU, whose peak is not known and takes seconds to measure, and for a
      device that fails at the product.
    """
    if device.platform == "cpu":
        return None
    found = known_rate(device.device_kind, dtype)
    if found is not None:
        return Peak(found, known=True)
    try:
        rate = matrix_rate(dtype, size=_fitting(device, dtype))
    except JaxRuntimeError as error:  # What was scored is worth more.
        logging.warning("the rate of %s: %s", device.device_kind, error)
        return None
    return Peak(rate, known=False)


def matrix_rate(dtype: DTypeLike, *, size: int, repeats: int = 5) -> float:
    """Measures operations per second of a large matrix product on the first device.

    Operands are random: zeros and ones draw less power, and a GPU is faster on them. On
    a CPU the result is in float32, which is faster of 16-bit operands.
    """
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    precision = "highest" if jnp.dtype(dtype) == jnp.float32 else None
    wide = jnp.float32 if jax.default_backend() == "cpu" else None

    @jax.jit
    def multiply(a: Array) -> Array:
        return jnp.dot(a, a, precision=precision, preferred_element_type=wide)

    multiply(a).block_until_ready()
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / sorted(times)[len(times) // 2]


def _fitting(device: Any, dtype: DTypeLike) -> int:
    """Returns the size of matrices that a device has room for."""
    reported: dict[str, int] = device.memory_stats() or {}
    if "bytes_limit" not in reported:
        return _SIZES[1]
    free = reported["bytes_limit"] - reported.get("bytes_in_use", 0)
    item = jnp.dtype(dtype).itemsize
    fitting = (n for n in _SIZES if 2 * item * n**2 <= free / _SHARE)
    return next(fitting, _SIZES[-1])
