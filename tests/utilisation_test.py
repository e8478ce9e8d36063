"""What a run made of its devices, in the log and in config.json."""

import dataclasses
import json

import pytest
from absl import logging

from vidsme_jax import models, parallel
from vidsme_jax.models.interface import Flops
from vidsme_jax.models.rows import Shown
from vidsme_jax.run import rates, timeline, utilisation
from vidsme_jax.run.utilisation import Meter, Utilisation

# 120 clips of 80 TFLOP in 20 s on two cards of 800 TFLOP/s: 30 %; 16 s computing: 37.5.
USED = Utilisation(
    clips=120,
    batches=30,
    seconds=20.0,
    busy=16.0,
    waited={timeline.CLIPS: 3.0, timeline.STORING: 0.5, timeline.SENDING: 0.1},
    compiling=70.0,
    operations=120 * 80e12,
    devices=2.0,
    peak=rates.Peak(800e12, known=True),
    core_seconds={"hash": 0.01, "decode": 1.9, "motion": 0.1, "preprocess": 0.2},
    workers=16,
    cores=12,
    on_cpu=False,
)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *args: lines.append(text % args))
    return lines


def _log(said, **changes):
    said.clear()
    dataclasses.replace(USED, **changes).log()
    return said


def test_the_end_of_a_log_on_an_accelerator(said):
    devices, host = _log(said)
    assert devices == (
        "devices: 6.00 clips a second, 30 % of the peak (800 TFLOP/s a device, known); "
        "they computed for 16.0 s of 20.0 s and waited 20 % of the time (15 % for "
        "decoding and preprocessing, 2 % for storing, 2 % for fetching results): the "
        "bottleneck is decoding and preprocessing; compiling took 70.0 s, which is not "
        "counted"
    )
    # 2.21 core seconds a clip, and the devices could take 7.5 clips a second.
    assert host == (
        "decoding and preprocessing (`vidsme prepare` does it once for all runs of "
        "these clips, motion as OpenCV measures it): mostly decode; decode 1.9, "
        "preprocess 0.2, motion 0.1 core seconds a clip with 16 workers on 12 cores; 5 "
        "more cores would be needed"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cores": 16}, "; 1 more core would be needed"),
        ({"cores": 20}, "config.workers = 17 would be needed"),
        (
            {"cores": 32, "workers": 32},
            "32 cores, which would suffice if no thread waited for files, the optical "
            "flow or another thread",
        ),
        ({"peak": None, "on_cpu": True}, "12 cores, on which the model computes, too"),
    ],
)
def test_what_the_host_lacks(said, changes, expected):
    assert _log(said, **changes)[-1].endswith(expected)


def test_a_cpu_has_no_peak(said):
    devices, _ = _log(said, peak=None)
    assert devices.startswith("devices: 6.00 clips a second; they computed for 16.0 s")
    assert "peak" not in devices
    facts = dataclasses.replace(USED, peak=None).facts()
    assert not any("peak" in name for name in facts)


def test_devices_that_hardly_wait_are_the_bottleneck(said):
    (devices,) = _log(said, busy=19.0, waited={timeline.CLIPS: 0.9})
    assert "waited 5 % of the time" in devices
    assert "they are the bottleneck" in devices


def test_another_bottleneck_than_the_host(said):
    (devices,) = _log(said, waited={timeline.CLIPS: 0.2, timeline.STORING: 3.5})
    assert "the bottleneck is storing" in devices


def test_a_measured_peak_is_called_so(said):
    peak, devices, _ = _log(said, peak=rates.Peak(800e12, known=False))
    assert "not known: a matrix product was measured, 800 TFLOP/s" in peak
    assert "(800 TFLOP/s a device, measured)" in devices


