"""`vidsme verify`: one changed byte is found, and forged numbers are, too."""

import json
import pathlib
import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.commands import verify
from vidsme_jax.commands.finished import run_record
from vidsme_jax.run import digests
from vidsme_jax.store import indices, received, signals

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> audit.AuditReport:
    config = settings.variant(
        settings.default(), "tiny", {"tiny": "random:llava_qwen-tiny"}
    )
    config.scores = "vid_sme,perplexity"
    return audit.run(config, tmp_path_factory.mktemp("run"))


@pytest.fixture
def copied(finished, tmp_path) -> pathlib.Path:
    shutil.copytree(finished.workdir, tmp_path / "run")
    return tmp_path / "run"


def _content(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _flip(path: pathlib.Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def test_a_finished_run_is_verified_and_nothing_is_written(finished):
    before = _content(finished.workdir)
    found = verify.verify(finished.workdir, digest=finished.digest, videos=True)
    assert not found.differences
    assert [x.split(":")[0] for x in found.same[1:]] == [
        "files",
        "corpus",
        "scores",
        "metrics",
        "videos",
    ]
    assert finished.digest in found.same[0]
    assert _content(finished.workdir) == before


def test_every_file_is_listed(finished):
    listed = set(digests.read(finished.workdir)["files"])
    assert set(_content(finished.workdir)) == listed | {digests.FILE, ".lock"}


@pytest.mark.parametrize("seed", range(3))
def test_one_flipped_byte_anywhere_is_found(copied, seed):
    rng = np.random.default_rng(seed)
    record = digests.read(copied)
    for name in record["files"]:
        if not (copied / name).stat().st_size:
            continue
        place = int(rng.integers(2**31))
        _flip(copied / name, place)
        found = digests.differences(copied, record)
        assert found == [f"{name} is not as it was written"]
        _flip(copied / name, place)
    assert not digests.differences(copied, record)


def test_one_flipped_byte_of_the_digest_is_found(copied):
    path = copied / digests.FILE
    for place in range(0, len(path.read_bytes()), 7):
        _flip(path, place)
        with pytest.raises(AuditError, match=r"digests\.json"):
            digests.read(copied)
        _flip(path, place)
    digests.read(copied)


@pytest.mark.long
def test_files_that_are_missing_or_added(copied):
    (copied / "scores.csv").unlink()
    shutil.copy(copied / "signals/part-000000.parquet", copied / "signals/x.parquet")
    (copied / "notes.txt").write_text("of somebody else")
    found = verify.verify(copied).differences
    assert "scores.csv is missing" in found
    assert "signals/x.parquet was added since the digest was written" in found
    assert not any("notes.txt" in each for each in found)
    assert any("notes.txt" in each for each in verify.verify(copied).same)


def test_links_in_place_of_folders_and_files(copied, tmp_path):
    shutil.move(copied / "signals", tmp_path / "elsewhere")
    (copied / "signals").symlink_to(tmp_path / "elsewhere")
    (copied / "figures").mkdir(exist_ok=True)
    (copied / "figures" / "x.png").symlink_to("nowhere")
    found = digests.differences(copied, digests.read(copied))
    assert "signals was added since the digest was written" in found
    assert "figures/x.png was added since the digest was written" in found


def test_an_empty_table_is_found(copied):
    (copied / "scores.csv").write_text("")
    digests.write(copied)
    found = verify.verify(copied).differences
    assert found == ["scores.csv: it is not what scores.parquet says"]


def test_an_index_is_not_trusted(copied, monkeypatch):
    """It repeats what parts say, and here it says something else."""
    part = copied / "signals/part-000000.parquet"
    table = pq.read_table(part)
    columns = signals._KIND.remembered
    place = columns.index("flow_variance")
    remembered = table.select(columns).replace_schema_metadata()
    doubled = pc.multiply(remembered.column(place), 2.0)
    field = remembered.schema.field(place)
    written = int(table.schema.metadata[b"vidsme_jax.written"])
    monkeypatch.setattr(indices, "_PARTS", 1)
    its = indices.Indices(
        part.parent, signals.recorded(part.parent), remembered.schema, None
    )
    forged = remembered.set_column(place, field, doubled)
    its.add(indices.Entry(part.name, part.stat().st_size, written, forged))
    its.write(part.name)
    digests.write(copied)
    assert not verify.verify(copied).differences


def _forged_metrics(folder):
    path = folder / "metrics.json"
    found = json.loads(path.read_text())
    found["comparisons"]["all"]["scores"]["vid_sme"]["auc"]["value"] = 0.987654
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def _forged_scores(folder):
    path = folder / "scores.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("vid_sme")
    values = table.column(place).to_pylist()
    values[2] += 1e-3
    pq.write_table(table.set_column(place, "vid_sme", [values]), path)


def _forged_role(folder):
    path = folder / "scores.csv"
    path.write_text(path.read_text().replace("nonmembers", "members", 1))


def _forged_corpus(folder):
    path = folder / "config.json"
    about = json.loads(path.read_text())
    about["fingerprints"]["corpus"] = "0" * 64
    path.write_text(json.dumps(about, indent=2))


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (
            _forged_metrics,
            "comparisons.all.scores.vid_sme.auc.value is 0.987654, recomputed",
        ),
        (_forged_scores, "scores.parquet: 1 row of vid_sme differ, such as row 3"),
        (_forged_role, "scores.csv: it is not what scores.parquet says"),
        (_forged_corpus, "config.json: its digest of the corpus is not that"),
    ],
)
def test_forged_numbers_are_found_behind_a_new_digest(copied, forge, said):
    forge(copied)
    digests.write(copied)
    found = verify.verify(copied).differences
    assert any(said in each for each in found), found


