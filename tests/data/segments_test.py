"""Segments: what `start` and `end` may hold, what is decoded, what is refused."""

import datetime
import pathlib

import numpy as np
import pytest
from corpus_files import WRITERS, as_json, corpus_of, load, problem_of, problems_of

from vidsme_jax import settings
from vidsme_jax.base import ClipError
from vidsme_jax.data import corpora, segments
from vidsme_jax.data.reading import Videos, file_of, stamp
from vidsme_jax.data.segments import Segment
from vidsme_jax.settings import views

CLIP = settings.DEMO / "corpus/clips/0000.mp4"


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, None),
        ("", " ", None),
        (0, "", None),
        ("3", 7.5, Segment(3, 7.5)),
        (3, None, Segment(3)),
        ("", "5", Segment(0, 5)),
        ("00:01:02.5", "1:02:03", Segment(62.5, 3723)),
        ("1:02", "00:01:02,750", Segment(62, 62.75)),
        ("90:00", "1:59:59", Segment(5400, 7199)),
        (datetime.time(0, 1, 2, 500_000), None, Segment(62.5)),
        (datetime.timedelta(seconds=3), None, Segment(3)),
        (1 / 3, 2e0, Segment(0.333333, 2)),
    ],
)
def test_times(start, end, expected):
    assert segments.of_row(start, end) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"start": -1}, "'start' is '-1'; it must be a time within the video: seconds"),
        (
            {"end": -1},
            "'end' is '-1'; it must be a time within the video: seconds >= 0",
        ),
        ({"end": -1}, "or HH:MM:SS; leave it empty for the end of the video"),
        ({"start": "soon"}, "'start' is 'soon'; it must be a time"),
        ({"start": "2024-01-01"}, "leave it out by 'start=' in corpus.fields"),
        ({"start": "1:75"}, "'start' is '1:75'; it must be a time"),
        ({"start": "1:75:00"}, "'start' is '1:75:00'; it must be a time"),
        ({"start": "1_0"}, "'start' is '1_0'; it must be a time"),
        ({"start": True}, "'start' is 'True'; it must be a time"),
        ({"start": [1]}, "'start' is '[1]'; it must be a time"),
        ({"start": "inf"}, "'start' is 'inf'; it must be a time"),
        ({"end": 10**300}, "'end' is '1000"),
        ({"start": 5, "end": 5}, "the segment from 'start' 5 s to 'end' 5 s is empty"),
        ({"start": 7, "end": "5.5"}, "'start' 7 s to 'end' 5.5 s is empty; 'end' must"),
    ],
)
def test_a_segment_that_is_none_is_an_error_of_its_row(tmp_path, row, expected):
    rows = [{"video": "a.mp4"}, {"video": "a.mp4", **row}]
    source = as_json(tmp_path / "m.json", rows)
    problem = problem_of(suspects=(source,))
    assert problem.startswith(f"{source}: row 2: ") and expected in problem


@pytest.mark.parametrize("suffix", WRITERS)
def test_each_segment_is_a_clip_of_its_own(tmp_path, suffix):
    rows = [
        {"video": "a.mp4", "question": "1", "start": 3.0, "end": 7.5},
        {"video": "a.mp4", "question": "2", "start": None, "end": None},
        {"video": "a.mp4", "question": "3", "start": 3.0, "end": 7.5},
        {"video": "a.mp4", "question": "4", "start": 3.0, "end": None},
    ]
    source = WRITERS[suffix](tmp_path / f"m{suffix}", rows)
    items = load(corpus_of(suspects=(source,)))
    names = ["a.mp4#t=3,7.5", "a.mp4", "a.mp4#t=3,7.5#2", "a.mp4#t=3,"]
    assert [item.id for item in items] == names
    assert [item.video for item in items] == [name.removesuffix("#2") for name in names]
    clips = corpora.unique_clips(items)
    assert [len(clip.items) for clip in clips] == [2, 1, 1]
    assert {file_of(clip.key) for clip in clips} == {tmp_path / "a.mp4"}


