"""Prepared corpora: segments, folders with brackets, equal clips of two roles."""

import json
import shutil

import numpy as np
import pytest

from vidsme_jax import settings
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data.reading import Videos
from vidsme_jax.prepared import preparation
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.settings import views

CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:2]
ROWS = [
    {"video": "v/a.mp4", "start": 0.5, "end": 1},
    {"video": "v/a.mp4"},
    {"video": "v/a.mp4", "start": 1},
    {"video": "v/b.mp4", "start": 0.5, "end": 1},
    {"video": "v/b.mp4", "start": 30},
]
LAST = "no frame is in the segment 30 s to the end"


@pytest.fixture(params=["plain", "[a] b* c?"])
def folder(request, tmp_path):
    """Two videos, and a manifest that asks about parts of them."""
    folder = tmp_path / request.param
    (folder / "v").mkdir(parents=True)
    for name, clip in zip("ab", CLIPS, strict=True):
        shutil.copy(clip, folder / "v" / f"{name}.mp4")
    (folder / "m.json").write_text(json.dumps(ROWS))
    return folder


def _settings(folder, **corpus) -> views.Settings:
    config = settings.default()
    config.video.num_frames, config.workers = 3, 1
    config.corpus.prepared = str(folder / "prepared [1]")
    config.corpus.suspects = (str(folder / "m.json"),)
    config.corpus.update(corpus)
    return views.Settings.of(config)


def _refused(given: views.Settings) -> str:
    with pytest.raises(AuditError) as caught:
        open_corpus(given, (3,))
    return "\n".join(caught.value.problems)


def test_segments_are_prepared_apart(folder):
    given = _settings(folder)
    done = preparation.run(given, given.corpus.prepared)
    assert done.num_clips == done.num_new == 5
    (failure,) = done.failures
    assert failure.video == "v/b.mp4#t=30," and failure.cause.startswith(LAST)
    assert preparation.run(given, given.corpus.prepared).num_new == 0
    corpus, reader = open_corpus(given, (3,))
    videos = Videos(given.video)
    expected = {}
    for item in corpus.items[:4]:
        frames, _ = expected[item.id] = videos.read(item.clip, {3})(3)
        found, motion = reader.read(item.clip, {3})(3)
        np.testing.assert_array_equal(found.pixels, frames.pixels)
        assert (found.indices, motion is None) == (frames.indices, False)
        # Of its file: parts of one video are parts of one cluster.
        assert found.content_hash == frames.content_hash
        assert found.clock == frames.clock and found.clock.times[0] == 0
        assert reader.content_hash(item.clip) == frames.content_hash
    with pytest.raises(ClipError, match=LAST):
        reader.read(corpus.items[4].clip, {3})
    # Without the videos, elsewhere, from the rows that are stored with them.
    shutil.rmtree(folder / "v")
    moved = folder.with_name("[moved]")
    folder.rename(moved)
    for sources in ((str(moved / "m.json"),), ()):
        corpus, reader = open_corpus(_settings(moved, suspects=sources), (3,))
        assert [item.id for item in corpus.items][:4] == list(expected)
        for item in corpus.items[:4]:
            found, _ = reader.read(item.clip, {3})(3)
            np.testing.assert_array_equal(found.pixels, expected[item.id][0].pixels)


def test_a_video_that_is_gone_stays_prepared(folder):
    given = _settings(folder)
    preparation.run(given, given.corpus.prepared)
    (folder / "v" / "a.mp4").unlink()
    again = preparation.run(given, given.corpus.prepared)
    assert again.num_new == 0
    assert [failure.video for failure in again.failures] == ["v/b.mp4#t=30,"]
    (folder / "v" / "a.mp4").write_bytes(b"another")
    failed = {x.video for x in preparation.run(given, given.corpus.prepared).failures}
    assert {video.partition("#")[0] for video in failed} == {"v/a.mp4", "v/b.mp4"}
    corpus, reader = open_corpus(given, (3,))
    whole = next(x.clip for x in corpus.items if x.video == "v/a.mp4")
    with pytest.raises(ClipError, match="not a video"):
        reader.content_hash(whole)


def test_a_segment_that_is_not_prepared_is_no_other(tmp_path):
    folder = tmp_path / "f"
    (folder / "v").mkdir(parents=True)
    shutil.copy(CLIPS[0], folder / "v/a.mp4")
    (folder / "m.json").write_text(json.dumps(ROWS[:1]))
    given = _settings(folder)
    preparation.run(given, given.corpus.prepared)
    for row in ({"start": 0.5}, {}, {"start": 0.5, "end": 1.5}):
        (folder / "m.json").write_text(json.dumps([{"video": "v/a.mp4", **row}]))
        assert "1 clips of the corpus are not in" in _refused(given).replace(
            "1 of ", ""
        )


def test_equal_clips_of_two_roles(tmp_path):
    folder = tmp_path / "f"
    (folder / "v").mkdir(parents=True)
    for name in "ab":
        shutil.copy(CLIPS[0], folder / "v" / f"{name}.mp4")
    for name, other in (("m", "a"), ("n", "b")):
        rows = [{"video": f"v/{other}.mp4"}]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    both = {"calibration": (str(folder / "n.json"),)}
    given = _settings(folder, **both, allow_duplicates=True)
    preparation.run(given, given.corpus.prepared)
    opened = open_corpus(given, (3,))[0]
    assert len(opened.items) == 2 and len(opened.notes) == 1
    assert opened.notes[0].startswith("1 video is in two roles (corpus.allow_dup")
    shutil.rmtree(folder / "v")  # Nothing is read: the prepared clips say it.
    expected = f"{folder}/v/a.mp4 (suspects) and {folder}/v/b.mp4 (calibration)"
    assert expected in _refused(_settings(folder, **both))
    assert expected in _refused(_settings(folder, suspects=()))
