"""Shares of a corpus, such as "3/16", in the names of files, such as "3-of-16"."""

_OF = "-of-"


def in_file(share: str) -> str:
    """Returns a share as names of files have it.

    Example:
      >>> in_file("3/16"), in_file("")
      ('3-of-16', '')
    """
    return share.replace("/", _OF)


def of_file(name: str) -> str:
    """Returns the share that a part of a file's name has.

    Example:
      >>> of_file("3-of-16")
      '3/16'
    """
    return name.replace(_OF, "/")
