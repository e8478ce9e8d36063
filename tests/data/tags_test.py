"""What files say of themselves: with tags and without, and with hostile ones."""

import fractions
import pathlib
from typing import Any

import av
import numpy as np
import pytest

from vidsme_jax.data import video
from vidsme_jax.store import facts


def _written(
    path: pathlib.Path, codec: str = "libx264", sound: bool = False, **tags: str
) -> dict[str, Any]:
    """Writes a clip of 12 frames, 1 s; returns what it says of itself."""
    with av.open(str(path), "w") as file:
        file.metadata.update(tags)
        stream: Any = file.add_stream(codec, rate=12)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.time_base = fractions.Fraction(1, 12)
        audio: Any = file.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(12):
            pixels = np.full((48, 64, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if audio is not None:
            silence = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = 8000
            file.mux(audio.encode(frame))
            file.mux(audio.encode())
    found = video.decode_chosen(path, lambda count, times: [0, count - 1]).container
    assert facts.container_of(facts.text_of(found)) == found
    return dict(found)


def test_all_that_a_file_says(tmp_path):
    path = tmp_path / "a.mp4"
    found = _written(path, sound=True, creation_time="2021-03-04T12:00:00.000000Z")
    assert found.pop("bit_rate") == pytest.approx(8 * path.stat().st_size, rel=0.1)
    assert found.pop("encoder").startswith("Lavf")
    assert found == {
        "codec": "h264",
        "profile": "High",
        "pixel_format": "yuv420p",
        "format": "mov,mp4,m4a,3gp,3g2,mj2",
        "audio": "aac",
        "width": 64,
        "height": 48,
        "fps": 12,
        "duration": 1,
        "file_size": path.stat().st_size,
        "frames": 12,
        "creation_date": 18690.5,
    }


def test_files_of_another_kind_say_other_things(tmp_path):
    one = _written(tmp_path / "a.mkv", "mpeg4")
    two = _written(tmp_path / "b.mkv", sound=True)
    other = _written(tmp_path / "c.avi", "mpeg4")
    assert [x["codec"] for x in (one, two, other)] == ["mpeg4", "h264", "mpeg4"]
    assert [x["audio"] for x in (one, two, other)] == ["none", "aac", "none"]
    assert one["format"] == "matroska,webm" and other["format"] == "avi"
    assert "creation_date" not in one and "creation_date" not in other
    assert "Lavf" in one["encoder"]


def test_hostile_tags_are_cut_and_printable(tmp_path):
    programs = "\x1b[31m" + "x" * 5000
    found = _written(tmp_path / "b.mkv", writing_application=programs)
    assert "\\x1b[31mxxx" in found["encoder"] and len(found["encoder"]) < 200
    for when in ("yesterday", "2021-13-45", "", "9" * 400):
        found = _written(tmp_path / "d.mkv", date=when)
        assert "creation_date" not in found
    assert _written(tmp_path / "e.mkv", date="1970-01-03")["creation_date"] == 2


def test_bytes_say_the_same_as_the_file(tmp_path):
    of_file = _written(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    assert video.decode_chosen(data, lambda *_: [0, 1]).container == of_file


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        '{"a": null}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": true}',
        '{"a": [1]}',
        '{"a": "%s"}' % ("x" * 2000),
        '{"0": 1' + "".join(f', "{k}": 1' for k in range(1, 100)) + "}",
        "[" * 100_000,
    ],
)
def test_what_is_no_record_of_a_file_is_refused(text):
    with pytest.raises(ValueError):
        facts.container_of(text)
