"""Features of clips that need no model, as columns of a table."""

from typing import Any

import numpy as np
import pyarrow as pa

from vidsme_jax.base import Fingerprint, Traits
from vidsme_jax.store import facts

# Of a clip the numbers of its pixels and the windows of a frame; see `data.appearance`
# and `data.similar`, which a test compares them with.
PIXELS, WINDOWS = 32, 7

FIELDS: tuple[tuple[str, Any], ...] = (
    ("pixels", pa.list_(pa.float32())),
    ("container", pa.string()),
    ("hashes", pa.list_(pa.uint64())),
    ("valid", pa.list_(pa.bool_())),
)


def columns_of(traits: Traits | None) -> dict[str, Any]:
    """Returns the columns of a row, all None of a clip whose traits are not known."""
    if traits is None:
        return dict.fromkeys(name for name, _ in FIELDS)
    return {
        "pixels": traits.pixels,
        "container": facts.text_of(traits.container),
        "hashes": traits.prints.hashes.ravel(),
        "valid": traits.prints.valid.ravel(),
    }


def traits_of(row: pa.RecordBatch, frames: int) -> Traits | None:
    """Returns the traits of stored columns; inverts `columns_of`.

    Args:
      row: One.
      frames: Of the clip.

    Raises:
      ValueError: They are nothing that a run has written.
    """
    given = {name: row.column(name)[0] for name, _ in FIELDS}
    if not any(value.is_valid for value in given.values()):
        return None
    if not all(value.is_valid for value in given.values()):
        raise ValueError("of the traits of a clip some are missing")
    arrays = {
        name: value.values for name, value in given.items() if name != "container"
    }
    if any(array.null_count for array in arrays.values()):
        raise ValueError("a trait of a clip has no value")
    pixels, hashes, valid = (
        arrays[name].to_numpy(zero_copy_only=False)
        for name in ("pixels", "hashes", "valid")
    )
    if len(pixels) != PIXELS or not np.isfinite(pixels).all():
        raise ValueError("the pixels of a clip are not described as they should be")
    if len(hashes) != 2 * frames * WINDOWS or len(valid) != frames * WINDOWS:
        raise ValueError("a clip has no fingerprint of its frames")
    prints = Fingerprint(
        hashes.reshape(frames, WINDOWS, 2), valid.reshape(frames, WINDOWS)
    )
    container = facts.container_of(given["container"].as_py())
    return Traits(pixels, container, prints)
