"""The program of a decoding process.

`decoders.py` starts `python -m vidsme_jax.data.decoding` with a socket as standard
input, and sends requests one by one: to decode frames, to make thumbnails, to hash. The
process exits when the socket is closed.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
from collections.abc import Sequence
from typing import Any

from vidsme_jax.base import ClipError
from vidsme_jax.data import channel, frame_pictures, segments, stages, video
from vidsme_jax.data.limits import Content, Limits
from vidsme_jax.data.pictures import Pictures
from vidsme_jax.data.sampling import Choice

Answer = tuple[dict[str, Any], Any]


def frames(
    content: Content,
    limits: Limits,
    *,
    sampling: str,
    fps: float,
    counts: Sequence[int],
    segment: str,
) -> Answer:
    """Decodes frames for several counts; see `Choice` for the arguments."""
    part = segments.divided(segment)[1] or segments.WHOLE
    choice = Choice(sampling, fps, counts, part)
    if (pictures := _pictures(content, limits)) is not None:
        found = pictures.sample_chosen(sampling, choice, part)
    else:
        found = video.decode_chosen(content, choice, limits, part)
    about = {
        "shape": found.pixels.shape,
        "indices": found.indices,
        "content_hash": found.content_hash,
        "clock": dataclasses.asdict(found.clock) if found.clock else None,
        "warnings": tuple(dict.fromkeys((*found.warnings, *choice.warnings))),
        "container": found.container,
        "chosen": [choice.indices[count] for count in counts],
    }
    return about, found.pixels


def thumbnails(
    content: Content, limits: Limits, *, indices: Sequence[int], height: int
) -> Answer:
    """Decodes frames again, scaled down; see `video.thumbnails`."""
    if (pictures := _pictures(content, limits)) is not None:
        pixels = pictures.thumbnails(indices, height)
    else:
        pixels = video.thumbnails(content, indices, height, limits)
    return {"shape": pixels.shape}, pixels


def content_hash(content: Content, limits: Limits) -> Answer:
    """Hashes the bytes; see `video` and `frame_pictures`."""
    if (pictures := _pictures(content, limits)) is not None:
        return {"content_hash": pictures.content_hash()}, b""
    return {"content_hash": video.content_hash(content, limits)}, b""


def _pictures(content: Content, limits: Limits) -> Pictures | None:
    """Returns the frames of a folder of numbered pictures; None for a file."""
    if isinstance(content, bytes) or not os.path.isdir(content):
        return None
    return frame_pictures.open_folder(content, limits)


REQUESTS = {each.__name__: each for each in (frames, thumbnails, content_hash)}


def answered(about: dict[str, Any], data: memoryview) -> Answer:
    """Executes a request.

    Args:
      about: `request`, one of `REQUESTS`; `path`, "" if `data` is the video; `limits`;
        `arguments`.
      data: The bytes of a video.

    Returns:
      The result of the request, with the CPU seconds of each stage; or "failed", with
      the stage and the cause of a `ClipError`.
    """
    counted = stages.Stages()
    content = pathlib.Path(about["path"]) if about["path"] else bytes(data)
    try:
        with counted.spending(stages.DECODE):
            request = REQUESTS[about["request"]]
            limits = Limits(**about["limits"])
            found, pixels = request(content, limits, **about["arguments"])
    except ClipError as error:
        return {"failed": [error.stage, error.cause]}, b""
    except Exception as error:  # As `loader.failure`.
        return {"failed": ["preprocess", f"{type(error).__name__}: {error}"]}, b""
    return found | {"seconds": counted.seconds}, pixels


def main() -> None:
    """Answers requests until the socket is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # The parent stops it.
        signal.signal(number, signal.SIG_IGN)
    # If memory runs out, the kernel kills this process before the one with the model.
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
    with socket.socket(fileno=os.dup(0)) as asked:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        channel.send(asked, {})  # Signals the start.
        while True:
            try:
                about, data = channel.receive(asked)
                answer = answered(about, data)
                channel.send(asked, *answer)
            except (EOFError, ConnectionError):
                return


if __name__ == "__main__":
    main()
