"""What is declared before the results stays, and what is asked later is exploratory."""

import hashlib
import json
import logging
import pathlib
import sys

import numpy as np
import pytest

import children
import declared_runs
import score_tables
from declared_runs import WORD, die
from declared_runs import again as _again
from declared_runs import config as _config
from declared_runs import record as _record
from vidsme_jax import audit
from vidsme_jax.base import AuditError, Item
from vidsme_jax.evaluation import groups
from vidsme_jax.run import corpus_rows, declaration, declaration_text, sealed
from vidsme_jax.run.declaration_text import Change

pytestmark = pytest.mark.usefixtures("without_figures")
KS = (0, 5, 10, 30, 60, 90)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its configuration."""
    return declared_runs.finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished, tmp_path):
    """The same, to be changed."""
    return declared_runs.copied(finished, tmp_path)


def test_a_headline_that_is_changed_after_the_results(run):
    """Nobody is told that the second was declared, and the first stays in sight."""
    first, _ = run
    workdir = first.workdir
    written = (workdir / declaration_text.FILE).read_bytes()
    verdict = (workdir / declaration.VERDICT).read_bytes()
    assert WORD not in first.metrics["statement"] + first.summary()
    said = first.metrics["declaration"]
    assert said["sealed"] and not said["exploratory"] and said["changes"] == []
    assert said["statement"] in first.summary()
    again = _again(workdir, headline="perplexity", motion__q_scale=0.5)
    metrics = json.loads((workdir / "metrics.json").read_text())
    page = (workdir / "report.html").read_text()
    assert metrics["statement"].startswith(f"{WORD} The headline score perplexity")
    for told in (metrics["declaration"]["statement"], again.summary(), page):
        assert WORD in told and "headline was vid_sme, now perplexity" in told
        assert "q_scale was 1, now 0.5" in told
        assert first.metrics["statement"] in told
    assert "declared before the results were seen" not in page
    assert again.metrics["statement"] in page and again.metrics["statement"] in (
        again.summary()
    )
    kept = metrics["declaration"]["first"]
    assert kept["headline"] == "vid_sme" and kept["comparison"] == "all"
    assert kept["statement"] == first.metrics["statement"]
    assert kept["verdict"] == first.metrics["verdict"]
    assert kept["declaration"] == metrics["declaration"]["digest"]
    # Neither file has changed, and what was declared is no news when asked again.
    assert (workdir / declaration_text.FILE).read_bytes() == written
    assert (workdir / declaration.VERDICT).read_bytes() == verdict
    same = _again(workdir, headline="vid_sme", motion__q_scale=1.0)
    assert same.metrics == first.metrics


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"report__comparison": "plain"}, "comparison was all, now plain"),
        ({"report__alpha": 0.1}, "alpha was 0.05, now 0.1"),
        ({"report__smallest_auc": 0.7}, "smallest_auc was 0.6, now 0.7"),
        ({"report__fdr": 0.2}, "fdr was 0.05, now 0.2"),
        ({"report__fprs": (0.3,)}, "fprs was (0.001, 0.01, 0.05), now (0.3)"),
        ({"motion__r_scale": 0.2}, "r_scale was 0.1, now 0.2"),
        (
            {"motion__bounds": (0.0, 5.0, 0.0, 9.0)},
            "bounds was none, now (0, 5, 0, 9)",
        ),
        (
            {"report__num_permutations": 200},
            "num_permutations was 100, now 200",
        ),
        (
            {"scores": "vid_sme"},
            "declared scores are left out now (perplexity)",
        ),
        (
            {"profile": "official", "scores": "Min_30.0% vetp"},
            "headline was vid_sme, now Min_30.0% vetp; profile was exact, now official",
        ),
    ],
)
def test_whatever_else_is_changed(run, changes, told):
    said = _again(run[0].workdir, **changes).metrics["declaration"]
    assert said["exploratory"] and f"{WORD} {told}. Declared 2" in said["statement"]


def test_what_changes_nothing_of_the_headline(run):
    """Nor do other slices beside it, or the same model in another folder."""
    workdir = run[0].workdir
    record = {k: x for k, x in _record(workdir).items() if k not in sealed._OWN}
    record["declared"] |= {"slices": ["video", "response"], "model": "elsewhere"}
    sealed.write(workdir / declaration_text.FILE, record)
    (workdir / declaration.VERDICT).unlink()  # Of the record that was there.
    names = ("vid_sme", "perplexity", *(f"min_k_prob_{k}" for k in KS))
    said = _again(workdir, scores=names).metrics["declaration"]
    assert not said["exploratory"] and said["changes"] == []
    (note,) = said["notes"]
    assert note.startswith("Scores were added to those that were declared (") and (
        "and 1 more): of the headline they change the adjusted p only." in note
    )
    assert said["statement"].endswith(note)


def test_what_is_declared(run):
    report, config = run
    record = _record(report.workdir)
    first = json.loads((report.workdir / declaration.VERDICT).read_text())
    said = record["declared"]
    assert first["declared"] == said and first["listed"] == record["rows"]
    corpus = said.pop("corpus")
    assert said == {
        **{"headline": "vid_sme", "k": 30, "comparison": "all", "profile": "exact"},
        **{"alpha": 0.05, "smallest_auc": 0.6, "fdr": 0.05, "bounds": None},
        **{"fprs": [0.001, 0.01, 0.05], "q_scale": 1.0, "r_scale": 0.1},
        **{"slices": ["video"], "response": None, "reference": ""},
        **{"scores": ["vid_sme", "perplexity"], "num_permutations": 100},
        "allow_duplicates": False,
        "model": "random:smolvlm-tiny",
        "unit": "source, else near-duplicates, else file",
    }
    # The digests are those of anybody who computes them.
    rows = []
    for role in ("members", "nonmembers"):
        for row in json.loads(pathlib.Path(config.corpus[role][0]).read_text()):
            video = row["video"]
            row = [video, role, "plain", "", video, "", [], ""]
            rows.append(hashlib.sha256(json.dumps(row).encode()).digest())
    assert corpus == hashlib.sha256(b"".join(sorted(rows))).hexdigest()
    assert record["rows"] == {"members": 2, "nonmembers": 2}
    said["corpus"] = corpus
    digest = record.pop("digest")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert not record["after_signals"] and not record["after_report"]
    assert record["earlier"] == []


def test_it_is_there_before_the_first_signal(tmp_path, monkeypatch):
    config, folder = _config(tmp_path / "corpus"), tmp_path / "run"
    with monkeypatch.context() as patch:
        die(patch, audit.scoring, "score")
        with pytest.raises(KeyboardInterrupt):
            audit.run(config, folder)
        first = _record(folder)
        # Nothing has been computed: it may be another one yet.
        monkeypatch.setattr(sealed, "_now", lambda: "2026-11-29T22:10:05Z")
        with pytest.raises(KeyboardInterrupt):
            audit.run(config, folder)
        assert _record(folder) == first
        config.headline = "perplexity"
        with pytest.raises(KeyboardInterrupt):
            audit.run(config, folder)
    second = _record(folder)
    assert second["declared"]["headline"] == "perplexity"
    assert [x["digest"] for x in second["earlier"]] == [first["digest"]]
    said = audit.run(config, folder).metrics["declaration"]
    assert said["sealed"] and not said["exploratory"]
    assert (
        "It took the place of another in this work directory, of 20"
        in (said["statement"])
    )


def test_a_run_that_is_killed_goes_on_under_its_declaration(tmp_path, monkeypatch):
    """Signals were there: whoever killed it may have looked at them."""
    config, folder = _config(tmp_path / "corpus"), tmp_path / "run"
    with monkeypatch.context() as patch:
        die(patch, audit.provenance, "describe")
        with pytest.raises(KeyboardInterrupt):
            audit.run(config, folder)
    written = (folder / declaration_text.FILE).read_bytes()
    config.headline = "perplexity"
    said = audit.run(config, folder).metrics["declaration"]
    assert said["exploratory"] and said["first"] is None
    config.headline = "vid_sme"
    said = audit.run(config, folder).metrics["declaration"]
    assert not said["exploratory"] and said["first"]["headline"] == "vid_sme"
    assert (folder / declaration_text.FILE).read_bytes() == written


def test_signals_of_a_run_that_declared_nothing(run):
    """As of a version that knew no declarations."""
    workdir = run[0].workdir
    for name in (declaration_text.FILE, declaration.VERDICT):
        (workdir / name).unlink()
    again = _again(workdir, headline="perplexity")
    said = again.metrics["declaration"]
    assert not said["sealed"] and not said["exploratory"]
    assert said["statement"].startswith("Nothing was declared before the results: head")
    assert "signals of this run were there already, and seals nothing" in (
        again.summary()
    )
    assert _again(workdir, headline="vid_sme").metrics["declaration"]["exploratory"]


def test_only_what_changed_is_named(tmp_path):
    """No answers are asked of the video's rows, but `response` has not changed."""
    config = _config(tmp_path / "corpus")
    for role in ("members", "nonmembers"):
        path = tmp_path / "corpus" / f"{role}.json"
        rows = [x | {"answer": "a"} for x in json.loads(path.read_text())]
        path.write_text(json.dumps(rows))
    config.slices, config.scores = ("video", "response"), "vid_sme,response_loss"
    config.headline = "response_loss"
    audit.run(config, tmp_path / "run")
    said = _again(tmp_path / "run", headline="vid_sme").metrics["declaration"]
    assert [x["what"] for x in said["changes"]] == ["headline"]
    assert f"{WORD} headline was response_loss, now vid_sme. Dec" in said["statement"]


