"""Every reader on hostile input of every kind: a sentence, at little cost."""

import importlib
import itertools
import pathlib

import limits
import pytest
import reading
from generators import EITHER, HONEST, REFUSED, Case, written

from vidsme_jax.base import AuditError

pytestmark = pytest.mark.filterwarnings("ignore")  # Of what libraries remark.
QUICK = {
    "manifests": {"random": 3},
    "clips": {"random": 10},
    "checkpoints": {"random": 2, "values": 1},
    "configs": {"random": 20},
    "prepared": {"random": 1},
    "tfds_folders": {"random": 1},
    "hub_folders": {"random": 6},
    "frame_folders": {"random": 6, "many": 3_000},
    "webps": {"random": 40},
    "url_maps": {"random": 6},
}

SHARE = {
    "checkpoints": 5,
    "manifests": 2,
    "prepared": 3,
    "tfds_folders": 2,
    "hub_folders": 2,
}  # One case in so many.


def _cases(kind: str, seed: int, **amounts: int):
    module = importlib.import_module(f"generators.{kind}")
    return module.cases(seed, **amounts)


@pytest.mark.long
@pytest.mark.parametrize("kind", QUICK)
def test_readers(kind):
    cases = itertools.islice(
        _cases(kind, 0, **QUICK[kind]), 0, None, SHARE.get(kind, 1)
    )
    found = reading.complaints(cases, reading.READERS[kind])
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("seed", range(1, 6))
def test_readers_at_length(kind, seed):
    cases = _cases(kind, seed, random=100)
    found = reading.complaints(cases, reading.READERS[kind])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", QUICK)
def test_names_are_unique(kind):
    names = [case.name for case in _cases(kind, 0)]
    assert len(names) == len(set(names))


# --------------------------------------------------------- what these tests would see


def _said(read, expected=EITHER, words="") -> str:
    case = Case("a case", written("a", ""), expected, words)
    return reading.complaint(case, read)


def _raising(error):
    def read(_):
        raise error

    return read


def _running(path: pathlib.Path) -> str:
    (path.parent / "was_run").touch()
    return HONEST


def test_what_is_complained_of(monkeypatch):
    problem = _raising(AuditError(["a sentence"]))
    assert _said(lambda _: HONEST, HONEST) == _said(problem, REFUSED) == ""
    assert _said(lambda _: HONEST, REFUSED) == "a case: was taken"
    assert _said(problem, HONEST) == "a case: refused"
    assert _said(lambda _: reading.FAILED, REFUSED) == ""
    assert "no 'word' in" in _said(problem, words="word")
    assert "KeyError(1)" in _said(_raising(KeyError(1)))
    assert "100 problems" in _said(_raising(AuditError(["a"] * 100)))
    assert "30000 characters" in _said(_raising(AuditError(["a" * 30_000])))
    assert "its code was run" in _said(_running)
    monkeypatch.setattr(reading, "GIGABYTES", -1.0)
    assert "GB" in _said(lambda _: HONEST)


def test_limits_hold():
    with pytest.raises(limits.TooLate), limits.within(0.1):
        while True:
            pass
    with pytest.raises(MemoryError), limits.within(9, 0.5):
        bytearray(2_000_000_000)
    with limits.within(9) as used:
        kept = bytearray(b"x") * 50_000_000
    assert used.core_seconds < 9 and kept
