"""The joint blind test: its level, what it finds, and what fits may see."""

import numpy as np
import pytest

from vidsme_jax.evaluation import blind, blind_families, language
from vidsme_jax.evaluation.sources import Sources, alike, p_value

SIZES = {"motion": 2, "pixels": 28, "text": 14}  # 44 columns.


def _drawn(rng, sources, rows, shifted=("", 0.0)):
    """Families whose columns, and rows of a source, correlate."""
    label = np.repeat([True, False], sources * rows)
    unit = np.repeat(np.arange(2 * sources), rows)
    of = Sources.of(unit[label], unit[~label])
    found = []
    for name, size in SIZES.items():
        load = rng.normal(size=(6, size)) / np.sqrt(6)
        both = rng.normal(size=(2 * sources, 6)) @ load
        means = both + rng.normal(size=(2 * sources, size))
        x = np.repeat(means, rows, axis=0) + rng.normal(size=(len(label), size))
        if name == shifted[0]:
            x[label, rng.integers(size)] += shifted[1]
        columns = {f"c{k}": x[:, k] for k in range(size)}
        found.append(blind_families.family(name, columns, of))
    return found, of


def _joint(rng, seed, *given):
    found, of = _drawn(rng, *given)
    return blind.joint(found, of, of.permuted(199, seed), seed)


@pytest.mark.long
@pytest.mark.parametrize(("sources", "rows"), [(20, 1), (20, 5)])
def test_the_level_is_kept_with_more_columns_than_sources(sources, rows):
    rng = np.random.default_rng(7)
    p = [_joint(rng, seed, sources, rows).p for seed in range(150)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(p) > 0.4


@pytest.mark.parametrize("family", SIZES)
def test_one_column_of_any_family_is_found(family):
    rng = np.random.default_rng(1)
    # 2.33 standard deviations apart: an AUC of 0.95.
    found = [_joint(rng, k, 20, 1, (family, 2.33 * 1.8)) for k in range(20)]
    assert np.mean([each.p <= 0.05 for each in found]) >= 0.95
    assert np.mean([each.family == family for each in found]) >= 0.9
    assert all(each.families[family] == each.p for each in found if each.p < 0.01)


def test_a_difference_in_spread_is_found():
    rng = np.random.default_rng(2)
    x = rng.normal(size=80) * np.repeat([4.0, 1.0], 40)
    of = Sources.of(np.arange(40), np.arange(40) + 40)
    found = [blind_families.family("motion", {"motion": x}, of)]
    joint = blind.joint(found, of, of.permuted(499, 0), 0)
    assert joint.p <= 0.01 and joint.strongest == "spread of motion"
    assert joint.auc > 0.8


def test_what_is_small_in_each_column_adds_up():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(160, 30))
    x[:80, :25] += 0.3
    of = Sources.of(np.arange(80), np.arange(80) + 80)
    columns = {f"c{k}": x[:, k] for k in range(30)}
    found = [blind_families.family("pixels", columns, of)]
    joint = blind.joint(found, of, of.permuted(499, 0), 0)
    assert joint.p <= 0.01 and joint.strongest == blind.ALL
    assert joint.auc > 0.7


def test_a_fit_does_not_see_the_unit_that_it_judges():
    rng = np.random.default_rng(4)
    # Units in both roles whose columns name the unit: with leakage the AUC is 1.
    unit = np.arange(30)
    of = Sources.of(unit, unit)
    x = np.concatenate([np.eye(30), np.eye(30)]) + 0.01 * rng.normal(size=(60, 30))
    found = blind_families.family("pixels", {f"c{k}": x[:, k] for k in range(30)}, of)
    auc = blind.auc(blind.propensity([found], of, 0), of)
    assert 0.2 < auc < 0.8
    # Where nothing is to be found, the cross-fitted AUC does not stray above 0.5.
    aucs = []
    for seed in range(40):
        drawn, of = _drawn(rng, 20, 1)
        aucs.append(blind.auc(blind.propensity(drawn, of, seed), of))
    assert abs(np.mean(aucs) - 0.5) < 0.05


def test_fits_are_ridge_regressions():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))
    of = Sources.of(np.arange(20), np.arange(20) + 20)
    fit = blind.Fit.of(x, of, 0)
    expected = np.zeros(40)
    for fold in fit.folds:
        for k in range(5):
            test = fold == k
            centred = x[~test] - x[~test].mean(axis=0)
            gram = centred.T @ centred + 0.3 * (~test).sum() * np.eye(3)
            target = centred.T @ (y[~test, 0] - y[~test].mean())
            weights = np.linalg.solve(gram, target)
            expected[test] += (x[test] - x[~test].mean(axis=0)) @ weights / 4
    np.testing.assert_allclose(fit.labels(y)[:, 0], expected)
    # With more columns than sources, and of scores within each role.
    x, y = rng.normal(size=(40, 60)), rng.normal(size=(40, 2))
    fit = blind.Fit(x, fit.folds[:1])
    assert np.isfinite(fit.labels(y)).all()
    test = fit.folds[0] == 3
    first = of.label[~test]
    centred, target = x[~test].copy(), y[~test].copy()
    for role in (first, ~first):
        centred[role] -= centred[role].mean(axis=0)
        target[role] -= target[role].mean(axis=0)
    gram = centred.T @ centred + 0.3 * (~test).sum() * np.eye(60)
    weights = np.linalg.solve(gram, centred.T @ target)
    within = (x[test] - x[~test].mean(axis=0)) @ weights
    np.testing.assert_allclose(fit.scores(y, of.label)[test], within)


