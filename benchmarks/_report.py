"""One JSON line per result, with what it was measured on."""

import functools
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
from typing import Any, NamedTuple

import _clocks
import jax

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "torch",
    "transformers",
    "opencv-python-headless",
)
COMMIT = "VIDSME_COMMIT"  # Environment variable: the commit where no history is.
_SPREAD = 0.25  # Of the median: rounds further apart decide nothing.


class Judged(NamedTuple):
    """A figure from several rounds, which may be too far apart to decide anything.

    Attributes:
      median: Over the rounds.
      low: The smallest.
      high: The largest.
      most: What the figure cannot exceed, such as 100 % of a rate.
      rounds: How many there were.
    """

    median: float
    low: float
    high: float
    most: float = math.inf
    rounds: int = 2

    def scaled(self, factor: float) -> "Judged":
        """Returns the figure in another unit."""
        return Judged(*(factor * x for x in self[:4]), self.rounds)

    @property
    def why_not(self) -> str | None:
        """Why the rounds decide nothing; None if they do."""
        if not self.low <= self.median <= self.high < math.inf:
            return "a round gave no number"
        if self.rounds < 2:
            return f"one round, which gave {rounded(self.median):g}"
        if self.median > self.most:
            return f"{rounded(self.median):g} is more than {self.most:g}"
        if self.high - self.low > _SPREAD * self.median:
            return f"the rounds gave {rounded(self.low):g} to {rounded(self.high):g}"
        return None


class _Programs:
    """Counts what jax compiles in this process."""

    def __init__(self):
        self.seconds, self.hits, self.misses = 0.0, 0, 0
        jax.monitoring.register_event_duration_secs_listener(self._took)
        jax.monitoring.register_event_listener(self._happened)

    def _took(self, event: str, seconds: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            self.seconds += seconds

    def _happened(self, event: str, **_: Any) -> None:
        self.hits += event.endswith("/compilation_cache/cache_hits")
        self.misses += event.endswith("/compilation_cache/cache_misses")

    def found(self) -> dict[str, float]:
        """Seconds of compiling so far, programs found in the cache and not found."""
        return {
            "seconds": round(self.seconds, 1),
            "from_cache": self.hits,
            "compiled": self.misses,
        }


_programs = _Programs()


def line(
    name: str,
    value: float | Judged,
    unit: str,
    *,
    ratio: float | Judged | None = None,
    peer: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Prints one result and returns it.

    Of a `Judged` figure under a key K the line holds its median under K and its
    smallest and largest round under K_spread. Where the rounds decide nothing K is
    null; `decided`, which every line with such a figure has, is then false and
    `undecided` says why.

    Args:
      name: Such as "pairs/ours".
      value: Rounded to four digits.
      unit: Of the value.
      ratio: How many times better than the peer.
      peer: What the ratio compares with.
      **extra: More keys, such as the settings of the run; a `Judged` one as above.
    """
    found = {
        "name": name,
        "value": value if isinstance(value, Judged) else rounded(value),
        "unit": unit,
        "ratio": rounded(ratio) if isinstance(ratio, float | int) else ratio,
        "peer": peer,
        "device": device(),
        "versions": versions(),
        "commit": commit(),
        **extra,
    }
    reasons = {}
    for key, figure in list(found.items()):
        if isinstance(figure, Judged):
            reasons[key] = figure.why_not
            found[key] = None if figure.why_not else rounded(figure.median)
            found[f"{key}_spread"] = [rounded(x) for x in (figure.low, figure.high)]
    if reasons:
        against = [f"{key}: {why}" for key, why in reasons.items() if why]
        found["decided"] = not against
        if against:
            found["undecided"] = "; ".join(against)
    found["programs"] = _programs.found()
    if (peak := device_peak_mib()) is not None:
        found["device_peak_mib"] = peak
    if jax.default_backend() == "gpu" and "clocks" not in found:
        found["clocks"] = _clocks.read()
    print(json.dumps(found), flush=True)
    return found


def rounded(value: float) -> float:
    """Keeps four significant digits."""
    return float(f"{value:.4g}")


def peak_mib() -> float:
    """Returns the most host memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_peak_mib() -> float | None:
    """Returns the most memory of the first device that jax has held so far, in MiB.

    None where the device does not report it, as a CPU.
    """
    shown = jax.local_devices()[0].memory_stats() or {}
    peak = shown.get("peak_bytes_in_use")
    return None if peak is None else round(peak / 2**20, 1)


def device() -> str:
    """Names the first device, with its driver or with the cores and their load."""
    first = jax.devices()[0]
    if first.platform == "gpu":
        return f"{first.device_kind}{_driver()}"
    if first.platform == "cpu":
        load = os.getloadavg()[0]
        return f"{first.device_kind}, {os.cpu_count()} cores, load {load:.1f}"
    return first.device_kind


@functools.cache
def _driver() -> str:
    card = _clocks.read()
    return f", driver {card['driver']}" if card else ""


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
    """Returns the commit in VIDSME_COMMIT, else git's, with "+" if files differ."""
    if given := os.environ.get(COMMIT):
        return given
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


def is_there(module: str) -> bool:
    """Whether a module can be imported, such as "av" or "jax_plugins.xla_cuda13"."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Of the package that would hold it.
        return False


def lacks(script: str, **needed: str) -> bool:
    """Says in one line on stderr which packages a script misses, if any.

    Args:
      script: Its name.
      **needed: The package that is to be installed, by the module that it brings.
    """
    missing = [package for module, package in needed.items() if not is_there(module)]
    if missing:
        print(f"{script} needs {', '.join(missing)}: pip install", file=sys.stderr)
    return bool(missing)
