"""Opening bytes as a file with them would be; broken_test.py has the files."""

import os
import pathlib
import shutil
import threading

import av
import pytest
from numbered import cause

import children
from decoding import decode
from vidsme_jax import settings
from vidsme_jax.base import ClipError
from vidsme_jax.data import containers, limits, opening, pictures, video

CLIP = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[0]


def _cause(data: bytes) -> str:
    with pytest.raises(ClipError) as caught:
        decode(data)
    assert caught.value.stage == "open"
    return caught.value.cause


def test_bytes_are_what_their_file_is():
    data = CLIP.read_bytes()
    assert video.content_hash(data) == video.content_hash(CLIP)
    assert (decode(data).pixels == decode(CLIP).pixels).all()


def test_bytes_that_are_no_video():
    assert _cause(b"") == "the video is empty (0 bytes)"
    assert "not a video but text" in _cause(b"once upon a time " * 20)
    assert "in any format that is read (256 bytes)" in _cause(bytes(range(256)))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n"
    assert _cause(pointer) == "a git-lfs pointer, not the video: run `git lfs pull`"
    assert "has no index" in _cause(CLIP.read_bytes()[:1500])


def test_a_playlist_in_bytes_opens_no_file(monkeypatch):
    monkeypatch.chdir(CLIP.parent)
    playlist = f"ffconcat version 1.0\nfile {CLIP.name}\n"
    assert _cause(playlist.encode()).startswith("a list of files for FFmpeg (ffconcat)")


# ------------------------------------------------------------- files that name others

HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n"
HLS += "#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
MASTER = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000,RESOLUTION=64x64\n{}\n"
DASH = (
    '<?xml version="1.0"?>\n<!-- a film -->\n'
    '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="0" '
    'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n"
IMF = '<?xml version="1.0"?><CompositionPlaylist><Id>{}</Id></CompositionPlaylist>'
LISTS = {
    "an HLS playlist": (HLS, MASTER),
    "a list of files for FFmpeg": ("ffconcat version 1.0\nfile '{}'\n",),
    "a DASH manifest": (DASH,),
    "an SDP description": (SDP,),
    "a playlist of an IMF package": (IMF,),
    "a PLS playlist": ("[playlist]\nFile1={}\n",),
    "a playlist of Windows Media": ("[Reference]\nRef1={}\n",),
    "a SMIL playlist": ("<smil><body><video src='{}'/></body></smil>",),
    "an ASX playlist": ("<ASX version='3'><Entry><Ref href='{}'/></Entry></ASX>",),
    "a VobSub index": ("# VobSub index file, v7\n",),
    "an address of QuickTime": ("RTSPtext\n{}\n",),
}


@pytest.fixture
def near(tmp_path) -> pathlib.Path:
    """A video in a folder beside that of the clip."""
    (tmp_path / "secret").mkdir()
    return pathlib.Path(shutil.copy(CLIP, tmp_path / "secret" / "a.mp4"))


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mpd"])
def test_a_list_of_files_is_refused_by_name(kind, suffix, tmp_path, near):
    path = tmp_path / f"x{suffix}"
    os.link(near, tmp_path / "ln.mp4")
    names = (
        near,
        "secret/a.mp4",
        "ln.mp4",
        f"file://{near}",
        "fd:",
        f"subfile,,:{near}",
    )
    for text in LISTS[kind]:
        for name in names:
            path.write_text(text.format(name))
            said = cause(path, "open")
            assert said.startswith(kind) and said.endswith("give the video itself")
            assert _cause(path.read_bytes()) == said


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_that_is_not_known_by_its_head_opens_nothing(
    kind, tmp_path, near, monkeypatch
):
    """The demuxers are not allowed; nor is a protocol by which they could open."""
    monkeypatch.setattr(containers, "refused", lambda head: "")
    path = tmp_path / "x.m3u8"
    os.link(near, tmp_path / "ln.mp4")
    for text in LISTS[kind]:
        for name in (near, "ln.mp4", "fd:"):
            path.write_text(text.format(name))
            assert "not a video" in cause(path, "open")
    monkeypatch.setattr(containers, "ALLOWED", {})
    for text in LISTS[kind]:
        for name in (near, "ln.mp4"):
            path.write_text(text.format(name))
            assert cause(path, "open").startswith(("not a video", "no video stream"))


def test_a_name_is_no_pattern(tmp_path, near):
    for suffix in (".png", ".jpg", ".bmp"):
        path = tmp_path / f"q%d{suffix}"
        path.write_bytes(b"nothing")
        os.link(near, tmp_path / f"q0{suffix}")
        assert "not a video" in cause(path, "open")


def test_a_playlist_over_a_pipe_returns_at_once(tmp_path):
    os.mkfifo(tmp_path / "seg.ts")
    path = tmp_path / "f.m3u8"
    path.write_text(HLS.format("seg.ts"))
    done = []
    thread = threading.Thread(target=lambda: done.append(cause(path, "open")))
    thread.daemon = True
    thread.start()
    thread.join(children.MOMENT)
    assert done[0].startswith("an HLS playlist")


def test_a_pipe_put_in_a_files_place_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    os.mkfifo(path)
    assert cause(path, "open") == f"not a regular file: {path}"
    link = tmp_path / "b.mp4"
    link.symlink_to(path)
    assert cause(link, "open") == f"not a regular file: {link}"


def test_every_demuxer_of_the_list_is_one_of_ffmpegs():
    known = {each for name in av.formats_available for each in name.split(",")}
    missing = set(containers.ALLOWED["format_whitelist"].split(",")) - known
    assert missing <= {"jpegxl_anim", "apv", "evc", "webp"}  # Newer than FFmpeg 7.


def test_the_descriptor_is_closed(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    decode(CLIP)
    (tmp_path / "a.mp4").write_text("nothing that is a video")
    cause(tmp_path / "a.mp4", "open")
    cause(tmp_path, "open")
    assert set(os.listdir("/proc/self/fd")) == before


# ------------------------------------------------------------------ shapes


def _y4m(path: pathlib.Path, width: int, height: int, frames: int = 2) -> pathlib.Path:
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F25:1 Cmono\n" % (width, height))
        for number in range(frames):
            file.write(b"FRAME\n" + bytes([number]) * width * height)
    return path


@pytest.mark.parametrize(("width", "height"), [(20000, 2), (2, 20000), (6500, 100)])
def test_shapes_beyond_reason_are_refused(width, height, tmp_path):
    said = cause(_y4m(tmp_path / "a.y4m", width, height), "decode")
    assert said == (
        f"its frames have {width}x{height} pixels; one side may be at most 64 times "
        "the other"
    )


def test_thumbnails_are_at_most_eight_times_as_wide_as_high(tmp_path):
    path = _y4m(tmp_path / "a.y4m", 6000, 100)
    assert video.thumbnails(path, [0, 1], 96).shape == (2, 13, 768, 3)
    assert video.thumbnails(CLIP, [0], 40).shape[1] == 40
    frames = decode(path, num_frames=2).pixels
    assert pictures.scaled(frames, 96).shape == (2, 13, 768, 3)
    for width in (1, 7, 64, 10**6):
        for height in (1, 9, 10**6):
            small = limits.thumbnail_size(width, height, 96)
            assert min(small) >= 1 and small[0] <= 8 * 96 and small[1] <= 96


def test_a_file_is_opened_and_looked_at_once(tmp_path, monkeypatch):
    """What is put in its place between two looks is not read as the first."""
    path = tmp_path / "a.mp4"
    shutil.copy(CLIP, path)
    opened, real = [], os.open

    def watched(name, *args, **kwargs):
        opened.append(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(opening.av, "open", _only_descriptors(opening.av.open))
    decode(path)
    assert set(opened) == {path}


def _only_descriptors(function):
    def wrapped(file, *args, **kwargs):
        assert file == "fd:" and kwargs["options"]["protocol_whitelist"] == "fd"
        return function(file, *args, **kwargs)

    return wrapped
