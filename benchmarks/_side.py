"""One tree's side of `pairs.py --against`: runs the package of the tree it is given.

    python benchmarks/_side.py TREE FILE [the options of pairs.py]

It imports the tree's own package and the tree's own `_models.py`, draws the model, runs
once to compile, stores the signals of the first clips in FILE (.npz), and answers each
line of its standard input with the wall and CPU seconds of one more run as JSON.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np


def main() -> None:
    """Serves until its input ends."""
    tree, file, steps, *rest = sys.argv[1:]
    sys.path[:0] = [str(pathlib.Path(tree) / "benchmarks"), tree]
    import _models

    parser = argparse.ArgumentParser()
    _models.add_arguments(parser)
    run = _models.prepare(parser.parse_args(rest))
    clips = run.clips(run.batch * int(steps))
    first = run.ours(clips)[0]
    arrays = {k: v for k, v in first._asdict().items() if v is not None}
    np.savez(file, **arrays)
    print(json.dumps(run.extra), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run.ours(clips)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
