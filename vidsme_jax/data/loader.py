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
_PAUSE = 0.2  # Seconds between two checks of `stopped`.


def num_cores() -> int:
    """Returns the cores available to this process, which a container may restrict."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def failure(error: Exception) -> ClipError:
    """Returns a `ClipError` unchanged, any other error as one of stage "preprocess".

    Example:
      >>> failure(KeyError("x")).stage
      'preprocess'
    """
    if isinstance(error, ClipError):
        return error
    return ClipError("preprocess", f"{type(error).__name__}: {error}")


def load_ahead(
    clips: Sequence[S],
    prepare: Callable[[S], T],
    workers: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[S, T | ClipError]]:
    """Yields every clip with its prepared result, in order, preparing ahead.

    Memory is bounded: at most two clips per thread are being prepared, waiting or with
    the consumer at any time. If the consumer stops early, or on an interrupt, clips in
    preparation are abandoned without waiting: their decoding processes are killed.

    Args:
      clips: Clips or samples, in the order of the output.
      prepare: Decodes, measures and so on; called on a thread of the pool.
      workers: Threads; 0 is one per core.
      stopped: Polled while the next clip is awaited; once true, no more are yielded.

    Yields:
      (clip, result), or (clip, ClipError) where `prepare` raised; see `failure`.
    """
    import cv2

    workers = workers or num_cores()
    cv2.setNumThreads(1)  # One clip per thread: OpenCV's own threads would compete.

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
            # The yielded clip is referenced nowhere here, and the next one is submitted
            # only when the consumer returns: this bounds memory.
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
