"""The column of each field in a dataset, for `tfds:` and `hf:` sources."""

from collections.abc import Collection, Mapping, Sequence

from absl import logging

from vidsme_jax.base import AuditError
from vidsme_jax.data.manifest_rows import columns_of, option
from vidsme_jax.settings.rules import FIELDS
from vidsme_jax.wording import nearest, printable

RATE = "fps"  # The column with the frame rate of pictures, in Hz.
_LONGEST = 1000  # Characters of a list of columns in a message.


def of_fields(
    fields: Sequence[str],
    described: Mapping[str, str],
    could: Sequence[str],
    videos: Sequence[str],
    what: str = "column",
    allowed: str = "",
) -> dict[str, str]:
    """Returns the column of each field that a dataset has.

    Args:
      fields: `corpus.fields`: FIELD=COLUMN; missing columns are taken to be of other
        sources. Other fields are found by name, the video as the only likely column. A
        label is read only if it is named here: in datasets `label` is a class.
      described: The type of every column, for messages.
      could: The columns that are likely to be the video.
      videos: The columns that can be read as a video.
      what: The word for a column in messages.
      allowed: The types of a video, for messages.

    Raises:
      AuditError: No single column can be the video.
    """
    asked = columns_of(fields)
    given = {k: v for k, v in asked.items() if not v or v in described}
    listed = ", ".join(f"{name}: {kind}" for name, kind in described.items())
    there = f"it has {printable(listed, _LONGEST)}"
    if not given.get("video"):
        if len(could) != 1:
            lacking = asked.get("video", "")
            problem = ""
            if lacking:
                problem = f"no {what} {lacking!r}{nearest(lacking, list(described))}; "
            elif not could and "video" in described:
                problem = f"its {what} 'video' is {described['video']}; "
            problem += (
                f"{f'several {what}s' if could else f'no {what}'} can be the "
                f"video{allowed}; name it, such as {option(fields, 'video=NAME')}; "
                f"{there}"
            )
            raise AuditError([problem])
        given["video"] = could[0]
    elif given["video"] not in videos:
        name = given["video"]
        near = nearest(name, list(videos)) or (
            f"; did you mean {videos[0]!r}?" if len(videos) == 1 else ""
        )
        raise AuditError(
            [f"corpus.fields: {name!r} is not a video{allowed}; {there}{near}"]
        )
    known = set(FIELDS) & set(described) - {"label"}
    named = {name: name for name in FIELDS if name in known} | given
    return {field: column for field, column in named.items() if column}


def untimed(video: str, fields: Sequence[str], what: str, rows: str) -> AuditError:
    """Returns the error of rows that select segments of pictures without times."""
    problem = (
        "'start' and 'end' select a segment by its seconds, which the pictures of "
        f"{video!r} do not have without a {what} {RATE!r}; "
        f"{option(fields, 'start=', 'end=')} scores whole {rows}"
    )
    return AuditError([problem])


def log_unread_label(
    source: str, columns: Collection[str], fields: Sequence[str], what: str
) -> None:
    """Logs that a column `label` is not read, unless `corpus.fields` names it."""
    if "label" in columns and "label" not in columns_of(fields):
        remedy = option(fields, "label=label")
        text = "%s: its %s 'label' is not read as membership; %s would read it so"
        logging.info(text, source, what, remedy)
