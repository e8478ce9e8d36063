"""Where a run's time went: computing, waiting and for what, compiling."""

import collections
import concurrent.futures
import contextlib
import threading
import time
import types

import jax
import jax.numpy as jnp
import pytest

import children
from vidsme_jax.run import timeline as module
from vidsme_jax.run.timeline import CLIPS, SENDING, STORING, UNWATCHED, Timeline


class Result:
    """Stands for a result that is there once it is said to be."""

    def __init__(self):
        self.there = threading.Event()

    def block_until_ready(self):
        assert self.there.wait(children.MOMENT)
        return self


class Run:
    """A timeline by a clock that moves only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        clock = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(module, "time", clock)
        self.timeline = Timeline()
        self.results = []

    @contextlib.contextmanager
    def __call__(self, cause, seconds=0.0):
        """Spends time on a cause."""
        with self.timeline.spending(cause):
            self.now += seconds
            yield

    def spend(self, cause, seconds):
        with self(cause, seconds):
            pass

    def compile(self, seconds):
        """Does what JAX does where it compiles."""
        self.now += seconds
        name = "/jax/core/compile/backend_compile_duration"
        jax.monitoring.record_event_duration_secs(name, float(seconds))

    def send(self):
        self.results.append(Result())
        self.timeline.sent(self.results[-1])

    def compute(self, seconds=0.0):
        """Lets the first result be there that is not, so many seconds later."""
        self.now += seconds
        done = self.timeline.batches
        self.results.pop(0).there.set()
        children.wait_for(lambda: self.timeline.batches > done)

    def close(self):
        self.timeline.close()
        return self.timeline

    def finish(self):
        """Computes the last result in a second."""
        self.compute(1)
        return self.close()


@pytest.fixture
def run(monkeypatch):
    run = Run(monkeypatch)
    yield run
    for result in run.results:
        result.there.set()
    run.close()


def test_a_device_that_waits_for_clips(run):
    run.spend(CLIPS, 7)  # Before the first batch: not in the window.
    run.send()
    for _ in range(4):
        with run(CLIPS):
            run.compute(1)
            run.now += 3
        run.send()
        run.spend(STORING, 0.5)  # While there is something to compute.
    timeline = run.finish()
    assert timeline.batches == 5 and timeline.busy == 1 + 4 * 1.5
    assert timeline.idle == timeline.waited[CLIPS] == 4 * 3
    assert timeline.seconds == timeline.busy + timeline.idle
    assert timeline.waited[STORING] == 0


def test_a_device_that_never_waits(run):
    run.send()
    for _ in range(4):
        run.spend(CLIPS, 1)
        run.send()  # One more is on its way when a result is there.
        run.compute(1)
    timeline = run.finish()
    assert timeline.seconds == timeline.busy == 9
    assert timeline.idle == sum(timeline.waited.values()) == 0


def test_a_device_that_waits_for_the_disk_and_for_clips(run):
    run.send()
    run.compute(1)
    run.now += 0.25  # Copying the result, say.
    run.spend(STORING, 2)
    coming = run.timeline.awaiting(iter("ab"), CLIPS)
    assert next(coming) == "a"
    run.spend(CLIPS, 0.5)
    run.send()
    timeline = run.finish()
    assert (timeline.busy, timeline.idle) == (2, 2.75)
    waited = {CLIPS: 0.5, STORING: 2}
    assert {k: v for k, v in timeline.waited.items() if v} == waited


def test_the_time_until_a_clip_comes_is_waited(run):
    def clips():
        for k in range(2):
            run.now += 3
            yield k

    coming = run.timeline.awaiting(clips(), CLIPS)
    assert next(coming) == 0
    run.send()
    run.compute(1)
    assert list(coming) == [1]
    run.send()
    assert run.finish().waited[CLIPS] == 3


def test_a_second_shape_that_is_compiled_is_not_in_the_window(run):
    with run(SENDING):
        run.compile(50)
    run.send()
    with run(SENDING):
        run.compute(1)
        run.compile(20)
        run.now += 2
    run.send()
    timeline = run.finish()
    assert timeline.compiling == 70
    assert (timeline.seconds, timeline.busy) == (4, 2)
    assert timeline.waited[SENDING] == timeline.idle == 2


def test_compiling_while_devices_compute_costs_no_time(run):
    run.send()
    run.compile(20)
    run.send()
    run.compute(5)
    timeline = run.finish()
    assert timeline.compiling == 20
    assert timeline.seconds == timeline.busy == 26


def test_what_worker_threads_compile_is_counted_and_waited_for(run):
    run.send()
    run.compute(1)
    with run(CLIPS), concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(run.compile, 10).result()
    run.send()
    timeline = run.finish()
    assert timeline.compiling == 10
    assert timeline.waited[CLIPS] == timeline.idle == 10


def test_what_is_compiled_at_the_same_time_or_within_counts_once(run):
    run.compile(10)
    name = "/jax/core/compile/jaxpr_trace_duration"
    for seconds in (4.0, 12.0):  # The last four, and two more in front.
        jax.monitoring.record_event_duration_secs(name, seconds)
    run.now += 5
    run.compile(1)
    jax.monitoring.record_event_duration_secs("/jax/other", 99.0)
    assert run.close().compiling == 13


def test_nothing_sent(run):
    timeline = run.close()
    assert timeline.seconds == timeline.idle == timeline.batches == 0


def test_arrays_are_waited_for():
    with Timeline() as timeline:
        timeline.sent(jnp.ones(3))
    assert timeline.seconds > 0 and timeline.batches == 1


def test_what_is_not_watched_keeps_nothing():
    with UNWATCHED.spending(SENDING):
        UNWATCHED.sent(jnp.ones(3))
    UNWATCHED.close()
    assert not any(UNWATCHED.waited.values()) and UNWATCHED.seconds == 0
    assert not UNWATCHED._spent


def test_jax_reports_tracing_lowering_and_compiling():
    seconds = collections.defaultdict(list)

    def listen(name, spent, **_):
        seconds[name].append(spent)

    @jax.jit
    def inner(x):
        return jnp.sin(x) @ x

    def outer(x):  # Traces of functions lie within traces of others.
        for _ in range(30):
            x = inner(x) + jnp.cos(x)
        return x

    jax.monitoring.register_event_duration_secs_listener(listen)
    start = time.perf_counter()
    try:
        with Timeline() as timeline:
            pmapped = jax.pmap(outer, devices=jax.local_devices()[:1])
            pmapped(jnp.ones((1, 8, 8))).block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    wall = time.perf_counter() - start
    steps = ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
    each = [seconds[f"/jax/core/compile/{step}_duration"] for step in steps]
    # The outer function is traced, lowered and compiled in turn; inner traces overlap.
    least, most = (sum(map(of, each)) for of in (max, sum))
    assert all(each) and least - 1e-3 <= timeline.compiling <= min(wall, most) + 1e-3


def test_a_closed_timeline_listens_no_more(monkeypatch):
    before = threading.active_count()
    with pytest.raises(ValueError), Timeline() as timeline:
        assert threading.active_count() == before + 1
        raise ValueError
    assert threading.active_count() == before
    event = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.record_event_duration_secs(event, 1.0)
    timeline.close()
    assert timeline.compiling == 0