def test_another_digest_is_refused(copied):
    its = digests.read(copied)["digest"]
    assert not verify.verify(copied, digest=its[:8]).differences
    for other in ("0" * 64, its[:7], "nonsense"):
        with pytest.raises(AuditError, match="it is another run or report"):
            verify.verify(copied, digest=other)


def test_a_folder_without_a_report(tmp_path, copied):
    with pytest.raises(AuditError, match="no such folder"):
        verify.verify(tmp_path / "nowhere")
    (copied / digests.FILE).unlink()
    with pytest.raises(AuditError, match=r"no digests\.json, so that no report"):
        verify.verify(copied)


def test_without_the_sources_the_files_are_verified(copied):
    path = copied / "config.json"
    about = json.loads(path.read_text())
    about["config"]["corpus.members"] = ["/nowhere/members.jsonl"]
    path.write_text(json.dumps(about, indent=2))
    digests.write(copied)
    found = verify.verify(copied)
    assert found.same[1] == "files: all are unchanged"
    assert not found.differences
    assert any("not recomputed: " in each for each in found.problems)


def test_a_changed_video_is_found_by_its_hash(finished, monkeypatch):
    from vidsme_jax.data.reading import Videos

    monkeypatch.setattr(Videos, "content_hash", lambda self, key: "f" * 64)
    found = verify.verify(finished.workdir, videos=True).differences
    assert found and all("content is not what was scored" in each for each in found)
    assert not verify.verify(finished.workdir).differences


@pytest.mark.parametrize("name", ["report.html", "metrics.json", "scores.csv"])
def test_a_report_edited_by_hand_is_not_overwritten(copied, name):
    with (copied / name).open("a") as file:
        file.write(" ")
    before = _content(copied)
    about = run_record(copied)
    config = settings.restored(about["config"])
    said = f"{name}: changed since the run wrote them"
    with pytest.raises(AuditError, match=said):
        audit.report_again(copied, config, about)
    with pytest.raises(AuditError, match=said):
        audit.run(config, copied)
    assert _content(copied) == before
    (copied / name).unlink()
    audit.report_again(copied, config, about)
    assert not verify.verify(copied).differences


def _reported(folder, **changes):
    """Makes the report of a run anew, with other words."""
    about = run_record(folder)
    config = settings.restored(about["config"])
    for key, value in ({"fprs": (0.3,)} | changes).items():
        config.report[key] = value
    return audit.report_again(folder, config, about)


@pytest.fixture
def unread(monkeypatch):
    """To read the signals of a table fails; those of the clips shown are read."""

    def refuse(store, keys):
        assert not keys
        return iter(())

    monkeypatch.setattr(received, "read", refuse)


def test_other_words_read_no_signals(copied, finished, unread):
    found = _reported(copied, num_permutations=150, fdr=0.2)
    for name, values in finished.table.scores.items():
        np.testing.assert_array_equal(found.table.scores[name], values)
    assert "0.3" in found.metrics["comparisons"]["all"]["scores"]["vid_sme"]["tpr"]
    assert not digests.differences(copied, digests.read(copied))


def _forged_kept(folder):
    (path,) = (folder / "tables").glob("scores-*.parquet")
    table = pq.read_table(path)
    place = table.column_names.index("vid_sme")
    values = [x + 1.0 for x in table.column(place).to_pylist()]
    pq.write_table(table.set_column(place, "vid_sme", [values]), path)


def test_kept_scores_that_were_changed_are_not_taken(copied, finished, caplog):
    _forged_kept(copied)
    found = _reported(copied)
    assert "tables/: ignored, since it is not as it was written" in caplog.text
    np.testing.assert_array_equal(
        found.table.scores["vid_sme"], finished.table.scores["vid_sme"]
    )
    assert not verify.verify(copied).differences


def test_kept_scores_that_were_changed_with_the_digest_are_found(copied, finished):
    """What was made of them says other than the signals, which `verify` reads."""
    _forged_kept(copied)
    digests.write(copied)
    found = _reported(copied)
    forged = found.table.scores["vid_sme"] - finished.table.scores["vid_sme"]
    np.testing.assert_allclose(forged, 1.0)
    differences = verify.verify(copied).differences
    assert any(x.startswith("scores.parquet: 8 rows of vid_sme") for x in differences)
    assert any(x.startswith("metrics.json: ") for x in differences)


def test_a_link_in_place_of_kept_scores_is_left_alone(copied, tmp_path):
    shutil.move(copied / "tables", tmp_path / "elsewhere")
    (copied / "tables").symlink_to(tmp_path / "elsewhere")
    before = _content(tmp_path / "elsewhere")
    _reported(copied)
    assert not (copied / "tables").is_symlink()
    assert _content(tmp_path / "elsewhere") == before
    assert not digests.differences(copied, digests.read(copied))


def test_a_report_that_is_refused_leaves_what_is_kept(copied):
    (copied / "scores.csv").write_text("by hand")
    before = _content(copied)
    with pytest.raises(AuditError, match=r"scores\.csv"):
        _reported(copied)
    assert _content(copied) == before
