"""What of a format is not in the frames is reported once per clip."""

import av
import numpy as np
import pytest
from numbered import make, numbers, picture

from decoding import decode

X264 = {"preset": "veryfast", "bf": "0", "crf": "12"}
HDR = "colorprim=bt2020:colormatrix=bt2020nc:transfer="
STORED = "frames keep their stored values and are not tone-mapped"
TRANSPARENT = "transparency is left out: pixels have their stored colours"


def _x264(path, params, pix_fmt="yuv420p", size=(96, 64)):
    options = X264 | {"x264-params": params}
    return make(path, 6, *size, pix_fmt=pix_fmt, options=options)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("params", "pix_fmt", "warning"),
    [
        (HDR + "smpte2084", "yuv420p10le", f"high dynamic range (PQ): {STORED}"),
        (HDR + "arib-std-b67", "yuv420p10le", f"high dynamic range (HLG): {STORED}"),
        (HDR + "bt2020-10", "yuv420p10le", f"wide gamut (BT.2020): {STORED}"),
        (
            "interlaced=1:tff=1",
            "yuv420p",
            "interlaced: each frame has the lines of two moments, as stored",
        ),
        (
            "sar=16/11",
            "yuv420p",
            "pixels are not square (sample aspect ratio 16/11): frames are 96x64, as "
            "stored, not 140x64, as players show them",
        ),
        (
            "sar=8/9",
            "yuv420p",
            "pixels are not square (sample aspect ratio 8/9): frames are 96x64, as "
            "stored, not 85x64, as players show them",
        ),
    ],
    ids=["pq", "hlg", "bt2020", "interlaced", "oblong", "narrow"],
)
def test_a_format_is_reported_once_and_pixels_are_stored_ones(
    tmp_path, params, pix_fmt, warning, suffix
):
    frames = decode(_x264(tmp_path / f"a{suffix}", params, pix_fmt), num_frames=4)
    assert frames.warnings == (warning,)
    assert frames.pixels.shape == (4, 64, 96, 3)
    assert numbers(frames) == [0, 1, 3, 5]
    difference = frames.pixels[0].astype(int) - picture(0, 96, 64)
    assert np.abs(difference).mean() < 3  # Not mapped, not blended, not stretched.


@pytest.mark.parametrize(
    ("params", "pix_fmt"),
    [("keyint=5", "yuv420p10le"), ("fake-interlaced=1", "yuv420p"), ("sar=1/1", None)],
)
def test_an_ordinary_format_is_not_reported(tmp_path, params, pix_fmt):
    path = _x264(tmp_path / "a.mp4", params, pix_fmt or "yuv420p")
    assert decode(path, num_frames=4).warnings == ()


def _with_alpha(path, codec, pix_fmt, alpha):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        for number in range(1 if path.suffix == ".png" else 4):
            rgba = np.full((64, 96, 4), alpha, np.uint8)
            rgba[..., :3] = picture(number, 96, 64)
            frame = av.VideoFrame.from_ndarray(rgba, "rgba")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.png", "png", "rgba"),
    ],
)
def test_transparency_is_left_out_and_reported(tmp_path, name, codec, pix_fmt):
    path = _with_alpha(tmp_path / name, codec, pix_fmt, alpha=90)
    frames = decode(path, num_frames=4)
    assert frames.warnings == (TRANSPARENT,)
    assert np.abs(frames.pixels[0].astype(int) - picture(0, 96, 64)).mean() < 4


def test_a_format_with_alpha_may_be_opaque(tmp_path):
    path = _with_alpha(tmp_path / "a.mov", "qtrle", "argb", alpha=255)
    assert decode(path, num_frames=4).warnings == ()


def test_several_formats_are_reported_together(tmp_path):
    path = _x264(tmp_path / "a.mp4", f"{HDR}smpte2084:sar=4/3:interlaced=1")
    kinds = [warning.split(" ")[0] for warning in decode(path).warnings]
    assert kinds == ["pixels", "high", "interlaced:"]


# Y, Cb, Cr of one colour, as RGB by each matrix and range.
COLOUR = (100, 90, 200)
BT601, BT709, FULL = (211, 52, 20), (226, 66, 16), (200, 61, 32)


@pytest.mark.parametrize("size", [(96, 64), (1280, 720)])
@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ("keyint=5", BT601),  # Untagged: BT.601, in high definition too.
        ("colormatrix=smpte170m", BT601),
        ("colormatrix=bt709", BT709),
        ("fullrange=on", FULL),
    ],
)
def test_matrix_and_range_are_the_frames_own(tmp_path, size, params, expected):
    path = tmp_path / "a.mp4"
    options = {"preset": "ultrafast", "crf": "0", "x264-params": params}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame(*size, "yuv420p")
        for plane, value in zip(frame.planes, COLOUR, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    pixels = decode(path, num_frames=1).pixels[0]
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def _pyav(path, **how):
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack(
            [f.reformat(format="rgb24", **how).to_ndarray() for f in frames]
        )


@pytest.mark.parametrize(
    ("pix_fmt", "size", "any_flag"),
    [
        ("yuv420p", (96, 64), True),
        ("yuv422p", (96, 64), True),
        ("yuv444p", (97, 65), True),
        ("yuv420p", (97, 65), False),
        ("yuv420p10le", (96, 64), False),
        ("yuv411p", (96, 64), False),
        ("yuv410p", (96, 64), False),
        ("yuv440p", (96, 64), False),
    ],
)
def test_the_filter_of_the_conversion_is_bicubic(tmp_path, pix_fmt, size, any_flag):
    path = tmp_path / "a.mkv"
    small = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    colours = small.repeat(8, 0).repeat(8, 1)[: size[1], : size[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(colours), "rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    pixels = decode(path, num_frames=1).pixels
    np.testing.assert_array_equal(pixels, _pyav(path, interpolation="BICUBIC"))
    # What PyAV gives by default.
    apart = np.abs(pixels.astype(int) - _pyav(path)).max()
    assert apart == 0 if any_flag else 5 < apart < 100