def test_signals_that_are_deleted_by_hand_change_nothing(run):
    report, config = run
    for part in (report.workdir / "signals").glob("part-*"):
        part.unlink()
    written = (report.workdir / declaration_text.FILE).read_bytes()
    config.headline = "perplexity"
    said = audit.run(config, report.workdir).metrics["declaration"]
    assert said["exploratory"]
    assert (report.workdir / declaration_text.FILE).read_bytes() == written


def test_another_corpus(run, tmp_path):
    _, config = run
    config.corpus.members = _config(tmp_path / "corpus", members=3).corpus.members
    said = audit.run(config, tmp_path / "run").metrics["declaration"]
    told = "corpus was of 4 rows (2 members, 2 nonmembers), now of 5 rows (3 members, "
    assert f"{WORD} {told}2 nonmembers). Declared" in said["statement"]
    assert said["changes"][0]["now"] == {"members": 3, "nonmembers": 2}
    assert declaration_text.ELSEWHERE in said["statement"]
    # As many, but another question.
    path = tmp_path / "corpus" / "members.json"
    rows = json.loads(path.read_text())[:2]
    path.write_text(json.dumps([row | {"question": "what?"} for row in rows]))
    said = audit.run(config, tmp_path / "run").metrics["declaration"]
    assert "now of as many, not the same or with other texts" in said["statement"]


