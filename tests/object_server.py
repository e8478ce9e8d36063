"""Servers of objects on 127.0.0.1: one that fails as it is told to, and moto's.

The first speaks as much of Google Cloud Storage's JSON API as gcsfs needs, and enforces
generation 0.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class Server(http.server.ThreadingHTTPServer):
    """Keeps objects in memory.

    Attributes:
      objects: (generation, bytes) by name, behind the bucket's and a slash.
      hidden: Names that listings leave out, as if they lagged.
      absent: Buckets that are not there.
      denied: Methods that are answered 403.
      failing: How many requests are answered 503 next.
      ignoring: Whether the condition of a put is ignored.
      lost: How many puts are done, and their answers lost.
      cut: How many puts are not done, their connections closed.
      at_put: Called with the name before an object is put.
      requests: (method, name) of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.hidden: set[str] = set()
        self.absent = {"absent"}
        self.denied: set[str] = set()
        self.failing = self.lost = self.cut = 0
        self.ignoring = False
        self.at_put: Callable[[str], None] = lambda name: None
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.uploads: dict[str, tuple[str, bool, bytes]] = {}

    @property
    def endpoint(self) -> str:
        """Returns the value of STORAGE_EMULATOR_HOST."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """Says nothing: clients that close connections are what tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format, *args) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _fails(self, name: str) -> bool:
        its = self.server
        its.requests.append((self.command, name))
        if name.partition("/")[0] in its.absent:
            self._answer(404, b'{"error": {"code": 404, "message": "no bucket"}}')
            return True
        if self.command in its.denied:
            self._answer(403, b'{"error": {"code": 403, "message": "denied"}}')
            return True
        if its.failing:
            its.failing -= 1
            self._answer(503, b'{"error": {"code": 503, "message": "later"}}')
            return True
        return False

    @property
    def _parsed(self) -> tuple[str, dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        return url.path, dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))

    def _about(self, name: str) -> dict[str, str]:
        generation, data = self.server.objects[name]
        bucket, _, key = name.partition("/")
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": key,
            "size": str(len(data)),
            "generation": str(generation),
            "etag": f"e{generation}",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def do_GET(self) -> None:
        path, query = self._parsed
        match = re.fullmatch(
            r"(?:/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.*))?)?", path
        )
        if not match:
            return self._answer(404)
        bucket, key = match[1], match[2]
        name = f"{bucket}/{urllib.parse.unquote(key)}" if key else bucket
        if self._fails(name):
            return None
        if key is None and "/o" not in path.removeprefix(f"/storage/v1/b/{bucket}"):
            return self._answer(200, json.dumps({"name": bucket}).encode())
        if key is None:
            return self._list(bucket, query)
        if name not in self.server.objects:
            return self._answer(404)
        if query.get("alt") != "media":
            return self._answer(200, json.dumps(self._about(name)).encode())
        data = self.server.objects[name][1]
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        if given := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, size = int(given[1]), len(data)
            if start >= size:
                return self._answer(416)
            stop = min(int(given[2]) + 1 if given[2] else size, size)
            place = f"bytes {start}-{stop - 1}/{size}"
            return self._answer(206, data[start:stop], Content_Range=place)
        return self._answer(200, data, X_Goog_Hash=f"md5={digest}")

    do_HEAD = do_GET

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix = f"{bucket}/{query.get('prefix', '')}"
        shown = sorted(
            name
            for name in self.server.objects
            if name.startswith(prefix) and name not in self.server.hidden
        )
        items, folders = [], set()
        for name in shown:
            rest = name[len(prefix) :]
            if (mark := query.get("delimiter")) and mark in rest:
                folder = prefix + rest.split(mark)[0] + mark
                folders.add(folder.partition("/")[2])
            else:
                items.append(self._about(name))
        found = {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}
        self._answer(200, json.dumps(found).encode())

    def do_DELETE(self) -> None:
        path, _ = self._parsed
        if path.startswith("/sessions/"):
            return self._answer(499)
        bucket, key = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.*)", path).groups()
        name = f"{bucket}/{urllib.parse.unquote(key)}"
        if not self._fails(name):
            there = self.server.objects.pop(name, None)
            self._answer(204 if there else 404, b"" if there else b"{}")
        return None

    def do_POST(self) -> None:
        path, query = self._parsed
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path.startswith("/sessions/"):
            self._chunk(path.removeprefix("/sessions/"), body)
            return
        if "/rewriteTo/" in path:
            self._copy(*path.split("/rewriteTo/"))
            return
        bucket = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path)[1]
        alone = query.get("ifGenerationMatch") == "0"
        if query["uploadType"] == "resumable":
            name = f"{bucket}/{query.get('name') or json.loads(body)['name']}"
            if self._fails(name):
                return
            place = str(len(self.server.uploads))
            self.server.uploads[place] = name, alone, b""
            self._answer(200, Location=f"{self.server.endpoint}/sessions/{place}")
            return
        mark = re.search("boundary=['\"]?([^'\";]+)", self.headers["Content-Type"])[1]
        parts = body.split(b"--" + mark.encode())
        about, data = (part.split(b"\n\n", 1)[1] for part in parts[1:3])
        name = f"{bucket}/{json.loads(about)['name']}"
        if not self._fails(name):
            self._put(name, data.removesuffix(b"\n"), alone)

    def _copy(self, source: str, target: str) -> None:
        places = (re.search("b/([^/]+)/o/(.*)", x).groups() for x in (source, target))
        names = ["/".join(map(urllib.parse.unquote, place)) for place in places]
        if self._fails(names[1]):
            return
        its = self.server
        if names[0] not in its.objects:
            self._answer(404)
            return
        with its.lock:
            generation = its.objects.get(names[1], (0,))[0] + 1
            its.objects[names[1]] = (generation, its.objects[names[0]][1])
        found = {"done": True, "resource": self._about(names[1])}
        self._answer(200, json.dumps(found).encode())

    def _chunk(self, place: str, body: bytes) -> None:
        name, alone, before = self.server.uploads[place]
        if self._fails(name):
            return
        data = before + body
        self.server.uploads[place] = name, alone, data
        if self.headers["Content-Range"].endswith("/*"):
            self._answer(308, Range=f"bytes=0-{len(data) - 1}")
        elif len(data) == int(self.headers["Content-Range"].rpartition("/")[2]):
            self._put(name, data, alone)
        else:
            self._answer(308, Range=f"bytes=0-{len(data) - 1}")

    def _put(self, name: str, data: bytes, alone: bool) -> None:
        its = self.server
        its.at_put(name)
        if its.cut:
            its.cut -= 1
            self.close_connection = True
            self.connection.close()
            return
        with its.lock:
            exists = alone and name in its.objects and not its.ignoring
            if not exists:
                its.objects[name] = (its.objects.get(name, (0,))[0] + 1, data)
        if its.lost:
            its.lost -= 1
            self.close_connection = True
            self.connection.close()
        elif exists:
            self._answer(412, b'{"error": {"code": 412, "message": "condition"}}')
        else:
            self._answer(200, json.dumps(self._about(name)).encode())


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Runs a server while the block does."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def moto(patch: pytest.MonkeyPatch, extra: str) -> Any:
    """Starts moto's server of S3 and lets drivers ask it; to be stopped.

    Args:
      patch: Receives the variables.
      extra: Why a test is skipped where it is not installed.
    """
    pytest.importorskip("s3fs", reason=extra)
    server = pytest.importorskip("moto.server", reason=extra).ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    return server
