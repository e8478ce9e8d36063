"""Preparing a corpus: the command, what is decoded when, kills, equal scores."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

import children
import interrupted
from vidsme_jax import settings
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data import decoders
from vidsme_jax.prepared import layout, preparation
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.prepared.writing import Writer
from vidsme_jax.run import checks, processes, scoring
from vidsme_jax.run.stopping import Stop
from vidsme_jax.scores import tables
from vidsme_jax.settings import views

ROOT = pathlib.Path(__file__).parents[1]
CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))


@pytest.fixture
def config(tmp_path):
    """Four members and four nonmembers, copied, named relative to the manifests."""
    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype = "float32"
    config.video.num_frames = 4
    config.batch_size = 4
    config.parallel.data = 1
    config.report.num_permutations = 100
    config.corpus.update(_corpus(tmp_path / "raw", 4))
    return config


def _corpus(folder: pathlib.Path, count: int) -> dict[str, tuple[str, ...]]:
    (folder / "v").mkdir(parents=True)
    sources = {}
    for role, start in (("members", 0), ("nonmembers", count)):
        chosen = CLIPS[start : start + count]
        for clip in chosen:
            shutil.copy(clip, folder / "v")
        told = {"group": role[0], "source": f"film {start}"}
        rows = [{"video": f"v/{clip.name}"} | told for clip in chosen]
        (folder / f"{role}.json").write_text(json.dumps(rows))
        sources[role] = (str(folder / f"{role}.json"),)
    return sources


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Three clips as the bytes of their files."""

    name = "made"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        mp4 = tfds.features.Tensor(shape=(), dtype=np.object_)
        features = tfds.features.FeaturesDict({"mp4": mp4})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from ((n, {"mp4": clip.read_bytes()}) for n, clip in enumerate(CLIPS[:3]))


def _open(config):
    corpus, reader = open_corpus(views.Settings.of(config), (config.video.num_frames,))
    return corpus.items, reader


def _frames(reader, config, item):
    count = config.video.num_frames
    return reader.read(item.clip, {count})(count)[0]


def _scored(config, workdir: pathlib.Path):
    """The audit but for its report: the table of scores, and the failures."""
    setup = checks.check(config)
    parts = setup.samples, setup.reader, setup.devices
    with processes.together(workdir) as team:
        run = checks.open_run(setup, workdir)
        scored = scoring.score([run], *parts, team=team, stop=Stop())
    table, _ = tables.score_table(
        setup.items,
        run.store,
        setup.scores,
        setup.settings.profile,
        setup.settings.motion,
    )
    return table, scored.failures


# ----------------------------------------------------------------------- equal scores


def test_an_audit_of_prepared_clips_is_that_of_their_videos(config, tmp_path, decoded):
    broken = tmp_path / "raw" / "v" / CLIPS[1].name
    broken.write_bytes(broken.read_bytes()[:1500])
    (tmp_path / "raw" / "v" / CLIPS[6].name).unlink()
    raw, raw_failures = _scored(config, tmp_path / "run")
    done = preparation.run(views.Settings.of(config), tmp_path / "made")
    assert done.num_new == 8 and len(done.failures) == 2
    decoded.clear()
    # On another machine, say: neither videos nor manifests are there.
    config.corpus.prepared = str(shutil.copytree(tmp_path / "made", tmp_path / "moved"))
    shutil.rmtree(tmp_path / "raw")
    config.corpus.members = config.corpus.nonmembers = ()
    table, failures = _scored(config, tmp_path / "again")
    assert len(table.scores) == 77 and len(table.id) == 6
    for name, values in raw.scores.items():
        np.testing.assert_array_equal(values, table.scores[name], err_msg=name)
    for name in "id video group q r cluster flow_variance brightness_std".split():
        np.testing.assert_array_equal(getattr(raw, name), getattr(table, name))
    assert failures == raw_failures == list(done.failures)
    assert not decoded


@pytest.mark.long
def test_flow_on_the_device_is_computed_from_prepared_frames(config, tmp_path):
    config.motion.flow, config.scores = "jax", "vid_sme"
    raw, _ = _scored(config, tmp_path / "run")
    preparation.run(views.Settings.of(config), tmp_path / "made")
    config.corpus.prepared = str(tmp_path / "made")
    table, _ = _scored(config, tmp_path / "again")
    np.testing.assert_array_equal(raw.flow_variance, table.flow_variance)
    np.testing.assert_array_equal(raw.scores["vid_sme"], table.scores["vid_sme"])
    config.motion.flow = "opencv"
    host, _ = _scored(config, tmp_path / "host")
    assert (host.flow_variance != table.flow_variance).any()


