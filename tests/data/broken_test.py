"""Files that are no video, or are damaged or cut short."""

import fractions
import pathlib
import socket

import av
import numpy as np
import pytest
from numbered import cause, make, numbers, picture

from decoding import decode


def test_a_missing_file(tmp_path):
    path = tmp_path / "gone.mp4"
    assert cause(path, "open") == f"no such file: {path}"


def test_a_folder(tmp_path):
    assert cause(tmp_path, "open") == f"a folder, not a video: {tmp_path}"


def test_no_bytes(tmp_path):
    path = tmp_path / "a.mp4"
    path.touch()
    assert cause(path, "open") == f"the file is empty (0 bytes): {path}"


def test_text(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("<html><body>404 Not Found</body></html>\n" * 20)
    said = cause(path, "open")
    assert said.startswith("not a video but text, which begins '<html><body>404")


def test_a_pointer_of_git_lfs(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    assert cause(path, "open") == (
        f"a git-lfs pointer, not the video: run `git lfs pull` in {tmp_path}"
    )


def test_bytes_of_no_format(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    said = "not a video in any format that is read (5000 bytes)"
    assert cause(path, "open") == said


PLAYLIST = "an HLS playlist, which names other files: give the video itself"


def test_a_playlist_does_not_reach_the_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        for name in ("a.mp4", "a.m3u8"):
            path = tmp_path / name
            path.write_text(f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
            assert cause(path, "open") == PLAYLIST
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
    said = cause(_tone(tmp_path / "a.mp4"), "open")
    assert said == "no video stream (it has audio only)"


def test_cover_art_is_not_video(tmp_path):
    import cv2

    png = cv2.imencode(".png", picture(1, 96, 64))[1].tobytes()
    path = _tone(tmp_path / "a.mp4", cover=png)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    said = cause(path, "open")
    assert said.startswith("no video stream (") and "cover art is not video" in said


def test_an_mp4_without_its_index(tmp_path):
    path = make(tmp_path / "a.mp4", 60)
    path.write_bytes(path.read_bytes()[:-2500])  # The index is written last.
    assert cause(path, "open").startswith("the mp4 has no index (moov box): ")


def test_a_truncated_mp4_gives_what_it_has(tmp_path, capfd):
    path = make(tmp_path / "a.mp4", 100, mux={"movflags": "faststart"})
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    path.write_bytes(data[: len(data) // 2])
    frames = decode(path, num_frames=6)
    assert 20 < frames.num_decodable < 80
    assert frames.indices[-1] == frames.num_decodable - 1
    assert numbers(frames)[:-1] == list(frames.indices)[:-1]
    (warning,) = frames.warnings[:1]
    assert "the file is damaged or cut short (" in warning
    assert "its header promises 100 frames, 4.00 s; " in warning
    assert f"{frames.num_decodable} frames" in warning
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".flv"])
def test_other_truncated_files_are_flagged(tmp_path, suffix):
    path = make(tmp_path / f"a{suffix}", 100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames = decode(path, num_frames=6)
    assert 20 < frames.num_decodable < 80
    assert "the file is damaged or cut short" in frames.warnings[0]


def test_a_file_damaged_in_the_middle(tmp_path, capfd):
    path = make(tmp_path / "a.mp4", 100, mux={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    frames = decode(path, num_frames=100)
    assert frames.warnings
    assert frames.num_decodable >= 40
    assert capfd.readouterr().err == ""


def test_nothing_decodes(tmp_path):
    path = make(tmp_path / "a.mp4", 30, mux={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes([255]) * (len(data) - start)
    path.write_bytes(data)
    assert cause(path, "decode").startswith("no frame of the h264 video decodes")
