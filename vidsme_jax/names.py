"""Names of scores: of one that is less the reference model's, that of the score."""

from vidsme_jax.base import AuditError

CALIBRATED = "_ref"  # Ends the name of a score less the reference model's.


def is_calibrated(name: str) -> bool:
    """Returns whether a name is that of a score less the reference model's."""
    return name.endswith(CALIBRATED)


def uncalibrated(name: str) -> str:
    """Returns the name of the score that a calibrated one is of.

    Raises:
      AuditError: It is no text.

    Example:
      >>> uncalibrated("perplexity_ref"), uncalibrated("perplexity")
      ('perplexity', 'perplexity')
    """
    if not isinstance(name, str):
        raise AuditError([f"the score is {name!r}; give its name"])
    return name.removesuffix(CALIBRATED)
