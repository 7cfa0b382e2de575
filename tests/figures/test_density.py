from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from figures import density, style
from figures.maps import draw_map_panel

RED, BLUE = "#ff0000", "#0000ff"


def grid(cells: list[int], side: int = 2) -> density.Grid:
    return density.Grid(np.array(cells), side, (0, 1, 0, 1))


def test_every_particle_lies_in_its_cell_and_none_outside() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10), ylim=(-10, 0))
    xy = np.array([[0.1, -9.9], [9.9, -9.9], [0.1, -0.1], [9.9, -0.1], [10.5, -5], [np.nan, -5], [5.0, -5.0]])
    found = density.grid_on(axes, xy, 2 * density.CELL)
    assert found.cell.tolist() == [0, 1, 2, 3, -1, -1, 3]
    assert found.counts().tolist() == [1, 1, 1, 2]
    assert found.counts(np.array([0, 4, 6])).tolist() == [1, 0, 0, 1]


def test_a_cell_is_stronger_by_the_logarithm_of_its_count_and_one_particle_is_seen() -> None:
    one, ten, hundred, nobody = density.strength(np.array([1, 10, 100, 0]))
    assert (nobody, one) == (0, 0.4)
    assert hundred == pytest.approx(1, abs=0.01)
    assert ten == pytest.approx((one + hundred) / 2, abs=0.01)


def test_three_of_a_rare_kind_tint_a_cell_of_hundreds() -> None:
    cells = grid([0] * 503)
    image = density.blended(cells, [(RED, np.arange(500)), (BLUE, np.arange(500, 503))])
    share = np.log1p(3) / (np.log1p(3) + np.log1p(500))
    assert image[0, 0] == pytest.approx([1 - share, 0, share], abs=1e-6)
    assert (image[1, 1] == 1).all(), "a cell without particles stays white"


def test_grey_lies_below_and_shows_where_it_is_alone() -> None:
    image = density.blended(grid([0, 0, 1, 1]), [(RED, np.array([0, 1])), (style.GREY, np.array([2, 3]))])
    assert image[0, 0] == pytest.approx(to_rgb(RED))
    assert image[0, 1] == pytest.approx(to_rgb(style.GREY))


def test_the_mean_of_a_cell_leaves_out_what_has_no_value() -> None:
    mean = density.average(grid([0, 0, 0, 1, -1]), np.array([1.0, 3.0, np.nan, np.nan, 9.0]))
    assert mean[0] == 2
    assert np.isnan(mean[1:]).all()


def test_the_few_show_among_very_many(tmp_path: Path) -> None:
    """Two particles of another class at a lone place of a map of 40,000: one whole cell."""
    rng = np.random.default_rng(0)
    xy = np.concatenate(
        [rng.normal(0, 1, (density.MOST_DOTS + 10_000, 2)), [[20.0, 20.0], [20.0, 20.0], [-20.0, -20.0]]]
    )
    classes = ["dust"] * (len(xy) - 3) + ["pollen"] * 2 + ["dust"]
    others = np.zeros(len(xy), dtype=int), np.arange(float(len(xy)))
    path = draw_map_panel(xy, None, classes, *others, tmp_path / "m.png", "t")
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    pollen = 255 * np.array(to_rgb(style.palette(["dust", "pollen"])["pollen"]))
    head, left = 44 + style.heading_height("said") + 40, 44 + 40  # of the map by class, the first of the row
    corner = drawn[head : head + 60, left + 500 : left + 560].reshape(-1, 3)
    paper_to_ink = (255 - pollen) / np.linalg.norm(255 - pollen)
    inked = corner[corner.sum(axis=1) < 700]
    inked = inked[np.ptp(inked, axis=1) > 20]  # the frame is grey
    assert len(inked) == density.CELL**2
    assert (inked == inked[0]).all(), "a cell has no soft edge"
    toward = (255 - inked) / np.linalg.norm(255 - inked, axis=1, keepdims=True)
    assert (toward @ paper_to_ink > 0.99).all()
    again = draw_map_panel(xy, None, classes, *others, tmp_path / "n.png", "t")
    assert again.read_bytes() == path.read_bytes()
