"""Coordinates several processes on one corpus, one or more on each host.

Each process scores its share of the clips and writes its parts into one work directory,
which all hosts must see. Nothing else is exchanged, unless the model spans hosts: then
all take the same steps. The first process waits for the others and writes scores and
report. A process that fails records why, and the others stop.
"""

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import threading
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from typing import NoReturn, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from vidsme_jax import exits, terminal
from vidsme_jax.addresses import is_url
from vidsme_jax.base import AuditError, Failure
from vidsme_jax.run import joining
from vidsme_jax.run.stopping import RunStopped
from vidsme_jax.store import share_names, workdirs
from vidsme_jax.store.files import write_atomically
from vidsme_jax.store.lock import locked
from vidsme_jax.store.workdirs import Workdir
from vidsme_jax.store.writers import Writer

T = TypeVar("T")
# The folder that has the records of how processes ended, and the share in their names.
Records = tuple[pathlib.Path, str]

_INTERRUPTED, _HUNG = "interrupted", "hung in a step without the others"
_EXPECTED = (AuditError, RunStopped, OSError, KeyboardInterrupt)  # As documented.
_POLL = 0.5  # Seconds between two looks at what the others have recorded.
_GRACE = 60.0  # Seconds that a step may take after another process has ended.


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Joins the other processes, before anything else of JAX is used.

    See `joining.arguments` for what is not given.

    Returns:
      Whether there are others; False for a run of one process.

    Raises:
      AuditError: What is given does not suffice, or the others cannot be reached.
    """
    given = (coordinator, num_processes, process_id)
    arguments = joining.arguments(given, environment)
    if arguments is None:
        return False
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise AuditError(
            [
                f"the processes could not be joined ({cause}); each needs --coordinator"
                " HOST:PORT (of the first), --num_processes and --process_id"
            ]
        ) from error
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("start")
    return jax.process_count() > 1


def index() -> int:
    """Returns the place of this process, 0 for the first."""
    return jax.process_index()


def count() -> int:
    """Returns how many processes there are.

    Raises:
      AuditError: JAX finds no devices.
    """
    try:
        return jax.process_count()
    except (RuntimeError, AssertionError) as error:  # Of its backends.
        cause = " ".join(str(error).split()) or "none was found"
        asked = os.environ.get("JAX_PLATFORMS", "")
        named = f"; JAX_PLATFORMS is {asked!r}" if asked else ""
        raise AuditError([f"JAX cannot use its devices: {cause}{named}"]) from error


@contextlib.contextmanager
def agreed() -> Generator[None, None, None]:
    """Ends all processes if one of them finds something wrong in a block.

    Raises:
      AuditError: Something was wrong elsewhere; what is wrong here is raised as it is.
      KeyboardInterrupt: Another process was interrupted.
    """
    error = None
    count()  # Without devices nothing can be agreed.
    try:
        yield
    except (Exception, KeyboardInterrupt) as found:
        error = found
    interrupted = isinstance(error, KeyboardInterrupt)
    everyone = _everyones(2 if interrupted else int(error is not None))
    if error is not None:
        raise error
    if (everyone == 2).any():
        raise KeyboardInterrupt
    wrong = np.flatnonzero(everyone)
    if wrong.size:
        which = ", ".join(map(str, wrong))
        raise AuditError([f"process {which} reported errors; see its output"])


@contextlib.contextmanager
def first_alone(what: str) -> Generator[None, None, None]:
    """Lets the others into a block only after the first process has left it."""
    if index() > 0:
        multihost_utils.sync_global_devices(what)
    try:
        yield
    finally:
        if count() > 1 and index() == 0:
            multihost_utils.sync_global_devices(what)


def share(items: Sequence[T], names: Sequence[str]) -> tuple[Sequence[T], int]:
    """Returns this process's part, and the size of the largest part.

    Args:
      items: The same in all processes.
      names: The names of the items; compared between the processes.

    Raises:
      AuditError: The processes do not see the same.
    """
    if count() == 1:
        return items, len(items)
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).digest()
    everyone = _everyones(int.from_bytes(digest[:3], "big"))
    differing = np.flatnonzero(everyone != everyone[0])
    if differing.size:
        raise AuditError(
            [
                f"process {', '.join(map(str, differing))} sees other clips to score "
                "than process 0: corpus, configuration and work directory must be the "
                "same on all hosts"
            ]
        )
    return items[index() :: count()], -(-len(items) // count())


class Team:
    """The processes that fill one work directory, from `together`.

    Attributes:
      place: The work directory.
      writer: Who writes parts: this process, of its share.
    """

    def __init__(self, place: Workdir, share: str):
        """Takes the arguments of `together`."""
        self.place, self.writer = place, Writer(index(), count(), share, place.mirror)
        self._records = place.path, share

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that evaluates."""
        return index() == 0

    def everyones(self, failures: Sequence[list[Failure]]) -> list[list[Failure]]:
        """Returns each list of failures with those of all processes.

        Waits until each of them has finished its share.

        Raises:
          RunStopped: Another process failed.
          KeyboardInterrupt: Another process was interrupted.
        """
        if count() == 1:
            return list(failures)
        _record(self._records, failures)
        return _gather(self._records, len(failures))

    def has_ended(self) -> bool:
        """Returns whether a process recorded that it ended early: others may, too."""
        return bool(self._errors())

    @contextlib.contextmanager
    def watching(self) -> Generator[None, None, None]:
        """Sees to it that no process hangs in a step that another takes no part in.

        On a grid of several processes such a step never ends, nothing interrupts it,
        and JAX cannot be shut down. A process that hangs ends with exit status 2 (130
        if the other was interrupted), and the one that failed does once it has seen
        that; what was stored is kept. Where all leave the block by themselves, nothing
        is done. A process that cannot write why it failed, such as on a full disk, is
        seen by none.
        """
        left = threading.Event()

        def watch() -> None:
            while not left.wait(_POLL):
                if self._errors() and not left.wait(_GRACE):
                    _record(self._records, [], _HUNG)
                    self._end(self._errors())

        thread = threading.Thread(target=watch, name="watching", daemon=True)
        thread.start()
        try:
            yield
        except BaseException as error:
            left.set()
            _record_error(self._records, error)
            others = [k for k in range(count()) if k != index()]
            end = time.monotonic() + 2 * _GRACE
            while time.monotonic() < end and not all(
                _place(self._records, k).exists() for k in others
            ):
                time.sleep(_POLL)
            found = self._errors()
            if _HUNG in found.values():
                if not isinstance(error, _EXPECTED):
                    terminal.show_error(traceback.format_exc())
                self._end({index(): found[index()]})
            raise
        finally:
            left.set()
            thread.join()

    def _end(self, errors: Mapping[int, str]) -> NoReturn:
        """Ends this process after an error, of another process or of this one."""
        causes = {place: error for place, error in errors.items() if error != _HUNG}
        if set(causes.values()) == {_INTERRUPTED}:
            status = exits.interrupted(self._records[0])
        else:
            which = "; ".join(f"process {k} failed: {e}" for k, e in causes.items())
            status = exits.stopped(which, self._records[0])
        if index() == 0:  # JAX aborts the others once it is gone.
            time.sleep(4 * _POLL)
        os._exit(status)

    def _errors(self) -> dict[int, str]:
        """Returns why processes ended early, by their places."""
        found: dict[int, str] = {}
        for place in range(count() if count() > 1 else 0):
            with contextlib.suppress(FileNotFoundError):
                record = json.loads(_place(self._records, place).read_text())
                if record["error"]:
                    found[place] = record["error"]
        return found


