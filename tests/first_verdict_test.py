"""The first verdict of a work directory: kept, and what is exploratory after it."""

import json
import pathlib
import shutil

import pytest

import declared_runs
from declared_runs import CLIPS, WORD, die
from declared_runs import again as _again
from declared_runs import config as _config
from declared_runs import record as _record
from vidsme_jax import audit
from vidsme_jax.base import AuditError
from vidsme_jax.run import declaration, declaration_text

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its configuration."""
    return declared_runs.finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished, tmp_path):
    """The same, to be changed."""
    return declared_runs.copied(finished, tmp_path)


def test_the_first_verdict_is_kept_before_it_can_be_seen(tmp_path, monkeypatch):
    config, folder = _config(tmp_path / "corpus"), tmp_path / "run"
    with monkeypatch.context() as patch:
        die(patch, audit.report.files, "write_scores")
        with pytest.raises(KeyboardInterrupt):
            audit.run(config, folder)
    assert not (folder / "metrics.json").exists()
    config.headline = "perplexity"
    said = audit.run(config, folder).metrics["declaration"]
    assert said["exploratory"] and said["first"]["headline"] == "vid_sme"


@pytest.mark.parametrize("headline", ["vid_sme", "perplexity"])
def test_a_declaration_that_was_taken_away_leaves_its_verdict(run, headline):
    """Which is told, and whose place no other takes, however often it is asked."""
    first, _ = run
    workdir = first.workdir
    digest = _record(workdir)["digest"]
    verdict = (workdir / declaration.VERDICT).read_bytes()
    (workdir / declaration_text.FILE).unlink()
    for _ in range(2):
        again = _again(workdir, headline=headline)
        said = again.metrics["declaration"]
        assert not said["sealed"] and said["exploratory"]
        assert said["first"]["headline"] == "vid_sme"
        assert again.metrics["statement"].startswith(WORD)
        told = f"{WORD} the declaration.json that the first verdict was reached under "
        assert said["statement"].startswith(f"{told}is missing: it was removed")
        assert ("headline was vid_sme, now perplexity" in said["statement"]) == (
            headline != "vid_sme"
        )
        kept = f"of vid_sme, all ({first.metrics['verdict']}): "
        assert kept + first.metrics["statement"] in said["statement"]
        assert (workdir / declaration.VERDICT).read_bytes() == verdict
    (earlier,) = _record(workdir)["earlier"]
    assert earlier["digest"] == digest and earlier["time"] is None
    assert earlier["headline"] == "vid_sme"
    assert earlier["statement"] == first.metrics["statement"]


def test_a_declaration_that_was_replaced_by_another(run, tmp_path):
    """As by a copy from elsewhere, of the same settings or of others."""
    first, config = run
    verdict = (first.workdir / declaration.VERDICT).read_bytes()
    config.corpus.members = _config(tmp_path / "other", members=3).corpus.members
    audit.run(config, tmp_path / "elsewhere")
    copied = (tmp_path / "elsewhere" / declaration_text.FILE).read_bytes()
    (first.workdir / declaration_text.FILE).write_bytes(copied)
    said = _again(first.workdir).metrics["declaration"]
    assert (
        said["exploratory"]
        and "verdict was reached under is missing" in (said["statement"])
    )
    assert (
        "corpus was of 5 rows (3 members, 2 nonmembers), now of 4"
        in (said["statement"])
    )
    assert said["statement"].endswith(declaration_text.ELSEWHERE)
    assert (first.workdir / declaration.VERDICT).read_bytes() == verdict


def test_a_verdict_that_is_a_link_to_nowhere_is_not_replaced(run):
    path = run[0].workdir / declaration.VERDICT
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(AuditError, match="it is a link that leads nowhere; put it"):
        _again(run[0].workdir)
    assert path.is_symlink()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"headline": "perplexity"}, "headline was vid_sme, now perplexity"),
        ({"report__comparison": "plain"}, "comparison was all, now plain"),
        ({"report__alpha": 0.2}, "alpha was 0.05, now 0.2"),
        ({"report__smallest_auc": 0.8}, "smallest_auc was 0.6, now 0.8"),
        ({"corpus__allow_duplicates": True}, "allow_duplicates was false, now true"),
    ],
)
def test_overwriting_after_a_verdict(run, changes, told):
    """The new declaration is no way to seal what was chosen after it."""
    report, config = run
    first = _record(report.workdir)
    verdict = (report.workdir / declaration.VERDICT).read_bytes()
    config.overwrite = True
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    again = audit.run(config, report.workdir)
    said, record = again.metrics["declaration"], _record(report.workdir)
    assert said["exploratory"] and f"{WORD} {told}. " in said["statement"]
    assert said["first"]["headline"] == "vid_sme"
    kept = f"of vid_sme, all ({report.metrics['verdict']}): "
    assert kept + report.metrics["statement"] in again.summary()
    (earlier,) = record["earlier"]
    assert (earlier["digest"], earlier["time"]) == (first["digest"], first["time"])
    assert earlier["statement"] == report.metrics["statement"]
    assert "It took the place of another in this work directory" in again.summary()
    assert (report.workdir / declaration.VERDICT).read_bytes() == verdict


def test_overwriting_with_nothing_changed(run):
    report, config = run
    config.overwrite = True
    for _ in range(2):
        said = audit.run(config, report.workdir).metrics["declaration"]
        assert said["sealed"] and not said["exploratory"] and not said["notes"]
    assert len(_record(report.workdir)["earlier"]) == 2
    assert "of 2 earlier declarations in this work directory, the last of 2" in (
        declaration_text.statement(_record(report.workdir))
    )
    said = _again(report.workdir, headline="perplexity").metrics["declaration"]
    assert said["statement"].count("headline was vid_sme, now perplexity") == 1


@pytest.fixture
def groups_of_copies(tmp_path):
    """A run whose clips are copies, a role and group a folder of its own."""
    config = _config(tmp_path / "corpus")
    places = {"members": [("a", 0), ("b", 1)], "nonmembers": [("a", 4), ("b", 5)]}
    for role, its in places.items():
        rows = []
        for group, k in its:
            clip = tmp_path / f"{role}-{group}.mp4"
            shutil.copy(CLIPS[k], clip)
            rows.append({"video": str(clip), "group": group})
        (tmp_path / "corpus" / f"{role}.json").write_text(json.dumps(rows))
    return config, tmp_path


def _append(path: pathlib.Path) -> None:
    with path.open("ab") as file:
        file.write(b"0")


def test_rows_that_are_lost_after_the_results(groups_of_copies):
    """It stays so in every report, until they are there again."""
    config, folder = groups_of_copies
    first = audit.run(config, folder / "run")
    clip = folder / "nonmembers-b.mp4"
    content = clip.read_bytes()
    _append(clip)
    for _ in range(2):
        again = _again(folder / "run")
        said = again.metrics["declaration"]
        assert said["exploratory"] and again.metrics["statement"].startswith(WORD)
        (change,) = said["changes"]
        assert change["declared"] == {"nonmembers": 2}
        assert change["now"] == {"nonmembers": 1}
        assert (
            f"{WORD} the first verdict was of 2 non-members, now of 1 of these. "
            "Declared" in said["statement"]
        )
        assert first.metrics["statement"] in said["statement"]
        assert said["first"]["rows"] == {"members": 2, "nonmembers": 2}
    # Scored again, it is another clip of the same name.
    said = audit.run(config, folder / "run").metrics["declaration"]
    assert said["exploratory"] and "now of 1 of these" in said["statement"]
    clip.write_bytes(content)
    assert not audit.run(config, folder / "run").metrics["declaration"]["exploratory"]


def test_rows_that_could_not_be_read_at_first(groups_of_copies):
    """They were declared: it is said in every report, and no change."""
    config, folder = groups_of_copies
    clip = folder / "nonmembers-b.mp4"
    content = clip.read_bytes()
    clip.write_bytes(b"no video")
    first = audit.run(config, folder / "run")
    assert not first.metrics["declaration"]["notes"]
    clip.write_bytes(content)
    for again in (audit.run(config, folder / "run"), _again(folder / "run")):
        said = again.metrics["declaration"]
        assert not said["exploratory"]
        assert said["notes"] == [
            "Evaluated now, but not for the first verdict: 1 non-member (clips may not "
            "have been readable then)."
        ]
        assert said["notes"][0] in again.summary()


def test_a_declared_group_without_rows(groups_of_copies):
    config, folder = groups_of_copies
    config.report.comparison = "b"
    audit.run(config, folder / "run")
    _append(folder / "nonmembers-b.mp4")
    again = _again(folder / "run")
    told = (
        f"{WORD} The declared comparison b has no rows left: this report says nothing "
        "about the headline score vid_sme there."
    )
    assert again.metrics["statement"].startswith(told)
    assert again.metrics["verdict"] == "not_tested"
    page = (folder / "run" / "report.html").read_text()
    assert told in page and "Without both members" not in page


def test_marks_of_an_exploratory_report(run):
    """Where a reader looks first, and where scores are compared."""
    workdir = run[0].workdir
    page = (workdir / "report.html").read_text()
    assert "<title>Membership audit: vid_sme</title>" in page
    assert "Exploratory, except for the headline score" in page
    verdict = run[0].metrics["verdict"].replace("_", " ")
    assert f'<span class="mark">{verdict.capitalize()}</span>' in page
    assert ", exploratory" not in run[0].summary()
    again = _again(workdir, report__alpha=0.2)
    page = (workdir / "report.html").read_text()
    assert "<title>Membership audit: vid_sme, exploratory</title>" in page
    assert "Exploratory, except for the headline score" not in page
    assert "All exploratory, the headline score in the first row too" in page
    verdict = again.metrics["verdict"]
    words = verdict.replace("_", " ")
    assert f'<span class="mark">{words.capitalize()}, exploratory</span>' in page
    rows = [x for x in again.summary().splitlines() if x.startswith(("all ", "plain "))]
    assert len(rows) == 2 and all(x.endswith(", exploratory") for x in rows)
    cell = f'<td data-label="Verdict">{words}, exploratory</td>'
    assert page.count(cell) == 2


@pytest.mark.parametrize(
    "changes", [{"comparison": "plain"}, {"alpha": 0.2}, {"smallest_auc": 0.8}]
)
def test_the_score_next_to_the_headline(tmp_path_factory, finished, changes):
    """It is no less exploratory than the headline."""
    folder = tmp_path_factory.mktemp("beside")
    config = finished[1].copy_and_resolve_references()
    config.headline = "perplexity"
    first = audit.run(config, folder).metrics["beside"]
    assert first["statement"].startswith("As control, not chosen after the results: ")
    assert not first["exploratory"]
    more = {f"report__{key}": value for key, value in changes.items()}
    again = _again(folder, **more)
    beside = again.metrics["beside"]
    assert beside["exploratory"]
    assert beside["statement"].startswith("As control, exploratory: the score vid_sme")
    said = again.summary() + (folder / "report.html").read_text()
    assert "not chosen after the results" not in said
    assert "Control, vid_sme, exploratory</th>" in said


def test_a_score_next_to_the_headline_that_was_added(finished, tmp_path):
    config = finished[1].copy_and_resolve_references()
    config.headline = config.scores = "perplexity"
    audit.run(config, tmp_path / "run")
    found = _again(tmp_path / "run", scores="perplexity,vid_sme").metrics
    assert not found["declaration"]["exploratory"] and found["beside"]["exploratory"]
    (note,) = found["declaration"]["notes"]
    assert "were added to those that were declared (vid_sme): of the" in note
    for name in (declaration_text.FILE, declaration.VERDICT):
        (tmp_path / "run" / name).unlink()
    found = _again(tmp_path / "run", scores="perplexity,vid_sme").metrics
    assert found["beside"]["statement"].startswith("As control: the score vid_sme")
