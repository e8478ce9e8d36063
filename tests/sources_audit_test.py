"""Audits of clips from every kind of source, and of the same clips prepared."""

import json
import pathlib

import av
import numpy as np
import pytest
from PIL import Image

import hub_files
from vidsme_jax import audit, settings
from vidsme_jax.prepared import preparation
from vidsme_jax.settings import views

pytestmark = pytest.mark.usefixtures("without_figures")
CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:8]
HALVES = {"members": CLIPS[:4], "nonmembers": CLIPS[4:]}


def _config(**corpus):
    config = settings.default()
    config.model.checkpoint = "random:llava_qwen-tiny"
    config.model.dtype = "float32"
    config.video.num_frames = 4
    config.batch_size = 4
    config.parallel.data = 1
    config.scores = "vid_sme,perplexity"
    config.report.num_permutations = 100
    config.corpus.update(corpus)
    return config


@pytest.fixture(scope="module")
def of_files(tmp_path_factory, without_figures):
    """The audit of the clips as files."""
    folder = tmp_path_factory.mktemp("files")
    sources = {role: tuple(map(str, its)) for role, its in HALVES.items()}
    return audit.run(_config(**sources), folder / "run").table


def _scored(config, workdir: pathlib.Path):
    report = audit.run(config, workdir)
    assert report is not None and not report.failures
    return report.table


def _same(table, other) -> None:
    for name, values in other.scores.items():
        np.testing.assert_array_equal(table.scores[name], values, err_msg=name)
    np.testing.assert_array_equal(table.cluster, other.cluster)


def _prepared(config, folder: pathlib.Path):
    """The configuration of an audit of the prepared clips, without their sources."""
    done = preparation.run(views.Settings.of(config), folder)
    assert not done.failures
    config.corpus.prepared = str(folder)
    config.corpus.members = config.corpus.nonmembers = ()
    return config


@pytest.mark.long
def test_datasets_of_hugging_face(of_files, tmp_path):
    tables = {
        role: hub_files.videos([c.read_bytes() for c in its], [c.name for c in its])
        for role, its in HALVES.items()
    }
    made = hub_files.saved_splits(tmp_path / "films", **tables)
    path = tmp_path / "hub" / "data" / "test-00000-of-00001.parquet"
    hub_files.as_parquet(path, tables["nonmembers"])
    config = _config(
        members=(f"hf:{made}/members",), nonmembers=(f"hf:{tmp_path / 'hub'}",)
    )
    table = _scored(config, tmp_path / "run")
    _same(table, of_files)
    assert table.id[0] == "hf:films/members/0" and table.id[-1] == "hf:hub/test/3"
    config = _prepared(config, tmp_path / "prepared")
    made.rename(tmp_path / "gone")
    _same(_scored(config, tmp_path / "again"), of_files)


def _frames(clip: pathlib.Path) -> list[Image.Image]:
    with av.open(str(clip)) as file:
        return [frame.to_image() for frame in file.decode(video=0)]


def test_folders_of_pictures_and_animated_webp(tmp_path):
    for clip in HALVES["members"]:
        folder = tmp_path / "frames" / clip.stem
        folder.mkdir(parents=True)
        for number, picture in enumerate(_frames(clip)):
            picture.save(folder / f"{number}.png")
    (tmp_path / "webp").mkdir()
    for clip in HALVES["nonmembers"]:
        first, *rest = _frames(clip)
        path = tmp_path / "webp" / f"{clip.stem}.webp"
        first.save(path, save_all=True, append_images=rest, lossless=True)
    config = _config(
        members=(str(tmp_path / "frames"),), nonmembers=(str(tmp_path / "webp"),)
    )
    table = _scored(config, tmp_path / "run")
    stems = [clip.stem for clip in CLIPS]
    assert [pathlib.Path(video).stem for video in table.video] == stems
    config = _prepared(config, tmp_path / "prepared")
    _same(_scored(config, tmp_path / "again"), table)


@pytest.mark.long
def test_windows_of_long_videos(tmp_path):
    sources = {role: tuple(map(str, its)) for role, its in HALVES.items()}
    config = _config(**sources, windows=2)
    table = _scored(config, tmp_path / "run")
    assert len(table.id) == 16 and len(set(table.id)) == 16
    assert len(set(table.units)) == len(set(table.cluster)) == 8
    pairs = table.scores["perplexity"].reshape(8, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    config = _prepared(config, tmp_path / "prepared")
    _same(_scored(config, tmp_path / "again"), table)


def test_lists_of_urls(of_files, tmp_path):
    sources = {}
    for role, its in HALVES.items():
        rows = [{"video": f"https://youtu.be/{clip.stem}"} for clip in its]
        (tmp_path / f"{role}.json").write_text(json.dumps(rows))
        sources[role] = (str(tmp_path / f"{role}.json"),)
    config = _config(**sources, urls=str(CLIPS[0].parent / "{id}.mp4"))
    table = _scored(config, tmp_path / "run")
    _same(table, of_files)
    assert table.id[0] == f"https://youtu.be/{CLIPS[0].stem}"
    config = _prepared(config, tmp_path / "prepared")
    _same(_scored(config, tmp_path / "again"), of_files)
