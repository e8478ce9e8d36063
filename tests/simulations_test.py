"""The simulations of `benchmarks/validity.py`: every step, as small as can be."""

import json

import numpy as np
import pytest

from vidsme_jax.evaluation import verdicts

# A cell of each kind.
CELLS = {
    "intervals": ("10 sources of 5, ICC 0.5, ties", "maxT, 20 sources of 1"),
    "blind": ("size, 20 sources of 5", "text 0.95, 20 sources of 1"),
    "adjusted": ("blind 0.7 by 4 columns, score depends, 20 sources of 5",),
    "verdicts": ("null, unmeasured 0.9, 20 sources of 1",),
    "suspects": (
        "set, AUC 0.65, 20 sources of 5",
        "list, 50 suspects, 19 calibration clips of 5",
        "program, pixels 0.95, 20 sources of 1",
    ),
    "power": ("30 against 300 clips, 1 a source",),
}


@pytest.mark.parametrize("step", CELLS)
def test_two_draws_of_a_step_are_shares(script, capsys, tmp_path, step):
    validity, out = script("validity"), tmp_path / "out.json"
    for cell in CELLS[step]:
        flags = ["--step", step, "--draws", "2", "--out", str(out), "--only", cell]
        assert validity.main(flags) == 0
        line = json.loads(capsys.readouterr().out)
        assert line["name"] == f"{step}/{cell}" and line["draws"] == 2
        stored = validity.read(out)[line["name"]]
        assert stored["draws"] == 2 and stored["numbers"]
        for its in stored["numbers"].values():
            assert 0 <= its["mean"] <= 1 and its["of"] == 2
        assert validity.main(flags) == 0 and not capsys.readouterr().out
    assert validity.main(["--table", "--out", str(out)]) == 0
    if step not in ("blind", "intervals"):
        assert all(cell in capsys.readouterr().out for cell in CELLS[step][:1])


@pytest.mark.long
def test_a_cell_is_continued_by_the_draws_that_it_would_have_had(script, tmp_path):
    validity = script("validity")
    cell = "30 against 300 clips, 1 a source"
    found = []
    for name, steps in (("once", (120,)), ("twice", (70, 120))):
        out = tmp_path / f"{name}.json"
        for draws in steps:
            assert list(validity.run("power", draws, 1, out, cell))
        stored = validity.read(out)[f"power/{cell}"]
        found.append((stored["draws"], stored["numbers"]))
    assert found[0] == found[1]
    several = tmp_path / "several.json"
    assert list(validity.run("power", 120, 2, several, cell))
    stored = validity.read(several)[f"power/{cell}"]
    assert (stored["draws"], stored["numbers"]) == found[0]


@pytest.mark.parametrize("per", [1, 5])
@pytest.mark.parametrize("effect", [0.5, 0.9])
def test_simulated_verdicts_are_those_of_the_program(script, per, effect):
    steps, worlds = script("_validity_steps"), script("_worlds")
    rng = np.random.default_rng(per)
    world = worlds.confounded(rng, 20, per, blind=0.6, rho=0.5, effect=effect)
    evidence, smallest = steps.judged(world, 7)
    for placebo in (True, False):
        its = evidence if placebo else evidence._replace(p_d=None, p_c=None)
        found = verdicts.of_score(its, steps.ALPHA, smallest)
        assert found == steps.whole(world, 7, placebo=placebo)


def test_altered_clips_are_read_as_an_audit_reads_them(script):
    altered = script("_altered")
    names = ["audio track", "creation date"]
    found = altered.draw(np.random.default_rng(0), 6, names)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["audio track: apart"] == found["creation date: apart"] == 1
    # The pictures are the same.
    assert found["audio track: auc"] == found["creation date: auc"]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("MPEG-4", "codec"),
        ("HEVC", "codec"),
        ("audio track", "audio"),
        ("creation date", "creation_date"),
        ("double fps", "fps"),
        ("upscaled 2x", "width"),
        ("3x longer", "duration"),
    ],
)
def test_an_alteration_does_what_it_says(script, tmp_path, name, changed):
    altered = script("_altered")
    scene = altered.drawing.make_scene(np.random.default_rng(3))
    frames, read = altered._drawn(scene, (72, 96)), altered._read
    path, how = tmp_path / "clip.mp4", altered.ALTERATIONS
    plain, _ = read(path, frames, scene.fps, how["nothing"])
    if how[name].longer > 1:
        frames = altered._drawn(scene, (72, 96), how[name].longer)
    other, _ = read(path, frames, scene.fps, how[name])
    assert plain.container.get(changed) != other.container.get(changed)


def test_grading_keeps_the_luminance(script):
    altered = script("_altered")
    frames = np.random.default_rng(0).integers(60, 190, (2, 8, 8, 3)).astype(np.uint8)
    for name in ("colour grading", "mild colour grading"):
        graded = altered.ALTERATIONS[name].change(frames)
        gap = (graded @ altered._LUMA) - (frames @ altered._LUMA)
        assert np.abs(gap).mean() < 1 and (graded != frames).any()
