from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from figures import style
from figures.area import _CELL, _LEFT, _MARGIN, cells_of, draw_area
from particles.pixels import PixelStore, write_shard
from provenance.errors import UserError


def test_each_cell_shows_the_particle_nearest_to_its_center() -> None:
    xy = np.array([[0.0, 0.0], [0.45, 0.55], [0.6, 0.6], [1.5, 0.5], [2.0, 2.0], [np.nan, 1.0]])
    grid = cells_of(xy, (0, 2, 0, 2), 2)
    assert grid.chosen.tolist() == [[1, 3], [-1, 4]]
    assert (grid.inside, grid.box) == (5, (0, 2, 0, 2))


def test_a_region_leaves_out_who_is_outside_of_it() -> None:
    xy = np.array([[0.5, 0.5], [5.0, 5.0]])
    grid = cells_of(xy, (4, 6, 4.5, 5.5), 4)
    assert (grid.columns, grid.rows, grid.inside) == (4, 2, 1)
    assert grid.chosen[grid.chosen >= 0].tolist() == [1]


@given(st.lists(st.tuples(*[st.floats(-50, 50)] * 2), min_size=1, max_size=60), st.integers(1, 12))
def test_whatever_the_map_nobody_is_nearer_to_a_center_than_who_is_shown(
    places: list[tuple[float, float]], n: int
) -> None:
    xy = np.array(places)
    grid = cells_of(xy, None, n)
    assert grid.inside == len(xy), "the whole map holds all"
    side = (grid.box[1] - grid.box[0]) / grid.columns
    for row, column in zip(*np.nonzero(grid.chosen >= 0), strict=True):
        middle = np.array(grid.box)[[0, 2]] + (np.array([column, row]) + 0.5) * side
        away = np.abs(xy - middle)
        own = np.linalg.norm(away[grid.chosen[row, column]])
        inside = (away < side / 2 * (1 - 1e-6)).all(axis=1)
        assert (np.linalg.norm(away[inside], axis=1) >= own - 1e-9 * (1 + side)).all()


@pytest.mark.parametrize(
    ("area", "cells", "words"),
    [
        ((1, 0, 0, 1), 4, "X0 < X1"), ((90, 91, 90, 91), 4, "the map has x from 0 to 1"), (None, 0, "--cells 0"),
        (None, 10**6, "--cells 1000000"),
    ],
)  # fmt: skip
def test_no_region_nobody_there_or_too_many_cells_is_said(area: object, cells: int, words: str) -> None:
    xy = np.array([[0.0, 0.0], [1.0, 1.0]])
    with pytest.raises(UserError, match=words):
        cells_of(xy, area, cells)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nobody"):
        cells_of(xy * np.nan, None, 4)


def test_the_crop_lies_where_its_particle_lies(tmp_path: Path) -> None:
    stack = np.stack([np.full((_CELL, _CELL), level, np.uint8) for level in (10, 90, 200)])
    write_shard(tmp_path / "00000.npy", stack)
    xy = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    classes = pd.Series(["a", None, "b" * 200])
    pixels = PixelStore([tmp_path / "00000.npy"])
    path = draw_area(xy, np.array([2, 1, 0]), classes, pixels, tmp_path / "a.png", "t", cells=2)
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    left, top = _MARGIN + _LEFT + _CELL // 2, _MARGIN + style.heading_height("said") + _CELL // 2
    assert (drawn[top + _CELL, left] == 200).all()
    assert (drawn[top + _CELL, left + _CELL] == 90).all()
    assert (drawn[top, left + _CELL] == 10).all()
    assert (drawn[top, left] > 240).all(), "nobody is there"
