"""Folders in object stores: `gs://BUCKET/FOLDER` and `s3://BUCKET/FOLDER`.

An object is put whole or not at all. Nothing is renamed or locked: who creates an
object puts it on the condition that it is absent (If-None-Match on S3, generation 0 on
Google Cloud Storage), so that of two writers of one name the second is refused.
Credentials, endpoints and regions are those of gcsfs and s3fs, which the extra `cloud`
brings, and of their environment variables.
"""

import contextlib
import errno
import functools
import importlib.util
import io
import pathlib
import re
import secrets
from collections.abc import Generator
from typing import Any, NamedTuple

from vidsme_jax import terminal
from vidsme_jax.addresses import URL
from vidsme_jax.base import AuditError
from vidsme_jax.store import files
from vidsme_jax.wording import printable

DRIVERS = {"gs": "gcsfs", "s3": "s3fs"}  # By scheme.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_RIGHTS = {
    "gs": "storage.objects.get, .list, .create and .delete, as the role Storage Object "
    "User has them",
    "s3": "s3:GetObject, s3:ListBucket, s3:PutObject and s3:DeleteObject",
}
_KEYS = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
_ENDPOINTS = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}
# Of botocore, which has looked for credentials and asked no server.
_KEYLESS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
_TRIES = 5  # Of a put that meets another one of the same name.
_CONFLICT = ("ConditionalRequestConflict", "409")  # It may succeed the next time.
_REFUSED = ("PreconditionFailed", "412")
_DENIED = ("AccessDenied", "Forbidden", "401", "403")


class Stored(NamedTuple):
    """An object as a listing has it.

    Attributes:
      size: In bytes.
      version: Differs where the object was put again.
    """

    size: int
    version: str


def problem(name: str) -> str:
    """Returns what is wrong with the URL of a folder, or ""."""
    match = URL.fullmatch(name)
    scheme, place = (match[1].lower(), match[2]) if match else ("", "")
    if scheme not in DRIVERS:
        return (
            f"{printable(name)}: of object stores gs://BUCKET/FOLDER and "
            "s3://BUCKET/FOLDER are known"
        )
    bucket, _, folder = place.rstrip("/").partition("/")
    parts = folder.split("/") if folder else []
    strange = any(part in ("", ".", "..") for part in parts)
    if not _BUCKET.fullmatch(bucket) or strange or not folder.isprintable():
        return (
            f"{printable(name)}: it must be {scheme}://BUCKET/FOLDER, without empty "
            "names, . and .."
        )
    driver = DRIVERS[scheme]
    if importlib.util.find_spec(driver) is None:
        return (
            f"{printable(name)}: {driver} is not installed, which reads and writes "
            f"{scheme}://: pip install 'vidsme-jax[cloud]'"
        )
    return ""


