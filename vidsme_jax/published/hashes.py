"""Hashes of video files and of their pictures, as they occur in lists."""

import array
import functools
import hashlib
import pathlib
import re
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from vidsme_jax import settings
from vidsme_jax.base import ClipError
from vidsme_jax.data.reading import Videos
from vidsme_jax.settings import views
from vidsme_jax.store import regular

_DIGESTS = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256"}
_BLOCK = 1 << 20  # Bytes.
_AT_A_TIME = 1 << 16  # Hashes compared at a time, which fit a CPU cache.
_HASH = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{16}(?![0-9a-fA-F])")
_FRAMES = 32  # Hashed frames of a clip.


@functools.cache
def of_file(path: pathlib.Path | None) -> dict[str, str]:
    """Returns the hashes of a file by kind, in hex; none if it cannot be read.

    Args:
      path: The file; None for no file.
    """
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
      path: The file of the clip.
      kind: A value of `keys.PICTURES`.
    """
    reader = Videos(views.Settings.of(settings.default()).video)
    try:
        pixels = reader.read(str(path), {_FRAMES})(_FRAMES)[0].pixels
    except ClipError:
        return np.zeros(0, np.uint64)
    return np.array([picture_hash(frame, kind) for frame in pixels], np.uint64)


def picture_hash(frame: UInt8[np.ndarray, "height width 3"], kind: str) -> int:
    """Returns the 64-bit hash of a picture, equal to ImageHash's `phash` or `dhash`.

    pHash: whether each of the 64 lowest frequencies of a DCT of 32 x 32 pixels exceeds
    their median [1]. dHash: whether each of 9 x 8 pixels is brighter than the pixel to
    its left [2].

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


class Pictures:
    """The picture hashes of a list, of one kind, and their rows."""

    def __init__(self):
        """Starts without hashes."""
        self._hashes, self._rows = array.array("Q"), array.array("Q")

    def add(self, row: int, cell: str) -> None:
        """Adds the hashes in a cell, words of 16 hex digits; ignores other words."""
        for word in _HASH.findall(cell):
            self._hashes.append(int(word, 16))
            self._rows.append(row)

    def near(
        self, ours: UInt64[np.ndarray, " frames"], most: int
    ) -> list[tuple[int, int]]:
        """Returns the rows of hashes near one of a video's, and their distance in bits.

        Args:
          ours: The hashes of the video's frames.
          most: The largest Hamming distance, in bits.
        """
        theirs, found = np.frombuffer(self._hashes, np.uint64), list[tuple[int, int]]()
        for start in range(0, len(theirs), _AT_A_TIME):
            some = theirs[start : start + _AT_A_TIME]
            fewest = np.full(len(some), 64, np.uint8)
            for frame in ours:
                np.minimum(fewest, np.bitwise_count(some ^ frame), out=fewest)
            places = np.flatnonzero(fewest <= most).tolist()
            found += [(self._rows[start + k], int(fewest[k])) for k in places]
        return found
