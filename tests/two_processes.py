"""What each of two processes runs: `two_processes.py PORT PLACE FOLDER [FAILING]`.

Audits the corpus in FOLDER on grids of one process, and on grids of both; or once, on a
grid of both, while the process at place FAILING cannot send its second batch.
"""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import signal
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "4"

import children

os.environ["XLA_FLAGS"] = children.XLA_FLAGS

import jax

from vidsme_jax import audit, parallel, report, settings, studies
from vidsme_jax.base import AuditError
from vidsme_jax.run import processes
from vidsme_jax.run.stopping import RunStopped, Stop

# data x model; 0 is what is left. Of the last one a copy of the model spans both.
GRIDS = {"own": (0, 1), "both": (4, 2), "spanning": (1, 8)}


class Stopped(Stop):
    """Gets SIGTERM, in the second process only, before the first batch."""

    def between(self, batches):
        """As usual."""

        def first():
            if processes.index() == 1:
                signal.raise_signal(signal.SIGTERM)
            yield from batches

        return super().between(first())


def configuration(folder: pathlib.Path):
    """Returns the configuration of a corpus that `processes_test` has made."""
    config = settings.default()
    config.corpus.members = (str(folder / "members.json"),)
    config.corpus.nonmembers = (str(folder / "nonmembers.json"),)
    config.model.checkpoint = "random:smolvlm-tiny"
    config.model.dtype = "float32"
    config.video.num_frames = 2
    config.batch_size = 2
    config.corpus.allow_outside = True
    config.report.num_permutations = 100
    config.scores = "vid_sme"
    return config


def studied(config):
    """Returns the configuration of a study of two runs of the same corpus."""
    config = config.copy_and_resolve_references()
    config.study, config.studies.frames = "frames", (1, 2)
    return config


def asking(config, folder: pathlib.Path, response: str):
    """Returns the configuration of clips with one to three texts each."""
    config = config.copy_and_resolve_references()
    config.corpus.members, config.corpus.nonmembers = (), ()
    config.corpus.suspects = (str(folder / "asked.json"),)
    config.slices, config.response = ("video", "response"), response
    config.response_tokens = 4
    config.scores = "vid_sme,response_loss,response_pmi_blank"
    return config


@contextlib.contextmanager
def failing(here: bool):
    """Every batch fails where its results are fetched."""
    fetch = parallel.Devices.fetch

    def fails(devices, out):
        host = fetch(devices, out)  # The other process computes it too.
        if here:
            raise jax.errors.JaxRuntimeError("INTERNAL: the card fell off the bus")
        return host

    parallel.Devices.fetch = fails
    try:
        yield
    finally:
        parallel.Devices.fetch = fetch


def unsent(config, run: pathlib.Path, here: bool) -> None:
    """Audits; the second batch cannot be sent from here."""
    processes._GRACE = 2.0
    runner, calls = parallel.Devices.runner, itertools.count(1)

    def fails(devices, step):
        compute = runner(devices, step)

        def sent(*args):
            if next(calls) == 2 and here:
                raise jax.errors.JaxRuntimeError("INTERNAL: the card fell off the bus")
            return compute(*args)

        return sent

    parallel.Devices.runner = fails
    audit.run(config, run)


def patient() -> None:
    """Lets JAX wait on a busy machine for as long as the tests do."""
    limits = ("initialization_timeout", "heartbeat_timeout_seconds")
    limits += ("shutdown_timeout_seconds",)
    seconds = int(children.PATIENCE)
    jax.distributed.initialize = functools.partial(
        jax.distributed.initialize, **dict.fromkeys(limits, seconds)
    )
    for name, minutes in (("local", seconds // 60), ("global", seconds // 60 + 1)):
        jax.config.update(f"jax_cpu_get_{name}_topology_timeout_minutes", minutes)


def main() -> None:
    """Prints, as JSON, for each grid what this process had to say."""
    patient()
    port, place, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    report.figures.draw = studies.writing.figures.draw = lambda *args: []
    assert processes.start(f"localhost:{port}", 2, place)
    config, said = configuration(folder), {}
    if len(sys.argv) > 4:
        config.parallel.data, config.parallel.model = GRIDS["spanning"]
        return unsent(
            config, folder / f"unsent-{sys.argv[4]}", sys.argv[4] == str(place)
        )
    for name, (data, model) in GRIDS.items():
        config.parallel.data, config.parallel.model = data, model
        stale = folder / name / ".process-00002.json"  # A run of three left it.
        if place == 0:
            stale.parent.mkdir(exist_ok=True)
            stale.write_text('{"failures": [], "error": "interrupted"}')
        found = audit.run(config, folder / name)
        said[name] = found and [failure.id for failure in found.failures]
    for name, response in (("spanning", "given"), ("own", "greedy")):
        config.parallel.data, config.parallel.model = GRIDS[name]
        audit.run(asking(config, folder, response), folder / f"asked-{response}")
    config.batch_size = 1
    for name, (data, model) in {"own": (1, 1), "spanning": (1, 8)}.items():
        config.parallel.data, config.parallel.model = data, model
        run, stop = folder / f"stopped-{name}", Stopped()
        stop.listen()
        try:
            audit.run(config, run, stop)
        except KeyboardInterrupt:
            said[run.name] = len(list(run.glob("signals/part-*.parquet")))
        found = audit.run(config, run)
        said[f"resumed-{name}"] = found and [failure.id for failure in found.failures]
    config.batch_size = 2
    for name in ("own", "spanning"):
        config.parallel.data, config.parallel.model = GRIDS[name]
        study = studies.run(studied(config), folder / f"study-{name}")
        said[f"study-{name}"] = study and [x.id for x in study.failures]
    for name in ("own", "spanning"):
        config.parallel.data, config.parallel.model = {"own": (1, 1)}.get(name, (1, 8))
        run = folder / f"failed-{name}"
        with failing(place == 1):
            try:
                audit.run(config, run)
            except (AuditError, RunStopped) as error:
                said[f"failed-{name}"] = str(error)
        found = audit.run(config, run)
        said[f"mended-{name}"] = found and [failure.id for failure in found.failures]
    config.parallel.data, config.parallel.model = GRIDS["own"]
    for name, key, value in (
        ("disagreeing", "max_clips", (None, 2)[place]),
        ("broken", "video_root", ("", "/nowhere")[place]),
    ):
        config.corpus[key] = value
        try:
            audit.run(config, folder / name)
        except AuditError as error:
            said[name] = error.problems
        config.corpus[key] = None if key == "max_clips" else ""
    print(json.dumps(said))


if __name__ == "__main__":
    main()
