"""Runs a command that gets a signal when a function has been called so many times.

    python interrupted.py MODULE:FUNCTION:CALLS:SIGNAL COMMAND [FLAGS]

The signal comes from the process itself, between two steps, however slow the machine.
"""

import importlib
import os
import runpy
import sys


def _signalled(module: str, function: str, calls: str, number: str) -> None:
    *path, name = function.split(".")
    holder = importlib.import_module(module)
    for each in path:
        holder = getattr(holder, each)
    original, left = getattr(holder, name), int(calls)

    def counting(*args, **kwargs):
        nonlocal left
        found = original(*args, **kwargs)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), int(number))
        return found

    setattr(holder, name, counting)


if __name__ == "__main__":
    _signalled(*sys.argv[1].split(":"))
    del sys.argv[:2]
    sys.path[0] = os.getcwd()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
