"""Log lines during long work."""

import gc
import time

import pytest

from vidsme_jax.data import waiting


def test_long_work_is_announced(caplog, monkeypatch):
    monkeypatch.setattr(waiting, "_SECONDS", 0.01)
    with caplog.at_level("INFO", logger="absl"), waiting.announced("reading") as wait:
        time.sleep(0.1)
        wait.stage = "comparing \x1b[2J"
        time.sleep(0.1)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("reading; 0 s so far")
    assert said[-1].startswith("comparing \\x1b[2J; 0 s so far")
    time.sleep(0.05)
    assert len(caplog.records) == len(said)


def test_short_work_is_not(caplog):
    with caplog.at_level("INFO", logger="absl"), waiting.announced("reading"):
        pass
    assert not caplog.records


def test_cycles_are_looked_for_again():
    with pytest.raises(KeyError), waiting.collecting_later():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
