"""Hashes of one's own videos, as lists have them: of files and of pictures."""

import functools
import hashlib
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from vidsme_jax import settings
from vidsme_jax.base import ClipError
from vidsme_jax.data.reading import Videos
from vidsme_jax.published import keys
from vidsme_jax.settings import views
from vidsme_jax.store import regular

_DIGESTS = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256"}
_BLOCK = 1 << 20  # Bytes.
_FRAMES = 32  # Of a clip whose pictures are hashed.


@functools.cache
def of_file(path: pathlib.Path | None) -> dict[str, str]:
    """Returns the hashes of a file by name, in hex; none if it cannot be read."""
    if path is None:
        return {}
    digests = {kind: hashlib.new(name) for kind, name in _DIGESTS.items()}
    try:
        with regular.opened(path) as file:
            while block := file.read(_BLOCK):
                for digest in digests.values():
                    digest.update(block)
    except OSError:
        return {}
    return {kind: digest.hexdigest() for kind, digest in digests.items()}


@functools.cache
def of_pictures(path: pathlib.Path, kind: str) -> UInt64[np.ndarray, " frames"]:
    """Returns a hash of each of 32 frames of a clip; none if it cannot be decoded.

    Args:
      path: Of the clip.
      kind: Of `keys.PICTURES`.
    """
    reader = Videos(views.Settings.of(settings.default()).video)
    try:
        pixels = reader.read(str(path), {_FRAMES})(_FRAMES)[0].pixels
    except ClipError:
        return np.zeros(0, np.uint64)
    return np.array([picture_hash(frame, kind) for frame in pixels], np.uint64)


def picture_hash(frame: UInt8[np.ndarray, "height width 3"], kind: str) -> int:
    """Returns the 64 bits that ImageHash's `phash` or `dhash` gives a picture.

    pHash: which of the 64 lowest frequencies of a cosine transform of 32 x 32 pixels
    are above their median [1]. dHash: which of 9 x 8 pixels are brighter than the one
    before [2].

    Args:
      frame: RGB.
      kind: "pHash" or "dHash".

    [1] Zauner, 2010. Implementation and benchmarking of perceptual image hash
      functions. https://www.phash.org/docs/pubs/thesis_zauner.pdf
    [2] https://github.com/JohannesBuchner/imagehash
    """
    import scipy.fft
    from PIL import Image

    grey: Any = Image.fromarray(frame).convert("L")
    if kind == "dHash":
        small = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS), float)
        bits = small[:, 1:] > small[:, :-1]
    else:
        small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), float)
        waves = np.asarray(scipy.fft.dct(scipy.fft.dct(small, axis=0), axis=1))
        waves = waves[:8, :8]
        bits = waves > np.median(waves)
    return int("".join("01"[bit] for bit in bits.flatten().tolist()), 2)


def distances(
    ours: UInt64[np.ndarray, " ours"], theirs: UInt64[np.ndarray, " theirs"]
) -> np.ndarray:
    """Returns how many bits each of theirs differs by from the nearest of ours."""
    differing = np.bitwise_count(ours[:, None] ^ theirs[None])
    return differing.min(axis=0) if len(ours) else np.full(len(theirs), 64)


def parsed(cell: str, kind: str) -> list[int]:
    """Returns the hashes of pictures that a cell holds: 16 hex digits each."""
    assert kind in keys.PICTURES.values()
    words = cell.replace(",", " ").replace(";", " ").split()
    return [int(x, 16) for x in words if len(x) == 16 and _is_hex(x)]


def _is_hex(text: str) -> bool:
    return not set(text.lower()) - set("0123456789abcdef")
