"""Metadata of a video file: codec, encoder, creation time.

None of it reaches a model. Two sets of clips that differ in it have different origins,
which is no evidence of membership.
"""

import datetime
import math
from collections.abc import Mapping

from av.container import InputContainer
from av.video.stream import VideoStream

from vidsme_jax.wording import printable

_MOST = 120  # Characters of an untrusted text.
_ENCODERS = ("encoder", "encoding_tool", "writing_application", "handler_name")
_TIMES = ("creation_time", "date")
_DAY = 86_400.0  # Seconds.


def container_of(
    container: InputContainer, stream: VideoStream
) -> dict[str, str | float]:
    """Returns the metadata of an open file and its main video stream.

    Returns:
      Texts: `codec`, `profile`, `pixel_format`, `format` (of the container), `audio`
      (its codec, "none" without any) and `encoder` (the programs that its tags name).
      Numbers: `width`, `height`, `fps`, `duration` (seconds), `bit_rate` (bits per
      second), `file_size` (bytes), `frames` (by the header) and `creation_date` (days
      since 1970). Missing values are left out, except `encoder`, which is "".
    """
    context = stream.codec_context
    sounds = [each.codec_context for each in container.streams.audio]
    tags = {
        key.lower(): value
        for metadata in (stream.metadata, container.metadata)
        for key, value in metadata.items()
    }
    texts = {
        "codec": context.name,
        "profile": context.profile,
        "pixel_format": context.pix_fmt,
        "format": container.format.name,
        "audio": (sounds[0].name if sounds[0] else "unknown") if sounds else "none",
        "encoder": " / ".join(dict.fromkeys(tags[x] for x in _ENCODERS if x in tags)),
    }
    seconds = float((stream.duration or 0) * (stream.time_base or 0))
    numbers = {
        "width": context.width,
        "height": context.height,
        "fps": float(stream.average_rate or 0),
        "duration": seconds or (container.duration or 0) / 1e6,
        "bit_rate": container.bit_rate,
        "file_size": container.size,
        "frames": stream.frames,
    }
    found: dict[str, str | float] = {
        name: printable(str(text), _MOST)
        for name, text in texts.items()
        if text or name == "encoder"
    }
    found |= {
        name: float(number)
        for name, number in numbers.items()
        if number and number > 0 and math.isfinite(number)
    }
    if (days := _created(tags)) is not None:
        found["creation_date"] = days
    return found


def _created(tags: Mapping[str, str]) -> float | None:
    """Returns the creation time of a file in days since 1970; None without a tag."""
    for name in _TIMES:
        try:
            when = datetime.datetime.fromisoformat(tags[name])
        except (KeyError, TypeError, ValueError):
            continue
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return (when - epoch).total_seconds() / _DAY
    return None