def test_the_order_of_rows_is_of_no_account():
    a, b = (Item(x, f"{x}.mp4", f"/{x}.mp4", "members") for x in "ab")
    assert corpus_rows.listed([a, b]) == corpus_rows.listed([b, a])
    for field in ("id", "role", "group", "source", "video", "question", "answer"):
        other = corpus_rows.listed([a, b._replace(**{field: "x\udcff"})])
        assert other.digest != corpus_rows.listed([a, b]).digest, field
    other = corpus_rows.listed([a, b._replace(candidates=("x", "y"))])
    assert (
        other.digest != corpus_rows.listed([a, b._replace(candidates=("x,y",))]).digest
    )


@pytest.mark.long
@pytest.mark.parametrize("name", [declaration_text.FILE, declaration.VERDICT])
def test_a_file_that_was_changed_is_refused(run, name):
    report, config = run
    path = report.workdir / name
    text, config.overwrite = path.read_text(), True
    record = json.loads(text)
    signed = {key: x for key, x in record.items() if key != "digest"}

    def of(**changes):
        changed = signed | changes
        return json.dumps(changed | {"digest": sealed._digest(changed)})

    for content, wrong in (
        (text.replace("vid_sme", "perplexity"), "its digest does not fit"),
        (text[:-20], "it cannot be read ("),
        ("[]", "it has not format 2"),
        (text.replace('"format": 2', '"format": 1'), "it has not format 2"),
        (text.replace('"format": 2', '"format": 1e999'), "it has not format 2"),
        ("[" * 100_000, "it cannot be read"),
        (of(more=1), "it has not what such a file has"),
        (of(time="now"), "its time cannot be that of such a file"),
        (of(time=[]), "its time cannot be that of such a file"),
    ):
        path.write_text(content)
        with pytest.raises(AuditError) as caught:
            audit.run(config, report.workdir)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{path}: ") and wrong in problem
        assert problem.endswith("as it was written, or take another --workdir")
        with pytest.raises(AuditError):
            _again(report.workdir)
    # Nothing was deleted for it.
    assert list((report.workdir / "signals").glob("part-*"))
    path.write_text(text)
    assert _again(report.workdir).metrics == report.metrics


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("declared", {"headline": 3}),
        ("declared", {"fprs": 0.1}),
        ("declared", {"bounds": [True]}),
        ("declared", {"alpha": 10**400}),
        ("declared", {"corpus": "z" * 64}),
        ("rows", {"members": 0}),
        ("rows", []),
        ("after_signals", 0),
        ("earlier", [{"digest": "0" * 64}]),
        ("declared", {"scores": "vid_sme"}),
        ("declared", {"allow_duplicates": 1}),
    ],
)
def test_fields_of_another_kind_are_refused(run, field, value):
    path = run[0].workdir / declaration_text.FILE
    record = json.loads(path.read_text())
    del record["digest"]
    both = isinstance(record[field], dict) and isinstance(value, dict)
    record[field] = record[field] | value if both else value
    path.write_text(json.dumps(record | {"digest": sealed._digest(record)}))
    with pytest.raises(AuditError, match=rf"its {field} cannot be that of such a file"):
        _again(run[0].workdir)


