"""The audited model's own answers: generated in batches, stored, then scored.

Stands between the loader of clips and the pipelines.
"""

from collections.abc import Iterable, Iterator, Mapping

from vidsme_jax.base import ClipError, Sample
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.parallel import Devices
from vidsme_jax.run.preparing import Prepared
from vidsme_jax.run.runs import Run

_Found = tuple[Sample, list[tuple[int, Prepared | ClipError]]]


class Answering:
    """Stand-in."""

    def __init__(self, run: Run, loaded: LoadedModel, devices: Devices):
        self.run = run


def answered(
    coming: Iterable[_Found], generating: Mapping[int, Answering]
) -> Iterator[_Found]:
    """Yields samples whose texts have their answers."""
    yield from coming
