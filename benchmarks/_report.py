"""One JSON line per result, with what it was measured on."""

import importlib.metadata
import json
import os
import pathlib
import resource
import subprocess
from typing import Any

import jax

_PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "torch",
    "transformers",
    "opencv-python-headless",
)


def line(
    name: str,
    value: float,
    unit: str,
    *,
    ratio: float | None = None,
    peer: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Prints one result and returns it.

    Args:
      name: Such as "pairs/ours".
      value: Rounded to four digits.
      unit: Of the value.
      ratio: How many times better than the peer.
      peer: What the ratio compares with.
      **extra: More keys, such as the settings of the run.
    """
    found = {
        "name": name,
        "value": rounded(value),
        "unit": unit,
        "ratio": None if ratio is None else rounded(ratio),
        "peer": peer,
        "device": device(),
        "versions": versions(),
        "commit": commit(),
        **extra,
    }
    print(json.dumps(found), flush=True)
    return found


def rounded(value: float) -> float:
    """Keeps four significant digits."""
    return float(f"{value:.4g}")


def peak_mib() -> float:
    """Returns the most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device() -> str:
    """Names the first device, with its driver or with the cores and their load."""
    kind = jax.devices()[0].device_kind
    if jax.devices()[0].platform == "gpu":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            out = subprocess.run(query, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return kind
        return f"{kind}, driver {out.stdout.split()[0]}"
    if jax.devices()[0].platform == "cpu":
        return f"{kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return kind


def versions() -> dict[str, str]:
    """Returns the versions of what is installed of the packages that matter."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Returns the short name of the commit, with "+" if files differ from it."""
    root = pathlib.Path(__file__).parent
    try:
        named = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
        )
    except OSError:
        return "unknown"
    return named.stdout.strip() or "unknown"
