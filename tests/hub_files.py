"""Datasets of Hugging Face for tests, written by Arrow alone in the same layout."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VIDEO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(
    columns: Mapping[str, tuple[pa.DataType, Sequence[Any]]],
    features: Mapping[str, Any] | None = None,
) -> pa.Table:
    """A table whose schema says, as `datasets` does, what its columns are."""
    arrays = {name: pa.array(values, kind) for name, (kind, values) in columns.items()}
    found = pa.table(arrays)
    if features is None:
        return found
    about = json.dumps({"info": {"features": dict(features)}})
    return found.replace_schema_metadata({"huggingface": about})


def videos(contents: Sequence[bytes | None], paths: Sequence[str | None], **texts):
    """A table of videos as `datasets` has them, and of texts."""
    values = [
        {"bytes": content, "path": path}
        for content, path in zip(contents, paths, strict=True)
    ]
    features = {"video": {"_type": "Video"}}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in texts}
    columns = {"video": (VIDEO, values)}
    columns |= {name: (pa.string(), its) for name, its in texts.items()}
    return table(columns, features)


def as_arrow(path: pathlib.Path, given: pa.Table, rows: int = 2) -> pathlib.Path:
    """Writes a stream of batches of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file:
        with pa.ipc.new_stream(file, given.schema) as writer:
            writer.write_table(given, max_chunksize=rows)
    return path


def saved(folder: pathlib.Path, *shards: pa.Table) -> pathlib.Path:
    """What `Dataset.save_to_disk` writes."""
    count, names = len(shards), []
    for number, shard in enumerate(shards):
        names.append(f"data-{number:05}-of-{count:05}.arrow")
        as_arrow(folder / names[-1], shard)
    about = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(about))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def saved_splits(folder: pathlib.Path, **splits: pa.Table) -> pathlib.Path:
    """What `DatasetDict.save_to_disk` writes."""
    for name, its in splits.items():
        saved(folder / name, its)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def as_parquet(path: pathlib.Path, given: pa.Table, rows: int = 3) -> pathlib.Path:
    """Writes Parquet in groups of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(given, path, row_group_size=rows)
    return path
