"""corpus.windows: a long video as several clips of one source."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from corpus_files import as_json, corpus_of, load

import hub_files
from vidsme_jax import settings
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.commands import match as match_command
from vidsme_jax.data import corpora, segments
from vidsme_jax.data.reading import Videos, file_of, stamp
from vidsme_jax.data.segments import Segment
from vidsme_jax.prepared import preparation
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.scores import units
from vidsme_jax.settings import views

CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
TIMES = np.arange(10) / 5


def _videos(**how) -> Videos:
    given = settings.default()
    given.video.num_frames = 3
    given.video.update(how)
    return Videos(views.view(views.Video, given))


@pytest.mark.parametrize("start", [0.0, 0.4])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_windows_have_equal_numbers_of_frames(count, start):
    parts = [Segment(start, None, (k + 1, count)) for k in range(count)]
    found = [part.indices(TIMES) for part in parts]
    assert [x for its in found for x in its] == list(range(int(5 * start), 10))
    sizes = [len(its) for its in found]
    assert max(sizes) - min(sizes) <= 1
    assert not any(part.warnings(TIMES) for part in parts)


def test_a_short_video_has_fewer():
    part = Segment(0.0, None, (2, 9))
    assert part.indices(TIMES) == range(2, 4)
    assert part.warnings(TIMES) == ("10 frames have 5 windows, not 9",)
    with pytest.raises(ClipError, match="10 frames are enough for 5 of 9 windows"):
        Segment(0.0, None, (6, 9)).indices(TIMES)
    with pytest.raises(ClipError, match="1 frame is enough for 1 of 2 windows"):
        Segment(0.0, None, (2, 2)).indices(TIMES[:1])
    late = Segment(0.0, 9.0, (1, 2))
    assert late.indices(TIMES) == range(0, 5)
    (warning,) = late.warnings(TIMES)
    assert warning.startswith("the segment 0 s to 9 s ends after the video")


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        (Segment(0.0, None, (2, 4)), "#t=0,&part=2/4", "window 2 of 4"),
        (
            Segment(3.0, 7.5, (1, 2)),
            "#t=3,7.5&part=1/2",
            "window 1 of 2 of 3 s to 7.5 s",
        ),
    ],
)
def test_keys(part, text, words):
    assert (str(part), part.words) == (text, words)
    key = segments.joined("/v/a.mp4", part)
    assert key == f"/v/a.mp4{text}" and segments.divided(key) == ("/v/a.mp4", part)
    whole = dataclasses.replace(part, window=None)
    assert segments.without_window(key) == segments.joined("/v/a.mp4", whole)
    # A file that is really named so.
    name = f"/v/a.mp4{text}"
    assert segments.divided(segments.joined(name, None)) == (name, None)


@pytest.mark.parametrize("text", ["#t=0,&part=0/4", "#t=0,&part=1/", "#t=0,&part=٣/4"])
def test_what_is_no_key_of_a_window(text):
    assert segments.divided(f"a{text}") == (f"a{text}", None)


def test_rows_ask_about_each_window(tmp_path):
    rows = [
        {"video": "a.mp4", "id": "x", "question": "who"},
        {"video": "a.mp4", "id": "x", "question": "why"},
        {"video": "b.mp4", "start": 1, "end": 3},
    ]
    source = as_json(tmp_path / "m.json", rows)
    items = load(corpus_of(suspects=(source,), windows=2))
    assert [item.id for item in items] == [
        *("x#1", "x#2", "x#1#2", "x#2#2"),
        *("b.mp4#t=1,3&part=1/2", "b.mp4#t=1,3&part=2/2"),
    ]
    assert [item.question for item in items] == ["who", "who", "why", "why", "", ""]
    assert len({item.clip for item in items}) == 4
    assert {file_of(item.clip).name for item in items} == {"a.mp4", "b.mp4"}
    assert load(corpus_of(suspects=(source,)))[2].id == "b.mp4#t=1,3"


def test_a_video_is_drawn_with_all_its_windows(tmp_path):
    rows = [{"video": f"{k}.mp4"} for k in range(20)]
    source = as_json(tmp_path / "m.json", rows)
    whole = load(corpus_of(suspects=(source,), max_clips=3))
    items = load(corpus_of(suspects=(source,), max_clips=3, windows=4))
    assert len(items) == 12
    assert {file_of(i.clip) for i in items} == {file_of(i.clip) for i in whole}


def test_windows_of_one_video_are_one_unit(tmp_path):
    rows = [{"video": "a.mp4"}, {"video": "b.mp4"}]
    items = load(corpus_of(suspects=(as_json(tmp_path / "m.json", rows),), windows=3))
    content = {item.clip: str(file_of(item.clip)) for item in items}
    labels = units.labels(items, content, ())
    assert len(set(labels)) == 2 and len(labels) == 6


def test_one_video_in_two_roles_is_reported_once(tmp_path):
    source = as_json(tmp_path / "m.json", [{"video": "a.mp4"}])
    with pytest.raises(AuditError) as caught:
        load(corpus_of(members=(source,), nonmembers=(source,), windows=5))
    (problem,) = caught.value.problems
    assert problem.startswith("1 video is in two roles as one file")
    assert problem.count("a.mp4") == 2


def test_frames_of_windows_are_those_of_the_whole():
    whole = _videos(num_frames=12).read(str(CLIPS[0]), {12})(12)[0]
    found = []
    for number in range(1, 4):
        key = f"{CLIPS[0]}{Segment(0.0, None, (number, 3))}"
        frames = _videos(num_frames=4).read(key, {4})(4)[0]
        found += frames.indices
        assert frames.content_hash == whole.content_hash
        assert frames.clock.times[0] == 0 and stamp(key) == stamp(str(CLIPS[0]))
    assert found == sorted(found) and found[0] == 0
    assert found[-1] == whole.indices[-1]


def test_pictures_have_windows_without_times(tmp_path):
    film = np.random.default_rng(0).integers(0, 256, (8, 8, 12, 3), np.uint8)
    coded = [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in film]
    value = [{"bytes": each, "path": None} for each in coded]
    kind = hub_files.pa.list_(hub_files.VIDEO)
    path = hub_files.as_parquet(
        tmp_path / "a.parquet", hub_files.table({"video": (kind, [value])})
    )
    items = load(corpus_of(suspects=(f"hf:{path}",), windows=2), True)
    for item, first in zip(items, (0, 4), strict=True):
        frames = _videos().read(item.clip, {3})(3)[0]
        assert frames.indices == (first, first + 1, first + 3) and frames.clock is None
        np.testing.assert_array_equal(frames.pixels, film[list(frames.indices)])
    with pytest.raises(ClipError, match="1 s to the end: pictures have no times"):
        _videos().read(f"{items[0].clip.partition('#')[0]}#t=1,&part=1/2", {3})


def test_prepared_windows(tmp_path):
    config = settings.default()
    config.video.num_frames, config.workers = 3, 1
    config.corpus.suspects = (str(CLIPS[0]), str(CLIPS[1]))
    config.corpus.windows = 2
    given = views.Settings.of(config)
    done = preparation.run(given, tmp_path / "made")
    assert done.num_clips == 4 and not done.failures
    expected = corpora.load(given.corpus).items
    config.corpus.prepared = str(tmp_path / "made")
    for sources in (config.corpus.suspects, ()):
        config.corpus.suspects = sources
        corpus, reader = open_corpus(views.Settings.of(config), (3,))
        assert [i.clip for i in corpus.items] == [i.clip for i in expected]
        for item in expected:
            frames, _ = _videos().read(item.clip, {3})(3)
            found, _ = reader.read(item.clip, {3})(3)
            np.testing.assert_array_equal(found.pixels, frames.pixels)


def test_manifests_of_windows(tmp_path):
    rows = [{"video": "a.mp4", "id": "x"}, {"video": "b.mp4", "end": 2}]
    source = as_json(tmp_path / "m.json", rows)
    items = load(corpus_of(suspects=(source,), windows=3))
    written = [json.loads(line) for line in match_command._lines(items)]
    assert written == [
        {"video": str(tmp_path / "a.mp4"), "id": "x"},
        {"video": str(tmp_path / "b.mp4"), "id": "", "start": 0.0, "end": 2.0},
    ]
