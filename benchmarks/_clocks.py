"""What a graphics card says of itself, read with nvidia-smi; nothing is ever set.

Without nvidia-smi, or without a card, every reading is None.
"""

import contextlib
import shutil
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
_PERIOD = 0.3  # Seconds from a reading of a watch to the next.
_PATIENCE = 10.0  # Seconds that nvidia-smi may take.


def read() -> dict[str, Any] | None:
    """Returns name, driver, clocks, power, temperature and memory of the first card."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(_FIELDS.values())}"]
    command.append("--format=csv,noheader,nounits")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.SubprocessError):
        return None
    cells = [cell.strip() for cell in done.stdout.partition("\n")[0].split(",")]
    if len(cells) != len(_FIELDS):
        return None
    found: dict[str, Any] = dict(zip(_FIELDS, cells, strict=True))
    for key in _NUMBERS:
        try:
            found[key] = float(found[key])
        except ValueError:  # "[N/A]": this card does not report it.
            found[key] = None
    return found


@contextlib.contextmanager
def watching() -> Iterator[dict[str, Any]]:
    """Reads the card while a block runs, some times a second and at least once.

    Yields:
      A mapping that is filled when the block ends: for the clocks in MHz and the power
      in watts [lowest, median, highest]; it stays empty without a card.
    """
    found: dict[str, Any] = {}
    if shutil.which("nvidia-smi") is None:
        yield found
        return
    seen: list[dict[str, Any]] = []
    over = threading.Event()

    def watch():
        while (reading := read()) is not None:
            seen.append(reading)
            if over.wait(_PERIOD):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join(_PATIENCE)
        for key in ("sm_mhz", "memory_mhz", "watts"):
            values = [s[key] for s in seen if s[key] is not None]
            if values:
                found[key] = [min(values), statistics.median(values), max(values)]
