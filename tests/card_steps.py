"""All steps of `card.py` in one process, for `card_test.py`.

A step is then no process of its own, which is tested elsewhere, and torch is imported
and a program compiled once for all of them. The rate of a matrix product is taken of a
small one. Packages named in HIDDEN are not found.
"""

import contextlib
import importlib
import importlib.machinery
import io
import os
import pathlib
import sys
import traceback


class Hiding(importlib.machinery.PathFinder):
    """Finds what is on the path but the packages in HIDDEN."""

    hidden = frozenset(os.environ.get("HIDDEN", "").split())

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        """Finds a module, unless it is hidden."""
        if fullname.partition(".")[0] in cls.hidden:
            return None
        return super().find_spec(fullname, path, target)


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Hiding
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))
_running, card, rates = map(
    importlib.import_module, ("_running", "card", "vidsme_jax.run.rates")
)
_RATE = rates.matrix_rate


def run(command, env, *, seconds, emit, say):
    """Takes the place of `_running.run`."""
    _, script, *flags = command
    sys.argv = [script, *flags]
    out, err, status = io.StringIO(), io.StringIO(), 1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = importlib.import_module(pathlib.Path(script).stem).main()
        except SystemExit as ended:
            status = ended.code
        except Exception:
            traceback.print_exc()
    lines = []
    for text in out.getvalue().splitlines():
        emit(text)
        lines.append(_running.json.loads(text))
    errors = tuple(err.getvalue().splitlines())
    for text in errors:
        say(text)
    return _running.Ending(status, 0.0, errors, tuple(lines))


def small_rate(dtype, *, size, repeats):
    """Takes the place of `rates.matrix_rate`."""
    return _RATE(dtype, size=256, repeats=repeats)


rates.matrix_rate = small_rate
if __name__ == "__main__":
    _running.run = run
    sys.exit(card.main())
