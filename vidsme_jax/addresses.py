"""URLs such as `gs://bucket/folder`, which are no paths of this machine."""

import re

from vidsme_jax.wording import printable

URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)  # Scheme and place.


def is_url(name: str) -> bool:
    """Returns whether a name has a scheme, as in `gs://bucket/folder`.

    Example:
      >>> is_url("gs://bucket/runs/a"), is_url("runs/a")
      (True, False)
    """
    return URL.match(name) is not None


def no_folder(name: str | None, what: str, must: str = "a folder") -> list[str]:
    """Returns the problem, if any, of a name that must be a path of this machine.

    Args:
      name: The value; None or "" is no problem.
      what: The flag or key, such as "--out".
      must: The kind that is allowed, such as "a file".

    Example:
      >>> no_folder("gs://bucket/a.json", "--out", "a file")[0][:55]
      '--out is gs://bucket/a.json: it must be a file of this '
    """
    if not name or not is_url(name):
        return []
    return [
        f"{what} is {printable(name)}: it must be {must} of this machine; object "
        "stores may hold only work directories of audits and prepared corpora"
    ]
