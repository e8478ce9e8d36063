"""Corpora and manifests for tests: written, loaded, refused."""

import csv
import dataclasses
import json
import pathlib

import pyarrow
import pyarrow.parquet
import pytest

from vidsme_jax import settings
from vidsme_jax.base import AuditError
from vidsme_jax.data import corpora
from vidsme_jax.settings import views


def corpus_of(**keys) -> views.Corpus:
    """The keys `corpus.*`, these and defaults."""
    return dataclasses.replace(views.Settings.of(settings.default()).corpus, **keys)


def load(corpus: views.Corpus, looks: bool = False):
    """The items; few tests have videos."""
    return corpora.load(corpus, looks=looks).items


def problems_of(looks: bool = False, **keys) -> list[str]:
    with pytest.raises(AuditError) as caught:
        load(corpus_of(**keys), looks)
    return caught.value.problems


def problem_of(looks: bool = False, **keys) -> str:
    (problem,) = problems_of(looks, **keys)
    return problem


def files(folder: pathlib.Path, *names: str) -> None:
    """Makes files, each of other bytes."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def as_json(path: pathlib.Path, rows) -> str:
    path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return str(path)


def as_jsonl(path: pathlib.Path, rows) -> str:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n\n".join(lines) + "\n", "utf-8")
    return str(path)


def as_csv(path: pathlib.Path, rows) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            options = row.get("candidates")
            given = {"candidates": json.dumps(options)} if options else {}
            writer.writerow({**row, **given})
    return str(path)


def as_parquet(path: pathlib.Path, rows) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


WRITERS = {".json": as_json, ".jsonl": as_jsonl, ".csv": as_csv, ".parquet": as_parquet}
