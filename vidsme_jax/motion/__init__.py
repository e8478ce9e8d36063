"""How much a clip moves and flickers, and the entropy orders that follow."""

from vidsme_jax.motion.statistics import bounds, entropy_orders, measure

__all__ = ["bounds", "entropy_orders", "measure"]
