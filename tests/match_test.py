"""`vidsme match`: the clips that are alike, as manifests that an audit reads."""

import json

import pytest

from vidsme_jax import __main__ as commands
from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.commands import match as match_command
from vidsme_jax.commands.finished import run_config
from vidsme_jax.data import corpora

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An audit of 24 clips a role of the demo, half of the non-members shifted."""
    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.corpus.members = (str(settings.DEMO / "corpus/members.jsonl"),)
    config.corpus.nonmembers = (str(settings.DEMO / "corpus/nonmembers.jsonl"),)
    config.corpus.max_clips, config.video.num_frames = 24, 4
    config.model.dtype, config.scores = "float32", ("vid_sme",)
    config.report.num_permutations = 100
    workdir = tmp_path_factory.mktemp("finished")
    report = audit.run(config, workdir)
    assert report is not None
    return workdir, report


def test_the_manifests_hold_pairs_of_like_clips(finished, tmp_path):
    workdir, report = finished
    config = run_config(str(workdir))
    said = match_command.write(config, workdir, tmp_path, "all")
    rows = {
        role: list(
            map(json.loads, (tmp_path / f"{role}.jsonl").read_text().splitlines())
        )
        for role in ("members", "nonmembers")
    }
    count = len(rows["members"])
    assert 3 < count == len(rows["nonmembers"]) < 24
    assert said.startswith(f"{count} pairs of sources, {count} rows of members")
    assert said.endswith(
        f"This subset was chosen after the results of {workdir} were seen: a verdict "
        "on it is exploratory."
    )
    # Clips that were shifted are like few members, if any.
    shifted = [row for row in rows["nonmembers"] if row.get("group") == "shifted"]
    drawn = report.table.group.tolist().count("shifted")
    assert drawn > 8 and len(shifted) / count < 0.8 * drawn / 24
    given = settings.default()
    for role in rows:
        given.corpus[role] = (str(tmp_path / f"{role}.jsonl"),)
    given.corpus.allow_outside = True
    items = corpora.load(settings.views.Settings.of(given).corpus).items
    assert {item.id for item in items} <= set(report.table.id.tolist())
    assert all(item.answer for item in items)


def test_what_is_wrong_is_a_sentence(finished, tmp_path):
    workdir, _ = finished
    config = run_config(str(workdir))
    with pytest.raises(AuditError, match="did you mean 'shifted'"):
        match_command.write(config, workdir, tmp_path, "shiftd")
    with pytest.raises(SystemExit):
        run_config(str(tmp_path / "none"))
    assert "match" in commands.COMMANDS
    assert not list(tmp_path.iterdir())
