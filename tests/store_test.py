"""Signals on disk: whole or not there, and never mixed."""

import numpy as np
import pytest

from vidsme_jax.base import AuditError, MotionStatistics, ScoredClip, TokenSignals
from vidsme_jax.store.signals import Signals


def _clip(key, rows=6, second=True):
    rng = np.random.default_rng(abs(hash(key)) % 1000)

    def array(*shape):
        return rng.normal(size=shape).astype(np.float32)

    signals = TokenSignals(
        array(2, rows, 15), array(2, rows), array(2, rows), array(2, rows)
    )
    if second:
        signals = signals._replace(
            modified=array(2, rows, 3),
            renyi_half_clamped=array(2, rows),
            mean_renyi=array(2, 2, 15),
        )
    return ScoredClip(
        key=key,
        content_hash="ab" * 32,
        signals=signals,
        frame=np.arange(rows, dtype=np.int16) // 2,
        frame_indices=(0, 5, 9),
        motion=MotionStatistics(1.25, 0.5),
        warnings=("cut short",),
    )


@pytest.mark.parametrize("second", [True, False])
def test_what_is_written_is_read(tmp_path, second):
    clips = [_clip("a", 6, second), _clip("b", 4, second), _clip("c", 6, second)]
    store = Signals(tmp_path, {"model": "x"})
    store.write(clips[:2])
    store.write(clips[2:])
    again = Signals(tmp_path, {"model": "x"})
    assert again.statistics() == {c.key: c.motion for c in clips}
    for expected, found in zip(clips, again.read({"a", "b", "c"}), strict=True):
        for name, value in zip(TokenSignals._fields, found.signals, strict=True):
            np.testing.assert_array_equal(value, getattr(expected.signals, name))
        np.testing.assert_array_equal(found.frame, expected.frame)
        assert found.num_rows == expected.num_rows and found.num_frames == 3
        assert found.frame_indices == (0, 5, 9) and found.warnings == ("cut short",)
    assert [c.key for c in again.read({"b"})] == ["b"]


def test_other_settings_are_refused_by_name(tmp_path):
    Signals(tmp_path, {"model": "x", "frames": 16})
    with pytest.raises(AuditError) as caught:
        Signals(tmp_path, {"model": "y", "frames": 16})
    assert "model = 'x', this run has 'y'" in str(caught.value)
    assert "frames" not in str(caught.value)


def test_a_damaged_shard_is_named(tmp_path):
    store = Signals(tmp_path, {})
    store.write([_clip("a")])
    (part,) = tmp_path.glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(AuditError, match=rf"{part.name}: damaged"):
        Signals(tmp_path, {})


def test_what_a_killed_run_left_half_written_is_swept(tmp_path):
    Signals(tmp_path, {}).write([_clip("a")])
    (tmp_path / "part-000001.parquet.tmp").write_bytes(b"half")
    store = Signals(tmp_path, {})
    assert not list(tmp_path.glob("*.tmp"))
    assert set(store.statistics()) == {"a"}
