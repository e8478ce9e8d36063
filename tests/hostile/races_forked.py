"""Runs what writes files again and again, each time killed or held up at another one.

    python races_forked.py '{"folder": ..., "kills_each": 5, "races_each": 2}'

Every run is a fork of this process, which has imported all that they need and started
nothing: no thread, no device. A fork counts its operations on files below its folder
(openings, renamings, deletions, syncs), and at a chosen one it sends itself SIGKILL, or
waits until another fork has ended. Of each scenario so many operations are tried, of
every kind some; all of them with null. Prints a line of JSON for each.
"""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

import killed_run
from vidsme_jax import audit, report, settings
from vidsme_jax.base import AuditError, MotionStatistics, ScoredClip, TokenSignals
from vidsme_jax.commands.finished import run_record
from vidsme_jax.data import decoders
from vidsme_jax.prepared import preparation, writing
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.run import asking, provenance, sealed, utilisation
from vidsme_jax.settings import views
from vidsme_jax.store import parts
from vidsme_jax.store.lock import locked
from vidsme_jax.store.signals import Signals

PARTIAL = re.compile(r"\.vidsme-[0-9a-f]{8}\.tmp$")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PATHS = {  # Which arguments of an event are paths.
    "open": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
}
# TFDS writes them into a folder that nobody reads before it has its name.
_UNREAD = ("/unfinished/features.json", "/unfinished/dataset_info.json")
Operation = tuple[str, str]

# ---------------------------------------------------------------------- what writes


def _configuration(clips: int = 2) -> Any:
    config = killed_run.config(clips)
    demo = settings.DEMO / "corpus"
    config.corpus.members = (str(demo / "members.jsonl"),)
    config.corpus.nonmembers = (str(demo / "nonmembers.jsonl"),)
    config.corpus.suspects = ()
    config.report.num_permutations = 100
    return config


def _scored(item: Any, rows: int = 6) -> ScoredClip:
    """Signals that no model has computed, of a clip that is there."""
    rng = np.random.default_rng(int(hashlib.sha256(item.id.encode()).hexdigest(), 16))
    data, stat = pathlib.Path(item.clip).read_bytes(), os.stat(item.clip)

    def array(*shape: int) -> np.ndarray:
        return np.abs(rng.normal(1.0, 0.3, size=shape)).astype(np.float32)

    computed = TokenSignals(
        *(array(2, rows, 15), array(2, rows), array(2, rows), -array(2, rows)),
        *(array(2, rows, 3), array(2, rows), array(2, 2, 15)),
    )
    return ScoredClip(
        key=item.clip,
        content_hash=hashlib.sha256(data).hexdigest(),
        signals=computed,
        frame=np.arange(rows, dtype=np.int16) // 3,
        frame_indices=(0, 1),
        motion=MotionStatistics(*rng.uniform(0.5, 2.0, 2).tolist()),
        stamp=(stat.st_size, stat.st_mtime_ns),
    )


def store(folder: pathlib.Path, clips: int = 2) -> None:
    """What an audit does with its signals: those that are there are not computed."""
    kept = Signals(folder / "signals", {"model": "none"})
    for item in asking.ask(_configuration(clips), model=False).items:
        if item.clip not in kept.finished:
            _computed(item.id)
            kept.write([_scored(item)])


def make_report(folder: pathlib.Path) -> None:
    """The report of a finished run."""
    about = run_record(folder)
    config = settings.restored(about["config"])
    with config.unlocked():
        config.report.num_permutations = 101  # So that files differ from those before.
    audit.report_again(folder, config, about)


def prepare(folder: pathlib.Path, clips: int = 3, frames: int = 2) -> None:
    """Prepares clips, one in hand at a time."""
    config = killed_run.config(clips)
    config.video.num_frames = frames
    writing._CLIPS_PER_SHARD = 1
    ask = decoders.ask

    def counted(request: str, content: Any, *args: Any, **arguments: Any) -> Any:
        if request == "frames":
            _computed(str(content))
        return ask(request, content, *args, **arguments)

    decoders.ask = counted
    preparation.run(views.Settings.of(config), folder)


def store_alone(folder: pathlib.Path) -> None:
    """What an audit does with its signals, under its lock."""
    with locked(folder):
        store(folder, 3)


