"""Core seconds by stage."""

import concurrent.futures
import threading
import time

import pytest

from decoding import decode
from vidsme_jax.data import stages
from vidsme_jax.data.stages import Stages


class Clock(threading.local):
    """Stands for the CPU seconds of each thread, which pass where it works."""

    now = 0.0

    def thread_time(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(stages, "time", clock := Clock())
    return clock


def test_a_thread_that_waits_spends_nothing():
    counted = Stages()
    with counted.spending("waiting"):
        time.sleep(0.2)
    assert counted.seconds["waiting"] < 0.1


def test_the_seconds_of_threads_add_up(clock):
    counted = Stages()

    def task(_):
        with counted.spending("a"):
            clock.work(0.25)
        with counted.spending("b"):
            pass

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(task, range(6)))
    assert counted.seconds == {"a": 6 * 0.25, "b": 0.0}
    assert list(counted.seconds) == ["a", "b"]


def test_an_inner_block_counts_for_its_own_stage_alone(clock):
    counted = Stages()
    with counted.spending("outer"):
        clock.work(1.0)
        with stages.spending("inner"):
            clock.work(2.0)
            with counted.spending("outer"):
                clock.work(4.0)
        clock.work(8.0)
    assert counted.seconds == {"inner": 2.0, "outer": 13.0}


def test_three_blocks_inside_one_another_add_up(clock):
    counted = stages.Stages()
    with counted.spending("a"), counted.spending("b"), counted.spending("c"):
        clock.work(0.5)
    assert counted.seconds == {"a": 0.0, "b": 0.0, "c": 0.5}


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
