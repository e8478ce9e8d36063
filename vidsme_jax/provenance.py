"""What a run was made of: settings, versions, devices, fingerprints."""

import hashlib
import importlib.metadata
import pathlib
import platform
from typing import Any

from ml_collections import ConfigDict

import vidsme_jax
from vidsme_jax import settings
from vidsme_jax.base import ScoreTable
from vidsme_jax.models.interface import ModelPlan
from vidsme_jax.parallel import Devices

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "transformers", "av")
_PACKAGES += ("opencv-python-headless",)


def describe(
    config: ConfigDict, plan: ModelPlan, devices: Devices, table: ScoreTable
) -> dict[str, Any]:
    """Returns nested, JSON-ready facts about a run for `config.json` and the report.

    `corpus` is a SHA-256 over id, role and content hash of every scored row; `code` one
    over the package's source files.
    """
    versions = {
        "vidsme_jax": vidsme_jax.__version__,
        "python": platform.python_version(),
    }
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    first = devices.mesh.devices.flat[0]
    return {
        "config": settings.flatten(config),
        "model": {
            "checkpoint": config.model.checkpoint,
            "family": plan.family,
            "prompt": plan.prompt.text,
            "rows per frame": plan.rows_per_frame,
            "classes": plan.vocab_size,
            "remarks": "; ".join(plan.remarks) or "none",
        },
        "device": {
            "kind": first.device_kind,
            "platform": first.platform,
            "data x model": " x ".join(map(str, devices.mesh.devices.shape)),
            "front end": devices.mode,
        },
        "versions": versions,
        "fingerprints": {
            "model": plan.fingerprint,
            "corpus": _corpus(table),
            "code": _code(),
        },
    }


def updated(
    about: dict[str, Any], config: ConfigDict, table: ScoreTable
) -> dict[str, Any]:
    """Returns what `describe` said of a run, after other questions to its signals."""
    prints = about["fingerprints"] | {"corpus": _corpus(table), "code": _code()}
    return about | {"config": settings.flatten(config), "fingerprints": prints}


def _corpus(table: ScoreTable) -> str:
    rows = zip(table.id, table.role, table.cluster, strict=True)
    return hashlib.sha256(
        "\n".join("\0".join(row) for row in rows).encode()
    ).hexdigest()


def _code() -> str:
    root = pathlib.Path(vidsme_jax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()
