"""The key of a canary set: what was published, and what it was drawn from.

Whoever has the key knows which variants were published, so that it is secret until the
test. Its SHA-256, deposited before the publication, proves later that it was not made
up afterwards.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import vidsme_jax
from vidsme_jax.base import AuditError
from vidsme_jax.run import sealed
from vidsme_jax.settings.rules import is_integer
from vidsme_jax.store import regular
from vidsme_jax.wording import printable

FILE = "key.json"
MOST = 100_000  # Variants of all sets: a sealed file is at most 16 MiB.
_KIND = "vidsme canary key"
_REMEDY = "take the copy that was kept, whose SHA-256 is the one deposited"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Set:
    """The variants of one clip.

    Attributes:
      name: Of the clip.
      clip: SHA-256 of the clip itself, in hex.
      chosen: The number of the variant that is published, from 0.
      files: SHA-256 of each variant, in their order.
      frames: Pictures of the clip.
      strength: Of the mark, as root mean square in levels of R, G and B, at least.
      crf: Of x264, by which the variants were written.
      psnr: Of the picture of a variant that differs most from the clip's, in dB.
      survival: See `survival.Survival`, by name.
    """

    name: str
    clip: str
    chosen: int
    files: tuple[str, ...]
    frames: int
    strength: float
    crf: int
    psnr: float
    survival: dict[str, float]

    @property
    def published(self) -> str:
        """Returns the SHA-256 of the variant that is published."""
        return self.files[self.chosen]


@dataclasses.dataclass(frozen=True)
class Key:
    """What `write` has written.

    Attributes:
      sets: In the order of their names.
      digest: SHA-256 of the file, the commitment.
      time: When it was written, UTC.
    """

    sets: tuple[Set, ...]
    digest: str
    time: str


def write(
    path: pathlib.Path, secret: str, seed: int | None, sets: Sequence[Set]
) -> str:
    """Writes a key, for its owner alone to read, and returns the file's SHA-256.

    Args:
      path: Of the file; replaced.
      secret: Of all draws, in hex.
      seed: That the secret was made of; None: it was drawn.
      sets: All.

    Raises:
      OSError: It cannot be written.
    """
    content = {
        "kind": _KIND,
        "version": vidsme_jax.__version__,
        "secret": secret,
        "seed": seed,
        "sets": [dataclasses.asdict(each) for each in sets],
    }
    sealed.write(path, content)
    path.chmod(0o600)
    return regular.sha256(path)


def read(path: pathlib.Path) -> Key:
    """Returns a key.

    Raises:
      AuditError: It is not there, is damaged or is no key.
    """
    if path.is_dir():
        path = path / FILE
    found = sealed.read(path, _FIELDS, _REMEDY)
    if found is None:
        raise AuditError([f"{path}: no such key"])
    sets = tuple(
        Set(**each | {"files": tuple(each["files"])}) for each in found["sets"]
    )
    files = [file for each in sets for file in each.files]
    if any(each.chosen >= len(each.files) for each in sets) or len(set(files)) < len(
        files
    ):
        raise AuditError([f"{path}: its sets cannot be those of a key; {_REMEDY}"])
    return Key(sets, regular.sha256(path), found["time"])


def in_words(each: Set) -> str:
    """Returns what was measured of a set, in one sentence."""
    its = each.survival
    identified = round(its["identified"] * len(each.files))
    number, apart, noise = len(each.files), its["distance"], its["noise"]
    return (
        f"{printable(each.name, 60)}: {number} variants, PSNR {each.psnr:.2f} dB at "
        f"least; after coding the marks make a difference of {apart:.2f} levels "
        f"between two variants, the coding one of {noise:.2f} (of single pixels "
        f"{its['noise_of_pixels']:.2f}), and {identified} of {number} are nearest to "
        "themselves"
    )


def _is_survival(value: Any) -> bool:
    names = ("kept", "distance", "noise", "noise_of_pixels", "identified")
    return sealed.having(**dict.fromkeys(names, sealed.is_amount))(value)


def _is_not_negative(value: Any) -> bool:
    return is_integer(value) and value >= 0


_FIELDS: dict[str, sealed.Test] = {
    "kind": lambda value: value == _KIND,
    "version": sealed.is_text,
    "secret": sealed.is_digest,
    "seed": sealed.or_none(is_integer),
    "sets": sealed.list_of(
        sealed.having(
            name=sealed.is_text,
            clip=sealed.is_digest,
            chosen=_is_not_negative,
            files=sealed.list_of(sealed.is_digest),
            frames=sealed.is_count,
            strength=sealed.is_amount,
            crf=_is_not_negative,
            psnr=sealed.is_amount,
            survival=_is_survival,
        )
    ),
}
