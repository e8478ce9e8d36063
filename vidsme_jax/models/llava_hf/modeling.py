"""The forward pass of all LLaVA families.

A tower encodes each frame by itself. Its features are pooled on their grid, before or
after the projector. The frames follow one another, row by row; a learnt newline row may
end each grid row, each frame or the whole video. A causal decoder reads the result.

| family | tower | pooling | newline |
|---|---|---|---|
| LLaVA-NeXT-Video [1] | CLIP | 2 x 2 average, before the projector | none |
| LongVA [2], Vid-SME's own models | CLIP | 2 x 2 average, after it | none |
| LLaVA-Video [3] | SigLIP | bilinear to half the grid, after it | after each grid row |
| LLaVA-OneVision [4] | SigLIP | bilinear to half the grid, after it | after the video |
| Video-LLaVA [5] | CLIP | none; the class token is kept, first | none |

[1] Zhang et al., 2024. https://llava-vl.github.io/blog/2024-04-30-llava-next-video
[2] Zhang et al., 2024. https://arxiv.org/abs/2406.16852
[3] Zhang et al., 2024. https://arxiv.org/abs/2410.02713
[4] Li et al., 2024. https://arxiv.org/abs/2408.03326
[5] Lin et al., 2023. https://arxiv.org/abs/2311.10122
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.models.decoder import Decoder
from vidsme_jax.models.frames.modeling import FrameConfig, FrameModel
from vidsme_jax.models.frames.pooling import pool
from vidsme_jax.models.layers import Projector
from vidsme_jax.models.towers.vit import Vit, VitConfig

POOLS = ("none", "average", "bilinear")
NEWLINES = ("none", "row", "frame", "video")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaConfig(FrameConfig):
    """Hyperparameters of one model of these families."""

    vision: VitConfig
    vision_depth: int  # How many layers of the tower are run.
    pool: str  # One of POOLS; "none" also keeps the class token.
    pool_stride: int
    pool_first: bool  # Before the projector.
    newline: str  # One of NEWLINES.

    @property
    def side(self) -> int:
        """The number of pooled features along one side of a frame."""
        grid, stride = self.vision.grid, self.pool_stride
        if self.pool == "none":
            return grid
        return grid // stride if self.pool == "average" else -(-grid // stride)

    @property
    def rows_per_frame(self) -> int:
        """The number of video rows of one frame."""
        if self.pool == "none":
            return self.side**2 + self.vision.extra
        return self.side**2 + {"row": self.side, "frame": 1}.get(self.newline, 0)

    @property
    def tail_rows(self) -> int:
        """The number of video rows after the last frame."""
        return int(self.newline == "video")


class Llava(FrameModel):
    """The module; see `interface` for its members."""

    def __init__(self, config: LlavaConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        self.vision_tower = Vit(c.vision, depth=c.vision_depth, rngs=rngs)
        self.multi_modal_projector = Projector(
            c.vision.hidden_size, c.text.hidden_size, dtype=c.dtype, rngs=rngs
        )
        self.language_model = Decoder(c.text, rngs=rngs)
        if c.newline != "none":
            self.image_newline = nnx.Param(jnp.zeros((c.text.hidden_size,), c.dtype))

    def encode_frames(
        self, pixels: Float[Array, "frames 3 height width"]
    ) -> Float[Array, "frames tokens embed"]:
        """Encodes frames: tower, pooling, projector, newlines within a frame."""
        c = self.config
        if c.pool == "none":
            with jax.named_scope("tower"):
                tokens = self.vision_tower.tokens(pixels)
            return self.multi_modal_projector(tokens)
        with jax.named_scope("tower"):
            features = self.vision_tower(pixels)
        if not c.pool_first:
            features = self.multi_modal_projector(features)
        grid = features.reshape(len(features), c.vision.grid, c.vision.grid, -1)
        pooled = pool(grid, c.pool, c.pool_stride)
        if c.pool_first:
            pooled = self.multi_modal_projector(pooled)
        frames, side, _, size = pooled.shape
        if c.newline == "row":
            end = jnp.broadcast_to(self.image_newline[...], (frames, side, 1, size))
            pooled = jnp.concatenate([pooled, end], axis=2)
        rows = pooled.reshape(frames, -1, size)
        if c.newline == "frame":
            end = jnp.broadcast_to(self.image_newline[...], (frames, 1, size))
            rows = jnp.concatenate([rows, end], axis=1)
        return rows

    def tail(self) -> Float[Array, "tail embed"] | None:
        """Returns the newline row that ends the video, if the family has one."""
        return self.image_newline[...][None] if self.config.tail_rows else None