def test_a_file_that_is_named_like_a_segment(tmp_path):
    name = "a.mp4#t=1,2"
    rows = [{"video": name}, {"video": "a.mp4", "start": 1, "end": 2}]
    rows += [{"video": name, "start": 3}]
    items = load(corpus_of(suspects=(as_json(tmp_path / "m.json", rows),)))
    assert len({item.clip for item in items}) == 3
    found = [segments.divided(item.clip) for item in items]
    whole, part = str(tmp_path / name), str(tmp_path / "a.mp4")
    assert found == [(whole, None), (part, Segment(1, 2)), (whole, Segment(3))]


# --------------------------------------------------------------------------- decoding


def _read(key: str, count: int = 4, **changes):
    config = settings.default()
    config.video.update(changes)
    return Videos(views.view(views.Video, config)).read(key, {count})(count)[0]


@pytest.fixture(scope="module")
def times() -> np.ndarray:
    """Of the clip's frames, in seconds."""
    import av

    with av.open(str(CLIP)) as container:
        pts = sorted(float(f.pts * f.time_base) for f in container.decode(video=0))
    return np.array(pts) - pts[0]


@pytest.mark.parametrize("sampling", ["uniform", "midpoint", "fps"])
def test_frames_are_those_of_the_segment(times, sampling):
    whole = _read(str(CLIP), len(times))
    start, end = float(times[5]), float(times[11])
    key = f"{CLIP}{Segment(round(start, 6), round(end, 6))}"
    one = _read(key, sampling=sampling, fps=8.0)
    assert set(one.indices) <= set(range(5, 11))  # The end is exclusive.
    if sampling == "uniform":
        assert one.indices == (5, 6, 8, 10)
    for pixels, index in zip(one.pixels, one.indices, strict=True):
        np.testing.assert_array_equal(pixels, whole.pixels[index])
    assert one.content_hash == whole.content_hash and not one.warnings
    rest = _read(f"{CLIP}{Segment(start)}")
    assert (rest.indices[0], rest.indices[-1]) == (5, len(times) - 1)


def test_what_only_decoding_shows(times):
    last = times[-1]
    with pytest.raises(ClipError) as caught:
        _read(f"{CLIP}{Segment(10, 14.5)}")
    assert caught.value.stage == "decode"
    assert caught.value.cause == (
        f"no frame is in the segment 10 s to 14.5 s: its {len(times)} frames are "
        f"shown from 0 to {last:.2f} s"
    )
    (warning,) = _read(f"{CLIP}{Segment(0.5, 14.5)}").warnings
    assert warning == (
        "the segment 0.5 s to 14.5 s ends after the video, whose last frame "
        f"is shown at {last:.2f} s"
    )
    assert not _read(f"{CLIP}{Segment(0.5, last + 0.5)}").warnings


def test_one_frame_has_neither_motion_nor_order(times):
    one, cause = f"{CLIP}{Segment(0, 0.01)}", "one frame alone is sampled from it"
    with pytest.raises(ClipError, match=f"decode: {cause}.* take a longer part"):
        _read(one)
    with pytest.raises(ClipError, match=f"{cause}.*, or a higher config.video.fps"):
        _read(str(CLIP), sampling="fps", fps=0.1)
    assert _read(one, 1).indices == (0,)  # Of the study of frames, which asks for one.


def test_a_segment_is_of_its_file():
    key = f"{CLIP}{Segment(0.5)}"
    videos = Videos(views.view(views.Video, settings.default()))
    assert stamp(key) == stamp(str(CLIP)) != (-1, -1)
    assert videos.content_hash(key) == videos.content_hash(str(CLIP))
    assert videos.thumbnails(key, (3, 5), 8).shape[:2] == (2, 8)
    assert file_of(key) == pathlib.Path(CLIP)


def test_problems_of_segments_are_20_lines_at_most(tmp_path):
    rows = [{"video": "a.mp4", "start": -1}] * 100
    problems = problems_of(suspects=(as_json(tmp_path / "m.json", rows),))
    assert len(problems) == 20 and "and 81 more problems" in problems[-1]