def test_flow_of_the_host_is_not_computed_again(config, tmp_path, monkeypatch):
    preparation.run(views.Settings.of(config), tmp_path / "made")
    monkeypatch.setattr("cv2.calcOpticalFlowFarneback", None)
    config.corpus.prepared = str(tmp_path / "made")
    assert not _scored(config, tmp_path / "run")[1]


def test_signals_of_jpeg_frames_are_not_mixed_with_others(config, tmp_path):
    config.corpus.jpeg_quality = 90
    preparation.run(views.Settings.of(config), tmp_path / "made")
    checks.open_run(checks.check(config), tmp_path / "run")
    config.corpus.prepared = str(tmp_path / "made")
    with pytest.raises(AuditError, match=r"jpeg_quality = None, this run has 90"):
        checks.open_run(checks.check(config), tmp_path / "run")


def test_clips_that_are_not_prepared_are_counted(config, tmp_path):
    few = config.copy_and_resolve_references()
    few.corpus.max_clips = 2
    preparation.run(views.Settings.of(few), tmp_path / "made")
    config.corpus.prepared = str(tmp_path / "made")
    with pytest.raises(AuditError, match=r"4 of 8 clips .*`vidsme prepare`"):
        checks.check(config)


def test_the_folder_of_the_videos_may_be_gone(config, tmp_path):
    root = (tmp_path / "raw" / "v").rename(tmp_path / "v")
    config.corpus.video_root = str(tmp_path)
    preparation.run(views.Settings.of(config), tmp_path / "made")
    shutil.rmtree(root)
    config.corpus.video_root = "/gone"
    with pytest.raises(AuditError, match="no such folder: /gone"):
        _open(config)
    config.corpus.prepared = str(tmp_path / "made")
    items, reader = _open(config)
    assert items[7].clip == f"/gone/{items[7].video}"
    config.corpus.suspects = ("gone.json",)
    with pytest.raises(AuditError, match="has rows of its own"):
        _open(config)
    assert _frames(reader, config, items[7]).pixels.shape[0] == 4


# ----------------------------------------------------------------- only what is missing


def test_only_what_is_new_is_decoded(config, tmp_path, decoded):
    few = config.copy_and_resolve_references()
    few.corpus.max_clips = 3
    preparation.run(views.Settings.of(few), tmp_path / "made")
    assert len(decoded) == 6
    done = preparation.run(views.Settings.of(config), tmp_path / "made")
    assert len(decoded) == len(set(decoded)) == 8 and done.num_new == 2
    config.model.prompt, config.profile = "mcq", "official"
    assert preparation.run(views.Settings.of(config), tmp_path / "made").num_new == 0
    assert len(decoded) == 8
    config.video.num_frames = 5
    preparation.run(views.Settings.of(config), tmp_path / "made")
    assert len(decoded) == 16
    for frames in (4, 5):
        config.video.num_frames = frames
        config.corpus.prepared = str(tmp_path / "made")
        items, reader = _open(config)
        assert _frames(reader, config, items[7]).pixels.shape[0] == frames


def test_equal_videos_are_prepared_once(config, tmp_path, decoded):
    copy = tmp_path / "raw" / "copy.mp4"
    shutil.copy(CLIPS[0], copy)
    config.corpus.suspects = (str(copy),)
    config.corpus.allow_duplicates = True
    config.workers = 1
    preparation.run(views.Settings.of(config), tmp_path / "made")
    assert len(decoded) == 8
    config.corpus.prepared = str(tmp_path / "made")
    items, reader = _open(config)
    one, other = (_frames(reader, config, items[n]).pixels for n in (0, 8))
    np.testing.assert_array_equal(one, other)


def test_equal_videos_in_hand_at_once_leave_nothing_behind(
    config, tmp_path, monkeypatch
):
    copy = tmp_path / "raw" / "copy.mp4"
    shutil.copy(CLIPS[0], copy)
    config.corpus.members, config.corpus.nonmembers = (), ()
    config.corpus.suspects = (str(copy), str(tmp_path / "raw" / "v" / CLIPS[0].name))
    config.workers = 2
    both, original = threading.Barrier(2), Writer.add

    def add(*args):
        both.wait(children.PATIENCE)
        return original(*args)

    monkeypatch.setattr(Writer, "add", add)
    done = preparation.run(views.Settings.of(config), tmp_path / "made")
    assert done.num_new == 2 and not list(tmp_path.glob("made/**/staged"))


