"""The workflow for GitHub Actions is well-formed, and its steps run."""

import os
import pathlib
import sys

import pytest
import yaml

import children

ROOT = pathlib.Path(__file__).parents[1]
FILE = ROOT / "docs" / "release-gate.yml"


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load(FILE.read_text())


def _steps(workflow):
    return {x["name"]: x for x in workflow["jobs"]["audit"]["steps"] if "name" in x}


def test_it_is_a_workflow(workflow):
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true.
    (job,) = workflow["jobs"].values()
    assert job["runs-on"] and job["timeout-minutes"]
    for step in job["steps"]:
        assert len({"uses", "run"} & set(step)) == 1
    kept = _steps(workflow)["Keep the report"]
    assert kept["with"]["path"] == "${{ env.RUN }}"
    after = ("Compare with the release before", "Verify", "Keep the report")
    assert all(_steps(workflow)[name]["if"] == "always()" for name in after)


def _run(step, env, folder):
    """As a runner does: `bash -e` on the step's text."""
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    return children.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=folder,
        env=os.environ | {"PATH": path, "XLA_FLAGS": children.QUICK, **env},
    )


@pytest.mark.long
def test_its_steps_run(workflow, tmp_path):
    """On the demo's model, which knows its members: the gate holds it back."""
    for name in ("configs", "vidsme_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    few = "--config.corpus.max_clips=40 --config.scores=response_loss"
    env = workflow["env"] | {"CONFIG": "configs/llava.py", "FLAGS": few}
    env |= {"RUN": str(tmp_path / "run"), "BEFORE": str(tmp_path / "before")}
    steps = _steps(workflow)
    audit = _run(steps["Audit"], env, tmp_path)
    assert audit.returncode == 4, audit.stderr
    lines = [x for x in audit.stdout.splitlines() if x.startswith("Gate exceeded: ")]
    assert len(lines) == 1 and "gate.max_auc = 0.6" in lines[0]
    assert _run(steps["Compare with the release before"], env, tmp_path).stdout == ""
    assert _run(steps["Remember a release that passed"], env, tmp_path).returncode == 0
    compared = _run(steps["Compare with the release before"], env, tmp_path)
    assert compared.returncode == 0 and "difference +0.000" in compared.stdout
    verified = _run(steps["Verify"], env, tmp_path)
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.splitlines()[-1] == "verified"
    passed = _run(steps["Audit"], env | {"MAX_AUC": "0.99"}, tmp_path)
    assert passed.returncode == 0 and "Gate passed: " in passed.stdout
