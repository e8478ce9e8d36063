"""Shares of a corpus: independent processes fill one work directory."""

import itertools
import json
import pathlib
import shutil
import sys

import pyarrow.parquet as pq
import pytest

import children
from killed_run import config as small
from vidsme_jax import audit, main, settings
from vidsme_jax.base import AuditError
from vidsme_jax.commands.finished import run_record
from vidsme_jax.run import asking, shares
from vidsme_jax.run.shares import ShareReport
from vidsme_jax.settings.rules import SHARE
from vidsme_jax.store import files
from vidsme_jax.store.lock import locked
from vidsme_jax.store.workdirs import Workdir

pytestmark = pytest.mark.usefixtures("without_figures")
CLIPS = 7


def config(share: str = "", **changes):
    """Seven clips, two a batch."""
    return small(CLIPS, **{"batch_size": 2, "share": share} | changes)


def report(workdir: pathlib.Path):
    """Makes the report as `vidsme report` does."""
    about = run_record(workdir)
    chosen = settings.restored(about["config"])
    return audit.report_again(workdir, chosen, about)


def keys(workdir: pathlib.Path, of: str = "") -> list[str]:
    """The clips of the parts, as often as they are there."""
    parts = sorted((workdir / "signals").glob(f"part-*{of}.parquet"))
    tables = (pq.read_table(part, columns=["key"]) for part in parts)
    return [key for table in tables for key in table.column("key").to_pylist()]


