"""Damaged and hostile clips by the hundred: each scored or refused, never worse."""

import contextlib
import os
import pathlib
import resource
import struct
import threading
import time

import pytest
from damaged import CLIPS, damaged
from generators import clips

import children
from decoding import decode
from vidsme_jax.base import ClipError
from vidsme_jax.data import opening, video

LIMITS = video.Limits(max_seconds=children.MOMENT)
CORE_SECONDS = 8.0  # Of any damaged clip; most need 0.01.


@pytest.fixture(scope="module")
def sources() -> list[bytes]:
    return clips.containers()


@pytest.mark.parametrize(
    ("first", "last"), [(0, 250), pytest.param(250, 6000, marks=pytest.mark.slow)]
)
def test_damage_at_random(tmp_path, sources, first, last, capfd):
    path, scored, refused = tmp_path / "a.mp4", 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, last):
        path.write_bytes(damaged(number, sources))
        begun = time.process_time()
        try:
            frames = decode(path, num_frames=4, limits=LIMITS)
        except ClipError as error:
            refused += 1
            assert error.stage in ("open", "decode") and error.cause, number
        else:
            scored += 1
            assert len(frames.pixels) == 4, number
        assert time.process_time() - begun < CORE_SECONDS, number
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, "KiB"
    assert min(scored, refused) > (last - first) / 10
    assert capfd.readouterr().err == ""


# ----------------------------------------------------------------------------- time


def test_a_decoder_that_takes_too_long_is_stopped_between_packets(monkeypatch):
    decoded, calls = opening.Source.decoded, []

    def slow(*args):
        calls.append(time.sleep(0.05))
        return decoded(*args)

    monkeypatch.setattr(opening.Source, "decoded", slow)
    limits = video.Limits(max_seconds=0.3)
    with pytest.raises(ClipError, match=r"not decoded within 0\.3 s \(config\.video"):
        decode(CLIPS[0], limits=limits)
    assert len(calls) <= 0.3 / 0.05 + 1


def test_time_counts_while_ffmpeg_reads(tmp_path, monkeypatch):
    """A file that gives its bytes slowly and has no end."""
    pipe = tmp_path / "a.mpg"
    os.mkfifo(pipe)
    done = threading.Event()

    def trickle():
        with contextlib.suppress(BrokenPipeError), pipe.open("wb", 0) as file:
            end = time.monotonic() + children.MOMENT
            while not done.wait(0.02) and time.monotonic() < end:
                file.write(bytes(2000))

    writer = threading.Thread(target=trickle)
    writer.start()
    monkeypatch.setattr(opening, "open_regular", lambda path: path.open("rb"))
    try:
        with pytest.raises(ClipError, match="not decoded within"):
            decode(pipe, limits=video.Limits(max_seconds=0.5))
        assert writer.is_alive()
    finally:
        done.set()
        writer.join()


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    for path in (tmp_path / "a.mp4", pathlib.Path("/dev/zero")):
        with pytest.raises(ClipError, match=f"not a regular file: {path}"):
            decode(path)


# ----------------------------------------------------------------- sizes and counts


def test_a_header_that_claims_a_huge_picture(tmp_path):
    data = bytearray(CLIPS[0].read_bytes())
    at = data.index(b"avc1") + 28  # Width and height of the sample description.
    data[at : at + 4] = struct.pack(">HH", 65535, 65535)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ClipError) as caught:
        decode(path, limits=video.Limits(max_pixels=1000))
    assert "max_pixels" in caught.value.cause
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("index", [True, False])
def test_more_frames_than_anybody_films(monkeypatch, index):
    if not index:
        monkeypatch.setattr(video, "scan", lambda *_: None)
    with pytest.raises(ClipError, match="more than 5 frames"):
        decode(CLIPS[0], limits=video.Limits(max_frames=5))


def test_an_index_that_counts_to_four_billion(tmp_path):
    path = tmp_path / "a.mp4"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for box, at in ((b"stts", 8), (b"stsz", 12), (b"stsc", 8), (b"stco", 8)):
        data = bytearray(CLIPS[0].read_bytes())
        place = data.index(box) + at
        data[place : place + 4] = b"\xff" * 4
        path.write_bytes(data)
        try:
            decode(path, limits=LIMITS)
        except ClipError as error:
            assert error.stage in ("open", "decode")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
