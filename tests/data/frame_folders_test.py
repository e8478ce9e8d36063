"""Folders of numbered pictures as clips, and animated WebP."""

import io
import os
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pytest
from corpus_files import as_json, corpus_of, load, problem_of
from PIL import Image

from decoding import decode
from vidsme_jax import settings
from vidsme_jax.base import ClipError
from vidsme_jax.data import corpora, frame_folders, frame_pictures, opening, reading
from vidsme_jax.data.limits import Limits
from vidsme_jax.settings import views

FILM = np.random.default_rng(0).integers(0, 256, (12, 16, 24, 3), np.uint8)


def write(folder: pathlib.Path, numbers=range(1, 13), name="{}.png") -> pathlib.Path:
    """Writes pictures, each under its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture, number in zip(FILM, numbers, strict=False):
        Image.fromarray(picture).save(folder / name.format(number))
    return folder


def _videos(**how) -> reading.Videos:
    given = settings.default()
    given.video.num_frames = 4
    given.video.update(how)
    return reading.Videos(views.view(views.Video, given))


def _read(path, **how):
    count = how.get("num_frames", 4)
    return _videos(**how).read(str(path), {count})(count)[0]


@pytest.mark.parametrize("name", ["{}.png", "frame_{}.png", "a3 {:06}.PNG"])
def test_pictures_by_their_numbers(name, tmp_path):
    frames = _read(write(tmp_path / "clip", name=name))
    assert frames.indices == (0, 3, 7, 11)
    np.testing.assert_array_equal(frames.pixels, FILM[[0, 3, 7, 11]])
    assert frames.clock is None and frames.warnings == ()
    small = _videos().thumbnails(str(tmp_path / "clip"), [0, 11], 8)
    assert small.shape == (2, 8, 12, 3)


def test_sources_of_folders(tmp_path):
    for name in ("b", "a/deeper", "a", ".hidden", "c/.d"):
        write(tmp_path / "films" / name)
    for name in (".1.png", "cover.png", "notes.txt"):
        (tmp_path / "films" / "b" / name).write_bytes(b"x")
    write(tmp_path / "films" / "one", [1])
    items = load(corpus_of(suspects=(str(tmp_path / "films"),)), True)
    assert [item.video for item in items] == ["a", "a/deeper", "b"]
    assert items[2].clip == str(tmp_path / "films" / "b")
    (item,) = load(corpus_of(suspects=(str(tmp_path / "films" / "b"),)), True)
    assert (item.video, item.clip) == ("b", items[2].clip)
    found = load(corpus_of(suspects=(str(tmp_path / "films" / "*"),)), True)
    assert [pathlib.Path(item.clip).name for item in found] == ["a", "b"]
    rows = [{"video": "films/a"}, {"video": "films/b/", "question": "who"}]
    items = load(corpus_of(suspects=(as_json(tmp_path / "m.json", rows),)), True)
    assert [pathlib.Path(item.clip).name for item in items] == ["a", "b"]
    shutil.rmtree(tmp_path / "films")
    (tmp_path / "films").mkdir()
    assert "and for folders of numbered pictures" in (
        problem_of(suspects=(str(tmp_path / "films"),))
    )


def test_with_videos_they_are_thumbnails(tmp_path):
    write(tmp_path / "thumbs")
    shutil.copy(next((settings.DEMO / "corpus" / "clips").glob("*.mp4")), tmp_path)
    for source in (tmp_path, tmp_path / "**", tmp_path / "*"):
        found = corpora.load(corpus_of(suspects=(str(source),)))
        assert len(found.items) == 1
        (left,) = found.left_out
        assert "folders of numbered pictures next to videos" in left.why
        assert str(tmp_path / "thumbs") in left.why


def test_what_is_odd_is_said(tmp_path):
    write(tmp_path / "gaps", [1, 2, 5, 6])
    (tmp_path / "gaps" / "cover.jpg").write_bytes(b"x")
    frames = _read(tmp_path / "gaps")
    np.testing.assert_array_equal(frames.pixels, FILM[:4])
    assert frames.warnings == (
        "2 numbers from 1 to 6 without a picture, the first 3: frames are taken as if "
        "there were no gap",
        "1 picture without a number left out, such as cover.jpg",
    )
    write(tmp_path / "two", name="{}.png")
    write(tmp_path / "two", [3], name="x{:04}.png")
    with pytest.raises(ClipError, match=r"number 3: 3\.png and x0003\.png; remove one"):
        _read(tmp_path / "two")
    write(tmp_path / "sizes")
    Image.fromarray(FILM[0, :8]).save(tmp_path / "sizes" / "4.png")
    with pytest.raises(ClipError, match="frames of 2 sizes"):
        _read(tmp_path / "sizes")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_bytes(b"x")
    with pytest.raises(ClipError, match="open: a folder without numbered pictures"):
        _read(tmp_path / "none")


def test_seconds_need_a_rate(tmp_path):
    write(tmp_path / "clip")
    with pytest.raises(ClipError, match="1 s to the end: pictures have no times"):
        _read(f"{tmp_path / 'clip'}#t=1,")
    with pytest.raises(ClipError, match="cannot be sampled by fps; take uniform"):
        _read(tmp_path / "clip", sampling="fps")
    window = _read(f"{tmp_path / 'clip'}#t=0,&part=2/2")
    np.testing.assert_array_equal(window.pixels, FILM[[6, 7, 9, 11]])


def test_content_is_names_and_pictures(tmp_path):
    key = str(write(tmp_path / "clip"))
    before, first = reading.stamp(key), _videos().content_hash(key)
    assert _read(key).content_hash == first and len(first) == 64
    assert _videos().unchanged(key, first, before)
    shutil.copytree(key, tmp_path / "copy")
    assert _videos().content_hash(str(tmp_path / "copy")) == first
    (tmp_path / "copy" / "12.png").rename(tmp_path / "copy" / "13.png")
    assert _videos().content_hash(str(tmp_path / "copy")) != first
    Image.fromarray(FILM[0]).save(tmp_path / "clip" / "5.png")
    assert reading.stamp(key) != before and not _videos().unchanged(key, first, before)


def test_equal_folders_of_two_roles(tmp_path):
    write(tmp_path / "m" / "a")
    write(tmp_path / "n" / "b")
    write(tmp_path / "n" / "c", range(2, 14))
    keys = {"members": (str(tmp_path / "m"),), "nonmembers": (str(tmp_path / "n"),)}
    said = problem_of(True, **keys)
    assert said.startswith("1 video is in two roles: ") and "/b (nonmembers)" in said


# ------------------------------------------------------------------------- hostile


def _png(side: int) -> bytes:
    """A picture that says that it is larger than it is."""
    with io.BytesIO() as file:
        Image.fromarray(FILM[0]).save(file, "png")
        found = bytearray(file.getvalue())
    found[16:24] = struct.pack(">II", side, side)
    found[29:33] = struct.pack(">I", zlib.crc32(found[12:29]))
    return bytes(found)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"no picture", "frame 0 is not a picture"),
        (b"", "the video is empty|the file is empty"),
        (_png(60_000), "frame 0 is too large|pixels; at most"),
        (None, "not a regular file"),
    ],
)
def test_pictures_that_are_none(content, cause, tmp_path):
    folder = write(tmp_path / "clip")
    (folder / "1.png").unlink()
    if content is None:
        os.mkfifo(folder / "1.png")
    else:
        (folder / "1.png").write_bytes(content)
    with pytest.raises(ClipError, match=cause):
        _read(folder)


def test_a_file_is_no_larger_than_a_picture_can_be(tmp_path, monkeypatch):
    """One that claims to be, without its bytes, is not read, and no other either."""
    folder = write(tmp_path / "clip")
    with (folder / "5.png").open("wb") as file:
        file.truncate((1 << 24) + 8 * 1000 + 1)
    opened = frame_pictures.open_folder(folder, Limits(max_pixels=1000))
    with pytest.raises(
        ClipError, match=r"5\.png has more than 16785216 bytes \(by con"
    ):
        opened.content_hash()
    with (folder / "5.png").open("wb") as file:
        file.truncate((1 << 24) + 8 * 1000)
    assert opened.content_hash()


def test_all_digits_of_a_number_count(tmp_path):
    """A time in nanoseconds has 19."""
    names = ("1700000000123456789", "2700000000123456789", "1700000000123456790")
    folder = write(tmp_path / "clip", numbers=names)
    np.testing.assert_array_equal(_read(folder).pixels[[0, 3]], FILM[[0, 1]])
    assert frame_folders.number_of(f"{'1' * 400}.png") == int("1" * 400)


def test_links_of_pictures(tmp_path):
    outside = write(tmp_path / "elsewhere")
    folder = write(tmp_path / "films" / "clip")
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("12.png")
    assert (_read(folder).pixels[0] == FILM[11]).all()
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to(outside / "1.png")
    with pytest.raises(ClipError, match=r"picture 1\.png is a link out of .*films"):
        _read(folder)
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("1.png")
    with pytest.raises(ClipError, match="open: the file cannot be read"):
        _read(folder)


# ---------------------------------------------------------------------------- WebP

SHOWN = (100, 200, 100, 50, 100, 300)


def _animated(path: pathlib.Path, **how) -> pathlib.Path:
    first, *rest = map(Image.fromarray, FILM[:6])
    how = {"lossless": True} | how
    first.save(path, save_all=True, append_images=rest, duration=SHOWN, **how)
    return path


def test_animated_webp(tmp_path):
    frames = decode(_animated(tmp_path / "a.webp"), num_frames=6)
    np.testing.assert_array_equal(frames.pixels, FILM[:6])
    assert frames.num_decodable == 6
    np.testing.assert_allclose(frames.clock.shown, [0, 0.1, 0.3, 0.4, 0.45, 0.55])
    assert frames.clock.duration == pytest.approx(0.85)
    by_rate = decode(tmp_path / "a.webp", "fps", fps=5.0)
    assert by_rate.indices == (0, 1, 3)  # Shown at 0, 0.2 and 0.4 s.
    isolated = _read(tmp_path / "a.webp")
    np.testing.assert_array_equal(isolated.pixels, FILM[[0, 1, 3, 5]])
    assert isolated.container["codec"] == "webp"
    part = _read(f"{tmp_path / 'a.webp'}#t=0.4,")
    assert part.indices == (3, 3, 4, 5)
    small = _videos().thumbnails(str(tmp_path / "a.webp"), [0, 5], 8)
    assert small.shape == (2, 8, 12, 3)


def test_chunks_of_odd_size_and_frames_without_a_time(tmp_path):
    path = _animated(tmp_path / "a.webp")
    data = path.read_bytes()
    head, *frames = data.split(b"ANMF")
    assert len(frames) == 6

    def write_with(unsaid) -> None:
        some = [
            each[:16] + bytes(3) + each[19:] if k in unsaid else each
            for k, each in enumerate(frames)
        ]
        odd = b"ODDS" + struct.pack("<I", 3) + b"abc\0"
        content = b"ANMF".join([head + odd, *some])
        path.write_bytes(
            content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
        )

    write_with(())
    decoded = decode(path, num_frames=6)
    np.testing.assert_array_equal(decoded.pixels, FILM[:6])
    assert decoded.clock.duration == pytest.approx(0.85)
    write_with((1,))
    shown = decode(path, num_frames=6).clock.shown
    np.testing.assert_allclose(shown, [0, 0.1, 0.1, 0.2, 0.25, 0.35])
    write_with(range(6))
    shown = decode(path, num_frames=6).clock.shown
    np.testing.assert_allclose(shown, np.arange(6) / 10)


def test_folders_of_webp(tmp_path):
    (tmp_path / "films").mkdir()
    _animated(tmp_path / "films" / "a.webp")
    Image.fromarray(FILM[0]).save(tmp_path / "films" / "still.webp")
    items = load(corpus_of(suspects=(str(tmp_path / "films"),)))
    assert [item.video for item in items] == ["a.webp"]
    write(tmp_path / "stills", name="{}.webp")
    (item,) = load(corpus_of(suspects=(str(tmp_path / "stills"),)))
    assert item.video == "stills"


def test_transparency_and_sizes_of_webp(tmp_path):
    rgba = [np.dstack([f, np.full(f.shape[:2], 255, np.uint8)]) for f in FILM[:3]]
    rgba[1][:4, :, 3] = 0
    first, *rest = map(Image.fromarray, rgba)
    path = tmp_path / "a.webp"
    first.save(path, save_all=True, append_images=rest, lossless=True, exact=True)
    frames = decode(path, num_frames=3)
    assert any("transparency is left out" in each for each in frames.warnings)
    with pytest.raises(ClipError, match="24x16 pixels; at most 383 are decoded"):
        decode(path, limits=Limits(max_pixels=383))
    with pytest.raises(ClipError, match="more than 2 frames"):
        decode(path, limits=Limits(max_frames=2))


@pytest.mark.parametrize("end", [21, 30, 60, 800, -1])
def test_a_webp_that_is_cut(end, tmp_path):
    path = _animated(tmp_path / "a.webp")
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ClipError, match="WebP"):
        decode(path)


def test_time_and_frames_count_while_chunks_are_gone_through(tmp_path, monkeypatch):
    path = _animated(tmp_path / "a.webp")
    monkeypatch.setattr("vidsme_jax.data.webp.np.cumsum", None)  # Of all durations.
    with pytest.raises(ClipError, match="more than 2 frames"):
        decode(path, limits=Limits(max_frames=2))
    monkeypatch.setattr(opening.Source, "check_time", _late)
    with pytest.raises(ClipError, match="too late"):
        decode(path)


def _late(source):
    raise ClipError("decode", "too late")


def test_a_webp_that_claims_a_huge_canvas(tmp_path):
    path = _animated(tmp_path / "a.webp")
    content = bytearray(path.read_bytes())
    content[24:30] = b"\xff" * 6
    path.write_bytes(content)
    with pytest.raises(ClipError, match="16777216x16777216 pixels; at most"):
        decode(path)
