"""What a pair of directions costs at least, in floating-point operations."""

from collections.abc import Sequence

from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.interface import Flops


def necessary_flops(
    config: DecoderConfig,
    *,
    vision: int,
    video: int,
    text: int,
    texts: Sequence[tuple[int, int]] = (),
) -> Flops:
    """Counts the matrix products that no implementation can do without.

    The tower runs once, the decoder and the head once per direction; causal attention
    is counted half, the head once although some scores take a second pass over it. The
    video's keys are there for all texts about it.

    Args:
      config: Of the decoder.
      vision: Operations of tower and projector for the whole clip.
      video: Rows of the video.
      text: Other tokens that go through the decoder.
      texts: Of each text about the clip its tokens, and how many are predicted.
    """
    c, rows = config, video + text
    q_size, kv_size = (
        n * c.head_dim for n in (c.num_attention_heads, c.num_key_value_heads)
    )
    weights = c.hidden_size * (2 * q_size + 2 * kv_size + 3 * c.intermediate_size)
    layer = 2 * rows * weights + 2 * rows**2 * q_size
    of_row = 2 * c.hidden_size * c.vocab_size
    asked = predicted = 0
    for own, kept in texts:
        asked += 2 * own * weights + 4 * own * rows * q_size + 2 * own**2 * q_size
        predicted += kept * of_row
    depth = c.num_hidden_layers
    parts = vision, depth * layer, video * of_row, depth * asked + predicted
    return Flops(*map(float, parts))


def tower_flops(
    *,
    patches: int,
    patch_size: int,
    hidden_size: int,
    intermediate_size: int,
    depth: int,
    extra: int = 0,
) -> int:
    """Counts the products of a vision transformer on one frame.

    Args:
      patches: Of the frame.
      patch_size: Pixels along a side of one.
      hidden_size: Of the tower.
      intermediate_size: Of its two dense layers.
      depth: Layers that are run.
      extra: Tokens apart from the patches, such as a class token.
    """
    tokens = patches + extra
    block = 2 * tokens * (4 * hidden_size**2 + 2 * hidden_size * intermediate_size)
    block += 4 * tokens**2 * hidden_size
    return depth * block + 2 * patches * 3 * patch_size**2 * hidden_size
