"""Which implementation computes the optical flow, and how a device is kept fed.

`opencv` runs on the calling host thread. `jax` sends a clip's grey frames to a device
and returns at once; the variances are fetched after the clip's signals, so that the
thread decodes the next clip while the device works.

A function is compiled for a number of pairs (a power of two), a padded height and width
(at most 8 steps an octave, 32 pixels at least) and a number of scales, once a device: a
corpus of many sizes compiles a few times, and padding changes no number. The most
recent 64 functions are kept. The pairs of a call are bounded, so that its temporary
memory is too: to 1/32 of an accelerator's memory, of which a GPU needs 71 bytes a
padded pixel by XLA's count, and on a CPU to some 200 MiB (100 bytes a pixel; from 1080p
on, where a call is one pair, more in proportion). On an H100 the 15 pairs of a clip of
720p are one call, of 1.0 GiB, which saves launches.
"""

import collections
import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import Float, UInt8

from vidsme_jax.base import ClipError
from vidsme_jax.motion import farneback, statistics
from vidsme_jax.wording import printable

_CPU_PIXELS = 2**21  # Of all pairs of a call, padded.
_MOST_PIXELS = 2**25
_PIXEL_BYTES = {"gpu": 72}  # Of temporary memory, by platform.
_OTHER_PIXEL_BYTES = 160
_MEMORY_SHARE = 32
_IN_A_ROW = 3  # Failures, after which the device is at fault, not the clips.
_QUOTED = 200  # Characters of an error.
_WAITING_BYTES = 2**30  # Grey frames that wait on one device.


def resolve(name: str, devices: Iterable[Any]) -> str:
    """Returns "opencv" or "jax"; "auto" takes OpenCV where the devices are CPUs.

    Args:
      name: The setting `motion.flow`.
      devices: Where the model runs.
    """
    if name != "auto":
        return name
    return "opencv" if all(d.platform == "cpu" for d in devices) else "jax"


def make(name: str, devices: Iterable[Any]) -> statistics.FlowVariances:
    """Returns the function for `statistics.begin`; arguments as for `resolve`."""
    devices = list(devices)
    if resolve(name, devices) == "opencv":
        return statistics.opencv
    return OnDevices(devices)


class OnDevices:
    """Computes flow variances clip by clip, on one device after the other.

    If the device fails on a clip, the clip is sent to it once more. Thread-safe.

    Attributes:
      failure: Why the last clip failed; None unless three have failed in a row.
    """

    def __init__(self, devices: Iterable[Any]):
        """Takes the devices in turn; each compiles for itself."""
        self.failure: ClipError | None = None
        self._queues = itertools.cycle([_Queue(device) for device in devices])
        self._lock = threading.Lock()
        self._in_a_row = 0

    def __call__(
        self, grey: UInt8[np.ndarray, "frames height width"]
    ) -> Callable[[], Float[np.ndarray, " pairs"]]:
        """Sends the frames of a clip; calling the result waits for the variances."""
        with self._lock:
            queue = next(self._queues)
        try:
            queue.compile(grey)
        except jax.errors.JaxRuntimeError as error:  # It is not compiled twice.
            raise self._failed(queue, grey, error) from error
        try:
            parts = queue.send(grey)
        except jax.errors.JaxRuntimeError:
            parts = None

        def fetch() -> np.ndarray:
            try:
                found = None if parts is None else _fetched(parts)
            except jax.errors.JaxRuntimeError:
                found = None
            try:
                found = _fetched(queue.send(grey)) if found is None else found
            except jax.errors.JaxRuntimeError as error:
                raise self._failed(queue, grey, error) from error
            self._in_a_row = 0
            return found[: len(grey) - 1].astype(np.float64)

        return fetch

    def _failed(self, queue: "_Queue", grey: np.ndarray, error: Exception) -> ClipError:
        where = f"{queue.device.device_kind} {queue.device.id}"
        about = f"the optical flow of frames of {grey.shape[2]}x{grey.shape[1]} pixels"
        said = printable((str(error).strip() or "no cause").splitlines()[0], _QUOTED)
        found = ClipError("motion", f"{where} cannot compute {about} ({said})")
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= _IN_A_ROW:
                self.failure = found
        return found


