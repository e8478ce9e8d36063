"""Containers that call packets keyframes which are none: the frames are right."""

import pathlib

import av
import numpy as np
import pytest
from numbered import make

from decoding import decode
from vidsme_jax.data import video

SIZE = (176, 144)  # Which H.261 and H.263 have.


def _frames(path: pathlib.Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [frame.reformat(format="rgb24").to_ndarray() for frame in frames]


def _keys(path: pathlib.Path) -> int:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) == 60
    return sum(packet.is_keyframe for packet in packets)


def _assert_exact(path: pathlib.Path) -> None:
    whole = _frames(path)
    for count in (2, 7):
        frames = decode(path, num_frames=count)
        assert frames.num_decodable == len(whole) == 60
        assert not any("damaged" in warning for warning in frames.warnings)
        expected = np.stack([whole[index] for index in frames.indices])
        np.testing.assert_array_equal(frames.pixels, expected)


def _all_keys(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copies a file and marks every packet as a keyframe."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.is_keyframe, packet.stream = True, stream
                new.mux(packet)
    return target


@pytest.mark.parametrize("codec", ["h263", "h263p", "h261"])
def test_avi_of_codecs_of_which_no_list_is_kept(tmp_path, codec):
    path = make(tmp_path / "a.avi", 60, *SIZE, gop=20, codec=codec)
    assert _keys(path) == 60  # There are 3.
    _assert_exact(path)


@pytest.mark.parametrize("codec", ["msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "flv"])
def test_avi_without_its_index(tmp_path, codec):
    path = make(tmp_path / "a.avi", 60, *SIZE, gop=20, codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"idx1")])
    assert _keys(path) == 60
    _assert_exact(path)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("mpeg4", ".mp4"),
        ("wmv2", ".asf"),
        ("flv", ".flv"),
        ("h263", ".3gp"),
        ("libx264", ".mp4"),
        ("libvpx", ".webm"),
    ],
)
def test_a_container_that_marks_all_packets(tmp_path, codec, suffix):
    path = make(tmp_path / f"a{suffix}", 60, *SIZE, gop=20, codec=codec)
    assert _keys(path) == 3
    _assert_exact(_all_keys(path, tmp_path / f"b{suffix}"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "params", ["intra-refresh=1:keyint=20", "open-gop=1:keyint=20:bframes=3:b-adapt=0"]
)
def test_groups_that_do_not_begin_with_an_idr_picture(tmp_path, params, suffix):
    options = {"preset": "veryfast", "x264-params": params}
    path = make(tmp_path / f"a{suffix}", 60, *SIZE, gop=20, options=options)
    assert _keys(path) > 1
    _assert_exact(path)


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "ffv1", "libvpx-vp9"])
def test_decoders_tell_true_keyframes(tmp_path, codec, monkeypatch):
    """They are still sought, nothing is decoded in sequence."""

    def refuse(*_):
        raise AssertionError("decoded in sequence")

    monkeypatch.setattr(video, "_in_sequence", refuse)
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make(tmp_path / "a.mkv", 60, *SIZE, gop=20, codec=codec, pix_fmt=pix_fmt)
    _assert_exact(path)
