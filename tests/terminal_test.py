"""One way to a terminal: no text of others steers it, whatever prints it."""

import ast
import io
import json
import logging
import os
import pathlib
import pty
import re
import sys
import threading
import warnings

import pytest
from absl import logging as absl_logging

import children
from vidsme_jax import exits, progress, settings, terminal
from vidsme_jax.report import summary

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "vidsme_jax"
EVIL = "\x1b]0;PWNED\x07\x1b[2J\r\x9b31m\u202e\u2028\ud800\0é"
TEXT = EVIL.replace("\ud800", "")  # Which a manifest may hold.
CONTROL = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e]")

# Only here: what is printed, set up or shown as a bar.
ALLOWED = {
    "print": {"terminal.py"},
    "stdout": {"terminal.py"},
    "stderr": {"terminal.py", "progress.py", "run/stopping.py"},
    "tqdm": set(),
    "warn": set(),
    "showwarning": set(),
    "print_exc": set(),
    "StreamHandler": set(),
    "basicConfig": set(),
    "setFormatter": {"terminal.py"},
    "set_verbosity": {"terminal.py", "models/prompts.py", "models/tokenizer_files.py"},
}


def test_nothing_else_prints():
    """What is printed elsewhere is a constant."""
    found, constant = set(), set()
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute | ast.Name):
                name = node.attr if isinstance(node, ast.Attribute) else node.id
                if name in ALLOWED and where not in ALLOWED[name]:
                    found.add((where, node.lineno, name))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                if all(isinstance(each, ast.Constant) for each in node.args):
                    constant.add((where, node.lineno, "print"))
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
                module = (getattr(node, "module", None) or "").split(".")[0]
                if "tqdm" in (*names, module) and where not in ALLOWED["tqdm"]:
                    found.add((where, node.lineno, "tqdm"))
                if "logging" in names and not module and where != "terminal.py":
                    found.add((where, node.lineno, "logging"))
    assert not found - constant


class _Stream(io.TextIOWrapper):
    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding)

    def bytes(self):
        self.flush()
        return self.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_every_text_can_be_printed(monkeypatch, encoding):
    out, err = _Stream(encoding), _Stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    terminal.show(f"a {EVIL}\n日本 👩\u200d🚀")
    terminal.show_error(EVIL)
    for stream in (out, err):
        text = stream.bytes().decode(encoding)
        assert not CONTROL.search(text) and "\\x1b]0;PWNED" in text
    assert out.bytes().count(b"\n") == 2


