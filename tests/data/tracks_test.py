"""Which of several video tracks is decoded, and what an edit list shows of it."""

import fractions
import pathlib
import struct

import av
import cv2
import numpy as np
import pytest
from numbered import make, numbers, picture

from decoding import decode
from vidsme_jax.base import ClipError
from vidsme_jax.data import video

STILL = 4000  # What a still shows; it is larger in pixels than the film.
FILM = {"codec": "libx264", "size": (96, 64), "count": 60, "first": 0}
THUMBNAIL = {"codec": "mjpeg", "size": (640, 480), "count": 1, "first": STILL}


def _tracks(path: pathlib.Path, *tracks, default: int | None = None) -> pathlib.Path:
    """Writes tracks one behind the other, at 25 frames a second."""
    with av.open(str(path), "w") as container:
        streams = []
        for track in tracks:
            stream = container.add_stream(track["codec"], rate=25)
            stream.width, stream.height = track["size"]
            jpeg = track["codec"] == "mjpeg"
            stream.pix_fmt = "yuvj420p" if jpeg else "yuv420p"
            streams.append(stream)
        if default is not None:
            streams[default].disposition = av.stream.Disposition.default.value
        for track, stream in zip(tracks, streams, strict=True):
            for place in range(track["count"]):
                rgb = picture(track["first"] + place, *track["size"])
                frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
                frame.pts = place
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("stills", [1, 5])
@pytest.mark.parametrize("order", [1, -1], ids=["before", "behind"])
def test_a_track_of_stills_is_not_the_film(tmp_path, suffix, stills, order):
    tracks = [THUMBNAIL | {"count": stills}, FILM][::order]
    frames = decode(_tracks(tmp_path / f"a{suffix}", *tracks), num_frames=4)
    assert numbers(frames) == [0, 19, 39, 59]
    assert frames.num_decodable == 60 and len(frames.warnings) == (stills > 1)


def test_slides_with_a_film_are_named(tmp_path):
    slides = FILM | {"size": (640, 480), "count": 6, "first": STILL}
    frames = decode(_tracks(tmp_path / "a.mp4", slides, FILM), num_frames=4)
    assert numbers(frames) == [0, 19, 39, 59]
    assert frames.warnings == (
        "2 video tracks: track 1 of 96x64 pixels (h264) with 60 frames is taken, not "
        "track 0 of 640x480 pixels (h264) with 6 frames",
    )


def test_of_two_short_films_one_is_taken_and_both_are_named(tmp_path):
    films = (FILM | {"count": 8}, FILM | {"count": 8, "first": 100})
    frames = decode(_tracks(tmp_path / "a.mp4", *films), num_frames=4)
    assert numbers(frames) == [0, 2, 4, 7]
    (warning,) = frames.warnings
    assert warning.endswith("not track 1 of 96x64 pixels (h264) with 8 frames")


def test_a_picture_is_no_film_however_short_the_film_is(tmp_path):
    picture_first = (THUMBNAIL, FILM | {"count": 5})
    frames = decode(_tracks(tmp_path / "a.mp4", *picture_first), num_frames=5)
    assert numbers(frames) == [0, 1, 2, 3, 4] and not frames.warnings


