"""The one form of a benchmark's result: a JSON line that says where it was measured."""

import importlib.metadata
import json
import platform
import subprocess
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax")


def line(
    name: str,
    value: float,
    unit: str,
    *,
    ratio: float | None = None,
    peer: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Prints a result and returns it.

    Args:
      name: BENCHMARK/CASE.
      value: What was measured.
      unit: Of the value.
      ratio: How many times better than `peer`.
      peer: What it was compared with.
      **extra: Anything else that is JSON-ready; `device` replaces the present one.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    result = {"name": name, "value": value, "unit": unit}
    if ratio is not None or peer is not None:
        result |= {"ratio": ratio, "peer": peer}
    result |= {
        "device": extra.pop("device", None) or jax.devices()[0].device_kind,
        "versions": versions | {"python": platform.python_version()},
        "commit": commit,
        **extra,
    }
    print(json.dumps(result), flush=True)
    return result
