"""Opening bytes as a file with them would be; broken_test.py has the files."""

import pytest

from decoding import decode
from vidsme_jax import settings
from vidsme_jax.base import ClipError
from vidsme_jax.data import video

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