def test_streams_that_are_closed_or_full(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    terminal.show("a")
    terminal.show_error("b")
    assert not terminal.is_terminal(None)
    script = "from vidsme_jax import terminal; terminal.show('x' * 9)"
    done = children.run(["bash", "-c", f'{sys.executable} -c "{script}" > /dev/full'])
    assert done.returncode == 0
    assert done.stderr == "the result cannot be printed: No space left on device\n"


@pytest.fixture
def started(capsys):
    """`start_logging`, and the state of before."""
    handler = absl_logging.get_absl_handler()
    before = logging.getLogRecordFactory(), handler.formatter
    root, python = logging.root.handlers[:], handler.python_handler
    hooks, verbosity = (sys.excepthook, threading.excepthook), logging.root.level
    its = python.stream
    terminal.start_logging()
    yield
    logging.captureWarnings(False)
    logging.setLogRecordFactory(before[0])
    handler.setFormatter(before[1])
    logging.root.handlers[:] = root
    logging.root.setLevel(verbosity)
    sys.excepthook, threading.excepthook = hooks
    python.stream = its


def test_every_log_line_warning_and_traceback_is_escaped(started, capsys):
    # Where flags were parsed before, absl writes to what stderr was when it was made.
    absl_logging.get_absl_handler().python_handler.stream = sys.stderr
    absl_logging.warning("of ours: %s", EVIL)
    absl_logging.warning("a line\nW0101 of others")
    logging.getLogger("other").error(f"theirs {EVIL}")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(EVIL, stacklevel=1)
    try:
        raise ValueError(EVIL)
    except ValueError:
        absl_logging.exception("failed")
        sys.excepthook(*sys.exc_info())
    thread = threading.Thread(target=_fail)
    thread.start()
    thread.join()
    text = capsys.readouterr().err
    assert not CONTROL.search(text)
    assert text.count("\\x1b]0;PWNED") == 6
    assert "a line\n    W0101 of others\n" in text


def _fail():
    raise ValueError(EVIL)


def test_what_tfds_says_of_its_descriptions_is_left_out(started, capsys):
    absl_logging.get_absl_handler().python_handler.stream = sys.stderr
    logger = absl_logging.get_absl_logger()
    for level, text in ((logging.INFO, "fields differ"), (logging.WARNING, "broken")):
        where = "x/tensorflow_datasets/core/dataset_info.py"
        logger.handle(logger.makeRecord("absl", level, where, 1, text, (), None))
    text = capsys.readouterr().err
    assert "broken" in text and "fields differ" not in text


def test_handlers_of_other_libraries_get_escaped_records(started):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("other")
    logger.addHandler(handler)
    logger.warning("%s", EVIL)
    logger.removeHandler(handler)
    assert not CONTROL.search(stream.getvalue().removesuffix("\n"))


def test_many_problems_are_counted(capsys):
    assert exits.wrong([f"{k} {EVIL}" for k in range(100_000)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nothing was computed, 100000 problems:\n")
    assert said.endswith("  - and 99800 more\n") and not CONTROL.search(said)


def test_the_summary_of_an_audit_is_short(tmp_path):
    auc = {"value": 0.5, "low": None, "high": None}
    names = [f"{EVIL}{k}{'x' * 10_000}" for k in range(1000)]
    found = {
        "headline": "s",
        "statement": "so and so.",
        "published": None,
        "gate": None,
        "declaration": None,
        "suspects": {"set": None, "rows": []},
        "beside": None,
        "reference": None,
        "control": None,
        "groups": {"left_out": 3, "statement": "of 9 groups 6 are compared"},
        "comparisons": {
            name: {
                "scores": {"s": {"auc": auc, "tpr": {}}},
                "counts": {role: {"items": 3} for role in ("members", "nonmembers")},
                "sources": {role: 3 for role in ("members", "nonmembers")},
                "blind": {"auc": None},
                "verdicts": {"s": {"verdict": "not_tested"}},
            }
            for name in names
        },
    }
    text = summary.of_audit(found, 7, tmp_path / f"a{EVIL[:4]}")
    assert not CONTROL.search(text)
    lines = text.splitlines()
    assert len(lines) == 25 and max(map(len, lines)) < 400
    assert "and 981 more lines like these in metrics.json" in lines


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """Flags of a small audit whose ids, groups and videos steer terminals."""
    folder = tmp_path_factory.mktemp("hostile")
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:6]
    for role, its in (("m", clips[:3]), ("n", clips[3:])):
        rows = []
        for k, clip in enumerate(its):
            name = folder / f"{role}{k}{EVIL[:-3]}.mp4"
            name.symlink_to(clip)
            row = {"video": name.name, "id": f"{role}{k}{TEXT}", "group": TEXT}
            rows.append(row | {"question": TEXT, "answer": TEXT})
        rows.append(
            rows[0] | {"video": f"gone{role}{EVIL[:-3]}.mp4", "id": f"{role}{TEXT}"}
        )
        (folder / f"{role}.json").write_text(json.dumps(rows))
    return [
        f"--config={ROOT}/configs/llava.py:demo",
        f"--config.corpus.members=('{folder}/m.json',)",
        f"--config.corpus.nonmembers=('{folder}/n.json',)",
        "--config.corpus.allow_outside",
        "--config.slices=('video',)",
        "--config.headline=vid_sme",
        "--config.scores=vid_sme",
        "--config.video.num_frames=2",
        "--config.report.num_permutations=100",
        f"--workdir={folder}/run",
    ]


def _under_a_terminal(command):
    """Returns status, stdout of a pipe and stderr of a terminal."""
    ours, theirs = pty.openpty()
    seen = []

    def read():
        try:
            while data := os.read(ours, 4096):
                seen.append(data)
        except OSError:  # The other end is closed.
            pass

    thread = threading.Thread(target=read)
    thread.start()
    done = children.run(command, stderr=theirs)
    os.close(theirs)
    thread.join()
    os.close(ours)
    return done.returncode, done.stdout, b"".join(seen).decode()


def _lines(err):
    """Returns the lines of a terminal as they are when the next one begins."""
    return [line.rpartition("\r")[2] or "\r" for line in err.split("\r\n")]


@pytest.mark.long
def test_no_command_steers_a_terminal(hostile_run):
    """An audit under a terminal, where a line is drawn, then a report into pipes."""
    main = [sys.executable, "-m", "vidsme_jax.main", *hostile_run]
    status, out, err = _under_a_terminal(main)
    assert status == 3, err
    assert "PWNED" in out and "PWNED" in err
    assert not CONTROL.search(out)
    # What is going on is said from the first moment on, each in its place.
    stages = ("\rstarting ...", "\rreading the corpus ...", "\rchecking model and")
    stages += ("\rloading weights: ", "\rscoring: 0 of 8 clips, compiling, waiting for")
    places = [err.find(stage) for stage in (*stages, "\rcomputing scores, tests")]
    assert places[0] == 0 and -1 not in places and places == sorted(places), ascii(err)
    assert all(line.startswith(("I", "W", "    ", "\r")) for line in _lines(err))
    drawn = err.replace("\r\n", "\n").replace("\r", "").replace("\x1b[A", "")
    assert not CONTROL.search(drawn), ascii(drawn)
    report = [sys.executable, "-m", "vidsme_jax", "report", hostile_run[-1]]
    again = children.run(report)
    assert again.returncode == 3, again.stderr
    assert "PWNED" in again.stdout
    assert not CONTROL.search(again.stdout + again.stderr)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that `progress` sees, and what the terminal's line says."""
    now, drawn = [0.0], [""]

    def draw(text):
        drawn[0] = text

    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress._Line, "_redraw", lambda line: None)
    monkeypatch.setattr(terminal, "show_line", draw)
    yield now, drawn
    progress.over()


def _on_a_terminal(monkeypatch):
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)


