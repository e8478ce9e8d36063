"""What a clip looks like: every change of a corpus moves a column, chance none."""

import functools
import pathlib

import cv2
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from moved import LUMA, drawn, encoded

from vidsme_jax.data import appearance

CLIPS, FRAMES = 24, 8


def _sampled(frames: np.ndarray) -> np.ndarray:
    return frames[np.rint(np.linspace(0, len(frames) - 1, FRAMES)).astype(int)]


def _graded(frames: np.ndarray) -> np.ndarray:
    """Paler, as light as before."""
    light = (frames @ LUMA)[..., None]
    return np.clip(light + 0.6 * (frames - light), 0, 255).astype(np.uint8)


def _marked(frames: np.ndarray) -> np.ndarray:
    """Half-transparent letters in a corner."""
    marked = frames.copy()
    for frame in marked:
        place, font = (frame.shape[1] - 30, 16), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(frame, "TV", place, font, 0.5, (255, 255, 255), 1)
    return (0.5 * frames + 0.5 * marked).astype(np.uint8)


def _boxed(frames: np.ndarray) -> np.ndarray:
    return np.pad(frames, ((0, 0), (10, 10), (0, 0), (0, 0)))


def _enlarged(frames: np.ndarray) -> np.ndarray:
    double = (2 * frames.shape[2], 2 * frames.shape[1])
    how = cv2.INTER_CUBIC
    return np.stack([cv2.resize(x, double, interpolation=how) for x in frames])


def _with_card(frames: np.ndarray) -> np.ndarray:
    card = frames.copy()
    card[-4:] = 16
    return card


CHANGES = {
    "graded": (_graded, 20, {"vivid"}),
    "watermark": (_marked, 20, {"corner_edges"}),
    "compressed": (lambda frames: frames, 46, {"middle", "blocks", "sharpness"}),
    "letterboxed": (_boxed, 20, {"bar_rows"}),
    "enlarged": (_enlarged, 20, {"sharpness"}),
    "end card": (_with_card, 20, {"last_light", "last_change", "last_edges"}),
}


@functools.cache
def _clips(first: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(first)
    return tuple(drawn(rng, 24) for _ in range(CLIPS))


@functools.cache
def _unaltered(folder: pathlib.Path) -> np.ndarray:
    decoded = (encoded(folder / "a.mp4", x, 20) for x in _clips(3))
    return np.stack([appearance.describe(_sampled(x)) for x in decoded])


def _told_apart(ones: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Returns the AUC of each column, in its better direction."""
    above = ones[:, None] - others[None]
    auc = ((above > 0) + 0.5 * (above == 0)).mean(axis=(0, 1))
    return dict(zip(appearance.COLUMNS, np.maximum(auc, 1 - auc), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_corpus_moves_the_column_that_is_named_for_it(change, tmp_path):
    how, crf, columns = CHANGES[change]
    altered = (encoded(tmp_path / "b.mp4", how(x), crf) for x in _clips(4))
    found = np.stack([appearance.describe(_sampled(x)) for x in altered])
    told = _told_apart(found, _unaltered(tmp_path))
    assert columns <= {name for name, auc in told.items() if auc >= 0.9}, told


@pytest.mark.long
def test_chance_moves_none(tmp_path):
    other = (encoded(tmp_path / "b.mp4", x, 20) for x in _clips(4))
    found = np.stack([appearance.describe(_sampled(x)) for x in other])
    assert max(_told_apart(found, _unaltered(tmp_path)).values()) < 0.8


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 90, 1), (3, 1, 50), (2, 7, 9), (1, 33, 17), (5, 8, 8), (2, 400, 3)],
)
def test_any_frames_have_finite_numbers(shape):
    noise = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for pixels in (np.zeros_like(noise), np.full_like(noise, 255), noise):
        found = appearance.describe(pixels)
        assert found.shape == (len(appearance.COLUMNS),)
        assert np.isfinite(found).all()


def test_what_is_no_pixel_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        appearance.describe(np.zeros((2, 0, 4, 3), np.uint8))
    with pytest.raises(TypeCheckError):
        appearance.describe(np.zeros((2, 4, 4, 3), np.float32))


def test_numbers_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    found = dict(zip(appearance.COLUMNS, appearance.describe(pixels), strict=True))
    flat = pixels.reshape(-1, 3).astype(float)
    luma = flat @ LUMA
    assert len(set(appearance.COLUMNS)) == len(found)
    assert found["light"] == pytest.approx(luma.mean() / 255, rel=1e-4)
    assert found["contrast"] == pytest.approx(luma.std() / 255, rel=1e-4)
    red, _, blue = flat.mean(axis=0)
    assert found["red_blue"] == pytest.approx(
        (red - blue) / (luma.mean() + 1), abs=1e-4
    )
    correlation = np.corrcoef(flat.T)[0, 2]
    assert found["red_blue_correlation"] == pytest.approx(correlation, abs=1e-3)
    steps = np.abs(np.diff(pixels @ LUMA, axis=0)).mean(axis=(1, 2))
    assert found["change"] == pytest.approx(np.log10(np.median(steps) + 0.5), abs=1e-4)
    assert found["bar_rows"] == found["bar_columns"] == 0
    boxed = np.pad(pixels, ((0, 0), (8, 8), (16, 16), (0, 0)))
    inside = dict(zip(appearance.COLUMNS, appearance.describe(boxed), strict=True))
    assert inside.pop("bar_rows") == 0.25
    assert inside.pop("bar_columns") == pytest.approx(1 / 3)
    assert inside == pytest.approx({k: found[k] for k in inside}, abs=1e-4)