def read_prepared(folder: pathlib.Path) -> list[str]:
    """What an audit reads of a prepared corpus."""
    config = killed_run.config(2)
    config.corpus.prepared = str(folder)
    corpus, reader = open_corpus(views.Settings.of(config), (2,))
    frames = [reader.read(item.clip, {2})(2)[0] for item in corpus.items]
    return [hashlib.sha256(each.pixels.tobytes()).hexdigest() for each in frames]


def prepare_others(folder: pathlib.Path) -> None:
    """Another variant in the same folder."""
    prepare(folder, frames=3)


def delete(folder: pathlib.Path) -> None:
    """Deletes all, though it is in use."""
    shutil.rmtree(folder)


def whole_audit(folder: pathlib.Path) -> None:
    """An audit with its model."""
    write = Signals.write

    def counted(kept: Signals, clips: list[ScoredClip], *args: Any) -> None:
        write(kept, clips, *args)
        for clip in clips:
            _computed(clip.key)

    Signals.write = counted
    audit.run(killed_run.config(2), folder)


def _finished(folder: pathlib.Path) -> None:
    """A run as an audit leaves it."""
    store(folder)
    config = _configuration()
    about = {"config": settings.flatten(config), "fingerprints": {}, "device": {}}
    (folder / "config.json").write_text(json.dumps(about, default=str))
    audit.report_again(folder, config, about)


def _drawn(*_: Any) -> list[Any]:
    """One small figure, which takes no time."""
    figure = Figure(figsize=(0.2, 0.2))
    return [report.figures.Drawing("scores", figure, "a figure", "its caption")]


def _leave_out_times() -> None:
    """Lets records be equal where what they were made of is."""
    utilisation.Utilisation.facts = lambda self: {}
    provenance.earlier_utilisation = lambda path: {"utilisation": {}}
    provenance._when = lambda: {"date": "a date", "command": "a command"}
    sealed._now = lambda: "2026-11-30T00:00:00Z"
    parts._now = lambda: 1


def _two_prepared(folder: pathlib.Path) -> None:
    prepare(folder, 2)


# Of each scenario what was there before, and what is killed.
SCENARIOS: dict[str, tuple[Callable[..., None] | None, Callable[..., None]]] = {
    "store": (None, store),
    "report": (_finished, make_report),
    "prepare": (None, prepare),
    "prepare more": (_two_prepared, prepare),
    "audit": (None, whole_audit),
}
# What was there before, who is held up, and who runs meanwhile.
RACES: dict[str, tuple[Callable[..., None] | None, Callable, Callable]] = {
    "two reports": (_finished, make_report, make_report),
    "an audit and a report": (_finished, store_alone, make_report),
    "two audits": (None, store_alone, store_alone),
    "two preparations": (_two_prepared, prepare, prepare),
    "two variants": (_two_prepared, prepare, prepare_others),
    "a preparation and an audit": (_two_prepared, prepare, read_prepared),
    "a deleted run": (_finished, make_report, delete),
    "deleted signals": (None, store_alone, delete),
    "a deleted preparation": (_two_prepared, prepare, delete),
}

# ------------------------------------------------------------------------- one fork

_computations: list[str] = []


def _computed(name: str) -> None:
    _computations.append(name)