def test_columns_of_a_family():
    of = Sources.of(np.array([0, 0, 1]), np.array([2, 3]))
    found = blind_families.family(
        "container",
        {
            "codec": np.array(["h264", "h264", "vp9", "h264", "vp9"], object),
            "fps": np.array([25.0, 25.0, 30.0, np.nan, 30.0]),
            "same": np.ones(5),
            "unknown": np.full(5, np.nan),
        },
        of,
    )
    assert found is not None
    assert found.columns == ("codec h264", "codec vp9", "fps", "fps unknown")
    # A source's mean; the median of those that are known where none is.
    fps = np.array([25.0, 30.0, 27.5, 30.0])
    np.testing.assert_allclose(found.values[:, 2], (fps - fps.mean()) / fps.std())
    np.testing.assert_allclose(found.values.mean(axis=0), 0, atol=1e-12)
    assert blind_families.family("files", {"same": np.ones(5)}, of) is None


def test_sources():
    of = Sources.of(np.array(list("aab")), np.array(list("bcc")))
    assert of.label.tolist() == [True, True, False, False]
    assert of.rows.tolist() == [2, 1, 1, 2] and of.unit.tolist() == [0, 1, 1, 2]
    assert of.source.tolist() == [0, 0, 1, 2, 3, 3]
    np.testing.assert_allclose(
        of.means(np.arange(6.0)[:, None])[:, 0], [0.5, 2, 3, 4.5]
    )
    kept = of.kept(np.array([True, False, True, False, True, True]))
    assert kept.counts == (2, 1) and kept.rows.tolist() == [1, 1, 2]
    strata = np.array([0, 1, 0, 1])
    dealt = of.permuted(50, 0, strata)[:]
    assert (dealt[:, [0, 2]].sum(axis=1) == 1).all()
    assert len(np.unique(dealt, axis=0)) == 4
    assert (of.permuted(20, 0)[:].sum(axis=1) == 2).all()
    assert p_value(2.0, np.array([2.0 + 1e-12, 2.0 - 1e-12, 1.0])) == 0.75


def test_sources_of_both_roles_keep_equally_many_rows():
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 9, 40), rng.integers(3, 20, 25)
    first, second = (np.repeat(np.arange(len(s)), s) for s in sizes)
    order = rng.permutation(len(first))
    kept = alike(first[order], second)
    left = [
        np.bincount(x[k]) for x, k in zip((first[order], second), kept, strict=True)
    ]
    assert [len(each) for each in left] == [40, 25]  # No source is gone.
    np.testing.assert_array_equal(
        np.sort(left[0]), np.sort(np.minimum(left[0], sizes[0]))
    )
    shares = [np.quantile(each, [0.1, 0.3, 0.5, 0.7, 0.9]) for each in left]
    assert np.abs(shares[0] - shares[1]).max() <= 1
    # Where sizes are alike nothing is left out.
    for k in alike(first, rng.permutation(first) + 99):
        assert k.all()
    # Rows are drawn, not the first of each source.
    kept = alike(np.arange(50), np.repeat(np.arange(50), 10))[1]
    assert kept.sum() == 50 and 0.2 < np.flatnonzero(kept).__mod__(10).mean() / 9 < 0.8


def test_a_text_is_not_scored_by_a_model_of_itself():
    texts = [["rare", "words", str(k)] for k in range(4)] + [["a", "cat"]] * 2
    unit = np.array([0, 1, 2, 3, 4, 4])
    alone = language.typicality(texts, unit)
    assert alone[4] == alone[5] < alone[0]  # Its copy is of the same unit.
    apart = language.typicality(texts, np.arange(6))
    assert apart[4] == apart[5] > alone[4]
    assert language.typicality([[], ["a"]], np.arange(2))[0] == 0


def test_columns_of_texts():
    rng = np.random.default_rng(6)
    question = np.array(["What is it?"] * 30, object)
    answer = np.array(
        [f"{'a red ball' if k % 2 else 'two blue cubes'} {k % 5}" for k in range(30)],
        object,
    )
    motion = rng.normal(size=30)
    motion[3] = np.nan
    found = language.columns(question, answer, motion, np.arange(30))
    assert all(np.isfinite(x).all() and x.shape == (30,) for x in found.values())
    assert found["answer words"].tolist() == [4.0] * 30
    assert found["question capitals"][0] == pytest.approx(1 / 9)
    assert {"answer log p", "answer terms 1", "answer log p x motion"} <= set(found)
    none = np.array([""] * 30, object)
    assert not language.columns(none, none, motion, np.arange(30))


