"""What a graphics card says of itself, read with nvidia-smi; nothing is ever set.

Without nvidia-smi, or without a card, every reading is None.
"""

import contextlib
import statistics
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

_FIELDS = {
    "card": "name",
    "driver": "driver_version",
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "watts": "power.draw",
    "celsius": "temperature.gpu",
    "used_mib": "memory.used",
}
_NUMBERS = ("sm_mhz", "memory_mhz", "watts", "celsius", "used_mib")
_PERIOD = 200  # Milliseconds between two readings of a watch.
_PATIENCE = 10.0  # Seconds that nvidia-smi may take.


def _command(*more: str) -> list[str]:
    query = ",".join(_FIELDS.values())
    return [
        "nvidia-smi",
        "--id=0",
        f"--query-gpu={query}",
        "--format=csv,noheader,nounits",
        *more,
    ]


def _parsed(text: str) -> dict[str, Any] | None:
    cells = [cell.strip() for cell in text.split(",")]
    if len(cells) != len(_FIELDS):
        return None
    found: dict[str, Any] = dict(zip(_FIELDS, cells, strict=True))
    for key in _NUMBERS:
        try:
            found[key] = float(found[key])
        except ValueError:  # "[N/A]": this card does not tell.
            found[key] = None
    return found


def read() -> dict[str, Any] | None:
    """Returns name, driver, clocks, power, temperature and memory of the first card."""
    try:
        done = subprocess.run(
            _command(), capture_output=True, text=True, check=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    return _parsed(lines[0]) if lines else None


@contextlib.contextmanager
def watching() -> Iterator[dict[str, Any]]:
    """Reads the card while a block runs, five times a second.

    Yields:
      A mapping that is filled when the block ends: for the clocks in MHz and the power
      in watts [lowest, median, highest]; it stays empty without a card.
    """
    seen: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    try:
        watch = subprocess.Popen(
            _command(f"--loop-ms={_PERIOD}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        yield found
        return
    begun = threading.Event()

    def collect():
        assert watch.stdout is not None
        with watch.stdout as lines:
            for line in lines:
                if (reading := _parsed(line)) is not None:
                    seen.append(reading)
                begun.set()
        begun.set()

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    begun.wait(_PATIENCE)
    try:
        yield found
    finally:
        watch.terminate()
        try:
            watch.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            watch.kill()
        reader.join(_PATIENCE)
        for key in ("sm_mhz", "memory_mhz", "watts"):
            values = [s[key] for s in seen if s[key] is not None]
            if values:
                found[key] = [min(values), statistics.median(values), max(values)]