@contextlib.contextmanager
def together(
    workdir: str | pathlib.Path, share: str = ""
) -> Generator[Team, None, None]:
    """Runs a block that fills a work directory, in all processes of a run.

    The directory is locked; a process that leaves the block by an exception records
    why, so that no other waits for it.

    Args:
      workdir: A folder, or the URL of one in an object store.
      share: "I/N", the share of the corpus that is scored; "" for all.

    Raises:
      AuditError: Another run is in the work directory, or the processes see different
        ones, or it is in an object store, and they are several.
      OSError: The directory cannot be made or written.
    """
    share = share_names.in_file(share)
    with contextlib.ExitStack() as held:
        with agreed():
            if count() > 1 and is_url(str(workdir)):
                raise AuditError(
                    [
                        f"{workdir}: {count()} processes of one run need a folder that "
                        "all of them see; take one, or give each process another share "
                        "(--config.share=I/N, without --coordinator)"
                    ]
                )
            place = held.enter_context(workdirs.opened(workdir, share))
            if index() == 0:
                held.enter_context(locked(place.path, share=share))
        records = place.path, share
        if count() > 1:
            if index() == 0:  # Of an earlier run, perhaps of more processes.
                for record in place.path.glob(_name(share, "*")):
                    record.unlink(missing_ok=True)
            _compare(place.path)
        try:
            yield Team(place, share)
        except BaseException as error:
            _record_error(records, error)
            raise


