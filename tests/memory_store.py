"""An object store in memory, in place of a driver; it fails as it is told to."""

import errno
import pathlib
import threading
from collections.abc import Callable


class MemoryStore:
    """What `Bucket` needs of a file system of fsspec.

    Attributes:
      objects: (version, bytes) by path.
      hidden: Paths that listings leave out, as if they lagged.
      ghosts: Paths that listings still show though they were deleted.
      denied: Names of calls that are refused for lack of rights.
      failing: Calls of this name fail, as many as it says.
      lost: How many puts are done, and their answers lost.
      ignoring: Whether the condition of a put is ignored.
      at_put: Called with the path before an object is put.
      calls: (name, path) of every call.
    """

    def __init__(self):
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.hidden: set[str] = set()
        self.ghosts: set[str] = set()
        self.denied: set[str] = set()
        self.failing: dict[str, int] = {}
        self.lost = 0
        self.ignoring = False
        self.at_put: Callable[[str], None] = lambda path: None
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def _called(self, name: str, path: str) -> None:
        self.calls.append((name, path))
        if name in self.denied:
            raise PermissionError("denied")
        if self.failing.get(name, 0):
            self.failing[name] -= 1
            raise TimeoutError("the server does not answer")

    def _about(self, path: str) -> dict:
        version, data = self.objects.get(path, (0, b""))
        return {"size": len(data), "generation": version, "type": "file"}

    def find(self, root: str, detail: bool) -> dict[str, dict]:
        assert detail
        self._called("find", root)
        shown = {*self.objects, *self.ghosts} - self.hidden
        return {x: self._about(x) for x in sorted(shown) if x.startswith(f"{root}/")}

    def info(self, path: str) -> dict:
        self._called("info", path)
        if path in self.objects:
            return self._about(path)
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        self._called("cat_file", path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path][1][start:end]

    def get_file(self, path: str, local: str) -> None:
        pathlib.Path(local).write_bytes(self.cat_file(path))

    def pipe_file(self, path: str, data: bytes, mode: str) -> None:
        self._called("put", path)
        self.at_put(path)
        with self._lock:
            exists = mode == "create" and path in self.objects and not self.ignoring
            if not exists:
                self.objects[path] = (self.objects.get(path, (0,))[0] + 1, bytes(data))
        if self.lost:
            self.lost -= 1
            # As a driver that tried again.
            raise FileExistsError(path) if mode == "create" else TimeoutError
        if exists:
            raise FileExistsError(path)

    def put_file(self, local: str, path: str, mode: str) -> None:
        self.pipe_file(path, pathlib.Path(local).read_bytes(), mode)

    def cp_file(self, path: str, new: str) -> None:
        self._called("cp_file", path)
        with self._lock:
            version = self.objects.get(new, (0,))[0] + 1
            self.objects[new] = (version, self.objects[path][1])

    def rm_file(self, path: str) -> None:
        self._called("rm_file", path)
        if self.objects.pop(path, None) is None:
            raise FileNotFoundError(errno.ENOENT, path)
