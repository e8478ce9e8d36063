"""What a finished run says of itself: its record and its configuration."""

import json
import pathlib
import sys
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import exits, settings
from vidsme_jax.base import AuditError
from vidsme_jax.run import shares
from vidsme_jax.store import received, workdirs
from vidsme_jax.store.workdirs import Workdir

_TEXTS = ("date", "command")  # Keys of `config.json` whose values are texts.
_MOST = 2**26  # Bytes of `config.json`.


def run_record(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a run's `config.json`, or what its shares have recorded.

    Raises:
      AuditError: There is none, or it is damaged.
    """
    path = workdir / "config.json"
    try:
        about = None if path.exists() else shares.about(Workdir.at(workdir))
        about = about or json.loads(received.content(path, _MOST))
        needed = [about[name] for name in ("config", "fingerprints")]
        groups = [x for key, x in about.items() if key not in _TEXTS]
        texts = [about.get(key, "") for key in _TEXTS]
        if not all(isinstance(each, dict) for each in [*needed, *groups]):
            raise TypeError("it is not that of a run")
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"its {' and '.join(_TEXTS)} are no texts")
        kernels = about.get("device", {}).get("kernels", {})
        if not all(isinstance(x, str) for x in [*kernels, *dict(kernels).values()]):
            raise TypeError("its kernels are no names")
        causes = about.get("reference", {}).get("causes", [])
        if not isinstance(causes, list) or not all(isinstance(x, str) for x in causes):
            raise TypeError("its causes are no texts")
    except FileNotFoundError as error:
        cause = f"{workdir}: no config.json, so that no run has finished there"
        raise AuditError([cause]) from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise AuditError([f"{path}: cannot be read ({error})"]) from error
    return about


def run_config(workdir: str) -> ConfigDict:
    """Returns the configuration of a run; prints what is wrong with it, and exits."""
    from vidsme_jax.store import signals

    try:
        with workdirs.fetched(workdir) as folder:
            with received.refused(folder / "signals"):
                signals.recorded(folder / "signals")
            return settings.restored(run_record(folder)["config"])
    except AuditError as error:
        sys.exit(exits.wrong(error.problems))
    except OSError as error:
        sys.exit(exits.wrong([exits.os_cause(error)]))
