"""Names with a scheme, as `gs://bucket/folder`, which are no paths of this machine."""

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
    """Returns the sentence about a name that must be a path of this machine, if any.

    Args:
      name: As it was given; None or "": it was not.
      what: Of which flag or key, such as "--out".
      must: What it must be, such as "a file".

    Example:
      >>> no_folder("gs://bucket/a.json", "--out", "a file")[0][:55]
      '--out is gs://bucket/a.json: it must be a file of this '
    """
    if not name or not is_url(name):
        return []
    return [
        f"{what} is {printable(name)}: it must be {must} of this machine; of object "
        "stores, work directories of audits and prepared corpora are known"
    ]
