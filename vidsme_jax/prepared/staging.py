"""Staged clips, which wait for their shard: each is one file or object.

Its name contains the digest of the clip and its source, a hash of the file's key, size
and mtime. So any process can continue a killed run without decoding clips again.
"""

import contextlib
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data.reading import Stamp
from vidsme_jax.prepared import dataset, layout
from vidsme_jax.prepared.layout import Place, Variant
from vidsme_jax.store import files
from vidsme_jax.store.buckets import Bucket
from vidsme_jax.store.records import damaged

CLIP, FAILED, SAME = "clip", "failed", "same"
REMEDY = "delete it and its clips are prepared again"
_NAME = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})-([0-9a-f]{64})\.(clip|failed|same)")


class Staged(NamedTuple):
    """The name of a staged clip, and its parts.

    Attributes:
      name: Such as `3f/DIGEST-SOURCE.clip`.
      digest: See `layout.digest_of`.
      source: See `source_of`.
      kind: "clip"; "failed", whose content is the cause; or "same": another file of a
        prepared clip with this digest.
    """

    name: str
    digest: str
    source: str
    kind: str


class Staging:
    """The folder `staged/` of a variant; several processes may add to it."""

    def __init__(self, folder: Place, variant: Variant):
        """Takes the folder, which need not exist yet, and how clips are prepared."""
        self._folder, self._variant = folder, variant

    @functools.cached_property
    def _features(self) -> tfds.features.FeaturesDict:
        return dataset.features(self._variant)

    def names(self) -> list[Staged]:
        """Returns the clips staged so far."""
        if isinstance(self._folder, Bucket):
            found: Collection[str] = self._folder.names()
        else:
            paths = self._folder.glob("*/*")
            found = [f"{p.parent.name}/{p.name}" for p in paths if p.is_file()]
        matches = [match for name in found if (match := _NAME.fullmatch(name))]
        return [Staged(match[0], *match.groups()) for match in matches]

    def sweep(self) -> None:
        """Deletes temporary files of killed runs; no other run may be writing."""
        if not isinstance(self._folder, Bucket):
            for place in self._folder.glob("*"):
                files.sweep(place)

    def add(self, key: str, stamp: Stamp, example: Mapping[str, Any]) -> Staged:
        """Stores a clip; see `dataset.encode`."""
        data = self._features.serialize_example(dict(example))
        digest = layout.digest_of(example["content_hash"], key)
        return self._put(digest, source_of(key, stamp), CLIP, data)

    def fail(self, key: str, stamp: Stamp, content: str, error: ClipError) -> Staged:
        """Stores why a clip cannot be prepared.

        `content` is the content hash, "" if the file cannot be read.
        """
        absent = hashlib.sha256(b"absent\0" + _encoded(key)).hexdigest()
        digest = layout.digest_of(content, key) if content else absent
        data = json.dumps({"stage": error.stage, "cause": error.cause}).encode()
        return self._put(digest, source_of(key, stamp), FAILED, data)

    def same(self, key: str, stamp: Stamp, digest: str) -> Staged:
        """Records that a clip is another file of a prepared one."""
        return self._put(digest, source_of(key, stamp), SAME, b"")

    def _put(self, digest: str, source: str, kind: str, data: bytes) -> Staged:
        name = f"{digest[:2]}/{digest}-{source}.{kind}"
        if isinstance(self._folder, Bucket):
            with contextlib.suppress(FileExistsError):  # By another run.
                self._folder.create(name, data)
        else:
            file = self._folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(file, data)
        return Staged(name, digest, source, kind)

    def content(self, name: str) -> bytes:
        """Returns the content of a staged clip.

        Raises:
          OSError: It is missing, or cannot be read.
        """
        if isinstance(self._folder, Bucket):
            return self._folder.content(name)
        return (self._folder / name).read_bytes()

    def failure(self, name: str) -> tuple[str, str]:
        """Returns stage and cause of a staged failure.

        Raises:
          AuditError: It is damaged.
        """
        try:
            failure = json.loads(self.content(name))
            return str(failure["stage"]), str(failure["cause"])
        except (ValueError, TypeError, KeyError) as error:
            raise AuditError([damaged(self.where(name), error, REMEDY)]) from error

    def delete(self, names: Iterable[str]) -> None:
        """Deletes staged clips; missing ones are ignored."""
        for name in names:
            if isinstance(self._folder, Bucket):
                self._folder.delete(name)
            else:
                (self._folder / name).unlink(missing_ok=True)

    def where(self, name: str) -> pathlib.Path | str:
        """Returns the path or URL of a staged clip, for messages."""
        if isinstance(self._folder, Bucket):
            return f"{self._folder.url}/{name}"
        return self._folder / name


def source_of(key: str, stamp: Stamp) -> str:
    """Returns the SHA-256 that identifies a state of a file: key, size and mtime."""
    return hashlib.sha256(_encoded(f"{key}\0{stamp}")).hexdigest()


def _encoded(key: str) -> bytes:
    """Returns the bytes of a key; names that are not UTF-8 contain surrogates."""
    return key.encode("utf-8", "surrogatepass")
