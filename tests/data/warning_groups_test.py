"""Warnings are logged one line a kind, not one line a video."""

import pytest

import report_test
from vidsme_jax.data import warning_groups

OBLONG = "pixels are not square (sample aspect ratio {}): frames are 96x64, as stored"
CUT = "the file is damaged or cut short: its header promises {} s; 3 frames decode"


def test_a_line_a_kind():
    warnings = {
        f"{k}.mp4": [OBLONG.format(f"{k + 4}/3"), CUT.format(k)] for k in range(900)
    }
    warnings["x.mp4"] = ["2 of the sampled frames are damaged"]
    warnings["y.mp4"] = ["3 of the sampled frames are damaged", "interlaced: \x1b"]
    assert warning_groups.lines(warnings) == [
        f"0.mp4: {OBLONG.format('4/3')} (and 899 more alike)",
        f"0.mp4: {CUT.format(0)} (and 899 more alike)",
        "x.mp4: 2 of the sampled frames are damaged (and 1 more alike)",
        "y.mp4: interlaced: \\x1b",
    ]


def test_nothing_noticed_is_no_line():
    assert warning_groups.lines({}) == []


@pytest.mark.long
def test_a_report_logs_them(tmp_path, caplog):
    """Of an audit, and of one whose report is made anew."""
    warnings = {f"{k}.mp4": [OBLONG.format("4/3")] for k in range(30)}
    report_test._write(tmp_path, report_test._table(), warnings=warnings)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == warning_groups.lines(warnings)
