"""The key of canary sets: which variants were published, and the others.

The key shows which variants were published, so it is secret until the test. Its
SHA-256, deposited before publication, proves that it was not made up afterwards.
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
_REMEDY = "take a copy with the SHA-256 that was deposited"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanarySet:
    """The variants of one clip.

    Attributes:
      name: The name of the set; unique.
      clip: The SHA-256 of the clip, in hex.
      chosen: The number of the published variant, from 0.
      files: The SHA-256 of each variant, in order.
      frames: The number of pictures of the clip.
      strength: Of the weakest mark: root mean square in levels of R, G and B.
      crf: The constant rate factor of x264 that the variants were written with.
      psnr: Of the picture that differs most from the clip's, in dB.
      survival: The fields of `survival.Survival`.
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


@dataclasses.dataclass(frozen=True)
class Key:
    """A key, as stored.

    Attributes:
      sets: The canary sets.
      digest: The SHA-256 of the file, in hex: the commitment.
      time: When it was written, UTC.
    """

    sets: tuple[CanarySet, ...]
    digest: str
    time: str


def write(
    path: pathlib.Path, secret: str, seed: int | None, sets: Sequence[CanarySet]
) -> None:
    """Writes a key, readable only by its owner.

    Args:
      path: The file, which is replaced.
      secret: The secret of all draws, in hex.
      seed: The seed of the secret; None: the secret is random.
      sets: The canary sets.

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


def read(path: pathlib.Path) -> Key:
    """Reads a key.

    Args:
      path: The file, or the folder of its canary sets.

    Raises:
      AuditError: It is missing, damaged or not a key.
    """
    if path.is_dir():
        path = path / FILE
    found = sealed.read(path, _FIELDS, _REMEDY)
    if found is None:
        raise AuditError([f"{path}: no such key; give key.json or its folder"])
    sets = tuple(
        CanarySet(**each | {"files": tuple(each["files"])}) for each in found["sets"]
    )
    files = [file for each in sets for file in each.files]
    unknown = any(each.chosen >= len(each.files) for each in sets)
    if unknown or len(set(files)) < len(files):
        raise AuditError([f"{path}: its sets cannot be those of a key; {_REMEDY}"])
    return Key(sets, regular.sha256(path), found["time"])


def in_words(each: CanarySet) -> str:
    """Returns the measurements of a set in one sentence."""
    left = each.survival
    identified = round(left["identified"] * len(each.files))
    number, apart, noise = len(each.files), left["distance"], left["noise"]
    return (
        f"{printable(each.name, 60)}: {number} variants, PSNR at least {each.psnr:.2f} "
        f"dB; after recoding, the marks of two variants differ by {apart:.2f} levels, "
        f"recoding changes a variant by {noise:.2f} (single pixels: "
        f"{left['noise_of_pixels']:.2f}), and {identified} of {number} are identified"
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