def test_what_the_clips_can_show_is_logged(run, caplog):
    report, config = run
    with caplog.at_level(logging.INFO, "absl"):
        audit.run(config, report.workdir)
        config.corpus.suspects = config.corpus.members
        config.corpus.calibration = config.corpus.nonmembers
        config.corpus.members = config.corpus.nonmembers = ()
        audit.run(config, report.workdir)
    said = [x for x in caplog.messages if x.startswith("before the run: ")]
    assert len(said) == 4
    assert (
        "before the run: there is no AUC that a one-sided test at level 0.0"
        in (said[0])
    )
    assert all("there will be no verdict: the " in each for each in said[1:3])
    assert "nothing will be tested or listed: the calibration clips have" in said[3]


def test_a_comparison_of_one_group_alone(run):
    report, config = run
    config.report.comparison = "plan"
    with pytest.raises(AuditError, match=r"known: plain; did you mean 'plain'\?"):
        audit.run(config, report.workdir)
    config.corpus.suspects, config.corpus.members = config.corpus.members, ()
    config.corpus.calibration, config.corpus.nonmembers = config.corpus.nonmembers, ()
    with pytest.raises(AuditError, match=r"of non-members; this corpus has none$"):
        audit.run(config, report.workdir)


def test_comparisons_are_those_of_the_evaluation():
    """Also where a group is called as all of them are."""
    names = ["", "b", *["all"] * 9, "b", "a", *["group all"] * 9]
    rng = np.random.default_rng(0)
    names += [f"g{k}" for k in rng.integers(0, 90, 400)]
    roles = ["nonmembers"] * len(names) + ["members"] * 3
    names += ["b", "b", "z"]
    table = score_tables.table(range(len(names)), roles, group=names)
    items = [
        Item("", "", "", role, group) for role, group in zip(roles, names, strict=True)
    ]
    assert list(corpus_rows.comparisons(items)) == list(groups.comparisons(table))
    assert corpus_rows.comparisons(items)["group all"] == "all"
    assert corpus_rows.comparisons(items)["group group all"] == "group all"
    assert not corpus_rows.comparisons(items[:-3])


