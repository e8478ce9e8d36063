"""`vidsme COMMAND`, and reports made again from a finished run."""

import dataclasses
import importlib
import json
import shutil
import sys

import pytest

import children
import vidsme_jax
from vidsme_jax import __main__ as command
from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.commands import report
from vidsme_jax.commands.finished import run_record

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.mark.parametrize("flag", [[], ["--help"], ["help"]])
def test_help_names_every_command(capsys, flag):
    assert command.run(["vidsme", *flag]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name}" in said for name in command.COMMANDS)


def test_version(capsys):
    assert command.run(["vidsme", "--version"]) == 0
    assert capsys.readouterr().out == f"vidsme_jax {vidsme_jax.__version__}\n"


def test_an_unknown_command(capsys):
    assert command.run(["vidsme", "reprot"]) == 2
    assert "no command 'reprot'; did you mean 'report'?" in capsys.readouterr().err


_FLAGS = {
    "power": {"--config", "--members", "--suspects", "--icc", "--config.KEY=VALUE"},
    "lookup": {"--in", "--out", "--video_root"},
    "audit": {
        *("--config", "--workdir", "--coordinator", "--process_id", "--check"),
        *("--model", "--members", "--nonmembers", "--suspects", "--reference"),
    },
    "prepare": {
        *("--config", "--out", "--members", "--check", "--config.KEY=VALUE"),
        *("--runner", "--beam_options"),
    },
    "report": {"--workdir", "--check", "--config.KEY=VALUE"},
    "match": {"--workdir", "--out", "--comparison"},
    "compare": {"--score", "--out"},
    "verify": {"--workdir", "--digest", "--videos"},
    "canary": {"--clips", "--out", "--variants", "--key", "--workdir", "--score"},
    "finetune": {"--config", "--workdir", "--model", "--members", "--check"},
    "demo": {"--workdir"},
}


@pytest.mark.long
def test_every_command_shows_its_flags():
    for name in command.COMMANDS:
        done = children.run([sys.executable, "-m", "vidsme_jax", name, "--help"])
        assert done.returncode == 0 and not done.stderr, name
        lines = done.stdout.partition("\nflags:\n")[2].partition("\n\n")[0].splitlines()
        told = dict(line.split(maxsplit=1) for line in lines)
        assert _FLAGS[name] <= set(told) and all(told.values()), name


def test_help_calls_commands_by_one_name():
    """The README's first command is called as there."""
    for name in command.COMMANDS:
        doc = importlib.import_module(command.module(name)).__doc__ or ""
        calls = "python -m vidsme_jax.main" if name == "audit" else f"vidsme {name}"
        assert doc.startswith(f"The command line: `{calls}"), name
        assert name == "audit" or "python -m" not in doc, name


def test_help_may_be_read_in_part():
    """As by `head`: the reader ends first."""
    script = "vidsme_jax.main --help; echo $? >&2"
    shell = f"{{ {sys.executable} -m {script}; }} | true"
    done = children.run(["bash", "-c", shell])
    assert done.stderr.split() == ["0"]


@pytest.fixture
def finished(made, tmp_path):
    """A copy of the run, which a test may change."""
    folder = shutil.copytree(made.workdir, tmp_path / "run")
    return dataclasses.replace(made, workdir=folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with signals of the first pass only."""
    workdir = tmp_path_factory.mktemp("run")
    config = settings.variant(
        settings.default(), "tiny", {"tiny": "random:llava_qwen-tiny"}
    )
    config.scores = "vid_sme,perplexity"
    return audit.run(config, workdir)


def _again(workdir, **changes):
    about = run_record(workdir)
    config = settings.restored(about["config"])
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return audit.report_again(workdir, config, about)


def test_a_report_made_again_is_the_same(finished):
    before = (finished.workdir / "metrics.json").read_bytes()
    scores = (finished.workdir / "scores.csv").read_bytes()
    about = json.loads((finished.workdir / "config.json").read_text())
    again = _again(finished.workdir)
    assert (finished.workdir / "metrics.json").read_bytes() == before
    assert (finished.workdir / "scores.csv").read_bytes() == scores
    now = json.loads((finished.workdir / "config.json").read_text())
    assert set(now.pop("report made again")) == {"date", "command"}
    assert now == about
    assert again.failures == finished.failures


def test_other_questions_to_the_same_signals(finished):
    again = _again(
        finished.workdir,
        scores="vid_sme,mean_renyi_1",
        report__fprs=(0.2,),
        motion__r_scale=0.5,
    )
    assert set(again.table.scores) == {"vid_sme", "mean_renyi_1"}
    assert (again.table.r != finished.table.r).any()
    metrics = again.metrics["comparisons"]["all"]["scores"]["vid_sme"]
    assert list(metrics["tpr"]) == ["0.2"]
    assert "0.2" in (finished.workdir / "report.html").read_text()


def test_scores_that_the_signals_lack(finished):
    with pytest.raises(AuditError, match="lack what modified_entropy need"):
        _again(finished.workdir, scores="vid_sme,modified_entropy")


def test_what_signals_depend_on_stays(finished):
    before = run_record(finished.workdir)["config"]
    config = settings.restored(before)
    report._refuse_changes(before, config)
    config.video.num_frames = 2
    with pytest.raises(AuditError, match=r"video\.num_frames was 4 in this run"):
        report._refuse_changes(before, config)


def test_failures_of_the_run_are_reported_again(finished):
    """Those of rows that are gone are none of this report's."""
    path, name = finished.workdir / "failures.jsonl", finished.table.id[0]
    cause = {"stage": "open", "cause": "no such file"}
    here = {"id": name, "video": f"clips/{name}.mp4"} | cause
    path.write_text(f"{json.dumps(here)}\n{json.dumps(here | {'id': 'gone'})}\n")
    assert [f.id for f in _again(finished.workdir).failures] == [name]
    assert json.loads(path.read_text()) == here


@pytest.mark.parametrize("text", [None, "{", "[]", '{"config": 1}'])
def test_a_folder_without_a_run(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(AuditError, match=r"config\.json"):
        run_record(tmp_path)


def test_a_configuration_of_another_version():
    with pytest.raises(AuditError, match=r"config\.video\.frames: no such key"):
        settings.restored({"video.frames": 3})


def test_a_summary_without_an_interval(finished):
    """Where a role has one video, an AUC has none."""
    text = json.dumps(finished.metrics["comparisons"])
    comparisons = json.loads(text)
    for comparison in comparisons.values():
        comparison["scores"]["vid_sme"]["auc"] |= {"value": 0.5, "low": None}
    metrics = finished.metrics | {"comparisons": comparisons}
    lines = dataclasses.replace(finished, metrics=metrics).summary().splitlines()
    (row,) = (line.split("  ") for line in lines if line.startswith("all "))
    assert " 0.50" in " ".join(row) and "[" not in " ".join(row)
