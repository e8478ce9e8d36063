"""`vidsme compare`: the difference of two AUCs on the same rows, interval and test."""

import json
import shutil

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.commands import compare
from vidsme_jax.evaluation import paired

pytestmark = pytest.mark.long


def _scores(rng, members, nonmembers, per_source, effects, shared=0.6):
    """Two scores of rows in sources; both see much of the same luck."""
    m, n = members * per_source, nonmembers * per_source
    label = np.arange(m + n) < m
    units = np.repeat(np.arange(members + nonmembers), per_source)
    own = rng.normal(size=members + nonmembers)[units]
    common = rng.normal(size=m + n)
    found = []
    for effect in effects:
        alone = rng.normal(size=m + n)
        luck = shared * common + np.sqrt(1 - shared**2) * alone
        found.append(effect * label + 0.7 * own + 0.7 * luck)
    return *found, units, m


def test_aucs_and_difference_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    first, second, units, m = _scores(rng, 13, 17, 2, (0.4, 1.1))
    found = paired.difference(first, second, units, m)
    label = np.arange(len(units)) < m
    aucs = [float(sklearn.metrics.roc_auc_score(label, x)) for x in (first, second)]
    assert [found[x]["value"] for x in ("first", "second")] == pytest.approx(aucs)
    assert found["difference"]["value"] == pytest.approx(aucs[1] - aucs[0])


def test_the_interval_is_delongs_where_each_row_is_a_source():
    rng = np.random.default_rng(1)
    first, second, units, m = _scores(rng, 40, 30, 1, (0.4, 1.1))
    found = paired.difference(first, second, units, m)["difference"]
    parts = []
    for x in (first, second):
        one, other = x[:m], x[m:]
        v = [np.mean(other < a) for a in one]
        w = [np.mean(one > b) for b in other]
        parts.append((v, w))
    v, w = (np.subtract(parts[1][k], parts[0][k]) for k in (0, 1))
    of = np.var(v, ddof=1) / 40, np.var(w, ddof=1) / 30
    freedom = sum(of) ** 2 / (of[0] ** 2 / 39 + of[1] ** 2 / 29)
    half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(sum(of))
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=1e-6)


def test_p_is_that_of_a_plain_loop():
    rng = np.random.default_rng(2)
    first, second, units, m = _scores(rng, 12, 12, 2, (0.3, 0.9))
    found = paired.difference(first, second, units, m, number=4000)
    label = np.arange(len(units)) < m

    def ranked(x):
        return np.argsort(np.argsort(x)).astype(float)

    def gap(one, other):
        ends = [x[label].mean() - x[~label].mean() for x in (one, other)]
        return abs(ends[1] - ends[0])

    one, other = ranked(first), ranked(second)
    observed, above = gap(one, other), 0
    for _ in range(2000):
        swap = rng.integers(0, 2, units.max() + 1).astype(bool)[units]
        above += gap(np.where(swap, other, one), np.where(swap, one, other)) >= (
            observed - 1e-12
        )
    assert found["p"] == pytest.approx(above / 2000, abs=0.03)


@pytest.mark.parametrize(
    ("sources", "per_source", "effect"), [(40, 1, 0.5), (20, 5, 0.5), (60, 2, 1.2)]
)
def test_level_and_coverage_by_simulation(sources, per_source, effect):
    rng = np.random.default_rng(sources)
    p_values, inside = [], 0
    for _ in range(300):
        given = _scores(rng, sources, sources, per_source, (effect, effect))
        found = paired.difference(*given, number=199)
        p_values.append(found["p"])
        ends = found["difference"]
        inside += ends["low"] <= 0 <= ends["high"]
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert 0.91 <= inside / 300 <= 0.99


def test_of_few_sources_there_is_no_interval():
    given = _scores(np.random.default_rng(0), 4, 4, 3, (0.1, 0.9))
    found = paired.difference(*given)
    assert found["difference"]["low"] is None
    assert "sources" in found["difference"]["reason"]


