"""Pictures that are left out: as many as can be, and no other changes by a bit."""

import fractions
import pathlib

import av
import numpy as np
import pytest

from decoding import decode
from vidsme_jax.data import disposable, opening, video

_X264 = {"preset": "veryfast", "bf": "3", "sc_threshold": "0", "crf": "20"}
_HEVC = "frame-threads=1:pools=none:log-level=none:keyint=40:min-keyint=40:scenecut=0"

# Of 80 frames at least so many must be left out where 5 are sampled: the encoders make
# so many that nothing refers to.
H264 = {
    "defaults": ({}, 25),
    "no pyramid": ({"x264-params": "b-pyramid=none"}, 35),
    "strict pyramid": ({"x264-params": "b-pyramid=strict"}, 25),
    "16 references": ({"x264-params": "b-pyramid=normal:ref=16:b-adapt=0"}, 25),
    "one reference": ({"x264-params": "ref=1:weightp=2:weightb=1:b-adapt=0"}, 25),
    "temporal direct": ({"x264-params": "direct=temporal:b-pyramid=normal"}, 25),
    "open groups": ({"x264-params": "open-gop=1:b-adapt=0"}, 25),
    "interlaced": ({"x264-params": "tff=1:b-adapt=0"}, 25),
    "timing in every picture": ({"x264-params": "nal-hrd=vbr:aud=1"}, 25),
    "slices, CAVLC": ({"x264-params": "slices=4:cabac=0:deblock=0"}, 25),
    "without B-frames": ({"bf": "0"}, 0),
}
HEVC = {
    "defaults": ("bframes=4:b-adapt=0", 25),
    "no pyramid": ("bframes=4:b-adapt=0:b-pyramid=0:weightb=1", 35),
    "open groups": ("bframes=4:b-adapt=0:open-gop=1:keyint=20:min-keyint=20", 25),
    "leading pictures": ("bframes=4:b-adapt=0:open-gop=0:radl=2:keyint=20", 25),
    "temporal layers": ("bframes=4:b-adapt=0:temporal-layers=3", 25),
    "hashes, delimiters": (
        "bframes=4:b-adapt=0:hash=1:aud=1:hrd=1:vbv-bufsize=9000:vbv-maxrate=9000",
        25,
    ),
}


