"""Crop -> square, and the store of squares."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particles.pixels import FITS, PixelStore, fit_square, mean_corrected, write_shard
from provenance.errors import UserError

SHARDS = (3, 0, 5, 1)


def box(height: int, width: int, grey: int = 10) -> np.ndarray:
    return np.full((height, width), grey, np.uint8)


def occupied(square: np.ndarray, background: int) -> tuple[int, int, int, int]:
    """First and last row, first and last column that are not background."""
    down, across = np.nonzero(square != background)
    return int(down.min()), int(down.max()), int(across.min()), int(across.max())


def test_keep_keeps_the_aspect_ratio() -> None:
    square, scale = fit_square(box(20, 40), 64, "keep", 137.4)
    assert scale == pytest.approx(1.6)
    assert occupied(square, 137) == (16, 47, 0, 63)
    assert set(np.unique(square)) == {10, 137}
    tall, _ = fit_square(box(40, 20), 64, "keep", 137.4)
    np.testing.assert_array_equal(tall, square.T)


def test_native_keeps_the_true_scale() -> None:
    crop = np.arange(800, dtype=np.int64).reshape(20, 40).astype(np.uint8)
    square, scale = fit_square(crop, 64, "native", 130.6)
    assert scale == 1.0
    np.testing.assert_array_equal(square[22:42, 12:52], crop)
    square[22:42, 12:52] = 131
    assert (square == 131).all()


def test_native_shrinks_what_is_larger() -> None:
    square, scale = fit_square(box(128, 32), 64, "native", 200)
    assert scale == 0.5
    assert occupied(square, 200) == (0, 63, 24, 39)


def test_squash_fills_the_square() -> None:
    crop = np.repeat(np.array([[0, 100, 200]], np.uint8), 6, axis=0)
    square, scale = fit_square(crop, 12, "squash", 255)
    assert scale == 4.0, "12 px for 3: a bar lies across"
    assert 255 not in square
    assert (square == square[0]).all()
    assert square[0, [0, 5, 11]].tolist() == [0, 88, 200]


@pytest.mark.parametrize("fit", FITS)
def test_a_crop_of_the_right_size_is_untouched(fit: str) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    square, scale = fit_square(crop, 32, fit, 99)
    np.testing.assert_array_equal(square, crop)
    assert scale == 1.0


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (63, 64), (446, 286)])
def test_every_shape_fits(fit: str, shape: tuple[int, int]) -> None:
    square, scale = fit_square(box(*shape), 64, fit, 250)
    assert (square.shape, square.dtype) == ((64, 64), np.uint8)
    assert (square == 10).any(), "even a thin fiber leaves a trace"
    expected = {"keep": 64 / max(shape), "native": min(1, 64 / max(shape)), "squash": 64 / shape[1]}
    assert scale == pytest.approx(expected[fit])


def test_a_thin_dark_line_survives_shrinking() -> None:
    crop = box(256, 256, 200)
    crop[101, :] = 0
    square, _ = fit_square(crop, 64, "keep", 200)
    assert 130 < square[24:27].min() < 180, "averaged over four rows, not skipped"


def test_mean_correction_puts_the_background_at_mid_grey() -> None:
    crop = np.array([[140, 139, 40], [0, 255, 152]], np.uint8)
    assert mean_corrected(crop, 140.0).tolist() == [[128, 127, 28], [0, 243, 140]]
    assert mean_corrected(crop, 20.0).tolist() == [[248, 247, 148], [108, 255, 255]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[PixelStore, np.ndarray]:
    folder = tmp_path_factory.mktemp("pixels")
    everything = np.random.default_rng(1).integers(0, 256, (sum(SHARDS), 6, 6)).astype(np.uint8)
    paths = [folder / f"{n:05d}.npy" for n in range(len(SHARDS))]
    for path, part in zip(paths, np.split(everything, np.cumsum(SHARDS)[:-1]), strict=True):
        write_shard(path, part)
    return PixelStore(paths), everything


@settings(database=None, derandomize=True, deadline=None, max_examples=60)
@given(rows=st.lists(st.integers(0, sum(SHARDS) - 1), max_size=20))
def test_gathering_is_indexing_the_concatenation(shards: tuple[PixelStore, np.ndarray], rows: list[int]) -> None:
    store, everything = shards
    np.testing.assert_array_equal(store[rows], everything[np.asarray(rows, dtype=np.int64)])


def test_the_store_knows_its_size_and_refuses_other_rows(shards: tuple[PixelStore, np.ndarray]) -> None:
    store, _ = shards
    assert (len(store), store.size) == (9, 6)
    for row in (9, -1):
        with pytest.raises(IndexError):
            store[[row]]


def test_the_store_maps_files_and_hands_out_copies(shards: tuple[PixelStore, np.ndarray]) -> None:
    store, everything = shards
    assert all(isinstance(shard, np.memmap) for shard in map(store._shard, store.paths))
    batch = store[[0, 1]]
    batch[:] = 0
    np.testing.assert_array_equal(store[[0, 1]], everything[:2])


def test_more_shards_than_may_be_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("particles.pixels.OPEN_SHARDS", 2)
    paths = [tmp_path / f"{n}.npy" for n in range(6)]
    for n, path in enumerate(paths):
        write_shard(path, np.full((2, 3, 3), n, np.uint8))
    opened = len(os.listdir("/proc/self/fd"))
    store = PixelStore(paths)
    assert store[[11, 0, 5, 7, 1]][:, 0, 0].tolist() == [5, 0, 2, 3, 0]
    assert len(os.listdir("/proc/self/fd")) <= opened + 2


@pytest.mark.parametrize("left", [0, 50, -1, None])
def test_cut_and_missing_pixels_are_named(tmp_path: Path, left: int | None) -> None:
    path = tmp_path / "00000.npy"
    write_shard(path, np.zeros((4, 8, 8), np.uint8))
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(whole[:left])
    with pytest.raises(UserError, match=r"00000.npy: packed pixels cannot be read"):
        PixelStore([path])
