"""A map colored by each of the 34 scalars: `python figures/scalar_maps.py --run runs/clusters-vae/<id>`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure

from figures import density, paper, style
from figures.finished import Redraw, View, redrawn
from figures.map_dots import draw_values, frame
from figures.maps import said_of
from particles.scalars import SCALARS
from particles.sets import ParticleSet
from provenance.errors import UserError
from provenance.settings import entry

LOW, HIGH = 0.02, 0.98
"""Quantiles at which the colors end: a few giants do not flatten the rest."""
_COLUMNS = 7
_PANEL, _MARGIN, _TITLE, _BAR, _BELOW, _GAP = 300, 44, 34, 12, 62, 30  # px
_LOG_FROM = 15.0  # quantiles farther apart than this factor are colored by their logarithm
_ANGLE = (-90.0, 90.0)  # degrees: a Feret angle of 90 is one of -90


@dataclass(frozen=True)
class Scale:
    """How values become colors."""

    norm: Normalize
    colors: Colormap
    is_angle: bool
    text: tuple[str, str, str]
    """What stands below the color bar: left, in the middle, right."""


def main(settings: Redraw) -> None:
    """Draw the map of a finished `clusters-<latent>` run once for each of the 34 scalars."""
    run, particles, view = redrawn(settings)
    with settings.formats:
        print(draw_view(view, particles, settings.folder(run)))


def draw_view(view: View, particles: ParticleSet, folder: Path) -> Path:
    """Draw the scalar maps of a latent into `folder`/scalars-<latent>.png.

    Raises:
        UserError: the set was packed without scalars.
    """
    lacking = [name for name in SCALARS if name not in particles.table]
    if lacking or particles.table[list(SCALARS)].isna().all(axis=None):
        raise UserError(f"{particles.folder}: packed without scalars; pack it again without --no-scalars")
    table = particles.table.set_index("particle_id")[list(SCALARS)].reindex(view.ids)
    values = {name: table[name].to_numpy(dtype=float, na_value=np.nan) for name in SCALARS}
    return draw_scalars(view.umap, values, folder / f"scalars-{view.latent}.png", f"Scalars on the map: {view.latent}")


def draw_scalars(
    xy: np.ndarray, values: Mapping[str, np.ndarray], path: Path, title: str, subtitle: str | None = None
) -> Path:
    """Draw a small map for each scalar, its colors from the 2nd to the 98th percentile.

    Args:
        xy: (N, 2); rows that are not finite are left out.
        values: (N,) by name of the scalar, NaN where unknown.
        path: PNG to write.
        title: above the maps.
        subtitle: a fainter line below the title.

    Returns:
        `path`.
    """
    said = said_of(
        xy,
        subtitle
        or "UMAP; colors end at the 2nd and 98th percentile, skewed scalars on a logarithmic scale; grey: no value",
    )
    columns = min(_COLUMNS, max(len(values), 1))
    rows = -(-len(values) // columns)
    block = _TITLE + _PANEL + _BAR + _BELOW
    head = _MARGIN + style.heading_height(said)
    width = max(2 * _MARGIN + columns * (_PANEL + _GAP) - _GAP, 900)
    with paper.picture(path, width, head + rows * block + _MARGIN - 20) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, said)
        for number, (name, column) in enumerate(values.items()):
            left, top = _MARGIN + number % columns * (_PANEL + _GAP), head + number // columns * block
            unit = SCALARS.get(name, "")
            text = style.fitted(f"{name}, {unit}" if unit else name, _PANEL, style.NORMAL, bold=True)
            canvas.text(left, top + _TITLE - 10, text, fontsize=style.NORMAL, fontweight="bold", va="bottom")
            axes = style.axes_at(figure, left, top + _TITLE, _PANEL, _PANEL)
            scale = scale_of(column, unit)
            _draw_panel(axes, xy, column, scale)
            _draw_bar(figure, canvas, scale, left, top + _TITLE + _PANEL + 8)
    return path


def scale_of(values: np.ndarray, unit: str) -> Scale | None:
    """Values to colors: between the 2nd and the 98th percentile; an angle around a circle; None without values."""
    if unit == "deg":
        return Scale(Normalize(*_ANGLE), matplotlib.colormaps["twilight_shifted"], True, ("-90", "0", "90"))
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return None
    low, high = (float(np.quantile(finite, share)) for share in (LOW, HIGH))
    viridis, top = matplotlib.colormaps["viridis"], float(finite.max())
    if high <= low:  # nearly all have this value: those above it show
        text = ("all", _short(low), "") if top <= low else (_short(low), "", _short(top))
        return Scale(Normalize(low, top if top > low else low + 1, clip=True), viridis, False, text)
    if low > 0 and high / low > _LOG_FROM:
        return Scale(LogNorm(low, high, clip=True), viridis, False, (_short(low), "log", _short(high)))
    return Scale(Normalize(low, high, clip=True), viridis, False, (_short(low), "", _short(high)))


def _short(value: float) -> str:
    """Three digits, the thousands apart: 0.0123, 12.3, 12,300."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _draw_panel(axes: Axes, xy: np.ndarray, values: np.ndarray, scale: Scale | None) -> None:
    frame(axes, xy)
    if scale is None or not np.isfinite(values).any():
        middle: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, "not known", color=style.FAINT, **middle)
        return
    if np.isfinite(xy).all(axis=1).sum() <= density.MOST_DOTS:
        draw_values(axes, xy, _colored(values, scale), _PANEL)
        return
    grid = density.grid_on(axes, xy, _PANEL)
    mean = _mean_angle(grid, values) if scale.is_angle else density.average(grid, values)
    density.show(axes, grid, density.over(np.ones((grid.cells, 3)), _colored(mean, scale), np.sign(grid.counts())))


def _colored(values: np.ndarray, scale: Scale) -> np.ndarray:
    """(n,) -> (n, 3) RGB, grey where there is no value."""
    known = np.isfinite(values)
    rgb = scale.colors(np.asarray(scale.norm(np.where(known, values, scale.norm.vmin or 0.0))))[:, :3]
    rgb[~known] = matplotlib.colors.to_rgb(style.GREY)
    return np.asarray(rgb)


def _mean_angle(grid: density.Grid, degrees: np.ndarray) -> np.ndarray:
    """The mean of directions, where 90 and -90 are the same: of twice the angle, on the circle."""
    twice = np.deg2rad(2 * degrees)
    sine, cosine = (density.average(grid, part) for part in (np.sin(twice), np.cos(twice)))
    return np.asarray(np.rad2deg(np.arctan2(sine, cosine)) / 2)


def _draw_bar(figure: Figure, canvas: Axes, scale: Scale | None, left: float, top: float) -> None:
    """A color bar with its two ends written below."""
    if scale is None:
        return
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), scale.colors), cax=style.axes_at(figure, left, top, _PANEL, _BAR),
        orientation="horizontal", ticks=[],
    )  # fmt: skip
    bar.outline.set(visible=False)
    for x, side, text in zip(
        (left, left + _PANEL / 2, left + _PANEL), ("left", "center", "right"), scale.text, strict=True
    ):
        canvas.text(x, top + _BAR + 5, text, fontsize=style.SMALL, ha=side, va="top")


if __name__ == "__main__":
    entry(Redraw, main)