def _clip(path: pathlib.Path, codec: str, options: dict[str, str]) -> pathlib.Path:
    """80 frames of blocks that move and grow lighter, with a cut, 25 a second."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 200, (2, 60, 60, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        stream.gop_size = 40
        if codec.startswith("mpeg"):
            stream.codec_context.max_b_frames = 2
        for k in range(80):
            rgb = blocks[k // 50, k : k + 64, 2 * k % 90 : 2 * k % 90 + 96]
            frame = av.VideoFrame.from_ndarray(rgb + np.uint8(k // 2), "rgb24")
            frame.pts, frame.time_base = k, fractions.Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _whole(path: pathlib.Path) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([f.reformat(format="rgb24").to_ndarray() for f in frames])


@pytest.fixture
def put_out(monkeypatch) -> list[int]:
    """One entry for every frame that leaves a decoder; no second attempt is made."""
    frames, decoded = [], opening.Source.decoded

    def spy(*args):
        found = decoded(*args)
        frames.extend(found)
        return found

    def refuse(*args):
        raise AssertionError("decoded in sequence")

    monkeypatch.setattr(opening.Source, "decoded", spy)
    monkeypatch.setattr(video, "_in_sequence", refuse)
    return frames


def _assert_exact(path: pathlib.Path, counts=(5, 12, 27, 80)) -> None:
    whole = _whole(path)
    assert len(whole) == 80
    for count in counts:
        found = decode(path, num_frames=count)
        assert found.num_decodable == 80
        assert all(text.startswith("interlaced") for text in found.warnings)
        np.testing.assert_array_equal(found.pixels, whole[list(found.indices)])


@pytest.mark.parametrize("name", H264)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_h264(tmp_path, put_out, name, suffix):
    options, fewest = H264[name]
    path = _clip(tmp_path / f"a{suffix}", "libx264", _X264 | options)
    decode(path, num_frames=5)
    assert len(put_out) <= 80 - fewest
    _assert_exact(path)


@pytest.mark.parametrize("name", HEVC)
def test_hevc(tmp_path, put_out, name):
    params, fewest = HEVC[name]
    options = {"preset": "ultrafast", "x265-params": f"{_HEVC}:{params}"}
    path = _clip(tmp_path / "a.mp4", "libx265", options)
    decode(path, num_frames=5)
    assert len(put_out) <= 80 - fewest
    _assert_exact(path)


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", ".mp4", _X264 | {"x264-params": "intra-refresh=1"}),
        ("libx264", ".ts", _X264),
        ("libx264", ".h264", _X264),
        ("libx264", ".flv", _X264),
        ("libx265", ".mkv", {"x265-params": f"{_HEVC}:bframes=4:repeat-headers=1"}),
        ("libvpx", ".webm", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("libvpx-vp9", ".webm", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        (
            "libsvtav1",
            ".mp4",
            {"preset": "12", "svtav1-params": "hierarchical-levels=3"},
        ),
        ("mpeg4", ".mp4", {}),
        ("mpeg2video", ".mkv", {}),
        ("mpeg2video", ".mpg", {}),
        ("mjpeg", ".mov", {}),
    ],
)
def test_other_codecs_and_containers(tmp_path, codec, suffix, options):
    path = _clip(tmp_path / f"a{suffix}", codec, options)
    _assert_exact(path, (5, 27))


@pytest.fixture
def attempts(monkeypatch) -> list[bool]:
    """Whether pictures could be left out, of every attempt to decode by seeking."""
    found, by_seeking = [], video._by_seeking

    def spy(source, container, stream, table, choose, height):
        found.append(bool(table.disposable))
        return by_seeking(source, container, stream, table, choose, height)

    monkeypatch.setattr(video, "_by_seeking", spy)
    return found


def test_what_is_left_out_and_yet_needed_is_noticed(tmp_path, monkeypatch, attempts):
    path = _clip(tmp_path / "a.mp4", "libx264", _X264)
    whole = _whole(path)
    monkeypatch.setattr(
        disposable, "_h264", lambda unit: disposable._Slice(unit[0] & 31 == 5)
    )
    found = decode(path, num_frames=5)
    assert attempts == [True, False]
    np.testing.assert_array_equal(found.pixels, whole[list(found.indices)])


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_nearly_all_damaged_files_give_what_they_give_without_leaving_out(
    tmp_path, monkeypatch, attempts, codec
):
    options = _X264 | {"x265-params": f"{_HEVC}:bframes=3"}
    options = {
        k: v for k, v in options.items() if (codec == "libx264") != ("x265" in k)
    }
    data = _clip(tmp_path / "a.mp4", codec, options).read_bytes()
    start = data.index(b"mdat") + 8
    damaged = []
    for seed in range(30):
        random, copy = np.random.default_rng(seed), bytearray(data)
        length = int(random.choice([1, 20, 400]))
        place = int(random.integers(start, data.index(b"moov") - length))
        copy[place : place + length] = random.bytes(length)
        damaged.append(bytes(copy))
    found, num_left_out = [], 0
    for copy in damaged:
        attempts.clear()
        found.append(decode(copy, num_frames=9))
        # A damaged header may name a higher layer, in which nothing can be left out.
        num_left_out += attempts[0]
        assert not found[-1].warnings or not attempts[-1]
    assert num_left_out > len(damaged) // 2
    assert any(frames.warnings for frames in found)
    monkeypatch.setattr(disposable.Disposables, "add", lambda self, packet: None)
    others = 0
    for copy, ours in zip(damaged, found, strict=True):
        expected = decode(copy, num_frames=9)
        same = ours.indices == expected.indices and np.array_equal(
            ours.pixels, expected.pixels
        )
        assert same or not ours.warnings
        others += not same
    assert others <= 3  # x265 does not write the same bytes twice: 11 of 1800 were.


def test_pictures_that_higher_layers_refer_to_are_kept():
    found = disposable.Disposables("hevc", None)
    for pts, (kind, layer) in enumerate([(19, 0), (0, 0), (2, 1), (0, 1), (1, 1)]):
        unit = bytes([kind << 1, layer + 1, 0x80])
        found.add(_packet(b"\0\0\1" + unit, pts))
    found.add(_packet(b"\0\0\1" + bytes([0, 1 << 3 | 2, 0x80]), 5))  # Another view.
    assert found.pts() == {2, 3}


def _packet(data: bytes, pts: int = 7):
    packet = av.Packet(data)
    packet.pts = pts
    return packet


def _length(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4) + unit for unit in units)


B, P, IDR = b"\x01\x9e\x80", b"\x41\x9a\x80", b"\x65\x88\x80"


@pytest.mark.parametrize(
    ("packet", "left_out"),
    [
        (_length(B), True),
        (_length(B, B), True),
        (_length(b"\x09\xf0", B), True),  # A delimiter.
        (_length(b"\x06\x01\x01\x12\x80", B), True),  # Timing.
        (_length(b"\x06\x05\xff\x01" + bytes(256) + b"\x80", B), True),  # User data.
        (_length(P), False),
        (
            _length(b"\x01" + P[1:]),
            False,
        ),  # A damaged byte says that none refers to it.
        (_length(B, P), False),  # The second field is referred to.
        (_length(IDR), False),
        (_length(b"\x06\x2f\x01\x12\x80", B), False),  # A rotation, which holds on.
        (_length(b"\x06\x01\x01\x12\x2f\x01\x12\x80", B), False),
        (_length(b"\x06\x01\x09\x12\x80", B), False),  # Longer than its NAL unit.
        (_length(b"\x68\xee", B), False),  # Parameters that later pictures need.
        (_length(b"\x81\x9e\x80"), False),  # The bit that must be zero.
        (_length(B)[:-1], False),
        (_length(B) + b"\0", False),
        (_length(b"", B), False),
        (_length(b"\x09\xf0"), False),  # No slice.
        (b"", False),
    ],
)
def test_nal_units(packet, left_out):
    found = disposable.Disposables("h264", b"\x01\x64\0\x1f\xff")
    found.add(_packet(packet))
    assert found.pts() == ({7} if left_out else frozenset())


def test_nal_units_between_start_codes():
    short, long = b"\0\0\1", b"\0\0\0\1"
    for packet, left_out in [
        (long + B, True),
        (long + b"\x09\xf0" + short + B + long + B, True),
        (long + B + short + P, False),
        (B + short + B, False),  # Something before the first.
        (B, False),
    ]:
        found = disposable.Disposables("h264", None)
        found.add(_packet(packet))
        assert found.pts() == ({7} if left_out else frozenset()), packet
