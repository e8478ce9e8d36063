"""Detects manifests without any of their videos, before a model is loaded.

If some videos exist, the missing ones are failures of their clips.
"""

import itertools
import os
import pathlib
from collections.abc import Iterable

from vidsme_jax.base import Item
from vidsme_jax.data import names, segments
from vidsme_jax.data.sources import is_address
from vidsme_jax.wording import printable

_LONGEST = 300  # Characters of a video's name.
_TRIED = 50  # Missing videos searched for one under another name.


def absent(source: str, folder: pathlib.Path, items: Iterable[Item]) -> list[str]:
    """Returns the problem that no video of a manifest exists, if so.

    `folder` is the base of its videos' paths, `items` are its rows.
    """
    files: dict[str, Item] = {}
    count = 0
    for item in items:
        count += 1
        if is_address(item.clip):
            return []
        name = segments.divided(item.clip)[0]
        if name not in files:
            if os.path.exists(name):
                return []
            files[name] = item
    if not files:
        return []
    name = next(iter(files))
    hint = names.near(pathlib.Path(name))
    for other in itertools.islice(files, _TRIED):
        if why := names.hint_for_missing(pathlib.Path(other)):
            name, hint = other, why
            break
    return [
        f"{source}: none of the {len(files)} videos of its {count} rows is there; "
        f"{printable(repr(files[name].video), _LONGEST)}, for one, was looked for in "
        f"{pathlib.Path(name).parent}{hint}; name the videos as they are on disk, or "
        "set corpus.video_root to the folder that they are relative to (it is "
        f"{folder} now)"
    ]
