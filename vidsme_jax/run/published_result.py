"""Writes what `vidsme lookup` found, and reads it for the report of an audit."""

import pathlib
from collections.abc import Sequence
from typing import Any

from vidsme_jax.base import AuditError, Item
from vidsme_jax.data import names
from vidsme_jax.published import lookup
from vidsme_jax.published.lookup import Video
from vidsme_jax.run import sealed
from vidsme_jax.run.sealed import is_count, is_digest, is_flag, is_text
from vidsme_jax.wording import counted, printable

_REMEDY = "a result is what `vidsme lookup --out` has written: make it again"
_FIELDS: dict[str, sealed.Test] = {
    "manifest": is_text,
    "lists": sealed.list_of(
        sealed.having(
            name=is_text, sha256=is_digest, rows=is_count, notes=sealed.list_of(is_text)
        )
    ),
    "looked_up": is_count,
    "files": lambda value: value == 0 or is_count(value),
    "videos": sealed.list_of(sealed.having(id=is_text, video=is_text, file=is_flag)),
    "hits": sealed.list_of(
        sealed.having(
            **dict.fromkeys(("id", "video", "list", "how", "entry"), is_text),
            row=is_count,
            identity=is_flag,
        )
    ),
    "statement": is_text,
}


def write(
    path: pathlib.Path, manifest: str, videos: Sequence[Video], found: dict[str, Any]
) -> None:
    """Writes what was found into a new file.

    Args:
      path: The path of the file.
      manifest: The manifest of the videos.
      videos: The videos that were looked up.
      found: The result of `lookup.look_up`.

    Raises:
      AuditError: The file is there already.
      OSError: It cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise AuditError([f"{printable(str(path))}: it is there already; take another"])
    its = [{"id": x.id, "video": x.video, "file": x.file is not None} for x in videos]
    sealed.write(path, {"manifest": manifest, "videos": its, **found})


def opened(name: str, items: Sequence[Item]) -> dict[str, Any] | None:
    """Reads a file of `write` for the report of an audit; None without a name.

    Args:
      name: The file, as `report.published` has it; "": none.
      items: The rows of the audit's corpus.

    Returns:
      JSON-ready, as `metrics.json` has it: `statement`, `lists`, `looked_up`, `files`
      and `hits` of rows of the corpus, each with its `role`.

    Raises:
      AuditError: There is none, it was changed, or is of other videos.
    """
    if not name:
        return None
    path = names.configured(name)
    try:
        record = sealed.read(path, _FIELDS, _REMEDY)
    except AuditError as error:
        problems = [f"config.report.published: {each}" for each in error.problems]
        raise AuditError(problems) from error
    if record is None:
        raise AuditError(
            [
                f"config.report.published: {printable(name)} is not there; make it by "
                "`vidsme lookup MANIFEST --in LIST --out FILE`"
            ]
        )
    rows: dict[str, Item] = {}
    for item in items:
        for key in (item.id, item.video):
            rows.setdefault(key, item)
    its = {
        x["video"]: rows.get(x["video"]) or rows.get(x["id"]) for x in record["videos"]
    }
    there = {video: item.role for video, item in its.items() if item is not None}
    if not there and items:
        raise AuditError(
            [
                f"config.report.published: {printable(name)} is of other videos: none "
                f"of its {counted(len(its), 'video')}, such as "
                f"{printable(next(iter(its), ''), 100)}, is in this corpus, which "
                f"names {printable(items[0].video, 100)}, for one; look up the sources "
                "that the audit is given"
            ]
        )
    hits = [
        x | {"role": there[x["video"]]} for x in record["hits"] if x["video"] in there
    ]
    files = sum(x["file"] for x in record["videos"] if x["video"] in there)
    found = {"lists": record["lists"], "looked_up": len(there), "files": files}
    found["hits"] = hits
    return {"statement": lookup.statement(found), **found}
