"""A manifest none of whose videos is there: one problem, with the nearest name."""

import pytest
from corpus_files import as_json, corpus_of, files, load, problem_of

ROWS = [{"video": str(4010069381 + n // 2), "question": f"q{n}"} for n in range(800)]


def test_a_manifest_of_ids(tmp_path):
    files(tmp_path / "videos", *(f"{4010069381 + n}.mp4" for n in range(10)))
    source = as_json(tmp_path / "m.json", ROWS)
    root = tmp_path / "videos"
    problem = problem_of(looks=True, suspects=(source,), video_root=str(root))
    assert problem == (
        f"{source}: none of the 400 videos of its 800 rows is there; '4010069381', for "
        f"one, was looked for in {root}; did you mean '4010069381.mp4'? the manifest "
        "leaves out the suffix; add .mp4; name the videos as they are on disk, or set "
        "corpus.video_root to the folder that they are relative to (it is "
        f"{root} now)"
    )


@pytest.mark.parametrize(
    ("video", "hint"),
    [
        ("clips/a.mp4", "(there is no folder {folder}/clips either)"),
        ("b.mp4", "was looked for in {folder}; did you mean 'b.webm'?"),
        (
            "~/a.mp4",
            "was looked for in {folder}/~; ~ is not expanded in a manifest; na",
        ),
        ("nothing.like", "was looked for in {folder}; name the videos as"),
    ],
)
def test_the_hint(tmp_path, video, hint):
    files(tmp_path, "b.webm")
    source = as_json(tmp_path / "m.json", [{"video": video}])
    problem = problem_of(looks=True, suspects=(source,))
    assert hint.format(folder=tmp_path) in problem


def test_each_manifest_is_reported_and_others_are_not(tmp_path):
    files(tmp_path, "a.mp4")
    good = as_json(tmp_path / "good.json", [{"video": "gone.mp4"}, {"video": "a.mp4"}])
    bad = as_json(tmp_path / "bad.json", [{"video": "x.mp4"}])
    problem = problem_of(looks=True, members=(good,), nonmembers=(bad,))
    assert problem.startswith(f"{bad}: none of the 1 videos of its 1 rows is there")
    assert len(load(corpus_of(suspects=(good,)), looks=True)) == 2


def test_a_report_needs_no_video(tmp_path):
    source = as_json(tmp_path / "m.json", [{"video": "a.mp4"}, {"video": "b.mp4"}])
    assert load(corpus_of(suspects=(source,)), looks=False)
    assert "none of the 2" in problem_of(looks=True, suspects=(source,))


def test_a_file_is_looked_at_once(tmp_path, monkeypatch):
    from vidsme_jax.data import presence

    looked = []
    monkeypatch.setattr(
        presence.os.path, "exists", lambda name: looked.append(str(name)) or False
    )
    source = as_json(tmp_path / "m.json", [{"video": "a.mp4"}] * 1000)
    problem_of(looks=True, suspects=(source,))
    assert looked.count(str(tmp_path / "a.mp4")) <= 2  # Once more for the hint.


def test_the_video_that_is_named_is_one_with_a_cause(tmp_path):
    files(tmp_path, "7.mp4")
    rows = [{"video": str(number)} for number in range(10)]
    problem = problem_of(looks=True, suspects=(as_json(tmp_path / "m.json", rows),))
    assert (
        f"'7', for one, was looked for in {tmp_path}; did you mean '7.mp4'?" in problem
    )
