"""Names with a scheme, as `gs://bucket/folder`, which are no paths of this machine."""

import re

URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)  # Scheme and place.


def is_url(name: str) -> bool:
    """Returns whether a name has a scheme, as in `gs://bucket/folder`.

    Example:
      >>> is_url("gs://bucket/runs/a"), is_url("runs/a")
      (True, False)
    """
    return URL.match(name) is not None
