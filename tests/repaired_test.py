"""A failure whose file has changed since is told as that, until the next audit."""

import dataclasses
import os

import pytest

from vidsme_jax.base import Failure, Item
from vidsme_jax.run import contents

CAUSE = "no such file: x"


@pytest.mark.parametrize(
    ("seconds", "cause", "changed"),
    [
        (10, CAUSE, True),
        (-10, CAUSE, False),
        (None, CAUSE, False),  # Not there yet.
        (10, contents.CHANGED, False),
    ],
)
def test_a_repaired_file(tmp_path, seconds, cause, changed):
    clip, run = tmp_path / "a.mp4", tmp_path / "failures.jsonl"
    if seconds is not None:
        clip.touch()
    run.touch()
    at = (clip if seconds is not None else tmp_path).stat().st_ctime_ns
    os.utime(run, ns=(at - (seconds or 0) * 10**9,) * 2)
    failure = Failure(id="a", video="a.mp4", stage="open", cause=cause)
    # Of rows that are no longer there, be it that another video has the id by now.
    others = [
        dataclasses.replace(failure, id="gone"),
        dataclasses.replace(failure, video="b.mp4"),
    ]
    item = Item(id="a", clip=f"{clip}#t=1,2", role="suspects", video="a.mp4")
    expected = (
        f"changed since the last run, which found: {cause}; run the audit again"
        if changed
        else cause
    )
    found = contents.repaired([failure, *others], [item], tmp_path)
    assert [each.cause for each in found] == [expected]
    # Made again and again, a report says it once.
    again = contents.repaired(found, [item], tmp_path)
    assert [each.cause for each in again] == [expected]
