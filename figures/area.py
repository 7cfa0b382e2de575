"""The crops of a map or of a region of it, laid out on the map: `python figures/area.py --run runs/clusters-vae/ID`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from figures import paper, style
from figures.finished import Redraw, View, redrawn
from figures.map_colors import draw_legend, entries_of
from particles.pixels import PixelStore
from particles.sets import ParticleSet
from provenance.errors import UserError
from provenance.settings import entry

CELLS = 24
"""Cells along the longer side of a sheet."""
_CELL = 64  # px, the packed side: crops then are drawn px for px
_MOST_CELLS = 100
_MARGIN, _LEFT, _BELOW, _LEGEND = 44, 62, 62, 330  # px
_MOST_ENTRIES = 32
_FRAME = 1.1  # points
_ROUNDING = 1e-6  # cells

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Settings(Redraw):
    """Lay the crops of a finished `clusters-<latent>` run out on its UMAP map."""

    area: Box | None = None
    """X0 X1 Y0 Y1 on the map: this region only; default the whole map."""
    cells: int = CELLS
    """Cells along the longer side; each shows the crop nearest to its center."""


@dataclass(frozen=True)
class Cells:
    """A grid of square cells over a region, and whose crop each shows."""

    box: Box
    """x0, x1, y0, y1 of the grid: the region, widened to whole cells about its middle."""
    columns: int
    rows: int
    chosen: np.ndarray
    """(rows, columns) int64 from the lower left: row number of the particle, -1 where nobody is."""
    inside: int
    """Particles within the grid."""


def main(settings: Settings) -> None:
    """Lay the crops of a finished `clusters-<latent>` run out on its UMAP map, the whole or a region."""
    run, particles, view = redrawn(settings)
    with settings.formats:
        print(draw_view(view, particles, settings.folder(run), settings.area, settings.cells))


def draw_view(view: View, particles: ParticleSet, folder: Path, area: Box | None = None, cells: int = CELLS) -> Path:
    """Draw the area sheet of a latent into `folder`/area-<latent>.png; a region's sheet is named by its borders.

    Raises:
        UserError: the region is no region or holds nobody, or there are too many cells.
    """
    where = "" if area is None else "-" + "_".join(f"{value:g}" for value in area)
    path, title = folder / f"area-{view.latent}{where}.png", f"Crops on the UMAP map: {view.latent}, {particles.name}"
    table = particles.table.set_index("particle_id")
    positions = table["position"].reindex(view.ids).to_numpy(dtype=np.int64)
    pixels, classes = particles.pixels, particles.classes
    return draw_area(view.umap, positions, view.classes, pixels, path, title, area, cells, classes, view.names[0])


def draw_area(
    xy: np.ndarray,
    positions: np.ndarray,
    classes: pd.Series,
    pixels: PixelStore,
    path: Path,
    title: str,
    area: Box | None = None,
    cells: int = CELLS,
    all_classes: Sequence[str] = (),
    heading: str = "Class",
) -> Path:
    """Draw a grid over a map, in each cell the crop of the particle nearest to its center, framed by its class.

    Args:
        xy: (N, 2); rows that are not finite are left out.
        positions: (N,) places in `pixels`.
        classes: (N,) class names, nullable.
        pixels: the packed images.
        path: PNG to write.
        title: above the sheet.
        area: x0, x1, y0, y1; default the whole map.
        cells: along the longer side.
        all_classes: all classes of the run, for their colors.
        heading: what the classes are, above the legend.

    Returns:
        `path`.

    Raises:
        UserError: the region is no region or holds nobody, or there are too many cells.
    """
    grid = cells_of(xy, area, cells)
    shown = grid.chosen[grid.chosen >= 0]
    entries = entries_of(pd.Series(classes).iloc[shown], "classes", all_classes)
    subtitle = (
        f"{len(shown):,} of {grid.inside:,} particles: the nearest to each cell's center, scaled to fill the cell"
    )
    head = _MARGIN + style.heading_height(subtitle)
    left, width, height = _MARGIN + _LEFT, grid.columns * _CELL, grid.rows * _CELL
    page = (max(left + width + 36 + _LEGEND, 900), head + max(height, 300) + _BELOW + _MARGIN)
    with paper.picture(path, *page) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, page[0] - 2 * _MARGIN, title, subtitle)
        _draw_ground(figure, grid, left, head)
        crops = {int(row): crop for row, crop in zip(shown, pixels[positions[shown]], strict=True)}
        sheet = np.zeros((height, width, 4), dtype=np.uint8)  # an empty cell lets the ground through
        for row, column, who in _places(grid):
            sheet[_span(row), _span(column), :3] = _fitted(crops[who])[..., None]
            sheet[_span(row), _span(column), 3] = 255
        canvas.imshow(sheet, extent=(left, left + width, head + height, head), interpolation="none", aspect="auto")
        color_of = {int(shown[i]): kind.color for kind in entries for i in kind.rows}
        _draw_frames(canvas, grid, color_of, left, head)
        canvas.set(xlim=(0, page[0]), ylim=(page[1], 0))
        draw_legend(canvas, entries, left + width + 36, head, _MOST_ENTRIES, heading=heading)
    return path


def cells_of(xy: np.ndarray, area: Box | None, cells: int) -> Cells:
    """Lay square cells over a map and choose who is shown in each.

    Args:
        xy: (N, 2).
        area: x0, x1, y0, y1; default what holds all.
        cells: along the longer side.

    Raises:
        UserError: the region is no region or holds nobody, or there are too many cells.
    """
    if not 1 <= cells <= _MOST_CELLS:
        raise UserError(f"--cells {cells}: give a number from 1 to {_MOST_CELLS}")
    finite = np.isfinite(xy).all(axis=1)
    if not finite.any():
        raise UserError("nobody is on the map; cluster again")
    low, high = xy[finite].min(axis=0), xy[finite].max(axis=0)
    x0, x1, y0, y1 = area or (low[0], high[0], low[1], high[1])
    if area and not (x0 < x1 and y0 < y1):
        raise UserError(f"--area {' '.join(f'{v:g}' for v in area)}: give X0 X1 Y0 Y1 with X0 < X1 and Y0 < Y1")
    side = max(x1 - x0, y1 - y0, 1e-6) / cells
    shape = np.maximum(np.ceil(np.array([x1 - x0, y1 - y0]) / side - 1e-9), 1).astype(int)
    corner = np.array([x0 + x1, y0 + y1]) / 2 - shape * side / 2
    chosen, inside = _nearest(xy, finite, corner, side, shape)
    if inside == 0:
        there = f"x from {low[0]:.3g} to {high[0]:.3g}, y from {low[1]:.3g} to {high[1]:.3g}"
        raise UserError(f"--area {x0:g} {x1:g} {y0:g} {y1:g}: nobody is there; the map has {there}")
    far = corner + shape * side
    box = (float(corner[0]), float(far[0]), float(corner[1]), float(far[1]))
    return Cells(box, int(shape[0]), int(shape[1]), chosen, inside)


def _nearest(
    xy: np.ndarray, finite: np.ndarray, corner: np.ndarray, side: float, shape: np.ndarray
) -> tuple[np.ndarray, int]:
    """For each cell the row nearest to its center, and how many rows lie in any cell."""
    place = np.full(xy.shape, np.nan)
    place[finite] = (xy[finite] - corner) / side
    # who lies on the border lies in the outermost cell, whichever way the border was rounded
    rows = np.flatnonzero(((place >= -_ROUNDING) & (place <= shape + _ROUNDING)).all(axis=1))
    cell = np.clip(np.floor(place[rows]), 0, shape - 1).astype(np.int64)
    distance = np.linalg.norm(place[rows] - cell - 0.5, axis=1)
    number = cell[:, 1] * shape[0] + cell[:, 0]
    order = np.lexsort((rows, distance, number))  # of equal distances the first row, so that the sheet repeats
    found, first = np.unique(number[order], return_index=True)
    chosen = np.full(shape[0] * shape[1], -1, dtype=np.int64)
    chosen[found] = rows[order][first]
    return chosen.reshape(shape[1], shape[0]), len(rows)


def _places(grid: Cells) -> list[tuple[int, int, int]]:
    """Row from the top, column, and row number of the particle, of each cell that shows one."""
    rows, columns = np.nonzero(grid.chosen >= 0)
    chosen = grid.chosen[rows, columns]
    top = grid.rows - 1 - rows
    return list(zip(top.tolist(), columns.tolist(), chosen.tolist(), strict=True))


def _span(cell: int) -> slice:
    return slice(cell * _CELL, (cell + 1) * _CELL)


def _fitted(crop: np.ndarray) -> np.ndarray:
    if crop.shape == (_CELL, _CELL):
        return crop
    return np.asarray(Image.fromarray(crop).resize((_CELL, _CELL), Image.Resampling.LANCZOS))


def _draw_ground(figure: Figure, grid: Cells, left: int, top: int) -> None:
    """The axes of the map, so that `--area` can be read off."""
    axes = style.axes_at(figure, left, top, grid.columns * _CELL, grid.rows * _CELL)
    axes.set(xlim=grid.box[:2], ylim=grid.box[2:], xlabel="UMAP x", ylabel="UMAP y", facecolor="#f6f6f6", zorder=-1)
    for spine in axes.spines.values():
        spine.set(visible=True, color=style.RULE)


def _draw_frames(canvas: Axes, grid: Cells, color_of: dict[int, str], left: int, top: int) -> None:
    places = _places(grid)
    frames = [Rectangle((left + c * _CELL + 1, top + r * _CELL + 1), _CELL - 2, _CELL - 2) for r, c, _ in places]
    colors = [color_of[who] for *_, who in places]
    canvas.add_collection(PatchCollection(frames, facecolors="none", edgecolors=colors, linewidths=_FRAME))


if __name__ == "__main__":
    entry(Settings, main)
