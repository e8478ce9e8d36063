"""Which column of a dataset is which field: for `tfds:` and `hf:` sources."""

from collections.abc import Mapping, Sequence

from vidsme_jax.base import AuditError
from vidsme_jax.data.manifest_rows import columns_of, option
from vidsme_jax.settings.rules import FIELDS
from vidsme_jax.wording import nearest, printable

_LONGEST = 1000  # Characters of a list of columns.


def of_fields(
    fields: Sequence[str],
    described: Mapping[str, str],
    could: Sequence[str],
    videos: Sequence[str],
    what: str = "column",
    allowed: str = "",
) -> dict[str, str]:
    """Returns the column of each field that a dataset has one of.

    Args:
      fields: `corpus.fields`: FIELD=COLUMN; columns that are not there count for other
        sources. The rest is found by name; the video by being the only column that is
        likely to be one. No column is a label but one that is named here: in datasets
        it is a class.
      described: The type of every column, in words.
      could: The columns that are likely to be the video.
      videos: All that can be read as a video.
      what: What a column is called.
      allowed: The types of a video, in words.

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
                f"video{allowed}; say which, such as {option(fields, 'video=NAME')}; "
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
            [f"corpus.fields: {name!r} is no video{allowed}; {there}{near}"]
        )
    known = set(FIELDS) & set(described) - {"label"}
    named = {name: name for name in FIELDS if name in known} | given
    return {field: column for field, column in named.items() if column}
