"""Tensors that are read block by block: all blocks count."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from vidsme_jax.checkpoints import low_rank, tensors
from vidsme_jax.checkpoints.tensors import TensorInfo


@pytest.fixture
def stored(tmp_path):
    def store(name, value):
        save_file({name: value}, tmp_path / f"{name}.safetensors")
        return TensorInfo(tmp_path / f"{name}.safetensors", name, value.shape, "F32")

    return store


@pytest.mark.parametrize("row", range(7))
def test_tensors_that_differ_in_one_row(stored, monkeypatch, row):
    monkeypatch.setattr(tensors, "_BLOCK", 4 * 3 * 2)  # Bytes: two rows.
    value = np.arange(21, dtype=np.float32).reshape(7, 3)
    other = value.copy()
    other[row, 2] += 1
    one = stored("one", value)
    assert one.equals(stored("same", value.copy()))
    assert not one.equals(stored("other", other))


def test_tensors_of_other_shapes(stored):
    value = np.arange(6, dtype=np.float32)
    one = stored("one", value)
    assert one.equals(stored("same", value))
    assert not one.equals(stored("part", value[:4]))
    assert not one.equals(stored("matrix", value.reshape(2, 3)))
    scalar = stored("scalar", np.array(2, np.float32))
    assert scalar.equals(stored("equal", np.array(2, np.float32)))
    assert not scalar.equals(stored("another", np.array(3, np.float32)))


def test_norms_of_columns_over_blocks_of_rows(stored, monkeypatch):
    """DoRA of an embedding: each column is divided by its norm over all rows."""
    monkeypatch.setattr(low_rank, "_BLOCK", 2)
    draw = np.random.default_rng(0).standard_normal
    shapes = {"base": (7, 3), "a": (2, 3), "b": (7, 2), "m": (1, 3)}
    values = {name: draw(shape, np.float32) for name, shape in shapes.items()}
    base, a, b, m = (stored(name, value) for name, value in values.items())
    update = low_rank.Decomposed(low_rank.LowRank(a, b, 0.5), m, columns=True)
    whole = values["base"] + 0.5 * values["b"] @ values["a"]
    expected = values["m"] * whole / np.linalg.norm(whole, axis=0)
    found = update.read(base, (slice(0, 7), slice(0, 3)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    part = (slice(2, 5), slice(1, 3))
    np.testing.assert_allclose(update.read(base, part), expected[part], rtol=1e-5)