def _hooked(folder: pathlib.Path, at: Callable[[Operation, Any], None]) -> None:
    """Calls a function before each operation on files below a folder."""
    inside, busy = str(folder), [False]

    def see(kind: str, path: Any, file: Any = None) -> None:
        busy[0] = True
        try:
            at((kind, path), file)
        finally:
            busy[0] = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in _PATHS or busy[0]:
            return
        if event == "open" and not (args[2] or 0) & _WRITES:
            return
        paths = [
            os.fsdecode(x) for x in args[: _PATHS[event]] if not isinstance(x, int)
        ]
        relative = event in ("os.remove", "os.rmdir") and args[-1] != -1  # Of rmtree.
        if paths and (relative or paths[-1].startswith(inside)):
            see(
                event,
                re.sub(r"vidsme-\w{8}", "vidsme-", paths[-1].removeprefix(inside)),
            )

    sync = os.fsync

    def synced(file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        if path.startswith(inside) and not busy[0]:
            name = re.sub(r"vidsme-\w{8}", "vidsme-", path.removeprefix(inside))
            see("fsync", name, None if os.path.isdir(path) else file)
        sync(file)

    os.fsync = synced
    sys.addaudithook(hook)


def _fork(run: Callable[[], Any]) -> tuple[int, int]:
    """Runs a function in a fork; returns its id and where its result can be read."""
    reads, writes = os.pipe()
    if pid := os.fork():
        os.close(writes)
        return pid, reads
    status = 1
    try:
        with open(os.devnull, "w") as silent:
            os.dup2(silent.fileno(), 1)
        said: dict[str, Any] = {"error": None}
        try:
            said |= {"found": run()}
        except (AuditError, OSError) as error:
            said |= {"error": str(error), "kind": type(error).__name__}
        said |= {"computed": _computations}
        with open(writes, "w") as pipe:
            pipe.write(json.dumps(said))
        status = 0
    finally:
        os._exit(status)


def _end(pid: int, reads: int) -> tuple[int, dict[str, Any]]:
    with open(reads) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, json.loads(text) if text else {}


def _files(folder: pathlib.Path) -> dict[str, str]:
    """The content of all whole files, but for those that nobody is to read yet."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if PARTIAL.search(name) or f"/{name}".endswith(_UNREAD):
            continue
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _left_over(folder: pathlib.Path) -> list[str]:
    return [
        str(p)
        for p in folder.rglob("*")
        if "tmp" in p.suffix or p.name in ("staged", "unfinished")
    ]


# ---------------------------------------------------------------------------- kills


def _recorded(folder: pathlib.Path, run: Callable[..., None]) -> dict[str, Any]:
    """An undisturbed run: its operations, and all that files held between them."""
    operations: list[tuple[str, str, bool]] = []
    states: set[tuple[str, str]] = set()

    def at(operation: Operation, file: Any) -> None:
        operations.append((*operation, file is not None))
        states.update(_files(folder).items())

    def recording() -> Any:
        _hooked(folder, at)
        run(folder)
        states.update(_files(folder).items())
        return operations, sorted(states)

    status, said = _end(*_fork(recording))
    assert status == 0 and said["error"] is None, said
    operations, states = said["found"]
    for kind, path, _ in operations:  # Nothing is written where readers look for it.
        whole = kind != "open" or path.endswith((".tmp", "/.lock"))
        assert whole or path.endswith(_UNREAD), path
    return {
        "operations": operations,
        "states": {tuple(state) for state in states},
        "files": _files(folder),
        "computed": said["computed"],
    }


def _dying(folder: pathlib.Path, run: Callable[..., None], moment: int, half: bool):
    """A run that dies before an operation; with `half` after half of a write."""
    left = [moment]

    def at(operation: Operation, file: Any) -> None:
        if left[0] == 0:
            if half:
                os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def dying() -> None:
        _hooked(folder, at)
        run(folder)

    return _end(*_fork(dying))


def kills(
    name: str, root: pathlib.Path, most: int | None, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Kills a scenario at its operations, and lets another run go on from there."""
    before, run = SCENARIOS[name]
    start = root / "start"
    start.mkdir(parents=True)
    if before is not None:
        status, said = _end(*_fork(lambda: before(start)))
        assert status == 0 and said["error"] is None, (status, said)
    folder = root / "run"  # The same name each time: some files have it in them.

    def anew() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)

    anew()
    whole = _recorded(folder, run)
    moments = [
        (number, half)
        for number, (*_, file) in enumerate(whole["operations"])
        for half in ((False, True) if file else (False,))
    ]
    kinds = [(whole["operations"][number][0], half) for number, half in moments]
    yield {"moments": len(moments)}
    for number, half in sorted(_some(moments, kinds, most, rng)):
        anew()
        status, _ = _dying(folder, run, number, half)
        there = _files(folder)
        problems = [] if status == -signal.SIGKILL else [f"it ended with {status}"]
        foreign = set(there.items()) - whole["states"]
        problems += [f"neither old nor new: {x}" for x, _ in sorted(foreign)]
        again, said = _end(*_fork(lambda: run(folder)))
        if again or said["error"]:
            problems.append(f"the next run: {again}, {said}")
        else:
            done = _done(there, _files(start))
            repeated = len(said["computed"]) + done - len(whole["computed"])
            if repeated > 0:
                problems.append(f"{repeated} computed again")
            if _files(folder) != whole["files"]:
                now = dict(_files(folder).items() ^ whole["files"].items())
                problems.append(f"another outcome: {sorted(now)}")
            if left := _left_over(folder):
                problems.append(f"left over: {left}")
        operation = whole["operations"][number][:2]
        yield {"at": operation, "half": half, "problems": problems}


