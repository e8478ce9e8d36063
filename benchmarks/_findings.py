"""From the cells of the controlled benchmark to its tables, figure and headline."""

import datetime
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import _evidence
import _headline
import _report
import _tables
import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"


def report(out: pathlib.Path, folder: pathlib.Path, wanted: Sequence[str]) -> int:
    """Writes `controlled.json`, `controlled.md` and `controlled.png`.

    Args:
      out: Of the pools.
      folder: Of the cells.
      wanted: The names of all cells.

    Returns:
      0; 1 if there is no cell.
    """
    settings = _evidence.settings(folder)
    if not settings:
        print(f"no cell in {folder}: run the benchmark first")
        return 1
    pools = {x.pool: out / ("film" if x.pool == "smollm" else x.pool) for x in settings}
    sources = {name: _evidence.read_sources(path) for name, path in pools.items()}
    known = {name: _evidence.answers(path) for name, path in pools.items()}
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    shown = {*_tables.SHOWN, *_headline.GIVEN, *_headline.GREEDY}
    found, words = [], {}
    for setting in settings:
        its = _evidence.evaluated(setting, sources[setting.pool], None, shown)
        its["epochs"] = _epochs(setting, cells)
        found.append(its)
        if setting.pool not in words:
            args = setting, sources[setting.pool], known[setting.pool]
            words[setting.pool] = _evidence.of_words(*args)
        if setting.kind == "-greedy":
            its["overlap"] = _evidence.of_overlap(
                setting,
                sources[setting.pool],
                known[setting.pool],
                _said(setting, cells),
            )
    shifted = [
        _evidence.evaluated(setting, sources[setting.pool], None, shown)
        for setting in _evidence.settings(folder, "shifted")
        if not setting.kind
    ]
    record = {
        "date": datetime.date.today().isoformat(),
        "commit": _report.commit(),
        "cells": [
            {k: v for k, v in cell.items() if k not in ("members", "answers")}
            for cell in cells
        ],
        "not run": [name for name in wanted if not (folder / f"{name}.json").is_file()],
        "seconds": round(sum(sum(cell["seconds"].values()) for cell in cells)),
        "words": words,
        "settings": found,
        "shifted": shifted,
        "headline": _headline.judged(settings, found, sources),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(_rounded(record), indent=None, separators=(",", ":"))
    (RESULTS / "controlled.json").write_text(text + "\n")
    (RESULTS / "controlled.md").write_text(page(record))
    _tables.draw(found, RESULTS / "controlled.png")
    print(f"written: {RESULTS}/controlled.json, .md, .png")
    return 0


def page(record: Mapping[str, Any]) -> str:
    """Returns the tables as a page of Markdown."""
    commits = sorted({cell["commit"] for cell in record["cells"]})
    lines = [
        "# The controlled benchmark",
        "",
        f"Made by `python benchmarks/controlled.py --report` on {record['date']} from "
        f"{len(record['cells'])} cells (trained at {', '.join(commits)}, tables of "
        f"{record['commit']}; "
        f"{record['seconds'] / 3600:.1f} core hours of training and scoring). Values "
        "are means over seeds with 95 % intervals over seeds and sources; bold: above "
        "chance, italic: below. Seeds and sources are drawn at once: where seeds "
        "differ by chance alone, intervals are about 1.6 times as wide as they need be "
        "and 99 of 100 hold the value in simulations, not 95; where training itself "
        "goes better in some of few seeds, fewer than 95. `_ref`: less the model "
        "before tuning. All scores are "
        "in `controlled.json` (an interval is [value, low, high]). Not run: "
        f"{', '.join(record['not run']) or 'nothing'}.",
        "",
        "![AUC against epochs and against the gap](controlled.png)",
    ]
    pools = list(dict.fromkeys(x["pool"] for x in record["settings"]))
    for pool in pools:
        its = [x for x in record["settings"] if x["pool"] == pool]
        words = record["words"][pool]
        lines += [
            "",
            f"## {pool}",
            "",
            f"{its[0]['members']} members and {its[0]['nonmembers']} non-members a "
            f"seed. Answers that a non-member shares with a member: "
            f"{words['shared_answers']:.1%}. Without any network: 1-grams of the "
            f"members' answers {_tables.number(words['1_gram'])}, 2-grams "
            f"{_tables.number(words['2_gram'])}; each member's own answer left out, "
            f"1-grams {_tables.number(words['1_gram_left_out'])}, 2-grams "
            f"{_tables.number(words['2_gram_left_out'])}.",
        ]
        fpr = f"TPR at {its[0]['fpr']:.0%} FPR"
        for kind, title in (
            ("", "AUC"),
            ("-shuffled", "AUC, shuffled in place of reversed"),
            ("-greedy", "AUC of the model's own answers"),
        ):
            own = [x for x in its if x["kind"] == kind]
            if own:
                lines += ["", f"### {title}", "", _tables.markdown(own, _names(own))]
            if kind == "-greedy" and own:
                cells = (_tables.number(x["overlap"]) for x in own)
                lines += [f"| words in common with the caption | {' | '.join(cells)} |"]
        own = [x for x in its if not x["kind"]]
        lines += ["", f"### {fpr}", "", _tables.markdown(own, _tables.SHOWN, "tpr")]
        if its[0]["fpr"] != _evidence.MORE_FPR:
            table = _tables.markdown(own, _tables.SHOWN, "tpr_at_5")
            lines += ["", f"### TPR at {_evidence.MORE_FPR:.0%} FPR", "", table]
        lines += ["", "### Clips that a set test needs", "", _needed(own)]
    if record["shifted"]:
        lines += [
            "",
            "## drawn, non-members of another distribution",
            "",
            _tables.markdown(record["shifted"], _tables.SHOWN),
        ]
    return "\n".join([*lines, *_headline.lines(record["headline"])]) + "\n"


def _names(own: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what is shown: of greedy answers those scores that they have."""
    return [name for name in _tables.SHOWN if any(name in x["scores"] for x in own)]


def _needed(own: Sequence[Mapping[str, Any]]) -> str:
    """Returns how many suspects a rank-sum test needs, beside 100 or 500 others."""
    heads = [f"{x['method']} {x['snapshot']}" for x in own]
    lines = [
        "80 % power at the 5 % level, beside 100 / 500 calibration clips; -: no number "
        "suffices.",
        "",
        "| score | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for name in _headline.GIVEN:
        cells = []
        for x in own:
            auc = x["scores"].get(name, {}).get("auc", {}).get("value", 0.5)
            both = (_evidence.clips_needed(auc, n) for n in (100, 500))
            cells.append(" / ".join("-" if n is None else str(n) for n in both))
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _epochs(setting: _evidence.Setting, cells: Sequence[Mapping[str, Any]]) -> float:
    if setting.snapshot != "end":
        return float(setting.snapshot)
    its = [
        x for x in cells if (x["pool"], x["method"]) == (setting.pool, setting.method)
    ]
    return float(np.mean([x["epochs"] for x in its]))


def _said(
    setting: _evidence.Setting, cells: Sequence[Mapping[str, Any]]
) -> dict[int, dict[str, str]]:
    """Returns the greedy answers by seed and by the id of the clip."""
    return {
        cell["seed"]: {
            pathlib.Path(key).stem: answer
            for key, answer in cell["answers"].get(setting.snapshot, {}).items()
        }
        for cell in cells
        if (cell["pool"], cell["method"]) == (setting.pool, setting.method)
    }


def _rounded(value: Any) -> Any:
    """Returns a value for the file: an interval is [value, low, high]."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        if set(value) == {"value", "low", "high"}:
            return [round(value[key], 3) for key in ("value", "low", "high")]
        return {key: _rounded(x) for key, x in value.items()}
    return [_rounded(x) for x in value] if isinstance(value, list) else value
