"""`--check` of preparation, report and training: what it says; it only reads."""

import shutil

import pytest

import declared_runs
import forked
from vidsme_jax import settings

pytestmark = pytest.mark.usefixtures("without_figures")
_HEAD = "nothing wrong was found; nothing was run or written\n"
_ROWS = "corpus: 4 rows (2 members, 2 nonmembers) of 4 clips\n"
_DECODING = "  - whether the videos decode, and near-duplicates among them\n"
_MEMORY = "  - whether the memory of devices and host suffices for a batch\n"


def _tree(folder):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each command said; none of them changes a file, its time or its folder."""
    folder = tmp_path_factory.mktemp("checked")
    run, _ = declared_runs.finished(folder)
    shutil.copytree(run.workdir, folder / "edited")
    with (folder / "edited" / "scores.csv").open("a") as file:
        file.write("more\n")
    (folder / "file").write_text("")
    for name, module in (("c", "settings"), ("t", "finetune.options")):
        (folder / f"{name}.py").write_text(
            f"from vidsme_jax.{module} import default\n"
            "def get_config():\n"
            "    config = default()\n"
            "    config.corpus.members = ('corpus/members.json',)\n"
            "    config.corpus.nonmembers = ('corpus/nonmembers.json',)\n"
            "    config.corpus.allow_outside = True\n"
            f"    config.model.checkpoint = {str(settings.DEMO / 'checkpoint')!r}\n"
            "    return config\n"
        )
    demo = str(settings.DEMO / "corpus" / "members.jsonl")
    finetune = ("finetune", "--config=t.py")
    control = ("finetune", f"--control={demo}", "--config.corpus.max_clips=20")
    each = {
        "prepare": ("prepare", "--config=c.py", "--out=made/here"),
        "prepare what is wrong": (
            *("prepare", "--config=c.py", "--out=file", "--config.video.num_frames=0"),
            "--members=member.json",
        ),
        "prepare below a file": (
            *("prepare", "--config=c.py", "--config.corpus.prepared=file/below"),
        ),
        "report": ("report", "--workdir=run"),
        "report of others": (
            "report",
            "--workdir=run",
            "--config.headline=perplexity",
        ),
        "report what is wrong": (
            *("report", "--workdir=run", "--config.report.alpha=7"),
            *("--config.headline=perplexit", "--config.video.num_frames=9"),
        ),
        "report over what was edited": ("report", "--workdir=edited"),
        "report of no run": ("report", "--workdir=corpus"),
        "finetune": (*finetune, "--workdir=made"),
        "finetune what is wrong": (
            *(*finetune, "--workdir=file", "--config.train.rank=0"),
            *("--members=member.json", "--model=./nowhere"),
        ),
        "control": (*control, "--workdir=made"),
        "control what is wrong": (
            *(*control, "--workdir=file/below", "--config.profile=official"),
        ),
    }
    before = _tree(folder)
    commands = [(module, [*given, "--check"]) for module, *given in each.values()]
    lines = forked.all_of(commands, folder)
    assert _tree(folder) == before
    return dict(zip(each, lines, strict=True))


def _listed(text):
    """What the last lines say was not checked."""
    head, _, rest = text.partition("not checked:\n")
    assert head and rest
    return rest


def test_of_a_preparation(said):
    status, text, _ = said["prepare"]
    assert status == 0 and text.startswith(_HEAD + _ROWS)
    assert _listed(text) == f"{_DECODING}  - which clips are prepared already\n"


def test_of_a_training(said):
    status, text, _ = said["finetune"]
    model = "  - the model: its config, tokenizer, prompt and weights\n"
    assert status == 0 and text.startswith(_HEAD + _ROWS)
    assert _listed(text) == _DECODING + _MEMORY + model


def test_of_a_control(said):
    status, text, _ = said["control"]
    assert status == 0 and _HEAD in text
    assert "corpus: 20 rows (20 members) of 20 clips\n" in text
    assert _listed(text) == _DECODING + _MEMORY


def test_of_a_report(said):
    """It says, too, what the report would be, after what was declared."""
    status, text, _ = said["report"]
    assert status == 0 and text.startswith(_HEAD + _ROWS)
    assert "scores: 2, the headline vid_sme\n" in text
    assert declared_runs.WORD not in text and "\nDeclared 20" in text
    assert _listed(text) == (
        "  - whether the signals have what the scores need\n"
        "  - whether videos were changed or lost since they were scored\n"
    )
    status, text, _ = said["report of others"]
    assert status == 0 and "the headline perplexity\n" in text
    assert declared_runs.WORD in text and "headline was vid_sme, now perplexity" in text


_WRONG = {
    "prepare what is wrong": [
        "3 problems:",
        "config.video.num_frames is 0; it must be",
        "--out is file: file is there and no folder; take another",
        "member.json: no such manifest",
    ],
    "prepare below a file": [
        "1 problem:",
        "config.corpus.prepared is file/below: file is there and no folder",
    ],
    "report what is wrong": [
        "3 problems:",
        "config.video.num_frames was 2 in this run; changing it needs a new audit",
        "config.report.alpha is 7.0; it must be",
        "did you mean 'perplexity'?",
    ],
    "report over what was edited": [
        "edited: scores.csv: changed since the run wrote them, and a new report would",
    ],
    "report of no run": ["corpus: no config.json, so that no run has finished there"],
    "finetune what is wrong": [
        "4 problems:",
        "config.train.rank is 0; it must be",
        "--workdir is file: file is there and no folder; take another",
        "checkpoint ./nowhere: no such folder",
        "member.json: no such manifest",
    ],
    "control what is wrong": [
        "2 problems:",
        "--workdir is file/below: file is there and no folder",
        "config.profile is official, which has no scores of answers",
    ],
}


@pytest.mark.parametrize("what", _WRONG)
def test_what_is_wrong_is_refused(said, what):
    forked.check_refused(said[what], _WRONG[what])


def test_a_folder_without_rights_is_refused(tmp_path, monkeypatch):
    """The rights of the first folder that is there count."""
    from vidsme_jax.store import files

    assert files.unwritable(tmp_path / "a" / "b", "--out") == []
    asked = []
    monkeypatch.setattr("os.access", lambda *given: asked.append(given))
    (problem,) = files.unwritable(tmp_path / "a" / "b", "--out")
    assert problem.endswith(f"a/b: no right to write in {tmp_path}")
    assert [given[0] for given in asked] == [tmp_path]
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    (problem,) = files.unwritable(tmp_path / "a" / "b", "--out")
    assert problem.endswith("a is there and no folder; take another")
