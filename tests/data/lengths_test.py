"""Whether a video is as long as its header promises, wherever its clock begins."""

import struct

import av
import pytest
from numbered import make, numbers, picture

from decoding import decode

ENDS = ("a.mkv", "a.webm", "a.mp4", "fragments.mp4", "a.mov", "a.ts", "a.flv", "a.asf")
CODECS = {"a.webm": "libvpx", "a.asf": "mpeg4"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof+delay_moov"}


def _late(path, start, count=40):
    mux = {"avoid_negative_ts": "disabled"}
    if path.name == "fragments.mp4":
        mux |= FRAGMENTS
    stamps = [start + 40 * place for place in range(count)]
    codec = CODECS.get(path.name, "libx264")
    return make(path, count, milliseconds=stamps, codec=codec, mux=mux)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("start", [0, 10_000, 3_600_000])
def test_a_whole_file_that_begins_late_is_not_damaged(tmp_path, name, start):
    frames = decode(_late(tmp_path / name, start), num_frames=4)
    assert numbers(frames) == [0, 13, 26, 39]
    assert frames.num_decodable == 40 and not frames.warnings


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_file_that_begins_late_and_is_cut_is_damaged(tmp_path, name):
    path = _late(tmp_path / name, 10_000, 100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames = decode(path, num_frames=4)
    (warning,) = frames.warnings
    assert warning.startswith("the file is damaged or cut short")
    assert "its header promises 4.00 s; " in warning


def test_later_segments_of_a_stream_are_not_damaged(tmp_path):
    """Of DASH: the head of the stream, then its segments from the sixth on."""
    mux = {"movflags": "dash+frag_keyframe"}
    path = make(tmp_path / "a.mp4", 120, gop=10, mux=mux)
    data, boxes, at = path.read_bytes(), [], 0
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        boxes.append((data[at + 4 : at + 8], data[at : at + size]))
        at += size
    assert [name for name, _ in boxes[:3]] == [b"ftyp", b"moov", b"sidx"]
    begin = [k for k, (name, _) in enumerate(boxes) if name == b"sidx"][5]
    path.write_bytes(b"".join(box for _, box in (*boxes[:2], *boxes[begin:])))
    frames = decode(path, num_frames=4)
    assert numbers(frames) == [50, 73, 96, 119]
    assert not frames.warnings


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("bframes", ["0", "2"])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "libx264"),
        ("a.mkv", "mpeg4"),
        ("a.avi", "mpeg4"),
        ("a.avi", "libx264"),
    ],
)
@pytest.mark.parametrize("late", [3, 250])
def test_a_short_file_that_begins_late_is_not_damaged(
    tmp_path, name, codec, bframes, count, late
):
    """In files so short FFmpeg takes the end of the file for the track's duration."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": bframes})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for place in range(count):
            frame = av.VideoFrame.from_ndarray(picture(place, 96, 64), "rgb24")
            frame.pts = late + place
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = decode(path, num_frames=2)
    assert frames.num_decodable == count and not frames.warnings


def test_of_a_cut_file_one_frame_is_left(tmp_path):
    path = make(tmp_path / "a.avi", 40, codec="mpeg4")
    data = path.read_bytes()
    with av.open(str(path)) as container:
        second = [packet.pos for packet in container.demux(video=0) if packet.size][1]
    path.write_bytes(data[: second - 8])
    frames = decode(path, num_frames=2)
    (warning,) = frames.warnings
    assert frames.num_decodable == 1
    assert "its header promises 40 frames, " in warning
