"""A store of objects in this process, which fails as it is told to."""

import contextlib
import io
import pathlib
from collections.abc import Callable, Iterator

import pytest

from vidsme_jax.store import buckets
from vidsme_jax.store.buckets import Bucket


class Objects:
    """What `Bucket` asks of a driver.

    Attributes:
      objects: Bytes by name, behind the bucket's and a slash.
      hidden: Names that listings leave out, as if they lagged.
      denied: What is refused for lack of rights: "read", "put", "list" or "delete".
      at_put: Called with the name before an object is put.
      requests: (method, name) of every request.
    """

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.hidden: set[str] = set()
        self.denied: set[str] = set()
        self.at_put: Callable[[str], None] = lambda name: None
        self.requests: list[tuple[str, str]] = []

    def count(self, method: str, *ends: str) -> int:
        """Returns how many requests of a method were for names that end so."""
        return sum(m == method and n.endswith(ends) for m, n in self.requests)

    def _asked(self, method: str, name: str) -> None:
        self.requests.append((method, name))
        if method in self.denied:
            raise PermissionError("Forbidden")

    def _read(self, name: str) -> bytes:
        self._asked("read", name)
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name]

    def _put(self, name: str, data: bytes, mode: str) -> None:
        self._asked("put", name)
        self.at_put(name)
        if mode == "create" and name in self.objects:
            raise FileExistsError(name)
        self.objects[name] = data

    def find(self, root: str, detail: bool) -> dict[str, dict[str, object]]:
        self._asked("list", root)
        return {
            name: {"size": len(data), "type": "file"}
            for name, data in list(self.objects.items())
            if name.startswith(f"{root}/") and name not in self.hidden
        }

    def cat_file(
        self, name: str, start: int | None = None, end: int | None = None
    ) -> bytes:
        return self._read(name)[start:end]

    def open(self, name: str, mode: str, **how: object) -> io.BytesIO:
        return io.BytesIO(self._read(name))

    def get_file(self, name: str, path: str) -> None:
        pathlib.Path(path).write_bytes(self._read(name))

    def pipe_file(self, name: str, data: bytes, mode: str) -> None:
        self._put(name, data, mode)

    def put_file(self, path: str, name: str, mode: str) -> None:
        self._put(name, pathlib.Path(path).read_bytes(), mode)

    def rm_file(self, name: str) -> None:
        self._asked("delete", name)
        if self.objects.pop(name, None) is None:
            raise FileNotFoundError(name)

    def cp_file(self, name: str, new: str) -> None:
        self._asked("copy", name)
        self.objects[new] = self.objects[name]


@contextlib.contextmanager
def serving() -> Iterator[Objects]:
    """Has every `Bucket` of this process use one store of objects."""
    objects = Objects()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "DRIVERS", {"gs": "fsspec", "s3": "fsspec"})
        patch.setattr(Bucket, "_store", objects)
        yield objects
