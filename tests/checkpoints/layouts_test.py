"""Layouts of tensors: reading a slice, writing, shapes; and proposals for keys."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from vidsme_jax.checkpoints import layouts
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.tensors import TensorInfo

# Layout, the parameter's shape, the tensor's, and the parameter of a tensor.
CASES = {
    "same": (layouts.SAME, (4, 3), (4, 3), lambda x: x),
    "linear": (layouts.LINEAR, (4, 3), (3, 4), lambda x: x.T),
    "patches": (
        layouts.PATCHES,
        (12, 5),
        (5, 3, 2, 2),
        lambda x: np.stack([row.ravel() for row in x], axis=1),
    ),
    "tiles": (
        layouts.Tiles(2),
        (24, 5),
        (5, 3, 2, 2, 2),
        lambda x: np.stack([np.moveaxis(one, 0, -1).ravel() for one in x], axis=1),
    ),
    "tiles of one frame": (
        layouts.Tiles(1),
        (12, 5),
        (5, 3, 2, 2),
        lambda x: np.stack([np.moveaxis(one, 0, -1).ravel() for one in x], axis=1),
    ),
    "rows": (layouts.ROWS, (4, 3), (4, 3), lambda x: x),
}


@pytest.mark.parametrize("name", CASES)
def test_reading_is_the_inverse_of_writing(name, tmp_path):
    layout, shape, on_disk, parameter_of = CASES[name]
    tensor = np.arange(np.prod(on_disk), dtype=np.float32).reshape(on_disk)
    parameter = parameter_of(tensor)
    assert layout.disk_shape(shape) == on_disk and parameter.shape == shape
    np.testing.assert_array_equal(layout.write(parameter), tensor)
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    info = TensorInfo(tmp_path / "x.safetensors", "x", on_disk, "F32")
    for index in ((slice(0, 12), slice(0, 5)), (slice(1, 3), slice(1, 2))):
        index = tuple(slice(*x.indices(n)) for x, n in zip(index, shape, strict=True))
        found = layout.read(info, index)
        np.testing.assert_array_equal(found, parameter[index])


@pytest.mark.parametrize("name", CASES)
def test_which_tensors_fit(name):
    layout, shape, on_disk, _ = CASES[name]
    assert layout.fits(on_disk, shape)
    assert not layout.fits(on_disk[:-1], shape)
    assert not layout.fits((*on_disk[:-1], on_disk[-1] + 1), shape)
    assert layout.fits((on_disk[0] + 2, *on_disk[1:]), shape) == (name == "rows")
    assert not layout.fits((on_disk[0] - 1, *on_disk[1:]), shape)


def test_only_keys_that_are_read_are_proposed():
    """`output_hidden_states`, say, is bookkeeping that nobody meant."""
    problems: list[str] = []
    raw = {"num_hiden_layers": 3, "pruned_head": {}, "rope_thet": 1.0}
    fields = Fields(raw, "config.json", problems)
    fields.take("num_hidden_layers", int, 2)
    fields.close({"rope_theta": "of another model"})
    assert [problem.split(" (it may")[0] for problem in problems] == [
        "config.json: unknown key 'num_hiden_layers'; did you mean "
        "'num_hidden_layers'?",
        "config.json: unknown key 'pruned_head'",
        "config.json: unknown key 'rope_thet'",
    ]
