"""Pictures as they are kept: colours, sizes, upright, scaled down."""

import struct

import numpy as np
import pytest
from numbered import make, numbers, picture

from decoding import decode
from vidsme_jax.base import ClipError
from vidsme_jax.data import video


@pytest.mark.parametrize(
    ("pix_fmt", "size"),
    [
        ("yuv420p10le", (96, 64)),
        ("gray", (96, 64)),
        ("yuv444p", (97, 65)),
        ("yuv444p", (101, 33)),
        ("yuvj420p", (98, 66)),
        ("yuv420p", (3840, 2160)),
    ],
)
def test_formats_and_sizes(tmp_path, pix_fmt, size):
    path = make(tmp_path / "a.mp4", 4, *size, pix_fmt=pix_fmt)
    frames = decode(path, num_frames=4)
    assert frames.pixels.shape == (4, size[1], size[0], 3)
    assert numbers(frames) == [0, 1, 2, 3]
    difference = frames.pixels[2].astype(int) - picture(2, *size)
    # No matrix or range is mistaken; but swscale copies grey levels as they are, those
    # of the range 16 to 235 too, and so did decord.
    assert np.abs(difference).mean() < (12 if pix_fmt == "gray" else 3)


def test_a_colour_matrix_without_conversion_still_gives_a_picture(tmp_path):
    options = {"preset": "veryfast", "x264-params": "colormatrix=YCgCo"}
    path = make(tmp_path / "a.mp4", 4, options=options)
    assert numbers(decode(path, num_frames=4)) == [0, 1, 2, 3]


# Rows of the display matrix (16.16 fixed point) and what makes the picture upright.
TURNS = {
    "quarter": ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
    "half": ((-1, 0, 0, -1), lambda rgb: np.rot90(rgb, 2)),
    "three quarters": ((0, -1, 1, 0), lambda rgb: np.rot90(rgb, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda rgb: rgb[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda rgb: rgb[::-1]),
    "transposed": ((0, 1, 1, 0), lambda rgb: rgb.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", TURNS)
def test_the_rotation_flag_is_honoured(tmp_path, name):
    (a, b, c, d), upright = TURNS[name]
    path = make(tmp_path / "a.mp4", 10)
    plain = decode(path, num_frames=4).pixels
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    values = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)
    turned = decode(path, num_frames=4).pixels
    np.testing.assert_array_equal(turned, [upright(rgb) for rgb in plain])
    small = video.thumbnails(path, (0, 3), height=32)
    width = round(32 * turned.shape[2] / turned.shape[1])
    assert small.shape == (2, 32, width, 3)


def test_the_first_frame_sets_the_size_where_it_changes(tmp_path):
    first = make(tmp_path / "a.h264", 6, 96, 64).read_bytes()
    second = make(tmp_path / "b.h264", 6, 192, 128).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(first + second)
    frames = decode(path, num_frames=12)
    assert frames.pixels.shape == (12, 64, 96, 3)
    assert numbers(frames)[:6] == list(range(6))
    assert frames.warnings == (
        "the frame size changes; 6 sampled frames are scaled to 96x64",
    )


def test_thumbnails(tmp_path):
    path = make(tmp_path / "a.mp4", 30, 192, 128)
    small = video.thumbnails(path, (0, 11, 11, 29), height=64)
    assert small.shape == (4, 64, 96, 3)
    large = decode(path, num_frames=30).pixels
    expected = large.reshape(30, 64, 2, 96, 2, 3).mean(axis=(2, 4))[[0, 11, 11, 29]]
    assert np.abs(small - expected).mean() < 2


def test_thumbnails_of_a_file_that_has_changed(tmp_path):
    path = make(tmp_path / "a.mp4", 5)
    with pytest.raises(ClipError, match="frame 9 no longer decodes"):
        video.thumbnails(path, (0, 9), height=32)


def test_frames_of_monstrous_size_are_refused(tmp_path):
    path = make(tmp_path / "a.mp4", 4)
    limits = video.Limits(max_pixels=96 * 64 - 1)
    with pytest.raises(ClipError, match=r"96x64 pixels; .* \(config.video.max_pixels"):
        decode(path, limits=limits)
