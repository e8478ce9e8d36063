"""What page and terminal say of few, of one and of none, and commands they offer."""

import dataclasses
import re
import shlex

import numpy as np
import pytest

from report_test import _Page, _table, _write
from vidsme_jax.evaluation import matching
from vidsme_jax.evaluation.family_tests import Traits
from vidsme_jax.report import figures, summary

GROUP = "x; touch $(id) `id` 'y'"


def _apart(codecs, counts=(40, 40, 0, 0), **more):
    """A table whose files differ in nothing that a model reads."""
    table = _table(counts, **more)
    table.traits["container"] = {"codec": np.array(codecs, object)}
    return table


def test_a_command_that_is_offered_names_the_comparison_as_one_word(tmp_path):
    codecs = ["h264"] * 30 + ["vp9"] * 10 + ["h264"] * 10 + ["vp9"] * 30
    found, page = _write(tmp_path, _apart(codecs, groups=("", GROUP)))
    assert found["comparisons"][GROUP]["matched"]["pairs"]
    words = _Page(page).words
    commands = re.findall(r"written by (vidsme match .*? --out DIR)", words)
    given = [shlex.split(command, comments=False) for command in commands]
    assert f"--comparison={GROUP}" in [each[-3] for each in given if len(each) == 7]
    assert all(each[:3] == ["vidsme", "match", "--workdir"] for each in given)
    assert len(given) == sum(
        bool(each["matched"] and each["matched"]["pairs"])
        for each in found["comparisons"].values()
    )


def test_no_command_is_offered_where_nothing_is_alike(tmp_path):
    found, page = _write(tmp_path, _apart(["h264"] * 40 + ["vp9"] * 40))
    assert found["comparisons"]["all"]["matched"]["pairs"] == 0
    words = _Page(page).words
    assert "no subset can be compared." in words and "vidsme match" not in words


def test_one_pair_is_one_and_few_have_no_interval_and_a_reason():
    table = _apart(
        ["h264"] * 19 + ["vp9"] * 2 + ["h264"] + ["vp9"] * 18, (20, 20, 0, 0)
    )
    table.scores["vid_sme"][:] = np.arange(40) % 7
    traits = Traits(table)
    between = traits.between(np.arange(20), np.arange(20, 40))
    said = []
    for pairs in (1, 4, 12):
        kept = np.zeros(40, bool)
        kept[:pairs] = kept[20 : 20 + pairs] = True
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matching, "matched", lambda *_, kept=kept: kept)
            result = matching.result(table, traits, between, "vid_sme", "all", 0)
        assert result["pairs"] == pairs
        said.append(result["statement"])
    assert "propensities, 1 pair of sources (" in said[0]
    assert "propensities, 4 pairs of sources (" in said[1]
    reason = r"vid_sme has AUC 0\.\d\d \(no interval: \d sources? of members and "
    assert re.search(reason, said[0]) and re.search(reason, said[1])
    assert "no interval" not in said[2]
    assert re.search(
        r"vid_sme has AUC 0\.\d\d \[0\.\d+, 0\.\d+\]; a new blind", said[2]
    )


def test_rows_are_from_sources_where_those_are_fewer(tmp_path):
    table = _table((40, 30, 0, 0))
    unit = np.array([f"source {k // 4}" for k in range(40)], object)
    unit = np.concatenate([unit, [f"file {k}" for k in range(30)]])
    found, page = _write(tmp_path, dataclasses.replace(table, unit=unit))
    assert found["comparisons"]["all"]["sources"] == {"members": 10, "nonmembers": 30}
    assert "Verdict all 40 from 10 sources 30 " in _Page(page).words
    assert " of 10 sources" not in _Page(page).words.partition("What this report")[0]


def test_the_smallest_p_is_said(tmp_path):
    run = {"config": {"report.num_permutations": 1999}}
    words = _Page(_write(tmp_path, _table(), run=run)[1]).words
    said = "The smallest p that 1999 permutations can give is 0.0005, 1/(permutations"
    assert said in words


def test_blind_aucs_are_distinguished(tmp_path):
    table = _table()
    found, page = _write(tmp_path, table)
    note = "AUC of the property, or the family of properties, that separates most"
    words = _Page(page).words
    assert note in words
    assert "cross-fitted classifier of sources by all properties of the clips" in words
    lines = summary.of_audit(found, 1, tmp_path).splitlines()
    place = next(k for k, line in enumerate(lines) if line.startswith("comparison "))
    assert "blind AUC: of the property, or the family" in "\n".join(lines[place:])
    assert "not scored: 1 row, see failures.jsonl" in lines
    assert "not scored: 2 rows, see" in summary.of_audit(found, 2, tmp_path)
    drawn = figures.draw(table, found["comparisons"], [], "vid_sme")
    figure = drawn[0].figure
    assert figure is not None
    legend = figure.legends[0]
    assert any(
        each.get_text().startswith("all properties, no model, AUC 0.")
        for each in legend.get_texts()
    )
    statement = found["comparisons"]["all"]["blind"]["statement"]
    assert re.search(r"\(p = 0\.\d+, corrected for all \d+ properties of ", statement)