@pytest.mark.parametrize(("batches", "name"), [(1, "1 batch"), (3, "3 batches")])
def test_few_batches_show_no_bottleneck(said, batches, name):
    changes = dict(clips=12, batches=batches, seconds=1.2, busy=1.0, compiling=16.9)
    changes |= {"operations": 12 * 80e12}
    (line,) = _log(said, **changes)
    assert line == (
        f"devices: {name} of 12 clips computed in 1.00 s, 60 % of the peak (800 "
        f"TFLOP/s a device, known); compiling took 16.9 s; {name} cannot show what "
        "limits a longer run"
    )
    facts = dataclasses.replace(USED, **changes).facts()
    assert facts["computing seconds"] == 1.0 and facts["compiling seconds"] == 16.9
    assert not {"clips a second", "share waited", "share of the peak"} & set(facts)


def test_what_is_recorded():
    facts = json.loads(json.dumps(USED.facts(), allow_nan=False))
    assert facts == {
        "clips": 120,
        "batches": 30,
        "peak of a device": "800 TFLOP/s a device, known",
        "share of the peak while computing": 0.375,
        "computing seconds": 16.0,
        "compiling seconds": 70.0,
        "clips a second": 6.0,
        "share of the peak": 0.3,
        "share waited": 0.2,
        "waited for": {
            "decoding and preprocessing": 0.15,
            "storing": 0.025,
            "fetching results": 0.02,
        },
        "host core seconds a clip": USED.core_seconds,
    }


class Result:
    """Stands for a result of the devices."""

    def block_until_ready(self):
        return self


def test_a_meter_counts_clips_by_their_own_frames(monkeypatch):
    plan = models.inspect("random:llava_qwen-tiny", dtype="float32")
    plan = dataclasses.replace(
        plan,
        flops=lambda clip, texts: Flops(
            10.0 * clip.num_frames * (1 + clip.grid[0] * clip.grid[1]),
            *(1.0, 2.0, 5.0 * len(texts)),
        ),
    )
    with Meter(plan) as meter:
        with meter.stages.spending("decode"):
            sum(range(10**5))
        meter.timeline.sent(Result())
        meter.computed(Shown(4))
        meter.computed(Shown(3, grid=(1, 2)), video=False, texts=[(7, 2)])
    devices = parallel.make_devices("pmap", 4, 1)
    used = meter.result(devices, 3)
    assert used.clips == 2 and used.batches == 1
    assert used.operations == 10 * (4 + 3 * 3) + 2 * (1 + 2) + 2 * (1 + 5)
    assert used.devices == 4 and used.workers == 3
    assert used.on_cpu and used.peak is None
    assert used.core_seconds["decode"] == meter.stages.seconds["decode"] / 2 > 0


def test_of_a_model_that_leaves_out_rows_one_direction_is_counted():
    plan = models.inspect("random:llava_qwen-tiny", dtype="float32")
    given = {"flops": lambda clip, texts: Flops(1.0, 20.0, 300.0, 4000.0)}
    counted = []
    for prune in (None, lambda frames: b""):
        with Meter(dataclasses.replace(plan, prune=prune, **given)) as meter:
            meter.timeline.sent(Result())
            meter.computed(Shown(4))
        devices = parallel.make_devices("pmap", 1, 1)
        counted.append(meter.result(devices, 1).operations)
    assert counted == [8641, 4321]


def test_an_accelerators_peak_is_that_of_the_dtype(monkeypatch):
    monkeypatch.setattr(utilisation.rates, "peak", lambda device, dtype: asked(dtype))
    asked = {"bfloat16": rates.Peak(1e12, known=True)}.__getitem__
    with Meter(models.inspect("random:llava_qwen-tiny", dtype="bfloat16")) as meter:
        meter.timeline.sent(Result())
        meter.computed(4)
    used = meter.result(parallel.make_devices("pmap", 4, 1), 3)
    assert used.share(1.0) == used.operations / (4 * 1e12)


def test_nothing_computed_is_nothing_to_say():
    with Meter(models.inspect("random:llava_qwen-tiny", dtype="float32")) as meter:
        pass
    assert meter.result(parallel.make_devices("pmap", 1, 1), 0) is None
