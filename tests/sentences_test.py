"""Sentences about flags, folders, files and rates, each with what to do."""

import numpy as np
import pytest
from absl import flags

from vidsme_jax import commands, exits, settings
from vidsme_jax.base import AuditError, Item
from vidsme_jax.checkpoints import trees
from vidsme_jax.finetune import pool
from vidsme_jax.models import random
from vidsme_jax.published import lookup
from vidsme_jax.report import summary
from vidsme_jax.run import rehearsal


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--wrokdir=x", "--wrokdir: no such flag; did you mean '--workdir'?; --help"),
        ("--count=x", "--count is 'x'; it must be an integer"),
        ("--workdir", "--workdir has no value; give --workdir=VALUE"),
    ],
)
def test_a_wrong_flag(monkeypatch, argument, said):
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_integer("count", None, "", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(flags.Error) as caught:
        values(["vidsme", argument])
    assert commands._of_flag(caught.value).startswith(said)


def test_an_argument_that_is_no_flag_is_perhaps_the_work_directory(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    assert commands.unexpected("a").endswith("understood; --help shows the flags")
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    values(["vidsme"])
    assert commands.unexpected("runs/a").endswith("as --workdir=runs/a")


def test_a_folder_that_was_not_made_holds_no_results(tmp_path, capsys):
    assert exits.stopped("no room", tmp_path / "absent") == exits.WRONG
    assert "nothing was computed; take a folder that" in capsys.readouterr().err
    assert exits.stopped("no room", tmp_path) == exits.WRONG
    assert f"results so far are in {tmp_path}" in capsys.readouterr().err


def test_the_configuration_of_an_audit_trains_nothing(tmp_path):
    with pytest.raises(AuditError, match="is a configuration of an audit") as caught:
        pool.check(settings.default(), tmp_path)
    assert len(caught.value.problems) == 1


def test_files_that_are_missing_are_counted_before_a_run(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    items = [Item(x, x, str(tmp_path / x), "members") for x in ("a.mp4", "b.mp4")]
    (line,) = rehearsal._missing(items)
    assert line.startswith("missing: the files of 1 row, such as b.mp4: a run")
    assert not rehearsal._missing(items[:1])


def test_a_video_without_its_file_was_compared_by_name_alone(tmp_path):
    (tmp_path / "first_film.mp4").write_bytes(b"film")
    (tmp_path / "mine.csv").write_text("video\nfirst_film.mp4\nsecond_film.mp4\n")
    (tmp_path / "list.csv").write_text("video\nother_film.mp4\n")
    videos = lookup.videos(str(tmp_path / "mine.csv"))
    found = lookup.look_up(videos, [str(tmp_path / "list.csv")])
    assert found["files"] == 1
    assert "The files of 1 of 2 videos are not here: only" in found["statement"]
    (tmp_path / "second_film.mp4").write_bytes(b"other")
    videos = lookup.videos(str(tmp_path / "mine.csv"))
    found = lookup.look_up(videos, [str(tmp_path / "list.csv")])
    assert "are not here" not in found["statement"]


def test_a_rate_has_the_interval_that_counts_its_threshold():
    ends = {"low": 0.1, "high": 0.9}
    rate = {"value": 0.5, "of_population": ends}
    assert summary._rate(rate, 0.01) == "0.50 [0.10, 0.90] at 1 %"
    assert summary._rate(rate | {"of_population": None}, 0.05) == "0.50 at 5 %"


def test_what_a_caller_does_to_an_abstract_state_stays_with_it():
    model = random.describe("llava_onevision-tiny", dtype="float32")
    _, state = model.abstract()
    before = {path: x.shape for path, x in trees.flat(state).items()}
    trees.fill(state, dict.fromkeys(before, np.zeros(1)))
    again = {path: x.shape for path, x in trees.flat(model.abstract()[1]).items()}
    assert again == before
