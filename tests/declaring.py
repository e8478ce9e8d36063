"""What each of two processes declares: `declaring.py PORT PLACE FOLDER`.

The first takes a second for it, in which the other could begin to compute.
"""

import json
import pathlib
import sys
import time

import two_processes  # First: it says how many devices there are.
from vidsme_jax import audit, report
from vidsme_jax.base import AuditError
from vidsme_jax.run import declaration, processes, scoring, sealed


def main() -> None:
    """Prints, as JSON, what this process has written and seen."""
    two_processes.patient()
    port, place, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    report.figures.draw = lambda *args: []
    assert processes.start(f"localhost:{port}", 2, place)
    config, run, said = two_processes.configuration(folder), folder / "run", {}
    config.parallel.data = config.parallel.model = 1
    declare, write, score = declaration.declare, sealed.write, scoring.score
    written = []

    def slowly(*args):
        time.sleep(1)
        declare(*args)

    def writing(path, *args, **more):
        written.append(path.name)
        return write(path, *args, **more)

    def scored(*args, **more):
        said["there"] = (run / "declaration.json").exists()
        return score(*args, **more)

    declaration.declare, sealed.write, scoring.score = slowly, writing, scored
    audit.run(config, run)
    said["declared"] = written.count("declaration.json")
    path = run / "declaration.json"
    processes._compare(run)  # Both have come so far.
    if place == 0:
        path.write_bytes(path.read_bytes().replace(b"vid_sme", b"vid_smd"))
    processes._compare(run)
    try:
        audit.run(config, run)
    except AuditError as error:
        said["problems"] = error.problems
    print(json.dumps(said))


if __name__ == "__main__":
    main()
