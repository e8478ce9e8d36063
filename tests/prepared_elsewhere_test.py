"""Preparing clips in other processes, without Beam: they get what can be pickled."""

import json
import os
import pathlib
import pickle
import shutil

import pytest

import children
from memory_store import MemoryStore
from vidsme_jax import settings
from vidsme_jax.base import AuditError
from vidsme_jax.prepared import pipelines, preparation
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.prepared.pipelines import Pipelines
from vidsme_jax.settings import views
from vidsme_jax.store import buckets
from vidsme_jax.store.buckets import Bucket

CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:5]


class Elsewhere(Pipelines):
    """Sends what a pipeline would, and calls it here."""

    def __init__(self):
        self.sent: list[int] = []

    def each(self, work, given):
        self.sent.append(len(given))
        for one in given:
            pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(one)))


@pytest.fixture
def videos(tmp_path) -> list[pathlib.Path]:
    """Of five the second is cut, and the last is the first under another name."""
    (tmp_path / "v").mkdir()
    found = [pathlib.Path(shutil.copy(clip, tmp_path / "v")) for clip in CLIPS]
    found[1].write_bytes(found[1].read_bytes()[:1500])
    shutil.copy(found[0], found[4])
    return found


def _settings(videos: list[pathlib.Path]) -> views.Settings:
    config = settings.default()
    config.corpus.suspects = tuple(map(str, videos))
    config.video.num_frames, config.workers = 2, 2
    return views.Settings.of(config)


