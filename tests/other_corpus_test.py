"""A finished work directory is not overwritten by another corpus without a word."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError, Item
from vidsme_jax.run import asking, other_corpus

pytestmark = pytest.mark.usefixtures("without_figures")


def _items(*names):
    return [Item(name, f"{name}.mp4", f"/{name}.mp4", "members") for name in names]


def _finished(folder, *names):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text("{}")
    table = pa.table({"video": [f"{name}.mp4" for name in names]})
    parquet.write_table(table, folder / "scores.parquet")


@pytest.mark.parametrize(
    ("before", "now", "refused"),
    [
        ("abcd", "abcd", False),
        ("abcd", "abcdefgh", False),  # More clips.
        ("abcdefgh", "ab", False),  # Fewer.
        ("abcd", "abxy", False),
        ("abcd", "axyz", True),
        ("abcd", "wxyz", True),
        ("abcdefgh", "axy", True),
        ("a", "abcdefgh", False),
        ("", "ab", False),
        ("ab", "", False),
    ],
)
def test_where_the_line_is(tmp_path, before, now, refused):
    """Less than half of the videos of the smaller corpus are in both."""
    _finished(tmp_path, *before)
    if not refused:
        other_corpus.check(_items(*now), tmp_path)
        return
    with pytest.raises(AuditError) as caught:
        other_corpus.check(_items(*now), tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}: holds the report of another corpus, of ")
    assert f"of {len(before)} videos such as a.mp4, of which " in problem
    shared = len({*before} & {*now})
    assert f"which {shared or 'none'} {'is' if shared < 2 else 'are'} " in problem
    assert problem.endswith(
        f"the {len(now)} asked about now; take another --workdir, or "
        "--config.overwrite=true"
    )


def test_names_that_are_no_text_and_damaged_files(tmp_path):
    """Of a damaged report nothing is known, and nothing breaks."""
    folder = tmp_path / "run"
    other_corpus.check(_items("a"), folder)
    _finished(folder, "\\udcff")
    other_corpus.check([Item("a", "\udcff.mp4", "/a", "members")], folder)
    with pytest.raises(AuditError):
        other_corpus.check(_items("a"), folder)
    for content in (b"", b"PAR1" * 9, b"x" * 100):
        (folder / "scores.parquet").write_bytes(content)
        other_corpus.check(_items("a"), folder)
    (folder / "scores.parquet").unlink()
    (folder / "scores.parquet").mkdir()
    other_corpus.check(_items("a"), folder)


def _config(tmp_path, name, begin, end):
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[begin:end]
    config = settings.variant(
        settings.default(), "tiny", {"tiny": "random:llava_qwen-tiny"}
    )
    half = len(clips) // 2
    for role, videos in (("members", clips[:half]), ("nonmembers", clips[half:])):
        path = tmp_path / f"{name}-{role}.json"
        path.write_text(json.dumps([{"video": str(video)} for video in videos]))
        config.corpus[role] = (str(path),)
    config.corpus.allow_outside, config.scores = True, "vid_sme"
    return config


@pytest.mark.long
def test_an_audit_of_other_clips_is_refused_and_changes_nothing(tmp_path):
    """Early and from Python; more clips are not, and overwriting is as it was."""
    folder = tmp_path / "run"
    audit.run(_config(tmp_path, "first", 0, 4), folder)
    before = {x: x.read_bytes() for x in folder.rglob("*") if x.is_file()}
    other = _config(tmp_path, "other", 10, 14)
    for ask in (
        lambda: asking.ask(other, workdir=str(folder)),
        lambda: audit.run(other, folder),
    ):
        with pytest.raises(AuditError, match="of which none is among the 4 asked"):
            ask()
    assert before == {x: x.read_bytes() for x in folder.rglob("*") if x.is_file()}
    asking.ask(_config(tmp_path, "more", 0, 8), workdir=str(folder))
    other.overwrite = True
    asking.ask(other, workdir=str(folder))
    assert len(audit.run(other, folder).table.id) == 4
