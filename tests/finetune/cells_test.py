"""A cell of the controlled benchmark: what is kept of it, and which commit it names."""

import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest

from scored_texts import log_softmax, profile, scored_text, signals
from vidsme_jax.base import (
    SLICES,
    Item,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
    text_key,
)
from vidsme_jax.scores import tables
from vidsme_jax.settings import views
from vidsme_jax.store.signals import Signals

pytestmark = pytest.mark.usefixtures("beside_scripts")

POOL, SHIFTED, MEMBERS = "dbac", "fe", {"a", "c"}
ANSWER_ROWS = dict(zip("abcdef", (3, 4, 5, 6, 7, 8), strict=True))


def _items() -> list[Item]:
    """The manifests know nothing of members: all are suspects."""
    return [
        Item(
            id=clip,
            video=f"{clip}.mp4",
            clip=clip,
            role="suspects",
            group="shifted" if clip in SHIFTED else "",
            question="q",
            answer=f"answer {clip}",
        )
        for clip in POOL + SHIFTED
    ]


def _clip(key: str, seed: int) -> ScoredClip:
    rng = np.random.default_rng([seed, ord(key)])
    slices = np.repeat([1, 2], [4, ANSWER_ROWS[key]])
    logits, blank = rng.normal(0, 2, (2, 2, len(slices), 20))
    answer = f"answer {key}"
    text = scored_text(
        logits, np.arange(len(slices)), slices, blank=blank[0], answer=answer
    )
    asked = dataclasses.replace(text.asked, key=text_key("q", (), answer))
    log_p = log_softmax(rng.normal(0, 2, (2, 6, 20)))
    video = signals(log_p, np.arange(6))._replace(rank=None)
    mean = profile(np.log(np.exp(log_p).mean(1)))
    video = video._replace(
        mean_renyi=np.stack([mean, mean], axis=1),
        modified=rng.uniform(1, 2, (2, 6, 3)),
        renyi_half_clamped=rng.uniform(1, 2, (2, 6)),
    )
    return ScoredClip(
        key=key,
        content_hash=f"hash {key}",
        signals=TokenSignals(*(x if x is None else np.float32(x) for x in video)),
        frame=np.arange(6, dtype=np.int16),
        frame_indices=(0, 1, 2, 3, 4, 5),
        motion=MotionStatistics(1.0 + ord(key), 2.0 * ord(key)),
        texts=(dataclasses.replace(text, asked=asked),),
    )


def _store(folder: pathlib.Path, seed: int) -> Signals:
    store = Signals(folder, {})
    store.write([_clip(key, seed) for key in POOL + SHIFTED])
    return store


def _setup(items: list[Item]):
    given = types.SimpleNamespace(slices=SLICES, motion=views.Motion())
    return types.SimpleNamespace(items=items, settings=given)


def _wanted(store: Signals, ids: str, reference: Signals | None, name: str):
    """The scores of the clips with these ids alone, in their order."""
    by_id = {item.id: item for item in _items()}
    found, _ = tables.score_table(
        [by_id[each] for each in ids],
        *(store, [name], "exact", views.Motion()),
        slices=SLICES,
        reference=reference,
    )
    assert "".join(found.id) == ids
    return found.scores[name]


@pytest.mark.parametrize("with_reference", [True, False])
def test_what_is_kept_of_a_snapshot(tmp_path, with_reference):
    """The pool with its members; shifted clips beside the members alone."""
    import _cells
    import _evidence

    store = _store(tmp_path / "own", 0)
    reference = _store(tmp_path / "base", 1) if with_reference else None
    file = tmp_path / "cell.npz"
    _cells._keep(file, _setup(_items()), store, reference, MEMBERS)
    orders = {}
    for part, ids, member in (("pool", "abcd", "1010"), ("shifted", "acef", "1100")):
        scored = _evidence.load(file, part)
        assert "".join(scored.ids) == ids
        assert scored.member.tolist() == [x == "1" for x in member]
        assert scored.tokens.tolist() == [ANSWER_ROWS[x] for x in ids]
        np.testing.assert_array_equal(scored.motion[0], [1.0 + ord(x) for x in ids])
        np.testing.assert_array_equal(scored.motion[1], [2.0 * ord(x) for x in ids])
        assert any(x.endswith("_ref") for x in scored.names) == with_reference
        names = ["vid_sme", "mean_renyi_1", "response_loss", "response_pmi_blank"]
        names += ["response_loss_ref", "response_wbc"] * with_reference
        for name in names:
            wanted = _wanted(store, ids, reference, name)
            np.testing.assert_allclose(scored.of(name), wanted, rtol=1e-6)
        orders[part] = scored.of("vid_sme")[scored.ids == "c"]
    # Scaled over the clips of its part: the same clip's q and r differ.
    assert abs(orders["pool"] - orders["shifted"]) > 1e-4


def test_a_pool_without_shifted_clips_has_one_part(tmp_path):
    import _cells

    items = [item for item in _items() if not item.group]
    file = tmp_path / "cell.npz"
    store = _store(tmp_path / "own", 0)
    _cells._keep(file, _setup(items), store, None, MEMBERS)
    with np.load(file) as arrays:
        assert {key.split("/")[0] for key in arrays} == {"pool"}


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """(run, the commits of now and of what trained): nothing is trained or scored."""
    import _cells
    import _report

    at = {"now": "first", "trained": []}

    def train(config, work):
        at["trained"].append(at["now"])
        record = {"members": ["a"], "steps": 4, "losses": {"members": 0.1}}
        record |= {"trained parameters": 1, "parameters": 2}
        (work / "training.json").write_text(json.dumps(record))
        at["now"] = "second"  # As when files change while it is at work.

    def score(config, place):
        if at.pop("stop", False):
            raise KeyboardInterrupt
        return None, None

    monkeypatch.setattr(_report, "commit", lambda: at["now"])
    monkeypatch.setattr(_cells.training, "run", train)
    monkeypatch.setattr(_cells, "scored", score)
    monkeypatch.setattr(_cells, "_keep", lambda *args: None)
    rates = {"full": 1e-3}
    setting = _cells.Setting(4, 2, {"full": 4}, rates, target=0.1, rank=8)
    pool = _cells.Pool("drawn", tmp_path / "drawn", tmp_path / "base", setting)
    (tmp_path / "cells").mkdir()
    what = _cells.Cell("drawn", "full", 3)
    return lambda: _cells.run(pool, what, tmp_path / "cells"), at


def test_the_commit_is_that_which_trained(cell, tmp_path):
    run, _ = cell
    assert run()["commit"] == "first"
    kept = json.loads((tmp_path / "cells/drawn-full-03.json").read_text())
    assert kept["commit"] == "first"
    assert run() == kept  # Not computed again.
    assert [x.name for x in (tmp_path / "cells").iterdir()] == ["drawn-full-03.json"]


def test_another_process_that_scores_says_who_trained(cell):
    run, at = cell
    at["stop"] = True
    with pytest.raises(KeyboardInterrupt):
        run()
    at["now"] = "third"
    assert run()["commit"] == "first" and at["trained"] == ["first"]


def test_of_an_older_training_the_commit_is_not_guessed(cell, tmp_path):
    run, at = cell
    at["stop"] = True
    with pytest.raises(KeyboardInterrupt):
        run()
    (tmp_path / "cells/drawn-full-03/commit").unlink()
    assert run()["commit"] == "unknown"
