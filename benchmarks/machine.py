r"""What is on this machine: packages, imports, devices, and which kernels they get.

    python benchmarks/machine.py

One line lists every installed package, one what can be imported of what this project
uses and how long each import takes, one the devices. Exit status 1 if a package is
missing without which no model runs.
"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time

import _report
import jax

from vidsme_jax.models import attention

NEEDED = (
    "jax",
    "flax",
    "numpy",
    "vidsme_jax.run.pipeline",
    "vidsme_jax.motion.farneback",
)
# What is missing without them.
WANTED = {
    "torch": "transformers as a peer",
    "transformers": "transformers as a peer, tokenizers",
    "cv2": "OpenCV's flow as an oracle",
    "av": "decoding",
    "ml_collections": "configurations",
    "pyarrow": "stored signals",
    "sklearn": "metrics",
    "matplotlib": "figures",
    "tensorflow_datasets": "prepared corpora",
    "array_record": "prepared corpora",
}


def imports() -> bool:
    """Reports what can be imported; whether nothing that is needed is missing."""
    seconds, missing = {}, {}
    for name in (*NEEDED, *WANTED):
        begun = time.perf_counter()
        try:
            importlib.import_module(name)
        except Exception as error:  # A package may break in its own way.
            missing[name] = f"{type(error).__name__}: {error}"
        else:
            seconds[name] = round(time.perf_counter() - begun, 2)
    _report.line(
        "machine/imports",
        len(seconds),
        "modules",
        seconds=seconds,
        missing=missing,
        without_them={name: WANTED[name] for name in missing if name in WANTED},
    )
    for name, cause in missing.items():
        print(f"machine: {name} is missing ({cause})", file=sys.stderr)
    return not set(NEEDED) & set(missing)


def main() -> int:
    """Prints one JSON line per result."""
    packages = {
        found.metadata["Name"]: found.version
        for found in importlib.metadata.distributions()
    }
    _report.line(
        "machine/packages",
        len(packages),
        "packages",
        python=platform.python_version(),
        packages=dict(sorted(packages.items())),
    )
    complete = imports()
    shown = jax.local_devices()[0].memory_stats() or {}
    page = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    _report.line(
        "machine/devices",
        jax.local_device_count(),
        "devices",
        backend=jax.default_backend(),
        memory_gib=round(shown.get("bytes_limit", 0) / 2**30, 1),
        attention={
            f"{dtype}, head of {size}": attention.kernel(dtype, size)
            for dtype in ("bfloat16", "float32")
            for size in (64, 72, 128)
        },
        cores=os.cpu_count(),
        host_gib=round(page / 2**30, 1),
        disk_gib=round(shutil.disk_usage(os.curdir).free / 2**30, 1),
    )
    return int(not complete)


if __name__ == "__main__":
    sys.exit(main())