def test_the_time_left_is_that_of_clips_behind_the_first(clock, caplog):
    """The first one waits for the compiler, however many fail before it."""
    now, _ = clock
    shown = progress.Progress(7, "scoring")
    with caplog.at_level("INFO", "absl"):
        for now[0], failed in ((20, 1), (140, 0), (160, 0), (180, 1)):
            shown.add(1, failed)
        now[0] = 190
        shown.add(3)
    assert caplog.messages == [
        "scoring: 1 of 7 clips, 1 failed",
        "scoring: 2 of 7 clips, 1 failed",
        "scoring: 3 of 7 clips, 0.05 a second, about 80 s left, 1 failed",
        "scoring: 4 of 7 clips, 0.03 a second, about 60 s to 2 min left, 2 failed",
        "scoring: 7 of 7 clips, 0.08 a second, 2 failed",
    ]


def test_many_that_fail_at_once_promise_no_early_end(clock, monkeypatch):
    """A thousand files that are gone take no time; those that are left may."""
    _on_a_terminal(monkeypatch)
    now, drawn = clock
    shown = progress.Progress(2002, "scoring", "compiling")
    assert drawn[0].startswith("scoring: 0 of 2002 clips, compiling [")
    now[0] = 60
    shown.add(1)
    assert "left" not in drawn[0] and "a second" not in drawn[0]
    now[0] = 70
    shown.add(1)
    assert "clips, 0.10 a second, about 5.6 h left [" in drawn[0]
    now[0] = 71
    shown.add(1000, failed=1000)
    assert "0.09 a second, about 11 s to 3.1 h left, 1000 failed [" in drawn[0]


def test_compiling_is_no_part_of_the_rate(clock, monkeypatch):
    _on_a_terminal(monkeypatch)
    (now, drawn), compiled = clock, [0.0]
    shown = progress.Progress(100, "scoring", compiling=lambda: compiled[0])
    now[0] = compiled[0] = 30.0
    shown.add(10)
    # Another shape takes a minute to compile, its batch ten seconds.
    now[0], compiled[0] = 100.0, 90.0
    shown.add(10)
    assert "1.00 a second, about 80 s left" in drawn[0]


def test_a_stage_shows_its_time_and_gives_way(clock, monkeypatch):
    _on_a_terminal(monkeypatch)
    now, drawn = clock
    progress.stage("reading")
    assert drawn[0] == "reading ..."
    now[0] = 75
    progress._LINE.draw()
    assert drawn[0] == "reading ... 1:15"
    with progress.loading(4 << 30) as add:
        assert drawn[0] == "loading weights: 0.0 of 4.0 GiB"
        now[0] = 80
        add(1 << 30)
        assert drawn[0] == "loading weights: 1.0 of 4.0 GiB"
    drawn[0] = ""
    progress._LINE.draw()
    assert not drawn[0]
    with progress.loading(3 << 20):
        assert drawn[0] == "loading weights: 0.0 of 3.0 MiB"


def test_elsewhere_nothing_is_shown(clock):
    _, drawn = clock
    progress.stage("reading")
    progress.Bar(3, "marking", "variant").update()
    with progress.loading(3) as add:
        add(3)
    assert not drawn[0]


def test_a_line_is_cut_to_the_terminal_and_cleared(monkeypatch):
    stream = _Stream("ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(stream, "fileno", lambda: 2, raising=False)
    size = os.terminal_size((20, 5))
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda number: size)
    terminal.show_line("a" * 100)
    terminal.show_line(f"b {EVIL}")
    terminal.clear_line()
    terminal.clear_line()
    text = stream.bytes().decode()
    assert text == f"\r{'a' * 19}\rb \\x1b]0;PWNED\\x07\\\r{' ' * 19}\r"