class Bucket:
    """A folder of objects; names are relative to it, such as `signals/run.json`.

    Every method raises an `OSError` that names the object and the cause: a
    `FileNotFoundError` where it is absent, a `PermissionError` where rights are missing
    or expired. Requests that fail for the moment are repeated by the driver first.
    """

    def __init__(self, url: str):
        """Connects to nothing yet.

        Raises:
          AuditError: The URL is none, or its driver is not installed.
        """
        if found := problem(url):
            raise AuditError([found])
        scheme, place = url.rstrip("/").split("://", 1)
        self._scheme, self._root = scheme.lower(), place
        self.url = f"{self._scheme}://{place}"

    def __str__(self) -> str:
        return self.url

    def folder(self, name: str) -> "Bucket":
        """Returns a folder of this one."""
        return Bucket(f"{self.url}/{name}")

    @functools.cached_property
    def _store(self) -> Any:
        import fsspec

        # It logs the traceback of what it raises, which is reported in a sentence.
        terminal.silence(DRIVERS[self._scheme])
        with self._naming("", "open"):
            return fsspec.filesystem(
                self._scheme, use_listings_cache=False, skip_instance_cache=True
            )

    def names(self) -> dict[str, Stored]:
        """Returns every object of the folder, those of its folders too, by name."""
        with self._naming("", "list"):
            try:
                found = self._store.find(self._root, detail=True)
            except FileNotFoundError:  # No object has such a name.
                return {}
        start = len(self._root) + 1
        return {
            path[start:]: Stored(int(about["size"] or 0), _version(about))
            for path, about in found.items()
            if path.startswith(f"{self._root}/") and about["type"] == "file"
        }

    def stored(self, name: str) -> Stored:
        """Returns an object as it is now, whether or not a listing shows it."""
        with self._naming(name, "read"):
            about = self._store.info(self._path(name))
            if about["type"] != "file":
                raise FileNotFoundError
        return Stored(int(about["size"] or 0), _version(about))

    def has(self, name: str) -> bool:
        """Returns whether an object is there, whether or not a listing shows it."""
        try:
            self.stored(name)
        except FileNotFoundError:
            return False
        return True

    def content(self, name: str) -> bytes:
        """Returns the bytes of an object."""
        with self._naming(name, "read"):
            return self._store.cat_file(self._path(name))

    def opened(self, name: str) -> "Pieces":
        """Opens an object, of which only what is asked for is read."""
        return Pieces(self, name)

    def piece(self, name: str, start: int, stop: int) -> bytes:
        """Returns some bytes of an object."""
        with self._naming(name, "read"):
            return self._store.cat_file(self._path(name), start=start, end=stop)

    def fetch(self, name: str, path: pathlib.Path) -> None:
        """Copies an object to a file, which is whole or as it was."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file, self._naming(name, "read"):
            self._store.get_file(self._path(name), file.name)

    def create(self, name: str, data: bytes) -> None:
        """Puts an object where there is none.

        Raises:
          FileExistsError: There is one, and it has other content. One of the same
            content counts as this one, whose answer was lost.
        """
        self._create(name, data, functools.partial(self._pipe, name, data))

    def create_from(self, name: str, path: pathlib.Path) -> None:
        """Puts a file as an object where there is none; see `create`."""

        def put() -> None:
            self._store.put_file(str(path), self._path(name), mode="create")

        self._create(name, path, put)

    def replace(self, name: str, data: bytes) -> None:
        """Puts an object, in place of the one that is there."""
        with self._naming(name, "write"):
            self._store.pipe_file(self._path(name), data, mode="overwrite")

    def replace_from(self, name: str, path: pathlib.Path) -> None:
        """Puts a file as an object, in place of the one that is there."""
        with self._naming(name, "write"):
            self._store.put_file(str(path), self._path(name), mode="overwrite")

    def copy(self, name: str, folder: "Bucket", new: str) -> None:
        """Has the server copy an object to another folder, in place of what is there.

        Args:
          name: Of the object.
          folder: In the same store.
          new: Its name there.
        """
        with self._naming(name, "copy"):
            self._store.cp_file(self._path(name), folder._path(new))

    def delete(self, name: str) -> None:
        """Deletes an object; one that is absent is none the less."""
        with self._naming(name, "delete"), contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._path(name))

    def check(self) -> None:
        """Tries whether objects can be put here, and only where there are none.

        Raises:
          AuditError: Rights are missing, or the server ignores the condition of a put,
            so that two writers could overwrite each other's results.
        """
        name = f".vidsme-{secrets.token_hex(8)}"
        try:
            self.create(name, b"first")
            try:
                self.create(name, b"second")
            except FileExistsError:
                pass
            else:
                raise AuditError(
                    [
                        f"{self.url}: the server puts an object although one of its "
                        "name is there (it ignores If-None-Match, or generation 0), so "
                        "that two processes could overwrite each other's results; take "
                        "another store, or a folder"
                    ]
                )
            finally:
                self.delete(name)
            self.names()
        except OSError as error:
            problem = f"{self.url}: cannot be used ({error.strerror})"
            if not isinstance(error, PermissionError | FileNotFoundError):
                what = f"the server's address ({_ENDPOINTS[self._scheme]})"
                problem += f"; check {what} and the network, and run it again"
            raise AuditError([problem]) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _pipe(self, name: str, data: bytes) -> None:
        self._store.pipe_file(self._path(name), data, mode="create")

    def _create(self, name: str, data: bytes | pathlib.Path, put: Any) -> None:
        """Puts an object by a call that is refused where there is one."""
        for left in reversed(range(_TRIES)):
            with self._naming(name, "write"):
                try:
                    return put()
                except Exception as error:
                    codes = _codes(error)
                    exists = isinstance(error, FileExistsError)
                    if not exists and codes.isdisjoint(_REFUSED):
                        if left and not codes.isdisjoint(_CONFLICT):
                            continue
                        raise
            break
        mine = data if isinstance(data, bytes) else data.read_bytes()
        if self.content(name) != mine:
            there = "it is there already, with other content"
            raise FileExistsError(errno.EEXIST, there, f"{self.url}/{name}")

    @contextlib.contextmanager
    def _naming(self, name: str, doing: str) -> Generator[None, None, None]:
        """Raises an `OSError` that names the object for all that drivers raise."""
        url = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            missing = "no such object"
            # A put needs nothing but a bucket; drivers give no filename.
            if doing == "write" and not error.filename:
                bucket = self._root.partition("/")[0]
                missing = f"there is no bucket {bucket}; create it, or correct the URL"
            raise FileNotFoundError(errno.ENOENT, missing, url) from error
        except Exception as error:
            cause = " ".join(f"{error}".split()) or type(error).__name__
            cause = printable(cause, 300)
            if type(error).__name__ in _KEYLESS:
                raise PermissionError(
                    errno.EACCES,
                    f"no credentials to {doing} it with ({cause}); set "
                    f"{_KEYS[self._scheme]}",
                    url,
                ) from error
            denied = isinstance(error, PermissionError) or "Forbidden" in cause
            if denied or not _codes(error).isdisjoint(_DENIED):
                raise PermissionError(
                    errno.EACCES,
                    f"no right to {doing} ({cause}); the account of the credentials "
                    f"that are used ({_KEYS[self._scheme]}) needs "
                    f"{_RIGHTS[self._scheme]}",
                    url,
                ) from error
            raise OSError(
                errno.EIO, f"the server did not {doing} it ({cause})", url
            ) from error


class Pieces(io.RawIOBase):
    """An object that is read in pieces; seekable.

    Attributes:
      failure: The last error of the store; who reads through a library that hides it
        looks here.
    """

    def __init__(self, bucket: Bucket, name: str):
        """Asks for the size.

        Raises:
          OSError: The object is absent, or the store fails.
        """
        super().__init__()
        self._bucket, self._name = bucket, name
        self._size, self._at = bucket.stored(name).size, 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place; see `io.IOBase.seek`."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads the bytes from the present place on that a buffer has room for."""
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        try:
            data = self._bucket.piece(self._name, self._at, stop)
        except OSError as error:
            self.failure = error
            raise
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _version(about: dict[str, Any]) -> str:
    """Returns the version of an object, as its server has it."""
    for key in ("generation", "ETag", "etag", "md5Hash", "created"):
        if about.get(key):
            return str(about[key]).strip('"')
    return ""


def _codes(error: BaseException | None) -> set[str]:
    """Returns the codes of an error and of what caused it, as drivers keep them."""
    found = set()
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            found.add(str(response.get("Error", {}).get("Code", "")))
            about = response.get("ResponseMetadata", {})
            found.add(str(about.get("HTTPStatusCode", "")))
        for name in ("code", "status"):
            found.add(str(getattr(error, name, "")))
        error = error.__cause__
    return found - {""}
