"""Many particles on a map: cells colored by who is in them, stronger the more there are, where dots would hide dots."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from figures import style

MOST_DOTS = 30_000
"""Particles of a map that are drawn one by one; of more a cell shows how many there are."""
CELL = 2
"""Side of a cell in px of the sheet."""
NOTE = "a cell of 2 px is stronger the more particles it holds (logarithm)"
STRANGEST = 500
"""The highest scores, drawn as dots on cells that show a mean."""
_FAINTEST = 0.4  # opacity of a cell with one particle: it can be an outlier, and must be seen
_CROWD = 0.995  # this quantile of the occupied cells is drawn solid: one crowded cell does not fade all others


@dataclass(frozen=True)
class Grid:
    """The cells of a map, and which of them each particle lies in."""

    cell: np.ndarray
    """(N,) int64, row by row from the lower left; -1 outside of the map or without a place."""
    side: int
    """Cells in a row and rows of cells."""
    extent: tuple[float, float, float, float]
    """x and y of the map's borders, as `imshow` wants them."""

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.side**2

    def counts(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Particles in each cell, of all or of some rows: (cells,) int64."""
        cell = self.cell if rows is None else self.cell[rows]
        return np.bincount(cell[cell >= 0], minlength=self.cells)


def grid_on(axes: Axes, xy: np.ndarray, side_px: int) -> Grid:
    """The cells of square axes `side_px` wide, for (N, 2) positions in their units."""
    side = max(1, side_px // CELL)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    low, span = np.array([left, bottom]), np.array([right - left, top - bottom])
    known = np.isfinite(xy).all(axis=1)
    place = np.full(xy.shape, -1, dtype=np.int64)
    place[known] = np.floor((xy[known] - low) / span * side)
    inside = ((place >= 0) & (place < side)).all(axis=1)
    return Grid(np.where(inside, place[:, 1] * side + place[:, 0], -1), side, (left, right, bottom, top))


def strength(counts: np.ndarray) -> np.ndarray:
    """Opacity by the logarithm of the count: 0 where nobody is, else from 0.4 to 1."""
    occupied = counts > 0
    if not occupied.any():
        return np.zeros(len(counts))
    most = max(float(np.quantile(counts[occupied], _CROWD)), 2.0)
    share = np.log(np.maximum(counts, 1)) / np.log(most)
    return np.where(occupied, _FAINTEST + (1 - _FAINTEST) * np.clip(share, 0, 1), 0.0)


def blended(grid: Grid, layers: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Colors mixed by the logarithm of their counts, so that three of a rare kind still tint a cell of hundreds.

    Grey layers (noise, unlabeled) lie below all others.

    Args:
        grid: N particles in cells.
        layers: color and row numbers of each kind.

    Returns:
        (side, side, 3) RGB in [0, 1] on white.
    """
    paper = np.ones((grid.cells, 3))
    for grey in (True, False):
        mixed, weights = np.zeros((grid.cells, 3)), np.zeros(grid.cells)
        counts = np.zeros(grid.cells, dtype=np.int64)
        for color, rows in layers:
            if (color == style.GREY) is not grey:
                continue
            n = grid.counts(rows)
            counts += n
            weight = np.log1p(n)
            weights += weight
            mixed += weight[:, None] * np.array(to_rgb(color))
        mixed /= np.maximum(weights, 1e-9)[:, None]
        paper = over(paper, mixed, strength(counts))
    return paper.reshape(grid.side, grid.side, 3)


def over(paper: np.ndarray, ink: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Ink laid on paper: (cells, 3) twice and (cells,) in [0, 1] -> (cells, 3)."""
    return paper + opacity[:, None] * (ink - paper)


def average(grid: Grid, values: np.ndarray) -> np.ndarray:
    """The mean value in each cell: (N,) -> (cells,), NaN where there is none."""
    known = (grid.cell >= 0) & np.isfinite(values)
    cell = grid.cell[known]
    n = np.bincount(cell, minlength=grid.cells)
    total = np.bincount(cell, weights=values[known], minlength=grid.cells)
    return np.divide(total, n, out=np.full(grid.cells, np.nan), where=n > 0)


def show(axes: Axes, grid: Grid, image: np.ndarray) -> None:
    """Draw cells as they are, without smoothing: (side, side, 3) or (cells, 3)."""
    cells = image.reshape(grid.side, grid.side, 3)
    axes.imshow(cells, origin="lower", extent=grid.extent, interpolation="none", aspect="auto", zorder=0)
