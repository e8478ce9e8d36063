"""How the features of a frame's patches become fewer rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def pool(
    grid: Float[Array, "frames side side embed"], kind: str, stride: int
) -> Float[Array, "frames pooled pooled embed"]:
    """Shrinks a grid of features, in float32.

    "average" takes the mean of stride x stride blocks and leaves out what does not fill
    one; "bilinear" samples ceil(side / stride) points a side between their neighbours,
    pixel centres aligned and without antialiasing, as torch's `interpolate` does.
    """
    frames, side, _, size = grid.shape
    wide = grid.astype(jnp.float32)
    if kind == "average":
        to = side // stride
        kept = wide[:, : to * stride, : to * stride]
        blocks = kept.reshape(frames, to, stride, to, stride, size)
        pooled = jnp.mean(blocks, axis=(2, 4))
    else:
        to = -(-side // stride)
        pooled = jax.image.resize(
            wide,
            (frames, to, to, size),
            "bilinear",
            antialias=False,
            precision=jax.lax.Precision.HIGHEST,
        )
    return pooled.astype(grid.dtype)


def pixel_shuffle(
    features: Float[Array, "frames patches embed"], factor: int
) -> Float[Array, "frames rows wide"]:
    """Puts the features of each block of factor x factor patches after one another."""
    frames, patches, size = features.shape
    side = round(patches**0.5) // factor
    blocks = features.reshape(frames, side, factor, side, factor, size)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(frames, side**2, -1)
