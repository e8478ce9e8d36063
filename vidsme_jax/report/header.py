"""The head of a report: what was audited, what was not, and the verdict in words."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vidsme_jax.base import SLICES, Failure
from vidsme_jax.evaluation.blind_families import APART, REACHING
from vidsme_jax.wording import counted

_NOT_RECORDED = "not recorded"
_MAX_SOURCES = 3  # Of a role, by name.
_SLICES = {
    "video": "the model's rows of the video",
    "instruction": "questions about the videos",
    "response": "answers to questions about the videos",
}
_ROLES = {
    "members": "members: videos declared to have been trained on",
    "nonmembers": "non-members",
    "suspects": "suspects: videos whose membership is unknown",
    "calibration": "calibration clips: known non-members that are like the suspects",
}
# The verdicts in words, without numbers.
_PLAIN = {
    "supported": (
        "The model ranks the declared members above the non-members, and neither what "
        "was measured of the videos nor the reference model explains it. That supports "
        "that the members as a set were trained on. It does not prove it, and it says "
        "nothing of any single video."
    ),
    "ranks_above_no_placebo": (
        "The model ranks the declared members above the non-members, beyond what was "
        "measured of the videos. Without a fitting reference model the cause may be "
        "training or another difference between the two sets: "
        "this is no finding that they were trained on."
    ),
    "chance": (
        "No sign that the model knows the declared members better than the "
        "non-members, in an audit large enough to see an effect of the size declared. "
        "It does not show that they were not trained on."
    ),
    "shift": (
        "The two sets differ in other ways than membership, so that nothing can be "
        "concluded about training in either direction."
    ),
    "underpowered": (
        "No conclusion in either direction: this audit has too few independent sources."
    ),
    "not_tested": "No conclusion: membership was not tested. The reason is below.",
}
_SET_FOUND = (
    "Together the suspects rank higher than clips known not to be members do by "
    "chance. That is a sign that the model knows them, if the two are alike in all "
    "other respects; it proves no use, and does not show which video was used."
)
_SET_NOT_FOUND = (
    "No sign that the suspects as a set rank higher than clips known not to be "
    "members. It does not show that none of them was used."
)


def plain(found: Mapping[str, Any]) -> str:
    """Returns the result in words, for a reader who knows no statistics."""
    if found["verdict"] is not None:
        text = _PLAIN[found["verdict"]]
    else:
        text = _SET_FOUND if found["suspects"]["set"]["found"] else _SET_NOT_FOUND
    declared = found["declaration"]
    if declared and declared["exploratory"]:
        text += " The declaration was changed after results were seen: exploratory."
    return text


def facts(found: Mapping[str, Any], run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what was audited, as pairs of a term and its text."""
    model, prints = run.get("model", {}), run.get("fingerprints", {})
    config, versions = run.get("config", {}), run.get("versions", {})
    rows = [
        ("Model", _joined(model.get("checkpoint") or config.get("model.checkpoint"))),
        ("Its fingerprint", _joined(prints.get("model"))),
        ("Family", _joined(model.get("family"))),
        ("Reference model", _reference(run)),
        *_corpora(found, config),
        ("Digest of the rows", _joined(prints.get("corpus"))),
        ("Date", _joined(run.get("date"))),
        ("Command", _joined(run.get("command"))),
        *_again(run),
        ("Version", _joined(versions.get("vidsme_jax"))),
        ("Digest of the code", _joined(prints.get("code"))),
    ]
    if versions.get("commit"):
        rows.insert(-1, ("Commit", str(versions["commit"])))
    return rows


def _again(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns date and command by which this page was made again, if it was."""
    again = run.get("report made again")
    if not again:
        return []
    return [("Report made again", _joined(again.get("date"), again.get("command")))]


def _joined(*values: Any) -> str:
    return " ".join(str(x) for x in values if x) or _NOT_RECORDED


def _reference(run: Mapping[str, Any]) -> str:
    about = run.get("reference")
    if not about or "checkpoint" not in about:
        return "none"
    adapter = "; without its adapter" if about.get("adapter") == "off" else ""
    mark = f"; fingerprint {about['fingerprint']}" if about.get("fingerprint") else ""
    return f"{about['checkpoint']}{adapter}{mark}"


def _corpora(
    found: Mapping[str, Any], config: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Returns one line per role with rows: their number and their sources."""
    lines: list[tuple[str, str]] = []
    for role, what in _ROLES.items():
        count = found["counts"][role]
        if not count["items"]:
            continue
        text = (
            f"{counted(count['items'], 'row')} of {counted(count['videos'], 'video')} "
            f"from {counted(count['sources'], 'source')}"
        )
        sources = [_short(x) for x in config.get(f"corpus.{role}") or ()]
        if sources:
            more = len(sources) - _MAX_SOURCES
            text += f": {', '.join(sources[:_MAX_SOURCES])}"
            text += f" and {more} more" if more > 0 else ""
        lines.append((what.partition(":")[0].capitalize(), text))
    return lines


def _short(source: Any) -> str:
    """Returns the last part of a path; an address unchanged."""
    text = str(source)
    return text if ":" in text else pathlib.PurePosixPath(text).name or text


def not_looked_at(
    found: Mapping[str, Any], run: Mapping[str, Any], failures: Sequence[Failure]
) -> list[str]:
    """Returns what a reader might take for granted and this audit has not done."""
    config = run.get("config", {})
    texts: list[str] = []
    slices = config.get("slices")
    if slices:
        lacking = [_SLICES[name] for name in SLICES if name not in slices]
        texts += [f"not scored: {', '.join(lacking)}"] if lacking else []
    if number := config.get("video.num_frames"):
        if config.get("video.sampling") != "fps":
            texts.append(f"all but {counted(number, 'frame')} of each clip, and sound")
        else:
            texts.append("frames between those sampled, and sound")
    for pair in (("members", "nonmembers"), ("suspects", "calibration")):
        there = [bool(found["counts"][role]["items"]) for role in pair]
        if any(there) and not all(there):
            texts.append(f"no {_ROLES[pair[there.index(False)]]}")
    if not found["reference"]:
        texts.append(
            "no reference model: differences between the sets that were not measured "
            "may look like membership"
        )
    if not found["control"]:
        texts.append(
            "no positive control, which shows whether this audit could find anything"
        )
    if text := _blind(found):
        texts.append(text)
    if found["published"] is None:
        texts.append("published lists of training data were not searched")
    if failures:
        texts.append(f"{counted(len(failures), 'row')} failed and have no scores")
    if lost := sum(each["count"] for each in found["left_out"]):
        texts.append(f"{lost} rows or files of the sources were left out beforehand")
    if found["groups"]["left_out"]:
        texts.append(f"{counted(found['groups']['left_out'], 'group')} not compared")
    return texts


def _blind(found: Mapping[str, Any]) -> str:
    """Returns which properties of the clips were in no test without the model."""
    tests = [(x["blind"], x["apart"]) for x in found["comparisons"].values()]
    of_suspects = found["suspects"]
    if of_suspects["exchangeable"]:
        tests.append((of_suspects["exchangeable"], of_suspects["apart"]))
    if not tests:
        return ""
    tested = {
        name for pair in tests for each in pair if each for name in each["families"]
    }
    lacking = [name for name in (*REACHING, *APART) if name not in tested]
    if not lacking:
        return "scene content was not compared without the model"
    return f"not compared without the model: {', '.join(lacking)}, scene content"
