from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from figures import style
from figures.reconstructions import SIDE, draw_reconstructions


def corner(drawn: np.ndarray, column: int, strip: int) -> np.ndarray:
    left, top = 44 + 138 + column * (SIDE + 14), 44 + style.heading_height(None) + strip * (SIDE + 14)
    return drawn[top + 3 : top + SIDE - 3, left + 3 : left + SIDE - 3]


def test_input_above_reconstruction_above_difference(tmp_path: Path) -> None:
    images = np.stack([np.full((10, 10), 40, np.uint8), np.full((10, 10), 200, np.uint8)])
    shown = np.stack([np.full((10, 10), 40, np.uint8), np.full((10, 10), 100, np.uint8)])
    path = draw_reconstructions(images, shown, ["same", "other " * 30], tmp_path / "r.png", "t")
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (corner(drawn, 0, 0) == 40).all()
    assert (corner(drawn, 1, 0) == 200).all()
    assert (corner(drawn, 1, 1) == 100).all()
    none, most = (255 * np.array(style.amount_colors()(share)[:3]) for share in (0.0, 1.0))
    assert np.abs(corner(drawn, 0, 2) - none).max() <= 1
    assert np.abs(corner(drawn, 1, 2) - most).max() <= 1


def test_floats_are_grey_levels_too_and_bytes_repeat(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    as_bytes = draw_reconstructions(images, images[::-1], ["$a$"] * 12, tmp_path / "a.png", "t")
    as_floats = draw_reconstructions(images / 255, images[::-1] / 255, ["$a$"] * 12, tmp_path / "b.png", "t")
    a, b = (np.asarray(Image.open(path)).astype(int) for path in (as_bytes, as_floats))
    assert np.abs(a - b).max() <= 1
    again = draw_reconstructions(images, images[::-1], ["$a$"] * 12, tmp_path / "c.png", "t")
    assert again.read_bytes() == as_bytes.read_bytes()


def test_lengths_must_agree(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="2 images, 1 reconstructions and 2 captions"):
        draw_reconstructions(images, images[:1], ["a", "b"], tmp_path / "r.png", "t")
