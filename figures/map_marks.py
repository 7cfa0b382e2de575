"""What is written on a map: ranks beside their rings, numbers of clusters, and where there is room for them."""

from collections.abc import Sequence
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes

from figures import style
from figures.map_colors import Entry

RING = 15
"""Diameter of the ring around a ranked particle, px."""
_TINY = 34  # px
MOST_NUMBERS = 120
"""Clusters whose number is written on a map, the largest first: more could not be read."""
TEXT: dict[str, Any] = {
    "fontsize": style.NORMAL, "fontweight": "bold", "ha": "center", "va": "center_baseline",
    "path_effects": [effects.withStroke(linewidth=2.4, foreground="white")],
}  # fmt: skip


def draw_numbers(axes: Axes, xy: np.ndarray, entries: list[Entry], side: int) -> None:
    """Each cluster's number on its middle, or next to it where another's number stands."""
    entries = sorted(entries, key=lambda entry: -len(entry.rows))[:MOST_NUMBERS]
    if not entries:
        return
    corner, to_px = axes.transAxes.transform((0, 0)), axes.transData
    middles = np.array([_spot(to_px.transform(xy[entry.rows]) - corner) for entry in entries])
    spots = place_labels(middles, side, radii=(0, 14, 22, 30, 40, 52), on_points=True)
    for entry, spot in zip(entries, spots, strict=True):
        x, y = to_px.inverted().transform(spot + corner)
        axes.text(x, y, f"{entry.number}", zorder=5, **TEXT)


def _spot(px: np.ndarray) -> np.ndarray:
    """Where a cluster's number goes: on its middle; above it where the number would hide the whole cluster."""
    middle, extent = _middle(px), np.nanmax(px, axis=0) - np.nanmin(px, axis=0)
    return middle + np.array([0, 24]) if (extent < _TINY).all() else middle


def _middle(xy: np.ndarray) -> np.ndarray:
    """The member nearest to the median, which a curved cluster's median itself may miss: (n, 2) -> (2,)."""
    finite = xy[np.isfinite(xy).all(axis=1)]
    return np.asarray(finite[np.linalg.norm(finite - np.median(finite, axis=0), axis=1).argmin()])


def draw_ranks(axes: Axes, xy: np.ndarray, rows: Sequence[int] | np.ndarray, side: int) -> None:
    """A ring around each row, and its rank beside it where there is room."""
    ranked = [(rank, xy[row]) for rank, row in enumerate(rows, start=1) if np.isfinite(xy[row]).all()]
    if not ranked:
        return
    points = np.array([point for _, point in ranked])
    area = (RING * 72 / style.DPI) ** 2
    axes.scatter(points[:, 0], points[:, 1], area, facecolors="none", edgecolors=style.INK, linewidths=0.9, zorder=4)
    to_px, to_data = axes.transData, axes.transData.inverted()
    corner = axes.transAxes.transform((0, 0))
    spots = place_labels(to_px.transform(points) - corner, side)
    for (rank, point), spot in zip(ranked, spots, strict=True):
        x, y = to_data.transform(spot + corner)
        line = {"arrowstyle": "-", "lw": 0.7, "color": style.INK, "shrinkA": 5, "shrinkB": 3.6}
        axes.annotate(f"{rank}", (point[0], point[1]), (x, y), zorder=6, arrowprops=line, **TEXT)


def place_labels(
    points: np.ndarray,
    side: float,
    size: tuple[float, float] = (28, 22),
    radii: Sequence[float] = (24, 34, 46, 60, 78, 100),
    on_points: bool = False,
) -> np.ndarray:
    """Where to write the label of each point so that labels hide neither one another nor a point.

    Each takes the nearest free place on circles around its point; if none is free, the one that hides least.

    Args:
        points: (n, 2) px within a square map.
        side: of the map in px.
        size: width and height of a label in px.
        radii: of the circles in px, nearest first.
        on_points: True lets labels hide points.

    Returns:
        (n, 2) px: centers of the labels.
    """
    box, reach = np.array(size), np.array(size) / 2 + 8
    angles = np.pi / 4 + np.arange(16) * np.pi / 8
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    candidates = np.concatenate([radius * circle for radius in radii])
    placed = np.empty((0, 2))
    for point in points:
        spots = np.clip(point + candidates, box / 2, side - box / 2)
        hides = 2 * (np.abs(spots[:, None] - placed[None]) < box).all(axis=2).sum(axis=1)
        if not on_points:
            hides += (np.abs(spots[:, None] - points[None]) < reach).all(axis=2).sum(axis=1)
        placed = np.vstack([placed, spots[np.argmin(hides)]])
    return placed
