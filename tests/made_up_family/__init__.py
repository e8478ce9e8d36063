"""A model family that nobody published: its tower sees two frames at once.

Both directions need a view of their own, a time stands in front of each pair, and
positions have three axes. `models.FAMILIES` with `FAMILY` is all that it takes.
"""

from made_up_family import params, processing
from vidsme_jax.models.interface import Family

FAMILY = Family(
    name="pairs",
    reads=lambda raw: raw.get("model_type") == "pairs",
    open=processing.open_checkpoint,
    sizes={"pairs-tiny": {"config.json": params.TINY}},
    chat=True,
)
