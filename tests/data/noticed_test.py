"""What was noticed of many videos is a line a kind, not a line a video."""

import report_test
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
        f"0.mp4: {OBLONG.format('4/3')} (and 899 more alike)",
        f"0.mp4: {CUT.format(0)} (and 899 more alike)",
        "x.mp4: 2 of the sampled frames are damaged (and 1 more alike)",
        "y.mp4: interlaced: \\x1b",
    ]


def test_nothing_noticed_is_no_line():
    assert noticed.lines({}) == []


def test_a_report_logs_them(tmp_path, caplog):
    """Of an audit, and of one whose report is made anew."""
    warnings = {f"{k}.mp4": [OBLONG.format("4/3")] for k in range(30)}
    report_test._write(tmp_path, report_test._table(), warnings=warnings)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == noticed.lines(warnings)