def test_scores_that_order_all_alike():
    first, _, units, m = _scores(np.random.default_rng(0), 15, 15, 1, (0.5, 0.5))
    found = paired.difference(first, 2 * first + 1, units, m)
    assert found["p"] == 1 and found["difference"]["value"] == 0
    assert found["difference"]["low"] is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two audits of the tiny corpus, of models of other random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidsme_jax.report.figures.draw", lambda *args: [])
        found = []
        for dtype in ("float32", "bfloat16"):
            config = settings.variant(
                settings.default(), "tiny", {"tiny": "random:llava_qwen-tiny"}
            )
            config.scores, config.model.dtype = "vid_sme,perplexity", dtype
            folder = tmp_path_factory.mktemp(dtype)
            audit.run(config, folder)
            found.append(folder)
    return found


@pytest.fixture
def copies(runs, tmp_path):
    found = [tmp_path / name for name in ("one", "other")]
    for folder, copy in zip(runs, found, strict=True):
        shutil.copytree(folder, copy)
    return found


def test_two_runs_are_compared(runs):
    one, other = map(str, runs)
    found = compare.compare(one, other)
    assert found["score"] == "vid_sme" and found["rows"] == 8
    aucs = [
        json.loads((folder / "metrics.json").read_text())["comparisons"]["all"]
        for folder in runs
    ]
    its = found["comparisons"]["all"]
    for which, each in zip(("first", "second"), aucs, strict=True):
        assert its[which]["value"] == each["scores"]["vid_sme"]["auc"]["value"]
    assert found["notes"][0].startswith("config.model.dtype was float32, then bfloat16")
    lines = compare.in_words(compare.compare(one, other, "perplexity"))
    assert lines[0].startswith("perplexity, ") and lines[0].endswith("8 rows paired")
    assert lines[-1].startswith("a difference is no verdict")


def test_rows_that_failed_are_left_out(copies):
    from vidsme_jax.base import Failure
    from vidsme_jax.report import files

    table = compare.opened(copies[1]).table
    import pyarrow.parquet as pq

    path = copies[1] / "scores.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    lost = Failure(id=str(table.id[0]), video="x", stage="decode", cause="broken")
    files.write_failures(copies[1] / "failures.jsonl", [lost])
    found = compare.compare(*map(str, copies))
    assert found["rows"] == 7
    assert any("1 row of" in note and "failed" in note for note in found["notes"])


@pytest.mark.parametrize("column", ["id", "role", "content"])
def test_runs_of_different_corpora_are_refused(copies, column):
    import pyarrow.parquet as pq

    path = copies[1] / "scores.parquet"
    table = pq.read_table(path)
    values = table.column(column).to_pylist()
    values[3] = "nonmembers" if values[3] == "members" else f"{values[3]}x"
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, [values]), path)
    with pytest.raises(AuditError, match=r"different corpora: 1 of 8 rows of .*one"):
        compare.compare(*map(str, copies))


def _profile(folder):
    about = json.loads((folder / "config.json").read_text())
    about["config"]["profile"] = "official"
    (folder / "config.json").write_text(json.dumps(about))


def _headline(folder):
    found = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(found | {"headline": "perplexity"}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_profile, "config.profile is 'exact' in"),
        (_headline, "name one by --score"),
        (lambda x: (x / "metrics.json").unlink(), "no audit has finished"),
        (lambda x: (x / "metrics.json").write_text("[1]"), "cannot be read"),
        (lambda x: (x / "scores.parquet").write_text("no"), "cannot be read"),
        (shutil.rmtree, "no config.json, so that no run has finished there"),
    ],
)
def test_runs_that_cannot_be_compared(copies, spoil, said):
    spoil(copies[1])
    with pytest.raises(AuditError, match=said):
        compare.compare(*map(str, copies))


def test_a_score_that_was_not_computed(runs):
    with pytest.raises(AuditError, match=r"has no score 'perplexty'; did you mean"):
        compare.compare(*map(str, runs), "perplexty")