def _said(**changes) -> dict:
    said = {"headline": "vid_sme", "comparison": "all", "alpha": 0.05}
    said |= {"smallest_auc": 0.6}
    record = {"time": "2026-11-29T22:10:05Z", "digest": "1f3a" * 16, "declared": said}
    record |= {"after_signals": False, "after_report": False, "earlier": []}
    return record | changes


UNKNOWABLE = (
    "Whether results on these videos were seen before by other means, this program "
    "cannot know."
)


def test_the_statement_of_a_declaration():
    assert declaration_text.statement(_said()) == (
        "Declared 2026-11-29 22:10 UTC, before the first signal of this run: headline "
        "vid_sme, comparison all, level 0.05, smallest AUC of interest 0.60 "
        f"(declaration.json, SHA-256 1f3a1f3a1f3a1f3a...). {UNKNOWABLE}"
    )
    assert declaration_text.statement(_said(after_report=True)).endswith(
        "A report was in this work directory then, and may have been seen. "
        f"{UNKNOWABLE}"
    )
    assert declaration_text.statement(_said(after_signals=True)) == (
        "Nothing was declared before the results: headline vid_sme, comparison all, "
        "level 0.05, smallest AUC of interest 0.60 was written down 2026-11-29 22:10 "
        "UTC, when signals of this run were there already, and seals nothing "
        "(declaration.json, SHA-256 1f3a1f3a1f3a1f3a...)."
    )


def test_the_statement_of_changes():
    first = {"time": "2026-11-30T00:01:02Z", "headline": "vid_sme"}
    first |= {"comparison": "all", "statement": "The headline\x1b[2J shows nothing."}
    first |= {"declaration": "1f3a" * 16, "verdict": None}
    changes = (
        Change("headline", "vid_sme", "min_k_plus_plus_5"),
        Change("reference", "", "a" * 1000),
    )
    said = declaration_text.statement(_said(), changes, first)
    assert said.startswith(
        "Changed after the results: exploratory. headline was vid_sme, now "
        "min_k_plus_plus_5; reference was none, now aaaa"
    )
    assert "... (1000 characters). Declared 2026-11-29 22:10 UTC, before" in said
    assert said.endswith(
        f"{UNKNOWABLE} The first verdict under the declaration, 2026-11-30 00:01 UTC, "
        "of vid_sme, all: The headline\\x1b[2J shows nothing."
    )


@pytest.mark.long
def test_only_the_first_of_several_processes_declares(tmp_path):
    """The others compute nothing before it has."""
    folder = tmp_path / "corpus"
    _config(folder)
    program = pathlib.Path(__file__).parent / "declaring.py"
    with children.port() as port:
        command = [sys.executable, str(program), str(port)]
        both = [[*command, str(place), str(folder)] for place in range(2)]
        ended = children.together(both, folder, cwd=program.parents[1])
    for process in ended:
        assert process.returncode == 0, process.stderr[-2000:]
    first, second = (json.loads(x.stdout.splitlines()[-1]) for x in ended)
    assert first["declared"] == 1 and second["declared"] == 0
    assert first["there"] and second["there"]
    assert first["problems"] == second["problems"] and "digest" in first["problems"][0]