def test_what_an_edit_list_leaves_out_makes_no_film(tmp_path):
    """Of a track of 60 frames 4 are shown; it is larger, and FFmpeg prefers it."""
    still = FILM | {"size": (192, 128), "first": STILL}
    path = _tracks(tmp_path / "a.mp4", still, FILM | {"count": 50})
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 8  # Past the type, version and flags.
    count, duration, begin = struct.unpack(">IIi", data[entry : entry + 12])
    assert count == 1
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    cut = 56 * scale // 25
    data[entry : entry + 12] = struct.pack(">IIi", 1, duration * 4 // 60, begin + cut)
    path.write_bytes(data)
    frames = decode(path, num_frames=4)
    assert numbers(frames) == [0, 16, 32, 49]
    (warning,) = frames.warnings
    assert warning.endswith("not track 0 of 192x128 pixels (h264) with 4 frames")


def test_bytes_and_thumbnails_are_of_the_same_track(tmp_path):
    path = _tracks(tmp_path / "a.mp4", THUMBNAIL, FILM)
    assert numbers(decode(path.read_bytes(), num_frames=4)) == [0, 19, 39, 59]
    assert video.thumbnails(path, (0, 59), height=64).shape == (2, 64, 96, 3)


def test_the_track_is_kept_where_the_table_is_not_trusted(tmp_path, monkeypatch):
    path = _tracks(tmp_path / "a.mp4", THUMBNAIL, FILM)
    monkeypatch.setattr(video, "scan", lambda *_: None)
    assert numbers(decode(path, num_frames=4)) == [0, 19, 39, 59]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_of_two_films_one_is_taken_and_both_are_named(tmp_path, suffix):
    small = FILM | {"first": 100, "count": 50}
    large = FILM | {"size": (192, 128)}
    frames = decode(_tracks(tmp_path / f"a{suffix}", small, large), num_frames=4)
    one = "track 0 of 96x64 pixels (h264) with 50 frames"
    two = "track 1 of 192x128 pixels (h264) with 60 frames"
    # FFmpeg prefers the first, though the second has more frames.
    assert frames.warnings == (f"2 video tracks: {one} is taken, not {two}",)
    assert numbers(frames) == [100 + index for index in frames.indices]


@pytest.mark.parametrize("default", [0, 1])
def test_of_two_films_the_one_that_is_marked_as_default_is_taken(tmp_path, default):
    path = tmp_path / "a.mkv"
    films = [FILM | {"count": 20}, FILM | {"count": 20, "first": 100}]
    frames = decode(_tracks(path, *films, default=default), num_frames=4)
    assert numbers(frames) == [100 * default + index for index in frames.indices]


def test_the_preferred_of_two_films_is_not_a_still_that_ffmpeg_prefers(tmp_path):
    tracks = (THUMBNAIL, FILM, FILM | {"first": 100, "count": 50})
    frames = decode(_tracks(tmp_path / "a.mp4", *tracks), num_frames=4)
    assert frames.warnings[0].startswith("2 video tracks: track 1 of 96x64 pixels")
    assert "track 0" not in frames.warnings[0]


def test_two_pictures_are_no_films(tmp_path):
    two = (THUMBNAIL, THUMBNAIL | {"size": (96, 64)})
    frames = decode(_tracks(tmp_path / "a.mp4", *two), num_frames=2)
    assert frames.num_decodable == 1 and not frames.warnings


def test_counting_the_frames_of_tracks_obeys_the_limits(tmp_path):
    path = _tracks(tmp_path / "a.mp4", THUMBNAIL, FILM)
    with pytest.raises(ClipError, match="more than 59 frames"):
        decode(path, limits=video.Limits(max_frames=59))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_cover_art_in_front_of_the_film(tmp_path, suffix):
    jpeg = cv2.imencode(".jpg", picture(STILL, 480, 320))[1].tobytes()
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        art = container.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 480, 320, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic.value
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        cover = av.Packet(jpeg)
        cover.stream, cover.pts, cover.dts = art, 0, 0
        cover.time_base = fractions.Fraction(1, 1)
        packets = []
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(picture(number, 96, 64), "rgb24")
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode()
        container.mux([cover, *packets])
    frames = decode(path, num_frames=4)
    assert numbers(frames) == [0, 9, 19, 29] and not frames.warnings


def _edited(path: pathlib.Path, edits, bframes: str) -> pathlib.Path:
    """Writes 60 frames with an edit list: milliseconds shown, from where (or None)."""
    options = {"preset": "veryfast", "bf": bframes, "crf": "12", "sc_threshold": "0"}
    data = make(path, 60, gop=20, options=options).read_bytes()
    box = data.index(b"edts") - 4
    size = struct.unpack(">I", data[box : box + 4])[0]
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    begin = struct.unpack(">IIi", data[data.index(b"elst") + 8 :][:12])[2]
    body = b"elst" + bytes(4) + struct.pack(">I", len(edits))
    for shown, start in edits:
        at = -1 if start is None else begin + start * scale // 1000
        body += struct.pack(">IiI", shown, at, 1 << 16)
    edts = b"edts" + struct.pack(">I", len(body) + 4) + body
    edts = struct.pack(">I", len(edts) + 4) + edts
    new = bytearray(data[:box] + edts + data[box + size :])
    for name in (b"moov", b"trak"):
        at = new.index(name) - 4
        length = struct.unpack(">I", bytes(new[at : at + 4]))[0] + len(edts) - size
        new[at : at + 4] = struct.pack(">I", length)
    path.write_bytes(new)
    return path


@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(1960, 440)], range(11, 60)),
        ([(800, 440)], range(11, 31)),
        ([(400, None), (2400, 0)], range(60)),
        ([(400, 0), (800, 1200)], [*range(10), *range(30, 50)]),
        ([(400, 0), (400, 0)], [*range(10), *range(10)]),
        ([(800, 1200), (400, 0)], [*range(30, 50), *range(10)]),
    ],
    ids=["begins later", "a piece", "begins empty", "two", "repeated", "exchanged"],
)
def test_an_edit_list_shows_what_it_says(tmp_path, edits, shown, bframes):
    frames = decode(_edited(tmp_path / "a.mp4", edits, bframes), num_frames=8)
    expected = [shown[i] for i in np.linspace(0, len(shown) - 1, 8).astype(int)]
    assert numbers(frames) == expected
    assert frames.num_decodable == len(shown) and not frames.warnings