def _content(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_corpus_is_that_which_is_prepared_here(videos, tmp_path):
    given = _settings(videos)
    here = preparation.run(given, tmp_path / "here")
    there = preparation.run(given, tmp_path / "there", None, Elsewhere())
    assert here.failures == there.failures and len(here.failures) == 1
    assert there.num_new == 5
    expected = _content(tmp_path / "here")
    assert _content(tmp_path / "there") == expected and len(expected) == 6


@pytest.fixture
def store(monkeypatch) -> MemoryStore:
    monkeypatch.setattr(Bucket, "_store", MemoryStore())
    monkeypatch.setattr(buckets, "DRIVERS", {"gs": "json"})
    return Bucket._store


def test_in_a_bucket_too(videos, store, tmp_path):
    given, sent = _settings(videos), Elsewhere()
    preparation.run(given, "gs://bucket/c", None, sent)
    done = preparation.run(given, "gs://bucket/c", None, sent)
    assert done.num_new == 0 and sent.sent == [5, 1]
    preparation.run(given, tmp_path / "here")
    for name, data in _content(tmp_path / "here").items():
        if not name.endswith(".lock"):
            assert store.objects[f"bucket/c/{name}"][1] == data


def test_equal_videos_of_what_is_prepared_are_not_decoded(videos, tmp_path, decoded):
    preparation.run(_settings(videos[:1]), tmp_path / "made", None, Elsewhere())
    decoded.clear()
    done = preparation.run(_settings(videos), tmp_path / "made", None, Elsewhere())
    assert done.num_new == 4
    assert sorted(map(os.path.basename, decoded)) == [path.name for path in videos[1:4]]
    assert not list(tmp_path.glob("made/**/staged"))


def test_an_equal_video_whose_record_is_lost_is_prepared(videos, tmp_path):
    """Its note that it is equal was staged before the loss."""

    class Killed(Elsewhere):
        def each(self, work, given):
            super().each(work, given)
            raise KeyboardInterrupt

    made = tmp_path / "made"
    preparation.run(_settings(videos[:1]), made, None, Elsewhere())
    with pytest.raises(KeyboardInterrupt):
        preparation.run(_settings(videos[4:]), made, None, Killed())
    assert len(list(made.glob("**/*.same"))) == 1
    next(made.glob("prepared/*/1.0.0/*array_record*")).unlink()
    done = preparation.run(_settings(videos[4:]), made, None, Elsewhere())
    assert done.num_new == 1 and not list(made.glob("**/staged"))
    config = settings.default()
    config.corpus.prepared, config.video.num_frames = str(made), 2
    corpus, reader = open_corpus(views.Settings.of(config), (2,))
    (item,) = corpus.items
    assert reader.read(item.clip, {2})(2)[0].pixels.shape[0] == 2


def test_what_is_staged_is_not_decoded_again(videos, tmp_path, monkeypatch, decoded):
    """A pipeline that is killed after three clips."""

    class Killed(Elsewhere):
        def each(self, work, given):
            super().each(work, given[:3])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preparation.run(_settings(videos), tmp_path / "made", None, Killed())
    decoded.clear()
    sent = Elsewhere()
    done = preparation.run(_settings(videos), tmp_path / "made", None, sent)
    assert done.num_new == 2 and sent.sent == [2, 1]
    assert {os.path.basename(path) for path in decoded} == {
        path.name for path in videos[3:]
    }


def test_a_worker_that_does_not_see_the_videos_says_so(videos, tmp_path):
    class Blind(Elsewhere):
        def each(self, work, given):
            aside = videos[2].rename(tmp_path / "aside")
            super().each(work, given)
            aside.rename(videos[2])

    done = preparation.run(_settings(videos), tmp_path / "made", None, Blind())
    unseen = next(f for f in done.failures if videos[2].name in f.video)
    assert unseen.stage == "process" and "under the same path" in unseen.cause
    done = preparation.run(_settings(videos), tmp_path / "made", None, Elsewhere())
    assert done.num_new == 1 and len(done.failures) == 1


def test_a_pipeline_that_ends_keeps_what_is_staged(videos, tmp_path, monkeypatch):
    class Ending(Elsewhere):
        def each(self, work, given):
            super().each(work, given[:3])
            raise OSError("the pipeline of Beam ended (no space)")

    with pytest.raises(OSError, match=r"ended .no space.; 3 of 5 clips are stored"):
        preparation.run(_settings(videos), tmp_path / "made", None, Ending())


def test_clips_that_no_listing_shows_are_sent_again_and_counted(videos, store):
    sent = Elsewhere()
    store.find = lambda root, detail: {}
    with pytest.raises(AuditError, match="5 clips were staged, but the listing"):
        preparation.run(_settings(videos), "gs://bucket/c", None, sent)
    assert sent.sent == [5, 5, 5]


def test_workers_need_no_jax():
    script = (
        "import sys, vidsme_jax.prepared.clip_task\n"
        "import vidsme_jax.prepared.bucket_versions\n"
        "import vidsme_jax.data.reading\n"
        "print([m for m in ('jax', 'flax', 'transformers') if m in sys.modules])"
    )
    done = children.run([os.sys.executable, "-c", script])
    assert done.stdout == "[]\n", done.stderr


def test_a_bucket_can_be_sent(store):
    bucket = pickle.loads(pickle.dumps(Bucket("gs://bucket/c")))
    assert bucket.url == "gs://bucket/c"


@pytest.mark.parametrize(
    ("runner", "options", "text"),
    [
        (None, "--x", "--beam_options without --runner"),
        ("DirctRunner", None, "DataflowRunner.* did you mean 'DirectRunner'"),
        ("DirectRunner", "--runner=X", "give the runner by --runner"),
        ("DirectRunner", "'", "--beam_options=': No closing quotation"),
    ],
)
def test_flags_are_looked_at_before_beam_is(runner, options, text, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    (problem,) = pipelines.problems(runner, options)
    with pytest.raises(AuditError, match=text):
        raise AuditError([problem])


def test_without_beam_it_is_said_where_it_goes(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = pipelines.problems("DirectRunner", "")
    assert "pip install 'vidsme-jax[beam]', in an environment of its own" in problem
    assert pipelines.problems(None, None) == []


def test_all_that_is_wrong_with_the_flags_is_one_message(tmp_path):
    config = tmp_path / "c.py"
    config.write_text(
        "from vidsme_jax import settings\n"
        "def get_config():\n"
        "    config = settings.default()\n"
        f"    config.corpus.suspects = ({json.dumps(str(CLIPS[0]))},)\n"
        "    return config\n"
    )
    flags = ["--runner=Flink", "--out=s3://b"]
    program = [os.sys.executable, "-m", "vidsme_jax", "prepare", f"--config={config}"]
    done = children.run([*program, *flags, "--check", "--config.video.num_frames=1"])
    assert done.returncode == 2
    for text in ("--runner=Flink: it must be one of", "s3://b", "video.num_frames"):
        assert text in done.stderr
