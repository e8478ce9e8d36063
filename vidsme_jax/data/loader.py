"""Decodes and measures clips on host threads, ahead of the consumer."""

import collections
import concurrent.futures
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vidsme_jax.base import ClipError
from vidsme_jax.data import decoders

S = TypeVar("S")
T = TypeVar("T")
_PAUSE = 0.2  # Seconds between two looks at whether to stop.


def num_cores() -> int:
    """The cores that this process may use, which a container may restrict."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def failure(error: Exception) -> ClipError:
    """Returns a `ClipError` as it is, any other as one of the stage "preprocess"."""
    if isinstance(error, ClipError):
        return error
    return ClipError("preprocess", f"{type(error).__name__}: {error}")


def load_ahead(
    clips: Sequence[S],
    prepare: Callable[[S], T],
    workers: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[S, T | ClipError]]:
    """Yields every clip with what was prepared of it, in order, preparing ahead.

    Results wait for the consumer in bounded memory: no more than two clips a thread are
    being prepared, waiting, or in the consumer's hands at any time. A consumer that
    stops early (or an interrupt) abandons what is not done and waits for nothing: the
    processes that decode it are killed.

    Args:
      clips: Or samples, in the order in which they come out.
      prepare: Decodes, measures and so on; called on a thread of the pool.
      workers: Threads; 0 is one a core.
      stopped: Looked at while the next clip is awaited; once true, no more come out.

    Yields:
      (clip, result), or (clip, ClipError) where `prepare` raised: other clips go on.
      An unexpected exception becomes one of the stage "preprocess".
    """
    import cv2

    workers = workers or num_cores()
    cv2.setNumThreads(1)  # A clip a thread: OpenCV's own threads would only compete.

    def guarded(clip: S) -> T | ClipError:
        try:
            return prepare(clip)
        except Exception as error:
            return failure(error)

    threads: list[threading.Thread] = []
    pool = concurrent.futures.ThreadPoolExecutor(
        workers,
        thread_name_prefix="clip",
        initializer=lambda: threads.append(threading.current_thread()),
    )
    begun = collections.deque()
    coming = iter(clips)
    try:
        while True:
            while len(begun) < 2 * workers and (clip := next(coming, None)) is not None:
                begun.append((clip, pool.submit(guarded, clip)))
            if not begun:
                return
            # The clip in the consumer's hands stays in no list of ours, and the pool
            # gets the next one only when the consumer comes back.
            clip, future = begun.popleft()
            while not future.done():
                if stopped():
                    return
                concurrent.futures.wait([future], _PAUSE)
            result = future.result()
            del future
            yield clip, result
            del result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        decoders.abandon(threads)