KINDS = {
    "English": ("a cat sleeps on the {}", "a car drives past the {}"),
    "Chinese": ("一只猫睡在{}上面", "一辆汽车开过{}旁边"),
    "Japanese": ("猫が{}の上で寝ています", "車が{}のそばを走っています"),
    "Thai": ("แมวนอนอยู่บน{}", "รถยนต์แล่นผ่าน{}"),
}
THINGS = {
    "English": "bed roof wall sofa road box field chair".split(),
    "Chinese": "床铺 屋顶 墙壁 沙发 马路 箱子 田野 椅子".split(),
    "Japanese": "床 屋根 壁 ソファ 道路 箱 野原 椅子".split(),
    "Thai": "เตียง หลังคา กำแพง โซฟา ถนน กล่อง ทุ่งนา เก้าอี้".split(),
}


def _of_texts(answers, seed):
    """The joint test of as many answers of each role."""
    count = len(answers)
    of = Sources.of(np.arange(count // 2), np.arange(count // 2, count))
    none, texts = np.array([""] * count, object), np.array(answers, object)
    motion = np.random.default_rng(seed).normal(size=count)
    columns = language.columns(none, texts, motion, np.arange(count))
    found = [blind_families.family("text", columns, of)]
    return blind.joint(found, of, of.permuted(399, seed), seed)


def _answers(rng, language, kinds):
    things = rng.choice(THINGS[language], (len(kinds), 2))
    # The length says nothing: what follows is drawn for all alike.
    return [
        KINDS[language][kind].format(one) + (other if rng.random() < 0.5 else "")
        for kind, (one, other) in zip(kinds, things, strict=True)
    ]


@pytest.mark.parametrize("language", KINDS)
def test_texts_of_a_script_without_spaces_are_distinguished(language):
    rng = np.random.default_rng(8)
    found = _of_texts(_answers(rng, language, [0] * 60 + [1] * 60), 0)
    assert found.p <= 0.01 and found.auc > 0.95


def test_letters_of_a_script_without_spaces_are_tokens():
    of = language.tokens
    assert of("two cats, 30個の猫!") == ["two", "cats", ",", "30", *"個の猫", "!"]
    assert of("ソファーの上、猫。") == [*"ソファーの上", "、", "猫", "。"]
    assert of("หมา2ตัว") == [*"หมา", "2", *"ตัว"]
    assert of("고양이가 자요") == ["고양이가", "자요"]  # Korean has spaces.


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_the_level_is_kept_for_texts_that_do_not_differ(language):
    rng = np.random.default_rng(9)
    p = [
        _of_texts(_answers(rng, language, rng.integers(2, size=60)), seed).p
        for seed in range(150)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(p) > 0.4


def test_texts_without_any_motion_give_no_warning():
    texts = np.array([f"a ball {k}" for k in range(6)], object)
    none = np.array([""] * 6, object)
    found = language.columns(none, texts, np.full(6, np.nan), np.arange(6))
    assert not found["answer words x motion"].any()


def test_a_text_with_many_levels_is_counted_first(monkeypatch):
    rng = np.random.default_rng(10)
    count = 600
    unit = rng.integers(150, size=count)
    label = unit < 75
    of = Sources.of(unit[label], unit[~label])
    common = rng.choice(np.array(list("abcdefghijk"), object), count)
    tags = np.where(rng.random(count) < 0.5, common, [f"x{k}" for k in range(count)])
    widths = []
    means = Sources.means
    monkeypatch.setattr(
        Sources, "means", lambda of, x: widths.append(x.shape[1]) or means(of, x)
    )
    found = blind_families.family("container", {"tag": tags}, of)
    assert found is not None and max(widths) <= 8
    # As by a column for every level.
    texts, place = np.unique(tags.astype(str), return_inverse=True)
    shares = means(of, np.eye(len(texts))[place])
    most = np.argsort(-(shares > 0).sum(axis=0), kind="stable")[:8]
    expected = shares[:, sorted(most)]
    assert found.columns == tuple(f"tag {texts[k]}" for k in sorted(most))
    expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e300, 1.7e308])
def test_columns_may_be_of_any_size(size):
    rng = np.random.default_rng(11)
    x = rng.normal(size=80) + np.repeat([5.0, 0.0], 40)
    x /= np.abs(x).max()
    unit = np.arange(80) // 2
    of = Sources.of(unit[:40], unit[40:])
    mean = of.means(x[:, None])
    found = blind_families.family("pixels", {"light": x * size}, of)
    assert found is not None
    rough = 1e-2 if size < 1e-300 else 1e-9  # Few digits are left of these.
    expected = (mean - mean.mean()) / mean.std()
    np.testing.assert_allclose(found.values, expected, rtol=rough, atol=rough)
    assert blind.joint([found], of, of.permuted(199, 0), 0).p <= 0.01
    # Rows that cancel, but for next to nothing, in the mean of a source.
    tiny = np.where(np.arange(80) < 40, 1e-200, 0.0)
    tiny[40:42] = 1.0, -1.0
    found = blind_families.family("pixels", {"light": tiny}, of)
    assert found is not None and np.isfinite(found.values).all()