def test_a_failure_of_the_moment_is_tried_again(config, tmp_path, monkeypatch):
    gone = tmp_path / "raw" / "v" / CLIPS[2].name
    aside = gone.rename(tmp_path / "aside.mp4")
    original = decoders.ask

    def forgetful(request, path, *args, **arguments):
        if request == "frames" and path.name == CLIPS[3].name:
            raise MemoryError("for now")
        return original(request, path, *args, **arguments)

    monkeypatch.setattr(decoders, "ask", forgetful)
    done = preparation.run(views.Settings.of(config), tmp_path / "made")
    causes = {failure.cause for failure in done.failures}
    assert causes == {f"no such file: {gone}", "MemoryError: for now"}
    monkeypatch.undo()
    aside.rename(gone)
    done = preparation.run(views.Settings.of(config), tmp_path / "made")
    assert not done.failures and done.num_new == 2


def test_a_failure_of_the_moment_is_tried_again_after_a_kill(
    config, tmp_path, monkeypatch
):
    original, config.workers = decoders.ask, 1

    def ask(request, path, *args, **arguments):
        if request == "frames" and path.name == CLIPS[3].name:
            raise ClipError("process", "killed for lack of memory")
        return original(request, path, *args, **arguments)

    def killed(*_):
        raise _Killed

    monkeypatch.setattr(decoders, "ask", ask)
    monkeypatch.setattr(Writer, "finish", killed)
    with pytest.raises(_Killed):
        preparation.run(views.Settings.of(config), tmp_path / "made")
    assert len(list(tmp_path.glob("made/**/*.failed"))) == 1
    monkeypatch.undo()
    done = preparation.run(views.Settings.of(config), tmp_path / "made")
    assert not done.failures and done.num_new == 1


@pytest.mark.long
def test_clips_in_hand_when_a_run_stops_are_not_failures(config, tmp_path, monkeypatch):
    """A worker that is given up in the middle of a clip stages nothing."""
    config.workers = 2
    decoding, given_up = threading.Event(), []
    original, abandon = decoders.ask, decoders.abandon

    def ask(request, path, *args, **arguments):
        if request == "frames" and path.name != CLIPS[0].name:
            decoding.wait()
            children.wait_for(lambda: given_up)
        return original(request, path, *args, **arguments)

    def stopping(*args):
        decoding.set()
        raise _Killed

    def abandoning(threads):
        abandon(threads)
        given_up.extend(threads)

    monkeypatch.setattr(decoders, "ask", ask)
    monkeypatch.setattr(decoders, "abandon", abandoning)
    monkeypatch.setattr(Writer, "add", stopping)
    with pytest.raises(_Killed):
        preparation.run(views.Settings.of(config), tmp_path / "made")
    for thread in given_up:
        thread.join()
    assert len(given_up) == 2 and not list(tmp_path.glob("made/**/*.failed"))


