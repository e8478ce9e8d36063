"""What was noticed of many videos is a line a kind, not a line a video."""

import inspect
import types

import pytest

from vidsme_jax import audit
from vidsme_jax.data import noticed

OBLONG = "pixels are not square (sample aspect ratio {}): frames are 96x64, as stored"
CUT = "the file is damaged or cut short: its header promises {} s; 3 frames decode"


def test_a_line_a_kind():
    warnings = {
        f"{k}.mp4": [OBLONG.format(f"{k + 4}/3"), CUT.format(k)] for k in range(900)
    }
    warnings["x.mp4"] = ["2 of the sampled frames are damaged"]
    warnings["y.mp4"] = ["3 of the sampled frames are damaged", "interlaced: \x1b"]
    assert noticed.lines(warnings) == [
        f"900 videos of one kind, such as 0.mp4: {OBLONG.format('4/3')}",
        f"900 videos of one kind, such as 0.mp4: {CUT.format(0)}",
        "2 videos of one kind, such as x.mp4: 2 of the sampled frames are damaged",
        "y.mp4: interlaced: \\x1b",
    ]


def test_nothing_noticed_is_no_line():
    assert noticed.lines({}) == []


def test_an_audit_logs_them(tmp_path, monkeypatch, caplog):
    """Also one that makes the report of an earlier run anew."""

    def stop(*_):
        raise StopIteration

    monkeypatch.setattr(audit.metrics, "evaluate", stop)
    asked = types.SimpleNamespace(
        settings=types.SimpleNamespace(
            profile="exact", report=types.SimpleNamespace(num_bootstrap=1, fprs=())
        ),
        headline="vid_sme",
    )
    evaluate = inspect.unwrap(audit.evaluate)  # Past the checks of types.
    table = types.SimpleNamespace(scores={})
    warnings = {f"{k}.mp4": [OBLONG.format("4/3")] for k in range(30)}
    with pytest.raises(StopIteration):
        evaluate(asked, None, table, [], warnings, {}, tmp_path)
    told = [record.getMessage() for record in caplog.records]
    assert told == noticed.lines(warnings)