def _fetched(parts: list[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(part) for part in parts])


class _Queue:
    """The clips that wait on one device, in bounded memory."""

    def __init__(self, device: Any):
        self.device = device
        self._sent: collections.deque[tuple[int, list[Any]]] = collections.deque()
        self._lock = threading.Lock()

    def compile(self, grey: np.ndarray) -> None:
        """Compiles the program of a clip, once for all threads that need it."""
        with self._lock:
            executable(grey.shape, self.device)

    def send(self, grey: np.ndarray) -> list[Any]:
        """Starts the flow of a clip; waits only while the queue is full."""
        calls, pairs, height, width = plan(grey.shape, self.device)
        frames = np.zeros((calls * pairs + 1, height, width), np.uint8)
        frames[: len(grey), : grey.shape[1], : grey.shape[2]] = grey
        frames[len(grey) :] = frames[len(grey) - 1]
        sizes = farneback.scales(*grey.shape[1:])
        with self._lock:
            run = executable(grey.shape, self.device)
            waiting = sum(size for size, _ in self._sent) + frames.nbytes
            while self._sent and waiting > _WAITING_BYTES:
                size, parts = self._sent.popleft()
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    jax.block_until_ready(parts)  # Its own clip gets the error.
                waiting -= size
            parts = [
                run(*jax.device_put((frames[k : k + pairs + 1], sizes), self.device))
                for k in range(0, calls * pairs, pairs)
            ]
            self._sent.append((frames.nbytes, parts))
            while self._sent and all(x.is_ready() for x in self._sent[0][1]):
                self._sent.popleft()
        return parts


def executable(shape: tuple[int, ...], device: Any) -> jax.stages.Compiled:
    """Returns the compiled program for a clip (frames, height, width)."""
    levels = len(farneback.scales(*shape[1:]))
    return _compiled(*plan(shape, device)[1:], levels, device)


def plan(shape: tuple[int, ...], device: Any) -> tuple[int, int, int, int]:
    """Returns how a clip (frames, height, width) is computed.

    Returns:
      How many times `executable` runs, the pairs of each call, the padded height and
      width; their product is the number of pixels that are computed.
    """
    wanted, (height, width) = shape[0] - 1, map(_padded, shape[1:])
    most = max(1, _call_pixels(device) // (height * width))
    # Powers of two: the pairs of the clip rounded up, what fits rounded down.
    pairs = min(1 << (wanted - 1).bit_length(), 1 << (most.bit_length() - 1))
    return -(-wanted // pairs), pairs, height, width


def _call_pixels(device: Any) -> int:
    """Returns how many padded pixels, of all pairs, a call may take."""
    if device.platform == "cpu":
        return _CPU_PIXELS
    memory = (device.memory_stats() or {}).get("bytes_limit")
    if memory is None:
        return _MOST_PIXELS
    each = _PIXEL_BYTES.get(device.platform, _OTHER_PIXEL_BYTES)
    return min(_MOST_PIXELS, memory // (_MEMORY_SHARE * each))


def _padded(side: int) -> int:
    """Rounds a side up: to 32 up to 512, to 64 up to 1024, and so on."""
    step = max(32, 1 << max((side - 1).bit_length() - 4, 0))
    return -(-side // step) * step


@functools.lru_cache(maxsize=64)
def _compiled(pairs: int, height: int, width: int, levels: int, device: Any) -> Any:
    where = SingleDeviceSharding(device)
    frames = jax.ShapeDtypeStruct((pairs + 1, height, width), np.uint8, sharding=where)
    sizes = jax.ShapeDtypeStruct((levels, 2), np.int32, sharding=where)
    return jax.jit(farneback.variances).lower(frames, sizes).compile()
