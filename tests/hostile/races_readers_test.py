"""An audit that reads a prepared corpus while it is prepared anew."""

import gc

import pytest

import killed_run
from vidsme_jax.prepared import layout, preparation
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.settings import views


@pytest.fixture(autouse=True)
def _one_clip_a_shard(monkeypatch):
    monkeypatch.setattr("vidsme_jax.prepared.writing._CLIPS_PER_SHARD", 1)


@pytest.mark.long
def test_a_version_that_is_replaced_is_read_to_its_end(tmp_path):
    few, more = (views.Settings.of(killed_run.config(n)) for n in (2, 3))
    preparation.run(few, tmp_path)
    folder = layout.Variant.of(few).folder(tmp_path)
    config = killed_run.config(2)
    config.corpus.prepared = str(tmp_path)
    corpus, reader = open_corpus(views.Settings.of(config), (2,))
    preparation.run(more, tmp_path)
    found = [reader.read(item.clip, {2})(2)[0].pixels for item in corpus.items]
    assert len(found) == 2 and len(layout.versions(folder)) == 2
    del reader
    gc.collect()
    preparation.run(more, tmp_path)
    assert [path.name for path in layout.versions(folder)] == ["1.1.0"]