def _compare(folder: pathlib.Path) -> None:
    """Makes sure that the processes see one folder."""
    # A new name: network file systems cache that a file is absent.
    mark = folder / f"together-{_everyones(time.time_ns() % 2**31)[0]}"
    with agreed(), first_alone("one folder"):
        if index() == 0:
            mark.touch()
        elif not mark.exists():
            raise AuditError(
                [
                    f"{folder} of process 0 is not seen by process {index()}: all "
                    "hosts need one work directory, on a shared file system"
                ]
            )
    if index() == 0:
        mark.unlink()


def _record(
    records: Records, failures: Sequence[list[Failure]], error: str = ""
) -> None:
    """Records that this process is done, or why it stopped."""
    listed = [[dataclasses.asdict(failure) for failure in each] for each in failures]
    content = json.dumps({"failures": listed, "error": error})
    write_atomically(_place(records, index()), content.encode())


def _record_error(records: Records, error: BaseException) -> None:
    """Records why this process stopped, unless it has recorded something before."""
    if count() > 1 and not _place(records, index()).exists():
        with contextlib.suppress(OSError):
            said = str(error).strip() or type(error).__name__
            interrupted = isinstance(error, KeyboardInterrupt)
            _record(records, [], _INTERRUPTED if interrupted else said)


def _gather(records: Records, lists: int) -> list[list[Failure]]:
    """Waits for every process; returns `lists` lists, in the order of processes."""
    failures: list[list[Failure]] = [[] for _ in range(lists)]
    problems: list[str] = []
    interrupted = False
    for process in range(count()):
        path = _place(records, process)
        if not path.exists():
            logging.info("waiting for process %d of %d", process, count())
        while not path.exists():
            time.sleep(_POLL)
        record = json.loads(path.read_text())
        for known, found in zip(failures, record["failures"], strict=False):
            known += [Failure(**failure) for failure in found]
        if record["error"] == _INTERRUPTED:
            interrupted = True
        elif record["error"]:
            problems.append(f"process {process} failed: {record['error']}")
    if problems:
        raise RunStopped("; ".join(problems))
    if interrupted:
        raise KeyboardInterrupt
    return failures


def _place(records: Records, process: int) -> pathlib.Path:
    return records[0] / _name(records[1], f"{process:05}")


def _name(share: str, process: str) -> str:
    return f".process-{f'{share}-' if share else ''}{process}.json"


def _everyones(number: int) -> np.ndarray:
    """Returns the number that each process has."""
    if count() == 1:
        return np.array([number])
    mine = np.array(number, np.int32)
    return np.asarray(multihost_utils.process_allgather(mine)).reshape(-1)
