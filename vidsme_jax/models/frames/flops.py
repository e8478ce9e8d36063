"""What a pair of directions costs at least, in floating-point operations."""

from collections.abc import Sequence

from vidsme_jax.models.interface import Flops
from vidsme_jax.models.llava.modeling import LlavaConfig


def necessary_flops(
    config: LlavaConfig,
    frames: int,
    *,
    text: int = 30,
    texts: Sequence[tuple[int, int]] = (),
) -> Flops:
    """Counts the matrix products that no implementation can do without.

    The tower runs once, the decoder and the head once per direction; causal attention
    is counted half, the head once although some scores take a second pass over it. The
    video's keys are there for all texts about it.

    Args:
      config: Of the model.
      frames: Of the clip.
      text: Tokens that go through the decoder beside the video.
      texts: Of each text about the clip its tokens, and how many are predicted.
    """
    v, t = config.vision, config.text
    tokens = v.grid**2 + (v.kind == "clip")
    block = (
        2 * tokens * (4 * v.hidden_size**2 + 2 * v.hidden_size * v.intermediate_size)
    )
    block += 4 * tokens**2 * v.hidden_size
    patches = 2 * v.grid**2 * 3 * v.patch_size**2 * v.hidden_size
    projected = config.side**2 if config.pool_first else v.grid**2
    projector = 2 * projected * (v.hidden_size + t.hidden_size) * t.hidden_size
    vision = frames * (config.vision_depth * block + patches + projector)

    video = frames * config.rows_per_frame + config.tail_rows
    rows = video + text
    q_size, kv_size = (
        n * t.head_dim for n in (t.num_attention_heads, t.num_key_value_heads)
    )
    weights = t.hidden_size * (2 * q_size + 2 * kv_size + 3 * t.intermediate_size)
    layer = 2 * rows * weights + 2 * rows**2 * q_size
    of_row = 2 * t.hidden_size * t.vocab_size
    asked = predicted = 0
    for own, kept in texts:
        asked += 2 * own * weights + 4 * own * rows * q_size + 2 * own**2 * q_size
        predicted += kept * of_row
    depth = t.num_hidden_layers
    parts = vision, depth * layer, video * of_row, depth * asked + predicted
    return Flops(*map(float, parts))
