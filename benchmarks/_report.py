"""The one line of JSON that a benchmark prints for each result."""

import importlib.metadata
import json
import pathlib
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


def line(name, value, unit, *, ratio=None, peer=None, **extra) -> dict[str, Any]:
    """Prints and returns a result with device, versions and commit.

    Args:
      name: Such as "flow/7b".
      value: A number.
      unit: Of the value.
      ratio: How many times better than the peer.
      peer: What it is compared with, in the same run.
      **extra: Further keys.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package.split("-")[0]] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        here = pathlib.Path(__file__).parent
        git = subprocess.run(command, cwd=here, capture_output=True, text=True)
        commit = git.stdout.strip()
    except OSError:  # No git.
        commit = ""
    result = {
        "name": name,
        "value": value,
        "unit": unit,
        "ratio": ratio,
        "peer": peer,
        "device": jax.devices()[0].device_kind,
        "versions": versions,
        "commit": commit,
        **extra,
    }
    print(json.dumps(result), flush=True)
    return result
