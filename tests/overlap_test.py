"""What limited a run is told right."""

import time

import jax.numpy as jnp
import pytest
from absl import logging

from vidsme_jax import overlap


class Slow:
    """Stands for a result that is there after some seconds."""

    def __init__(self, seconds: float):
        self.there = time.perf_counter() + seconds

    def block_until_ready(self):
        time.sleep(max(0.0, self.there - time.perf_counter()))
        return self


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *args: lines.append(text % args))
    return lines


def _run(decoding: float, computing: float, storing: float = 0.0, steps: int = 5):
    def clips():
        for k in range(steps):
            time.sleep(decoding)
            yield k

    timeline = overlap.Timeline()
    for _ in timeline.awaiting(clips(), overlap.CLIPS):
        timeline.sent(Slow(computing))
        with timeline.spending(overlap.STORING):
            time.sleep(storing)
    timeline.close()
    timeline.tell()
    return timeline


def test_a_device_that_waits_for_clips(told):
    timeline = _run(decoding=0.04, computing=0.01)
    # Four gaps of 0.03 s before the last result is there.
    assert timeline.idle == pytest.approx(4 * 0.03, abs=0.05)
    assert timeline.seconds == pytest.approx(4 * 0.04 + 0.01, abs=0.05)
    assert "bottleneck is decoding and preprocessing" in told[0]


def test_a_device_that_never_waits(told):
    timeline = _run(decoding=0.005, computing=0.2)
    assert timeline.idle < 0.02
    assert "they waited 0 % of the time; they are the bottleneck" in told[0]


def test_a_device_that_waits_for_the_disk(told):
    _run(decoding=0.002, computing=0.002, storing=0.04)
    assert "the bottleneck is storing" in told[0]


def test_nothing_sent_tells_nothing(told):
    assert _run(decoding=0, computing=0, steps=0).seconds == 0
    assert not told


def test_arrays_are_waited_for():
    timeline = overlap.Timeline()
    timeline.sent(jnp.ones(3))
    timeline.close()
    assert timeline.seconds > 0


def test_what_is_not_watched_takes_no_notes():
    with overlap.UNWATCHED.spending(overlap.SENDING):
        overlap.UNWATCHED.sent(jnp.ones(3))
    overlap.UNWATCHED.close()
    assert not any(overlap.UNWATCHED.waited.values()) and overlap.UNWATCHED.seconds == 0