def test_clips_of_tfds_are_prepared_too(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    Made(data_dir=tmp_path / "tfds", file_format="array_record").download_and_prepare()
    config.corpus.members = config.corpus.nonmembers = ()
    config.corpus.suspects = ("tfds:made/train",)
    items, reader = _open(config)
    raw = [_frames(reader, config, item) for item in items]
    preparation.run(views.Settings.of(config), tmp_path / "made")
    shutil.rmtree(tmp_path / "tfds")
    config.corpus.suspects, config.corpus.prepared = (), str(tmp_path / "made")
    items, reader = _open(config)
    for item, expected in zip(items, raw, strict=True):
        found = _frames(reader, config, item)
        np.testing.assert_array_equal(found.pixels, expected.pixels)


# ------------------------------------------------------------------------------- kills


class _Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def _shards(root: pathlib.Path) -> dict[str, bytes]:
    (version,) = root.glob("prepared/*/1.*.0")
    assert {path.name for path in version.parent.iterdir()} == {
        *(".lock", "settings.json", version.name)
    }
    return {path.name: path.read_bytes() for path in version.glob("*array_record*")}


@pytest.mark.long
def test_a_run_that_dies_at_any_file_continues(config, tmp_path, monkeypatch, decoded):
    config.workers = 1
    config.corpus.max_clips = 3
    monkeypatch.setattr("vidsme_jax.prepared.writing._CLIPS_PER_SHARD", 2)
    preparation.run(views.Settings.of(config), tmp_path / "whole")
    expected = _shards(tmp_path / "whole")
    assert len(expected) == 3
    replace, deaths = os.replace, 0
    decoded.clear()
    for survives in range(100):
        left = [survives]

        def dying(source, target, left=left):
            if left[0] == 0:
                raise _Killed
            left[0] -= 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", dying)
        try:
            preparation.run(views.Settings.of(config), tmp_path / "made")
            break
        except _Killed:
            deaths += 1
            for thread in threading.enumerate():  # A kill would leave none behind.
                if thread.name.startswith("clip"):
                    thread.join()
            # What is not whole is not there for readers.
            assert not list((tmp_path / "made").glob("prepared/*/1.*.0"))
    assert deaths > 3 and _shards(tmp_path / "made") == expected
    # One clip is in hand at a time, so that each death can cost one and no more.
    assert len(decoded) <= 6 + 2 * deaths
    decoded.clear()
    monkeypatch.setattr(os, "replace", replace)
    assert preparation.run(views.Settings.of(config), tmp_path / "made").num_new == 0
    assert not decoded


@pytest.mark.long
def test_killed_again_and_again(tmp_path):
    sources = _corpus(tmp_path / "raw", 24)
    flags = [f"--config.corpus.{role}={value!r}" for role, value in sources.items()]
    flags = ["--config=configs/llava.py", *flags, "--config.workers=1"]
    command = ["vidsme_jax.commands.prepare", *flags, "--out"]
    staged = tmp_path / "made" / "prepared" / "uniform_8_png" / "staged"
    count = 0
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)):
        place = f"vidsme_jax.prepared.writing:Writer.add:3:{number.value}"
        dying = [
            sys.executable,
            interrupted.__file__,
            place,
            *command,
            tmp_path / "made",
        ]
        ended = children.run(dying, cwd=ROOT)
        assert ended.returncode == status, ended.stderr
        before, count = count, len(list(staged.glob("*/*.clip")))
        assert count >= before + 3
    assert "the same command continues" in ended.stderr
    for name in ("made", "whole"):
        done = children.run([sys.executable, "-m", *command, tmp_path / name], cwd=ROOT)
        assert done.returncode == 0, done.stderr
        before = count if name == "made" else 0
        assert f"48 clips, {before} prepared before" in done.stdout
    assert _shards(tmp_path / "made") == _shards(tmp_path / "whole")


# ------------------------------------------------------------------------- the command


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vidsme_jax.commands.prepare", *flags]
    return children.run(command, cwd=ROOT)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "--config is missing"),
        (("--config=configs/llava.py",), "--out is missing"),
        (
            ("--config=configs/llava.py", "--out=x", "--config.video.num_frame=4"),
            "config.video.num_frame: no such key; did you mean 'video.num_frames'?",
        ),
        (
            (
                "--config=configs/llava.py",
                "--out=x",
                "--config.corpus.jpeg_quality=200",
            ),
            "0 (lossless PNG) or 1 to 100",
        ),
        (("--config=configs/llava.py", "--out=/dev/null/x"), "/dev/null/x"),
    ],
)
def test_what_is_wrong_exits_2_with_a_sentence(flags, text):
    done = _run(*flags)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_failures_exit_3_and_are_listed(tmp_path):
    sources = _corpus(tmp_path / "raw", 2)
    (tmp_path / "raw" / "v" / CLIPS[0].name).write_bytes(b"")
    flags = [f"--config.corpus.{role}={value!r}" for role, value in sources.items()]
    flags.append(f"--config.corpus.prepared={tmp_path}/made")
    for before in ("0 prepared before: ", "3 prepared before, 1 failed before: "):
        done = _run("--config=configs/llava.py", *flags)
        assert done.returncode == 3, done.stderr
        assert f"4 clips, {before}" in done.stdout
        assert f"v/{CLIPS[0].name}: open: the file is empty" in done.stdout
        assert "not prepared: 1 row" in done.stdout


def test_interrupted_exits_130(config, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(layout.Shard, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preparation.run(views.Settings.of(config), tmp_path / "made")
    monkeypatch.undo()
    assert preparation.run(views.Settings.of(config), tmp_path / "made").num_new == 0
