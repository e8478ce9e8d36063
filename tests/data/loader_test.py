"""Loading ahead: order, memory, errors, stopping."""

import gc
import threading
import weakref

import pytest

from children import MOMENT, wait_for
from vidsme_jax.base import Clip, ClipError
from vidsme_jax.data import loader

CLIPS = tuple(Clip(f"/{k}.mp4", ()) for k in range(20))


def _number(clip: Clip) -> int:
    return int(clip.key[1:-4])


def test_order_is_that_of_the_clips():
    done = [threading.Event() for _ in CLIPS]

    def prepare(clip):
        number = _number(clip)
        if number % 3 == 0:  # The one behind it finishes first.
            assert done[number + 1].wait(MOMENT)
        done[number].set()
        return number

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
    assert done.wait(MOMENT)  # The fourth is ready while the first is in hand.
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
        # A slow consumer: the pool does all that it may.
        may = min(place + 2 * workers, len(CLIPS))
        wait_for(lambda may=may: len(begun) == may)
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
    begun, waited_for, others = [], [], set(_threads())
    release = threading.Event()

    def prepare(clip):
        begun.append(_number(clip))
        if _number(clip) > 0:
            waited_for.append(not release.wait(MOMENT))
        return _number(clip)

    loaded = loader.load_ahead(CLIPS, prepare, workers=2)
    next(loaded)
    if stop == "close":
        loaded.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            loaded.throw(KeyboardInterrupt())
    assert not any(waited_for)  # For those that run.
    release.set()
    own = set(_threads()) - others
    for thread in own:
        thread.join(MOMENT)
    assert not any(thread.is_alive() for thread in own)
    assert len(begun) <= 4


def test_opencv_keeps_to_one_thread():
    import cv2

    list(loader.load_ahead(CLIPS[:1], _number))
    assert cv2.getNumThreads() == 1


def test_all_cores_by_default():
    seen = set()
    together = threading.Barrier(loader.num_cores(), timeout=MOMENT)

    def prepare(clip):
        seen.add(threading.current_thread().name)
        together.wait()

    clips = CLIPS[: loader.num_cores()]
    got = list(loader.load_ahead(clips, prepare))
    assert [value for _, value in got] == [None] * len(clips)
    assert len(seen) == loader.num_cores()
