"""Work directories: folders, and folders in object stores with a mirror here.

A run works in the mirror as in any folder. Parts are put as they are written
(`writers.Writer`); all else is fetched when the work directory is opened, and put when
a result is whole. `digests.json` is deleted first and put last, so that who reads the
results in between sees that they are not whole.
"""

import contextlib
import dataclasses
import errno
import hashlib
import os
import pathlib
import re
from collections.abc import Generator

from absl import logging

from vidsme_jax.addresses import is_url
from vidsme_jax.base import AuditError
from vidsme_jax.store import files, regular
from vidsme_jax.store.buckets import Bucket, Stored
from vidsme_jax.store.lock import locked
from vidsme_jax.store.mirrors import Mirror
from vidsme_jax.store.signals import OF_MODELS

LAST = "digests.json"
PARTS = OF_MODELS
_OWN = re.compile(r"\.lock.*|\.process-.*|\.vidsme-.*")  # Of runs, not of results.


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Where a run works.

    Attributes:
      name: As it was given.
      path: The folder on this machine.
      mirror: Of a folder in an object store; None of others.
    """

    name: str
    path: pathlib.Path
    mirror: Mirror | None = None
    _before: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def at(cls, path: pathlib.Path) -> "Workdir":
        """Returns the work directory that is a folder."""
        return cls(str(path), path)

    def fetch(self, *, parts: bool = False) -> None:
        """Makes the folder what the object store has.

        Args:
          parts: Whether those are fetched too; files of them are never deleted.

        Raises:
          OSError: Something cannot be fetched.
        """
        if self.mirror is None:
            return
        self.mirror.look()
        there = self.mirror.listed()
        for name in _files(self.path):
            if name not in there and not _is_part(name):
                self.mirror.drop(name)
        wanted = (name for name in sorted(there) if parts or not _is_part(name))
        self.mirror.fetch(*(name for name in wanted if not _OWN.fullmatch(name)))
        self._before.clear()
        self._before.update(self._digests())

    def names(self, folder: str) -> list[str]:
        """Returns the files of a folder, or its objects as they are listed now.

        Raises:
          OSError: They cannot be listed.
        """
        if self.mirror is None:
            there = [path.name for path in (self.path / folder).glob("*")]
        else:
            there = list(self.mirror.bucket.folder(folder).names())
        return sorted(name for name in there if not files.is_partial(name))

    def find(self, name: str) -> bool:
        """Returns whether a file is there; one that a listing left out is fetched.

        Raises:
          OSError: It cannot be fetched.
        """
        if self.mirror is not None and not (self.path / name).exists():
            if self.mirror.find(name):
                self.mirror.fetch(name)
        return (self.path / name).exists()

    def settle(self, name: str, *, replaced: bool = False) -> bool:
        """Puts a file that one run writes and all others take over.

        Args:
          name: Of the file.
          replaced: Whether it takes the place of the one that is there.

        Returns:
          Whether it is this run's; else the file is now that of another run.

        Raises:
          OSError: It cannot be put.
        """
        if self.mirror is None:
            return True
        try:
            (self.mirror.replace if replaced else self.mirror.create)(name)
        except FileExistsError:
            self.mirror.drop(name)
            self.mirror.find(name)
            self.mirror.fetch(name)
            return False
        return True

    def publish(self, only: str = "") -> None:
        """Uploads what has changed since it was fetched, except parts.

        Args:
          only: A file, or all.

        Raises:
          OSError: Something cannot be put, or another run has put results meanwhile.
        """
        if self.mirror is None:
            return
        if only:
            self.mirror.replace(only)
            return
        known, now = self.mirror.listed(), self._digests()
        changed = [name for name in now if now[name] != self._before.get(name)]
        gone = [name for name in self._before if name not in now]
        self._check_alone(known, {*now, *self._before})
        self.mirror.delete(LAST)
        for name in sorted(set(changed) - {LAST}):
            self.mirror.replace(name)
        for name in gone:
            self.mirror.delete(name)
        if LAST in now:
            self.mirror.create(LAST)
        self._before.clear()
        self._before.update(now)
        logging.info("the results were put into %s", self.name)

    def _check_alone(self, known: dict[str, Stored], names: set[str]) -> None:
        """Raises an `OSError` if objects are not those that were fetched."""
        assert self.mirror is not None
        self.mirror.look()
        there = self.mirror.listed()
        for name in sorted(names):
            if name in there and there[name] != known.get(name):
                raise OSError(
                    errno.EBUSY,
                    "another run has put it meanwhile; run the command again",
                    f"{self.name}/{name}",
                )

    def _digests(self) -> dict[str, str]:
        """Returns the SHA-256 of each file but parts, by name."""
        return {
            name: regular.sha256(self.path / name)
            for name in _files(self.path)
            if not _is_part(name)
        }


@contextlib.contextmanager
def fetched(workdir: str) -> Generator[pathlib.Path, None, None]:
    """Yields the folder of a finished run that is read in the block.

    Args:
      workdir: A folder, or the URL of one in an object store, which is fetched.

    Raises:
      AuditError: The URL is none, or another run on this machine uses its mirror.
      OSError: Something cannot be fetched.
    """
    with opened(workdir, parts=True, writes=False) as place:
        yield place.path


@contextlib.contextmanager
def opened(
    workdir: str | pathlib.Path,
    share: str = "",
    *,
    parts: bool = False,
    writes: bool = True,
) -> Generator[Workdir, None, None]:
    """Opens a work directory.

    That of an object store has a mirror under `$XDG_CACHE_HOME`, by default ~/.cache,
    in `vidsme_jax/workdirs`; two runs on one machine do not use the same one at once.

    Args:
      workdir: A folder, or the URL of one in an object store.
      share: "I-of-N", each of which has another mirror; or "".
      parts: Whether all parts are fetched.
      writes: Whether anything is going to be put.

    Raises:
      AuditError: The URL is none, its store cannot be used, or another run on this
        machine uses its mirror.
      OSError: Something cannot be fetched.
    """
    name = str(workdir)
    if not is_url(name):
        yield Workdir.at(pathlib.Path(workdir))
        return
    bucket = Bucket(name)
    if writes:
        bucket.check()
    path = mirrored(bucket.url, share)
    place = Workdir(
        bucket.url, path, Mirror(path, bucket, path.with_name(f"{path.name}.versions"))
    )
    taken = f"another run on this machine works on {bucket.url}; wait for its end"
    with locked(path.with_name(f"{path.name}.lock.d"), taken), _naming(place):
        path.mkdir(parents=True, exist_ok=True)
        place.fetch(parts=parts)
        yield place


@contextlib.contextmanager
def _naming(place: Workdir) -> Generator[None, None, None]:
    """Names objects in place of their files in what is found wrong with them."""
    assert place.mirror is not None
    there = place.mirror.listed

    def named(match: re.Match[str]) -> str:
        name = match[1].strip("/")
        known = not name or any(f"{x}/".startswith(f"{name}/") for x in there())
        return f"{place.name}{match[1]}" if known else match[0]

    file = re.compile(rf"{re.escape(str(place.path))}((?:/[\w.-]*\w)*)(?![\w.-]*\w)")
    try:
        yield
    except AuditError as error:
        problems = [file.sub(named, each) for each in error.problems]
        raise AuditError(problems, scored=error.scored) from error


def mirrored(url: str, share: str = "") -> pathlib.Path:
    """Returns the folder that mirrors one in an object store."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    digest = hashlib.sha256(f"{url}\0{share}".encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9]+", "-", url.rpartition("/")[2])[:40].strip("-")
    root = pathlib.Path(cache).expanduser() / "vidsme_jax" / "workdirs"
    return root / f"{name or 'workdir'}-{digest}"


def _is_part(name: str) -> bool:
    return name.split("/")[0] in PARTS


def _files(folder: pathlib.Path) -> list[str]:
    """Returns the files of a folder and its folders that are a run's results."""
    found = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not files.is_partial(path.name)
    )
    return sorted(name for name in found if not _OWN.fullmatch(name))
