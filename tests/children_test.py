"""No process outlives the test that started it; ports are given once."""

import ast
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

import children

# Starts a process of a session of its own, tells its number, and ends or stays.
STARTS = """
import subprocess, sys, time
sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
print(subprocess.Popen(sleeping, **quiet, start_new_session=True).pid, flush=True)
if sys.argv[1:]: time.sleep(600)
"""


def _alive(pid: int) -> bool:
    try:
        return " Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stays", [[], ["stays"]], ids=["orphan", "grandchild"])
def test_what_a_failed_test_has_left_running_ends(stays):
    """Also in a session of its own, which no signal to a group reaches."""
    with pytest.raises(KeyError), children.ended():
        process = subprocess.Popen(
            [sys.executable, "-c", STARTS, *stays], stdout=subprocess.PIPE, text=True
        )
        with process.stdout as out:
            pid = int(out.readline())
        if not stays:
            process.wait()
        assert {pid} <= children.descendants() and _alive(pid)
        raise KeyError
    process.wait()
    assert not _alive(pid) and not _alive(process.pid)


def test_what_was_there_before_a_test_stays():
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    with children.started(sleeping) as before:
        with children.ended(), children.started(sleeping) as process:
            pass
        assert process.returncode == -signal.SIGKILL and before.poll() is None
    assert before.returncode == -signal.SIGKILL


def test_a_process_ends_with_its_group():
    done = children.run([sys.executable, "-c", "print(1)"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    code = STARTS.replace(", start_new_session=True", "")
    pid = int(children.run([sys.executable, "-c", code], stderr=None).stdout)
    children.wait_for(lambda: not _alive(pid))


def test_one_that_fails_ends_those_that_wait_for_it(tmp_path):
    code = "import sys, time; print(sys.argv); time.sleep(float(sys.argv[1])); 1 / 0"
    commands = [[sys.executable, "-c", code, seconds] for seconds in ("600", "0")]
    waits, fails = children.together(commands, tmp_path)
    assert waits.returncode == -signal.SIGKILL
    assert fails.returncode == 1 and "ZeroDivisionError" in fails.stderr
    assert fails.stdout == "['-c', '0']\n"


def test_what_never_comes_is_said():
    with pytest.raises(AssertionError, match=r"waited for 0.1 s in vain"):
        children.wait_for(lambda: False, 0.1)


def test_a_port_is_given_once_and_can_be_bound():
    with children.port() as number, children.port() as other:
        assert number != other
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("", number))
            server.listen()
        with socket.socket() as greedy, pytest.raises(OSError):
            greedy.bind(("", number))


def test_no_test_has_a_limit_of_its_own():
    """Where a process or a thread is waited for, it is `PATIENCE` or `MOMENT`."""
    for path in pathlib.Path(children.__file__).parent.rglob("*_test.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or isinstance(node.func, ast.Name):
                continue
            values = [k.value for k in node.keywords if k.arg == "timeout"]
            if getattr(node.func, "attr", "") in ("wait", "join", "communicate"):
                values += node.args
            known = [x.value for x in values if isinstance(x, ast.Constant)]
            limits = [x for x in known if isinstance(x, int | float) and x >= 1]
            assert not limits, f"{path.name}, line {node.lineno}: see children.py"
