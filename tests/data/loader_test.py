"""Loading ahead: order, memory, errors, stopping."""

import gc
import threading
import time
import weakref

import pytest

from vidsme_jax.base import Clip, ClipError
from vidsme_jax.data import loader

CLIPS = tuple(Clip(f"/{k}.mp4", ()) for k in range(20))


def _number(clip: Clip) -> int:
    return int(clip.key[1:-4])


def test_order_is_that_of_the_clips():
    def prepare(clip):
        time.sleep(0.02 if _number(clip) % 3 == 0 else 0)  # Later ones finish first.
        return _number(clip)

    got = list(loader.load_ahead(CLIPS, prepare, workers=4))
    assert got == list(zip(CLIPS, range(20), strict=True))


def test_no_clips():
    assert list(loader.load_ahead((), _number)) == []


def test_work_goes_on_ahead_of_the_consumer():
    done = threading.Event()

    def prepare(clip):
        if _number(clip) == 3:
            done.set()
        return _number(clip)

    loaded = loader.load_ahead(CLIPS, prepare, workers=2)
    next(loaded)
    assert done.wait(5)  # The fourth is ready while the first is in hand.
    loaded.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_than_two_clips_a_thread_are_in_memory(workers):
    class Decoded:
        pass

    alive = weakref.WeakSet()
    begun, most = [], []
    gc.freeze()  # Only what comes now is looked through.

    def prepare(clip):
        begun.append(clip)
        decoded = Decoded()
        alive.add(decoded)
        return decoded

    for place, (_, decoded) in enumerate(
        loader.load_ahead(CLIPS, prepare, workers=workers)
    ):
        time.sleep(0.01)  # A slow consumer: the pool does all that it may.
        assert len(begun) <= place + 2 * workers
        del decoded
        gc.collect()
        most.append(len(alive))
    gc.unfreeze()
    assert max(most) <= 2 * workers


def test_errors_cost_their_own_clip_only():
    def prepare(clip):
        if _number(clip) == 2:
            raise ClipError("decode", "no frame")
        if _number(clip) == 5:
            raise ZeroDivisionError("by zero")
        return _number(clip)

    got = [value for _, value in loader.load_ahead(CLIPS, prepare, 2)]
    assert isinstance(got[2], ClipError) and str(got[2]) == "decode: no frame"
    assert isinstance(got[5], ClipError) and got[5].stage == "preprocess"
    assert got[5].cause == "ZeroDivisionError: by zero"
    assert [g for g in got if isinstance(g, int)] == [0, 1, 3, 4, *range(6, 20)]


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("clip")]


@pytest.mark.parametrize("stop", ["close", "interrupt"])
def test_stopping_early_is_prompt_and_begins_nothing_more(stop):
    begun, others = [], set(_threads())
    release = threading.Event()

    def prepare(clip):
        begun.append(_number(clip))
        if _number(clip) > 0:
            release.wait(10)
        return _number(clip)

    loaded = loader.load_ahead(CLIPS, prepare, workers=2)
    next(loaded)
    started = time.monotonic()
    if stop == "close":
        loaded.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            loaded.throw(KeyboardInterrupt())
    assert time.monotonic() - started < 2  # It does not wait for those that run.
    release.set()
    own = set(_threads()) - others
    for thread in own:
        thread.join(5)
    assert not any(thread.is_alive() for thread in own)
    assert len(begun) <= 4


def test_opencv_keeps_to_one_thread():
    import cv2

    list(loader.load_ahead(CLIPS[:1], _number))
    assert cv2.getNumThreads() == 1


def test_all_cores_by_default():
    seen = set()
    together = threading.Barrier(loader.num_cores(), timeout=10)

    def prepare(clip):
        seen.add(threading.current_thread().name)
        together.wait()

    clips = CLIPS[: loader.num_cores()]
    got = list(loader.load_ahead(clips, prepare))
    assert [value for _, value in got] == [None] * len(clips)
    assert len(seen) == loader.num_cores()
