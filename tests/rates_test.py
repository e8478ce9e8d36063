"""Peaks of devices: known by their names, else measured."""

import jax
import jax.numpy as jnp
import pytest

from vidsme_jax.run import rates


@pytest.mark.parametrize(
    ("kind", "narrow", "wide"),
    [
        ("NVIDIA A100-SXM4-40GB", 312, 19.5),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA A100 80GB PCIe", 312, 19.5),
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA H100 NVL", 835, 60),
        ("NVIDIA H200", 989, 67),
        ("NVIDIA B200", 2250, None),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40S", 362, 91.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("TPU v4", 275, None),
        ("TPU v5 lite", 197, None),
        ("TPU v5e", 197, None),
        ("TPU v5", 459, None),
        ("TPU v5p", 459, None),
        ("TPU v6 lite", 918, None),
        ("TPU v6e", 918, None),
        # Parts of a card, slower variants, and what is in no data sheet that was read.
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
        ("NVIDIA H200 NVL", None, None),
        ("NVIDIA L40", None, None),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA A10G", None, None),
        ("TPU v4 lite", None, None),
        ("cpu", None, None),
    ],
)
def test_known_peaks(kind, narrow, wide):
    for dtype in (jnp.bfloat16, "float16"):
        found = rates.known_rate(kind, dtype)
        assert found == (narrow and pytest.approx(narrow * 1e12))
    found = rates.known_rate(kind, "float32")
    assert found == (wide and pytest.approx(wide * 1e12))


class Card:
    """Stands for an accelerator with so much memory."""

    platform = "gpu"

    def __init__(self, kind, limit=None, used=0):
        self.device_kind = kind
        self._stats = limit and {"bytes_limit": limit, "bytes_in_use": used}

    def memory_stats(self):
        return self._stats


@pytest.fixture
def measured(monkeypatch):
    """The sizes of the products that are taken."""
    sizes = []

    def rate(dtype, *, size):
        sizes.append(size)
        return 5e12

    monkeypatch.setattr(rates, "matrix_rate", rate)
    return sizes


def test_a_known_card_is_not_measured(measured):
    card = Card("NVIDIA H200", 100 * 2**30)
    assert rates.peak(card, "bfloat16") == (989e12, True) and not measured


@pytest.mark.parametrize(
    ("limit", "used", "dtype", "size"),
    [
        (80 * 2**30, 60 * 2**30, "bfloat16", 8192),
        (80 * 2**30, 79.5 * 2**30, "bfloat16", 4096),  # 64 of 512 MiB.
        (80 * 2**30, 79.5 * 2**30, "float32", 4096),
        (2**28, 2**28 - 2**24, "float32", 1024),
        (None, 0, "bfloat16", 4096),
    ],
)
def test_an_unknown_card_is_measured_in_what_memory_is_free(
    measured, limit, used, dtype, size
):
    assert rates.peak(Card("AMD Instinct MI300X", limit, used), dtype) == (5e12, False)
    assert measured == [size]


def test_a_card_that_fails_at_the_product_has_no_peak(monkeypatch):
    def fail(dtype, *, size):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(rates, "matrix_rate", fail)
    assert rates.peak(Card("AMD Instinct MI300X"), "bfloat16") is None


def test_a_matrix_product_is_timed():
    found = rates.matrix_rate(jnp.float32, size=256, repeats=2)
    assert 1e7 < found < 1e15


def test_a_cpu_has_no_peak(measured):
    assert rates.peak(jax.devices()[0], "float32") is None and not measured
