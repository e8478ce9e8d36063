"""The page of the controlled benchmark, and what is trained for it."""

import collections
import json
import re

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("beside_scripts")


def test_the_page_of_some_cells(tmp_path, monkeypatch, capsys):
    """Of two seeds of one snapshot: all kinds, non-members of another distribution."""
    import _combination
    import _findings

    names = sorted({*_combination.GIVEN, *_combination.GREEDY})
    folder, rng = tmp_path / "cells", np.random.default_rng(0)
    folder.mkdir()
    (tmp_path / "drawn").mkdir()
    rows = [{"id": f"{k:03d}", "answer": f"the clip {k}"} for k in range(60)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "drawn" / "pool.jsonl").write_text(text)
    for seed in (0, 1):
        member = rng.permutation(np.arange(60) % 2 == 0)
        values = rng.normal(size=(len(names), 60))
        values[names.index("response_loss")] += 4.0 * member
        part = {
            "id": np.array([row["id"] for row in rows]),
            "names": np.array(names),
            "scores": values,
            "member": member,
            "motion": rng.normal(size=(2, 60)),
            "tokens": np.full(60, 4),
        }
        name = f"drawn-full-{seed:02d}"
        of_pool = {f"pool/{key}": x for key, x in part.items()}
        of_shift = {f"shifted/{key}": x for key, x in part.items()}
        np.savez(folder / f"{name}-3.npz", **of_pool, **of_shift)
        for kind in ("greedy", "shuffled"):
            np.savez(folder / f"{name}-3-{kind}.npz", **of_pool)
        said = {f"clips/{row['id']}.mp4": row["answer"] for row in rows}
        cell = {"pool": "drawn", "method": "full", "seed": seed, "epochs": 3.0}
        cell |= {"commit": "abc", "seconds": {"training": 3600.0}, "answers": {}}
        cell["answers"]["3"] = said
        (folder / f"{name}.json").write_text(json.dumps(cell))
    monkeypatch.setattr(_findings, "RESULTS", tmp_path / "results")
    wanted = ["drawn-full-00", "drawn-full-01", "drawn-full-02"]
    assert _findings.report(tmp_path, folder, wanted) == 0
    page = (tmp_path / "results" / "controlled.md").read_text()
    assert "from 2 cells (trained at abc, tables of " in page
    assert "2.0 core hours" in page and "Not run: drawn-full-02." in page
    assert "Seeds and sources are drawn at once" in page
    left_out = re.search(r"own answer left out, 1-grams (\S+) .*, 2-grams (\S+) ", page)
    assert "1-grams of the members' answers **1.00 [" in page and left_out
    sections = dict(part.split("\n", 1) for part in re.split(r"\n#+ ", page)[1:])
    for title in ("AUC", "TPR at 1% FPR", "AUC, shuffled in place of reversed"):
        line = next(x for x in sections[title].splitlines() if "`response_loss`" in x)
        assert re.search(r"\*\*(1\.00|0\.\d\d) \[", line), line
        line = next(x for x in sections[title].splitlines() if "`vid_sme`" in x)
        assert "**" not in line
    assert "| words in common with the caption | 0.50 [" in page
    assert "non-members of another distribution" in page
    record = json.loads((tmp_path / "results" / "controlled.json").read_text())
    words = record["words"]["drawn"]
    for order in ("1_gram", "2_gram"):
        # Each answer has one word that no other has.
        assert words[order][0] == 1 and words[f"{order}_left_out"] == [0.5] * 3
    kinds = {x["kind"]: x for x in record["settings"]}
    assert set(kinds) == {"", "-greedy", "-shuffled"}
    assert set(kinds[""]["scores"]) == set(names)
    assert len(kinds[""]["scores"]["vid_sme"]["auc"]) == 3
    assert set(record["shifted"][0]["scores"]) == set(names)
    judged = record["headline"]["given"]["combination"]["judged"]
    assert [x["seeds"] for x in judged] == [1]
    assert _findings.report(tmp_path, tmp_path / "drawn", wanted) == 1


def test_what_is_trained():
    """Each cell once; as many seeds as the ceilings need; the most wanted first."""
    import controlled

    found = controlled.cells(small=False)
    assert len({cell.name for cell in found}) == len(found)
    seeds = collections.Counter((cell.pool, cell.method) for cell in found)
    assert seeds["drawn", "full"] == 16
    for pool in ("drawn", "film"):
        assert min(seeds[pool, method] for method in ("lora", "projector")) == 5
    assert {seeds["smollm", m] for m in ("lora", "projector")} == {3}
    assert [cell.seed for cell in found[:3]] == [0, 0, 0]
    assert all(
        cell.more == (cell.method == "full")
        for cell in found
        if cell.seed < 5 and cell.pool != "smollm"
    )


def test_the_clips_that_a_set_test_needs_with_100_and_500():
    import _evidence
    import _findings

    scores = {"response_loss": 0.55, "response_wbc": 0.65}
    own = {
        "method": "lora",
        "snapshot": "3",
        "scores": {name: {"auc": {"value": auc}} for name, auc in scores.items()},
    }
    lines = _findings._needed([own]).splitlines()
    assert "beside 100 / 500 calibration clips" in lines[0]
    assert "| score | lora 3 |" in lines
    assert "| `response_loss` | - / 352 |" in lines
    few, many = (_evidence.clips_needed(0.65, n) for n in (100, 500))
    assert few > many and f"| `response_wbc` | {few} / {many} |" in lines
    assert "| `response_loss_ref` | - / - |" in lines  # It has no such score.


def test_greedy_answers_are_of_their_seed_snapshot_and_way_of_training():
    import _evidence
    import _findings

    setting = _evidence.Setting("drawn", "full", "3", "-greedy", "pool", {})
    cells = [
        {"pool": pool, "method": method, "seed": seed, "answers": answers}
        for pool, method, seed, answers in (
            ("drawn", "full", 0, {"3": {"a/x.mp4": "a cat"}, "10": {"a/x.mp4": "no"}}),
            ("drawn", "full", 4, {"3": {"a/x.mp4": "a dog"}}),
            ("drawn", "full", 5, {}),
            ("drawn", "lora", 0, {"3": {"a/x.mp4": "of lora"}}),
            ("film", "full", 0, {"3": {"a/x.mp4": "of a film"}}),
        )
    ]
    found = _findings._said(setting, cells)
    assert found == {0: {"x": "a cat"}, 4: {"x": "a dog"}, 5: {}}
