"""Decoding as tests look at it."""

import types
from typing import Any

from vidsme_jax.data import sampling, video


def decode(content, how="uniform", num_frames=16, fps=1.0, limits=video.LIMITS) -> Any:
    """Decodes the sampled frames; adds what the choice of frames was told."""
    seen: dict[str, Any] = {}

    def choose(count, times):
        seen.update(num_decodable=count, duration=float(times[-1] - times[0]))
        return sampling.frame_indices(how, num_frames, count, times, fps)

    frames = video.decode_chosen(content, choose, limits)
    return types.SimpleNamespace(**vars(frames), **seen)
