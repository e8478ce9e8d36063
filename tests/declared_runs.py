"""Finished runs with a declaration, and reports of them that ask something else."""

import dataclasses
import json
import pathlib
import shutil

from vidsme_jax import audit, settings
from vidsme_jax.commands.finished import run_record
from vidsme_jax.run import declaration_text

CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
WORD = "Changed after the results: exploratory."


def config(folder: pathlib.Path, members: int = 2):
    """Four clips, two scores, a tiny model."""
    folder.mkdir(exist_ok=True)
    roles = {"members": CLIPS[:members], "nonmembers": CLIPS[4:6]}
    given = settings.default()
    for role, clips in roles.items():
        rows = [{"video": str(clip), "group": "plain"} for clip in clips]
        (folder / f"{role}.json").write_text(json.dumps(rows))
        given.corpus[role] = (str(folder / f"{role}.json"),)
    given.model.checkpoint, given.model.dtype = "random:smolvlm-tiny", "float32"
    given.video.num_frames, given.batch_size = 2, 2
    given.corpus.allow_outside, given.report.num_permutations = True, 100
    given.scores, given.compile_cache = "vid_sme,perplexity", ""
    return given


def again(workdir: pathlib.Path, **changes):
    """`vidsme report`."""
    about = run_record(workdir)
    given = settings.restored(about["config"])
    for key, value in changes.items():
        given.update_from_flattened_dict({key.replace("__", "."): value})
    return audit.report_again(workdir, given, about)


def record(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / declaration_text.FILE).read_text())


def finished(folder: pathlib.Path):
    """A finished run and its configuration."""
    given = config(folder / "corpus")
    return audit.run(given, folder / "run"), given


def copied(run, folder: pathlib.Path):
    """The same in another folder, to be changed."""
    report, given = run
    workdir = pathlib.Path(shutil.copytree(report.workdir, folder / "run"))
    report = dataclasses.replace(report, workdir=workdir)
    return report, given.copy_and_resolve_references()


def die(monkeypatch, module, name: str) -> None:
    """The process ends where a function is called."""

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, dies)
