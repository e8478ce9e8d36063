"""Answers that a model generated, on disk: one row per clip and text, written once."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from vidsme_jax.base import Asked
from vidsme_jax.store.parts import Kind, Parts
from vidsme_jax.store.texts import restored
from vidsme_jax.store.writers import ALONE, Writer

FORMAT = 1  # Raised by hand when answers or columns change.

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("content_hash", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("ended", pa.string()),
        ("answer", pa.string()),
    ]
)
_KIND = Kind(
    noun="answers",
    format=FORMAT,
    schema=_SCHEMA,
    remembered=tuple(_SCHEMA.names),
    remedy="delete it and its answers are generated again",
)


class Answer(NamedTuple):
    """What a model said about a clip.

    Attributes:
      key: Of the `Clip`.
      text: The key of what was asked.
      content_hash: Of the clip's file.
      ids: Of its tokens, with that which ended it.
      ended: "end" or "length"; see `Asked`.
      answer: The text of the tokens.
    """

    key: str
    text: str
    content_hash: str
    ids: tuple[int, ...]
    ended: str
    answer: str

    def completes(self, asked: Asked) -> Asked:
        """Returns what was asked, with this answer."""
        return dataclasses.replace(
            asked, answer=self.answer, ended=self.ended, ids=self.ids
        )


class Answers:
    """The folder `answers/` of a work directory.

    Attributes:
      folder: Of the parts.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        writer: Writer = ALONE,
    ):
        """Opens the folder; see `Parts` for arguments and errors."""
        self._found: dict[tuple[str, str], Answer] = {}
        self.folder = folder
        self._settings, self._writer = settings, writer
        self._parts = Parts(folder, settings, _KIND, self._remember, writer)

    def __len__(self) -> int:
        return len(self._found)

    def write(self, answers: Iterable[Answer]) -> None:
        """Writes one part.

        Raises:
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        self._parts.write(each._asdict() | {"ids": list(each.ids)} for each in answers)

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the parts of its writer."""
        return self._parts.names

    def reopened(self) -> "Answers":
        """Returns the folder as it is now, with what other processes have written."""
        return (
            self
            if self._writer.processes == 1
            else Answers(self.folder, self._settings)
        )

    def find(self, key: str, text: str, content_hash: str) -> Answer | None:
        """Returns the answer about a clip whose file has this content."""
        found = self._found.get((key, text))
        return found if found and found.content_hash == content_hash else None

    def _remember(self, number: int, table: pa.Table) -> None:
        for row in table.to_pylist():
            texts = {name: restored(row[name]) for name in ("key", "text", "answer")}
            answer = Answer(**row | texts | {"ids": tuple(row["ids"])})
            self._found[answer.key, answer.text] = answer