def scores(workdir: pathlib.Path):
    return pq.read_table(workdir / "scores.parquet")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Three shares that have finished, and one run of all: both folders."""
    folder = tmp_path_factory.mktemp("shares")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidsme_jax.report.figures.draw", lambda *args: [])
        found = [audit.run(config(f"{k}/3"), folder / "apart") for k in (2, 3, 1)]
        audit.run(config(), folder / "whole")
    assert all(isinstance(each, ShareReport) for each in found)
    return folder, found


@pytest.fixture
def apart(done, tmp_path) -> pathlib.Path:
    """A work directory of three shares that have finished."""
    shutil.copytree(done[0] / "apart", tmp_path / "apart")
    return tmp_path / "apart"


def test_shares_are_disjoint_and_all_of_the_corpus(done):
    folder, found = done
    assert [(each.share, each.rows) for each in found] == [
        ("2/3", 2),
        ("3/3", 2),
        ("1/3", 3),
    ]
    assert [each.finished for each in found] == [1, 2, 3]
    parts = [keys(folder / "apart", f"-{k}-of-3") for k in (1, 2, 3)]
    assert sorted(map(len, parts)) == [2, 2, 3]
    assert sorted(itertools.chain(*parts)) == sorted(keys(folder / "whole"))
    for name in ("scores.parquet", "metrics.json", "config.json"):
        assert not (folder / "apart" / name).exists()


def test_the_report_of_shares_is_that_of_one_run(done, apart):
    found = report(apart)
    assert scores(apart).equals(scores(done[0] / "whole")) and not found.failures
    about = json.loads((apart / "config.json").read_text())
    assert about["config"]["share"] == ""
    facts = about["shares"]
    assert [facts["number"], facts["finished"]] == ["3", "3"]
    assert facts["not finished"] == "none"
    again = report(apart)
    assert again.digest != "" and scores(apart).equals(scores(done[0] / "whole"))
    listed = json.loads((apart / "digests.json").read_text())["files"]
    assert {"shares/1-of-3.json", "signals/part-000000-2-of-3.parquet"} <= set(listed)


def test_the_end_of_a_share_says_what_is_left_to_do(done):
    first, _, last = done[1]
    assert first.summary().startswith("share 2/3: 2 rows, 0 not scored; 1 of 3 shares")
    assert "gathers what is there" in first.summary()
    assert "3 of 3 shares have finished" in last.summary()
    assert f"`vidsme report --workdir {done[0] / 'apart'}` makes" in last.summary()


def test_a_share_that_is_missing_is_said_by_row(done, apart):
    (apart / "shares" / "3-of-3.json").unlink()
    gone = sorted((apart / "signals").glob("part-*-3-of-3.parquet"))
    left = pq.read_table(gone[0], columns=["key"]).column("key").to_pylist()
    assert len(gone) == 1 and len(left) == 2
    for part in gone:
        part.unlink()
    found = report(apart)
    causes = {failure.cause for failure in found.failures}
    share = "share 3/3 has not finished: run it with --config.share=3/3"
    assert causes == {share} and len(found.failures) == 2
    (note,) = [note for note in found.metrics["notes"] if "shares" in note]
    assert note.startswith("1 of 3 shares have not finished (3/3)")
    # It is run alone, and computes what is left.
    assert isinstance(audit.run(config("3/3"), apart), ShareReport)
    assert sorted(keys(apart)) == sorted(keys(done[0] / "whole"))
    assert not report(apart).failures
    assert scores(apart).equals(scores(done[0] / "whole"))


def test_a_share_that_ended_early_goes_on_where_it_was(done, tmp_path, monkeypatch):
    """Killed between two parts, and once more before its record is written."""
    real, count = files.create, iter(range(100))

    def dies(path, data):
        if path.name.startswith("part-") and next(count) == 1:
            raise KeyboardInterrupt
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "create", dies)
        with pytest.raises(KeyboardInterrupt):
            audit.run(config("1/3"), tmp_path / "x")
    assert len(keys(tmp_path / "x")) == 2
    with monkeypatch.context() as patch:
        patch.setattr(shares, "finish", lambda *args: None)
        audit.run(config("1/3"), tmp_path / "x")
    assert len(keys(tmp_path / "x")) == 3
    with pytest.raises(AuditError, match=r"no config\.json, so"):
        report(tmp_path / "x")
    found = audit.run(config("1/3"), tmp_path / "x")
    assert isinstance(found, ShareReport) and len(keys(tmp_path / "x")) == 3


def test_a_share_of_another_division_is_refused(apart, tmp_path, decoded):
    with pytest.raises(AuditError) as caught:
        audit.run(config("2/4"), apart)
    assert "another division (1-of-3, 2-of-3, 3-of-3), and this one is 2/4" in str(
        caught.value
    )
    assert not decoded and not list(apart.glob("signals/*-of-4.parquet"))
    shutil.copy(apart / "shares" / "1-of-3.json", apart / "shares" / "1-of-4.json")
    with pytest.raises(AuditError) as caught:
        report(apart)
    files = "1-of-3.json, 1-of-4.json, 2-of-3.json, 3-of-3.json"
    assert f"records of 3, 4 shares; delete those that do not count ({files})" in str(
        caught.value
    )


def test_a_clip_that_cannot_be_read_is_listed_by_its_share(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:2]
    rows = [{"video": str(path)} for path in (*clips, tmp_path / "bad.mp4")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    chosen = {"corpus.suspects": (str(tmp_path / "rows.json"),)}
    chosen |= {"corpus.allow_outside": True}
    workdir = tmp_path / "run"
    found = [audit.run(config(f"{k}/2", **chosen), workdir) for k in (1, 2)]
    assert [len(each.failures) for each in found] == [1, 0]
    assert "bad.mp4: open" in found[0].summary()
    (failure,) = report(workdir).failures
    assert failure.video.endswith("bad.mp4") and failure.stage == "open"


def test_a_run_of_all_takes_the_place_of_shares(done, apart, decoded):
    for name in ("shares/2-of-3.json", "signals/part-000000-2-of-3.parquet"):
        (apart / name).unlink()
    found = audit.run(config(), apart)
    assert len(decoded) == 2 and not found.failures
    assert not list((apart / "shares").iterdir())
    assert scores(apart).equals(scores(done[0] / "whole"))
    assert report(apart).digest != found.digest  # Another date, and no shares.


# ----------------------------------------------------------------------------- refused


@pytest.mark.parametrize("share", ["1/1", "3/16", "999999/999999", ""])
def test_shares_that_are_allowed(share):
    assert SHARE.test(share)


@pytest.mark.parametrize(
    "share",
    [
        *("17/16", "0/16", "1/0", "-1/4", "1", "1/", "/2", "a/b", "1/2/3", " 1/2"),
        *("1/2\n", "01/2", "1/1000000", 3, None, True, ("1/2",)),
    ],
)
def test_shares_that_are_not(share):
    assert not SHARE.test(share)


def test_a_share_beyond_the_last_is_refused_with_the_remedy():
    chosen = small(1)
    chosen.share = "5/4"
    with pytest.raises(AuditError) as caught:
        asking.ask(chosen)
    problem = caught.value.problems[0]
    assert problem.startswith("config.share is '5/4'; it must be I/N with I from 1 to")
    assert "counts from 0, I is one more" in problem


def test_what_does_not_go_together_with_a_share(tmp_path):
    for changes, said in (
        ({"overwrite": True}, "delete what other shares have scored"),
        ({"study": "k"}, "a study is not divided"),
    ):
        with pytest.raises(AuditError, match=said):
            asking.ask(config("1/2", **changes))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"headline": "perplexity"}, "headline was vid_sme, now perplexity"),
        ({"corpus.seed": 5}, None),
        ({"motion.q_scale": 0.5}, "q_scale was 1, now 0.5"),
    ],
)
def test_shares_that_ask_something_else_are_refused(apart, change, said):
    before = sorted(apart.rglob("*"))
    if said is None:  # The same rows, by name, are other clips: no share would fit.
        chosen = config("1/3", **change, **{"corpus.max_clips": 6})
        said = "corpus was"
    else:
        chosen = config("1/3", **change)
    with pytest.raises(AuditError) as caught:
        audit.run(chosen, apart)
    assert said in str(caught.value) and "declared by another share" in str(
        caught.value
    )
    assert sorted(apart.rglob("*")) == before


def test_two_processes_with_one_share_are_found_by_the_lock(apart):
    with locked(apart, share="1-of-3"):
        with pytest.raises(AuditError, match="another process scores share 1/3 of it"):
            audit.run(config("1/3"), apart)
        with pytest.raises(AuditError, match="share 1/3 of it; wait for its end"):
            audit.run(config(), apart)
        with locked(apart, share="2-of-3"):
            pass
    with locked(apart):
        with pytest.raises(AuditError, match="another run is writing to it"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("vidsme_jax.store.lock._SECONDS", 0.0)
                audit.run(config("2/3"), apart)


@pytest.mark.long
def test_two_writers_of_a_part_are_found_without_locks(done, tmp_path, monkeypatch):
    """The second finds its part there, keeps what is stored, and exits with 2."""
    source = done[0] / "apart" / "signals" / "part-000000-1-of-3.parquet"
    real = files.create

    def late(path, data):
        if path.name == source.name:
            shutil.copy(source, path)  # The other process was quicker.
        real(path, data)

    monkeypatch.setattr(files, "create", late)
    with pytest.raises(FileExistsError) as caught:
        audit.run(config("1/3"), tmp_path / "x")
    assert "two processes write the parts of share 1/3; stop one" in str(caught.value)
    assert caught.value.filename.endswith(source.name)
    left = (tmp_path / "x" / "signals" / source.name).read_bytes()
    assert left == source.read_bytes()
    monkeypatch.undo()
    assert isinstance(audit.run(config("1/3"), tmp_path / "x"), ShareReport)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "1-of-3.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "1-of-3.json").rename(f / "1-of-4.json"), "of 3, 4 shares"),
        (lambda f: (f / "1-of-x.json").write_text("{}"), "of 3, x shares"),
        (
            lambda f: (f / "0-of-3.json").write_bytes((f / "1-of-3.json").read_bytes()),
            "0-of-3.json is of no share I/N; delete it",
        ),
        (
            lambda f: [
                path.rename(f / f"{path.stem[0]}-of-\N{SUPERSCRIPT TWO}.json")
                for path in sorted(f.glob("*.json"))
            ],
            "is of no share I/N; delete it",
        ),
        (
            lambda f: (f / "2-of-3.json").write_bytes((f / "1-of-3.json").read_bytes()),
            "2-of-3.json: damaged (it is of share 1/3, not 2/3); delete it",
        ),
        (
            lambda f: (f.parent / "signals/part-000000-2-of-3.parquet").unlink(),
            "signals: 1 part of share 2/3 missing (signals/part-000000-2-of-3.parquet)",
        ),
        (
            lambda f: (f / "1-of-3.json").write_text(
                (f / "1-of-3.json").read_text().replace('"rows": 3', '"rows": 4')
            ),
            "its digest does not fit",
        ),
    ],
)
def test_damaged_records_and_lost_parts_are_named(apart, damage, said):
    damage(apart / "shares")
    with pytest.raises(AuditError) as caught:
        report(apart)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("fingerprints", {"model": "x", "code": ""}, "the model of share 1/3"),
        ("config", {"headline": "other"}, "the configuration of share 1/3"),
        ("config", None, "a record of shares lacks the configuration"),
    ],
)
def test_shares_of_different_runs_are_not_mixed(apart, key, value, what):
    from vidsme_jax.run import sealed

    path = apart / "shares" / "2-of-3.json"
    record = json.loads(path.read_text())
    record["about"][key] = value
    for name in ("format", "time", "digest"):
        del record[name]
    sealed.write(path, record)
    with pytest.raises(AuditError) as caught:
        shares.gathered(Workdir.at(apart))
    assert what in str(caught.value)


def test_different_versions_are_noted(apart):
    from vidsme_jax.run import sealed

    path = apart / "shares" / "2-of-3.json"
    record = json.loads(path.read_text())
    record["about"]["device"]["kind"] = "H100"
    for name in ("format", "time", "digest"):
        del record[name]
    sealed.write(path, record)
    found = shares.gathered(Workdir.at(apart))
    assert found is not None
    (note,) = found.notes
    assert note.startswith("the shares were scored by different kinds of devices: ")
    assert "H100" in note


@pytest.mark.long
def test_the_command_scores_a_share_and_gathers(tmp_path):
    """Two shares as separate programs at once, on one machine, and the report."""
    demo = pathlib.Path(main.__file__).parents[1] / "configs" / "llava.py"
    flags = ["--config", f"{demo}", "--workdir", str(tmp_path / "run")]
    flags += ["--config.corpus.max_clips=4", "--config.batch_size=4"]
    flags += ["--config.scores=vid_sme", "--config.headline=vid_sme"]
    flags += ["--config.slices=('video',)"]
    commands = [
        [sys.executable, "-m", "vidsme_jax.main", *flags, f"--config.share={k}/2"]
        for k in (1, 2)
    ]
    root = demo.parents[1]
    ended = children.together(commands, tmp_path, cwd=root)
    assert [each.returncode for each in ended] == [0, 0], [x.stderr for x in ended]
    done = children.run(
        [sys.executable, "-m", "vidsme_jax", "report", *flags[2:4]], cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
