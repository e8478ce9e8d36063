"""Manifests damaged and hostile by the hundred: each is read, or told to be faulty."""

import json
import os
import pathlib

import pytest
from generators import manifests

from vidsme_jax import settings
from vidsme_jax.base import AuditError, Item
from vidsme_jax.data import corpora
from vidsme_jax.settings import views


def _corpus(path) -> views.Corpus:
    config = settings.default()
    config.corpus.suspects = (str(path),)
    return views.view(views.Corpus, config)


def _load(path) -> tuple[Item, ...] | None:
    try:
        items = corpora.load(_corpus(path), looks=False).items
    except AuditError as error:
        assert error.problems and all(isinstance(p, str) for p in error.problems)
        assert sum(map(len, error.problems)) < 200_000
        return None
    folder = path.parent.resolve()
    for item in items:
        assert pathlib.Path(item.clip).is_relative_to(folder)
        os.fsencode(item.clip)
    return items


@pytest.mark.parametrize(
    "seeds", [range(8), pytest.param(range(8, 200), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", ["strange values", "damage"])
def test_some_are_read_and_some_are_not(tmp_path, kind, seeds):
    read = []
    for seed in seeds:
        for case in manifests.random_cases(seed, 2):
            if kind in case.name:
                read.append(_load(case.build(tmp_path)) is not None)
    assert 0 < sum(read) < 0.95 * len(read)


def test_a_manifest_of_nothing_but_faults_is_reported_in_short(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"video": "x" * 10_000 + "\0"}] * 300))
    with pytest.raises(AuditError) as caught:
        corpora.load(_corpus(path))
    assert "and 281 more problems" in caught.value.problems[19]
    assert sum(map(len, caught.value.problems)) < 20_000
