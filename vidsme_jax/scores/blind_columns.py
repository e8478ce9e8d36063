"""Features of clips that need no model, as columns of a table, by family.

`pixels` can reach a model; `container`, `files` and `dates` cannot, and say only that
clips came another way.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vidsme_jax.base import Fingerprint, Item, Traits
from vidsme_jax.data import dates
from vidsme_jax.data.appearance import COLUMNS

TEXTS = ("codec", "profile", "pixel_format", "format", "audio", "encoder")
NUMBERS = ("width", "height", "fps", "duration", "bit_rate", "frames")
_FRAMES = 8  # Of a clip, that near-duplicates are looked for by, at most.


def kept(traits: Traits | None) -> Traits | None:
    """Returns what a table keeps of a clip: the prints of 8 frames at most."""
    if traits is None or len(traits.prints.valid) <= _FRAMES:
        return traits
    at = np.linspace(0, len(traits.prints.valid) - 1, _FRAMES)
    at = np.rint(at).astype(int)
    prints = Fingerprint(traits.prints.hashes[at], traits.prints.valid[at])
    return traits._replace(prints=prints)


def of_items(
    items: Sequence[Item], traits: Mapping[str, Traits | None]
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the columns of each family, by name.

    Args:
      items: Of the table.
      traits: Of each clip, by key; None where they are not known.
    """
    known = [traits.get(item.clip) for item in items]
    unknown = np.full(len(COLUMNS), np.nan, np.float32)
    pixels = np.array([unknown if x is None else x.pixels for x in known], np.float64)
    none: Mapping[str, str | float] = {}
    about = [none if x is None else x.container for x in known]

    def numbers(name: str) -> np.ndarray:
        values = (each.get(name) for each in about)
        its = [x if isinstance(x, int | float) else np.nan for x in values]
        return np.array(its, np.float64)

    def texts(name: str) -> np.ndarray:
        values = (each.get(name) for each in about)
        return np.array([x if isinstance(x, str) else "" for x in values], object)

    return {
        "pixels": dict(zip(COLUMNS, pixels.T, strict=True)),
        "container": {name: numbers(name) for name in NUMBERS}
        | {name: texts(name) for name in TEXTS},
        "files": {"file_size": numbers("file_size")},
        "dates": {
            "date": np.array([dates.days(item.date) for item in items], np.float64),
            "creation_date": numbers("creation_date"),
        },
    }
