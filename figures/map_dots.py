"""The particles of a map: one by one where there are few, in cells where there are many."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb

from figures import density, style
from figures.map_colors import Entry
from figures.map_marks import draw_numbers


def frame(axes: Axes, xy: np.ndarray | None = None) -> None:
    """A square view with equal units on both axes, and no ticks: the axes of such maps mean nothing."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=style.RULE)
    finite = xy[np.isfinite(xy).all(axis=1)] if xy is not None else np.empty((0, 2))
    if len(finite) == 0:
        return
    low, high = finite.min(axis=0), finite.max(axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2 * 1.06, 1e-6)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)


def draw_entries(axes: Axes, xy: np.ndarray, entries: list[Entry], side: int, numbers: bool = True) -> None:
    """Particles in the colors of their kinds, grey ones below, and the clusters' numbers.

    Args:
        axes: square, `side` px.
        xy: (N, 2); rows that are not finite are left out.
        entries: who has which color.
        side: px.
        numbers: whether clusters are numbered.
    """
    frame(axes, xy)
    keep = np.isfinite(xy).all(axis=1)
    if keep.sum() > density.MOST_DOTS:
        grid = density.grid_on(axes, xy, side)
        density.show(axes, grid, density.blended(grid, [(entry.color, entry.rows) for entry in entries]))
    else:
        _entry_dots(axes, xy, entries, side)
    if numbers:
        numbered = [entry for entry in entries if entry.number is not None and keep[entry.rows].any()]
        draw_numbers(axes, xy, numbered, side)


def _entry_dots(axes: Axes, xy: np.ndarray, entries: list[Entry], side: int) -> None:
    """Grey rows first, below all others; the rest shuffled, so that no class lies on top of another."""
    keep, diameter, alpha = _dots(xy, side)
    colors = np.full(len(xy), style.GREY, dtype=object)
    grey = np.ones(len(xy), dtype=bool)
    for entry in entries:
        colors[entry.rows] = entry.color
        grey[entry.rows] = entry.color == style.GREY
    shuffled = np.random.default_rng(0).permutation(len(xy))
    for rows in (shuffled[(grey & keep)[shuffled]], shuffled[(~grey & keep)[shuffled]]):
        _scatter(axes, xy[rows], diameter, c=list(colors[rows]), alpha=alpha[rows])


def draw_scores(axes: Axes, xy: np.ndarray, scores: np.ndarray, side: int) -> ScalarMappable:
    """Particles in the color of their score, the strange on top even within a crowd; grey where there is no score.

    Args:
        axes: square, `side` px.
        xy: (N, 2); rows that are not finite are left out.
        scores: (N,), NaN where there is none.
        side: px.

    Returns:
        Scores to colors.
    """
    frame(axes, xy)
    mappable = ScalarMappable(score_norm(scores), style.score_colors())
    if np.isfinite(xy).all(axis=1).sum() > density.MOST_DOTS:
        _score_cells(axes, xy, scores, side, mappable)
    else:
        _score_dots(axes, xy, scores, side, mappable)
    return mappable


def _score_cells(axes: Axes, xy: np.ndarray, scores: np.ndarray, side: int, mappable: ScalarMappable) -> None:
    """A cell has the color of its mean, because of hundreds one is always strange; the strangest are dots on top."""
    grid = density.grid_on(axes, xy, side)
    mean = density.average(grid, scores)
    scored = np.isfinite(mean)
    without = density.strength(grid.counts(np.flatnonzero(~np.isfinite(scores))))
    paper = density.over(np.ones((grid.cells, 3)), np.array(to_rgb(style.GREY)), without)
    solid = np.where(scored, density.strength(grid.counts(np.flatnonzero(np.isfinite(scores)))), 0)
    density.show(axes, grid, density.over(paper, mappable.to_rgba(np.where(scored, mean, 0))[:, :3], solid))
    known = np.where(np.isfinite(xy).all(axis=1), scores, -np.inf)
    strange = top_rows(known, density.STRANGEST)[::-1]
    _scatter(axes, xy[strange], 3.0, c=mappable.to_rgba(scores[strange]))


def _score_dots(axes: Axes, xy: np.ndarray, scores: np.ndarray, side: int, mappable: ScalarMappable) -> None:
    keep, diameter, alpha = _dots(xy, side)
    scored = np.isfinite(scores)
    without = keep & ~scored
    _scatter(axes, xy[without], diameter, c=style.GREY, alpha=alpha[without])
    order = np.argsort(scores, kind="stable")
    order = order[(keep & scored)[order]]
    solid = np.clip(np.maximum(alpha[order], np.asarray(mappable.norm(scores[order]))), 0.35, 1)
    _scatter(axes, xy[order], diameter, c=mappable.to_rgba(scores[order]), alpha=solid)


def draw_values(axes: Axes, xy: np.ndarray, rgb: np.ndarray, side: int) -> None:
    """Particles in colors of their own, shuffled, so that none lies on top for its value: (N, 2), (N, 3)."""
    keep, diameter, alpha = _dots(xy, side)
    rows = np.random.default_rng(0).permutation(len(xy))
    rows = rows[keep[rows]]
    _scatter(axes, xy[rows], diameter, c=rgb[rows], alpha=np.maximum(alpha[rows], 0.5))


def score_norm(scores: np.ndarray) -> Normalize:
    """From the lowest score to the 99.8th percentile: one far outlier does not flatten the rest."""
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return Normalize(0, 1)
    low, high = float(finite.min()), float(np.quantile(finite, 0.998))
    return Normalize(low, high if high > low else low + 1)


def top_rows(scores: np.ndarray, n: int) -> np.ndarray:
    """Row numbers of the n highest scores, highest first; equal scores keep their order, NaN is left out."""
    order = np.argsort(-scores, kind="stable")
    return order[np.isfinite(scores[order])][:n]


def dot_diameter(count: int, side: int) -> float:
    """Px: so that `count` dots cover a quarter of a square map, between 1.5 and 9."""
    return float(np.clip(np.sqrt(0.25 * side**2 / max(count, 1)), 1.5, 9.0))


def opacity(xy: np.ndarray, side: int, diameter: float) -> np.ndarray:
    """The more dots share a place, the more each lets through: (N, 2) finite -> (N,) in [0.2, 0.9]."""
    bins = max(8, int(side / (2 * diameter)))
    cells = np.zeros(len(xy), dtype=np.int64)
    for axis in (0, 1):
        low, high = xy[:, axis].min(), xy[:, axis].max()
        share = (xy[:, axis] - low) / (high - low if high > low else 1)
        cells = cells * bins + np.minimum((share * bins).astype(np.int64), bins - 1)
    _, cell, counts = np.unique(cells, return_inverse=True, return_counts=True)
    return np.asarray(np.clip(0.9 / np.sqrt(counts[cell] / 3), 0.2, 0.9))


def _dots(xy: np.ndarray, side: int) -> tuple[np.ndarray, float, np.ndarray]:
    """Which rows can be drawn (N,), their diameter in px, and their opacity (N,)."""
    keep = np.isfinite(xy).all(axis=1)
    diameter, alpha = dot_diameter(int(keep.sum()), side), np.zeros(len(xy))
    if keep.any():
        alpha[keep] = opacity(xy[keep], side, diameter)
    return keep, diameter, alpha


def _scatter(axes: Axes, xy: np.ndarray, diameter: float, **colors: Any) -> None:
    if len(xy):
        area = (diameter * 72 / style.DPI) ** 2
        axes.scatter(xy[:, 0], xy[:, 1], s=area, linewidths=0, rasterized=True, **colors)
