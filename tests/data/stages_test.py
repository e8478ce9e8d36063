"""Core seconds by stage."""

import concurrent.futures
import time

import pytest

from decoding import decode
from vidsme_jax.data import stages
from vidsme_jax.data.stages import Stages


def _work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_seconds_of_threads_add_up():
    counted = Stages()

    def task(_):
        with counted.spending("a"):
            _work(0.02)
        with counted.spending("b"):
            time.sleep(0.05)  # No core works.

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(task, range(6)))
    assert list(counted.seconds) == ["a", "b"]
    assert 0.12 <= counted.seconds["a"] < 0.2 and counted.seconds["b"] < 0.05


def test_an_inner_block_counts_for_its_own_stage_alone():
    counted = Stages()
    with counted.spending("outer"):
        _work(0.02)
        with stages.spending("inner"):
            _work(0.05)
            with counted.spending("outer"):
                _work(0.01)
    assert 0.03 <= counted.seconds["outer"] < 0.05
    assert 0.05 <= counted.seconds["inner"] < 0.07


def test_three_blocks_inside_one_another_add_up():
    counted, start = stages.Stages(), time.thread_time()
    with counted.spending("a"), counted.spending("b"), counted.spending("c"):
        while time.thread_time() < start + 0.02:
            pass
    whole = time.thread_time() - start
    assert sum(counted.seconds.values()) == pytest.approx(whole, abs=2e-3)
    assert counted.seconds["a"] < 2e-3 and counted.seconds["b"] < 2e-3


def test_without_a_counter_nothing_is_counted():
    counted = Stages()
    with stages.spending("a"):
        pass
    with pytest.raises(ValueError, match="no"), counted.spending("b"):
        raise ValueError("no")
    with stages.spending("a"):  # The block above has ended.
        pass
    assert list(counted.seconds) == ["b"]


def test_the_stages_of_a_decoded_clip(golden):
    path = next((golden / "longva_official" / "videos").iterdir())
    counted = Stages()
    with counted.spending(stages.DECODE):
        decode(path, num_frames=4)
    assert counted.seconds.keys() == {stages.SCAN, stages.HASH, stages.DECODE}
    assert all(seconds > 0 for seconds in counted.seconds.values())