def _some(
    moments: list[Any], kinds: list[Any], most: int | None, rng: random.Random
) -> list[Any]:
    """Chooses moments, so that there are some of each kind."""
    if most is None:
        return moments
    of_kind: dict[Any, list[Any]] = {}
    for moment, kind in zip(moments, kinds, strict=True):
        of_kind.setdefault(kind, []).append(moment)
    for each in of_kind.values():
        rng.shuffle(each)
    rounds = itertools.zip_longest(*rng.sample(list(of_kind.values()), len(of_kind)))
    return [x for x in itertools.chain(*rounds) if x is not None][:most]


def _done(there: dict[str, str], before: dict[str, str]) -> int:
    """How many clips were finished when a run died."""
    new = set(there) - set(before)
    parts = sum("signals/part-" in name for name in new)
    staged = sum(name.endswith(".clip") for name in new)
    return parts + staged


# ---------------------------------------------------------------------------- races


def _waiting(
    folder: pathlib.Path, run: Callable[..., Any], moment: int
) -> tuple[tuple[int, int], Callable[[], None]]:
    """A run that has come to an operation and waits; and what lets it go on."""
    came, reached = os.pipe()
    goes, go = os.pipe()
    left = [moment]

    def at(operation: Operation, file: Any) -> None:
        if left[0] == 0:
            os.write(reached, b"!")
            os.read(goes, 1)
        left[0] -= 1

    def waiting() -> Any:
        os.close(came)
        os.close(go)
        _hooked(folder, at)
        return run(folder)

    fork = _fork(waiting)
    os.close(reached)
    os.close(goes)
    os.read(came, 1)

    def let_go() -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(go, b"!")
        os.close(go)
        os.close(came)

    return fork, let_go


def races(
    name: str, root: pathlib.Path, most: int | None, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Holds one process up at its operations while another runs from end to end."""
    before, first, second = RACES[name]
    start, folder = root / "start", root / "run"
    start.mkdir(parents=True)
    if before is not None:
        status, said = _end(*_fork(lambda: before(start)))
        assert status == 0 and said["error"] is None, (status, said)

    def anew() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)

    anew()
    whole = _recorded(folder, first)
    names = [operation[:2] for operation in whole["operations"]]
    locking = max(k for k, (_, path) in enumerate(names) if path.endswith("/.lock"))
    moments = list(range(len(names)))
    kinds = [(kind, k > locking) for k, (kind, _) in enumerate(names)]
    yield {"moments": len(moments), "files": whole["files"]}
    for moment in sorted(_some(moments, kinds, most, rng)):
        anew()
        fork, let_go = _waiting(folder, first, moment)
        there = _files(folder)
        status, said = _end(*_fork(lambda: second(folder)))
        changed = sorted(dict(there.items() ^ _files(folder).items()))
        let_go()
        its_status, it_said = _end(*fork)
        yield {
            "at": names[moment],
            "locked": moment > locking,
            "first": [its_status, it_said],
            "second": [status, said],
            "changed": changed,
            "outcome": _files(folder),
            "left": _left_over(folder),
        }


# ----------------------------------------------------------------------------- main


def main(
    folder: str,
    kills_each: int | None = 0,
    races_each: int | None = 0,
    seed: int = 0,
    only: list[str] | None = None,
) -> None:
    """Goes through kills and races; of each so many moments, all with null."""
    report.figures.draw = _drawn
    _leave_out_times()
    cv2.setNumThreads(0)
    for scenarios, tried, each in (
        (SCENARIOS, kills, kills_each),
        (RACES, races, races_each),
    ):
        for name in scenarios:
            if each == 0 or (name not in only if only else name == "audit"):
                continue
            root = pathlib.Path(folder) / name.replace(" ", "-")
            for found in tried(name, root, each, random.Random(seed)):
                print(json.dumps({"scenario": name} | found), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
