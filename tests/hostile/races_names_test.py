r"""Texts that are no Unicode: file names such as b"\xff\xfe.mp4", halves of pairs."""

import json
import os
import pathlib
import shutil

import pytest

import killed_run
from vidsme_jax import settings
from vidsme_jax.prepared import preparation
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.settings import views
from vidsme_jax.store.texts import restored, storable

ODD = (
    "/v/\udcff\udcfe.mp4",
    "\ud800",
    "a\udfffb",
    "\ufdd0",
    "\ufdd0d800",
    "\ud800\ufdd0",
)
PLAIN = ("", "/v/ü 😀.mp4", "a\0b", "\ufdd1", "\\ud800")


@pytest.mark.parametrize("text", [*ODD, *PLAIN])
def test_what_is_stored_comes_back_equal(text):
    stored = storable(text)
    stored.encode()
    assert restored(stored) == text
    assert (stored == text) == (text in PLAIN)


def test_different_texts_are_stored_differently():
    texts = {*ODD, *PLAIN, *map(storable, ODD)}
    assert len(set(map(storable, texts))) == len(texts)


@pytest.fixture
def odd_folder(tmp_path) -> pathlib.Path:
    """A clip whose name is not UTF-8, and one that is none, of such a name."""
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(clips[0], os.fsencode(folder) + b"/\xff\xfe.mp4")
    shutil.copy(clips[1], folder / "b.mp4")
    with open(os.fsencode(folder) + b"/\xfd.mp4", "wb") as file:
        file.write(b"no video")
    return folder


def test_clips_of_any_name_are_prepared_and_read(tmp_path, odd_folder):
    config = killed_run.config(None)
    config.corpus.suspects = (str(odd_folder),)
    given = views.Settings.of(config)
    for new in (3, 0):
        done = preparation.run(given, tmp_path / "made")
        assert done.num_new == new
        (failure,) = done.failures
        assert failure.video.endswith("\udcfd.mp4") and failure.stage == "open"
    config.corpus.suspects, config.corpus.prepared = (), str(tmp_path / "made")
    corpus, reader = open_corpus(views.Settings.of(config), (2,))
    names = {os.path.basename(item.clip) for item in corpus.items}
    assert names == {"\udcff\udcfe.mp4", "b.mp4", "\udcfd.mp4"}
    for item in corpus.items:
        if not item.clip.endswith("\udcfd.mp4"):
            assert reader.read(item.clip, {2})(2)[0].pixels.shape[0] == 2


def test_rows_of_any_text_are_prepared_and_come_back_equal(tmp_path, odd_folder):
    odd = "a\ufdd0\u202e\x1b"
    rows = [{"video": "b.mp4", "id": odd, "group": odd, "question": odd, "answer": odd}]
    (odd_folder / "rows.json").write_text(json.dumps(rows))
    config = killed_run.config(None)
    config.corpus.suspects = (str(odd_folder / "rows.json"),)
    preparation.run(views.Settings.of(config), tmp_path / "made")
    assert preparation.run(views.Settings.of(config), tmp_path / "made").num_new == 0
    config.corpus.suspects, config.corpus.prepared = (), str(tmp_path / "made")
    corpus, _ = open_corpus(views.Settings.of(config), (2,))
    (item,) = corpus.items
    assert (item.id, item.group, item.question, item.answer) == (odd,) * 4
