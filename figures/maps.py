"""Two-dimensional maps of a latent: every particle a dot, colored by class, by cluster or by score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from figures import style

Kind = Literal["classes", "clusters", "score"]

UNLABELED = "unlabeled"
_MAP, _MARGIN, _LEGEND = 960, 44, 290  # px: the map's side, the sheet's margin, the legend's width
_PANEL, _PANEL_GAP = 560, 36
_MOST_ENTRIES = 32  # lines of a legend
_NUMBER: dict[str, Any] = {
    "fontsize": style.NORMAL, "fontweight": "bold", "ha": "center", "va": "center_baseline",
    "path_effects": [effects.withStroke(linewidth=2.4, foreground="white")],
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One color of a map: its name in the legend, and which rows it colors."""

    name: str
    color: str
    rows: np.ndarray
    """Row numbers, int64."""
    number: int | None = None
    """The cluster's number, written on the map; None for noise and for classes."""

    @property
    def text(self) -> str:
        """`dust: 1,234`."""
        return f"{style.elide(style.printable(self.name), 22)}: {len(self.rows):,}"


def entries_of(values: Sequence[Any] | np.ndarray | pd.Series, kind: Kind, classes: Sequence[str] = ()) -> list[Entry]:
    """The colors of a map in the order of the legend; grey ones (noise, unlabeled) are the last.

    Args:
        values: (N,) class names (nullable), or cluster numbers (noise -1).
        kind: `classes` or `clusters`.
        classes: all classes of the run, so that one class has one color in all its pictures.
    """
    column = pd.Series(values).reset_index(drop=True)
    if kind == "clusters":
        numbers = sorted(int(k) for k in column.dropna().unique() if k != style.NOISE)
        order = [*numbers, style.NOISE] if (column == style.NOISE).any() else numbers
        return [_cluster(k, np.flatnonzero((column == k).fillna(False).to_numpy(dtype=bool))) for k in order]
    missing = column.isna().to_numpy()
    names = column.where(~missing, "").astype(str).to_numpy()
    present = sorted(set(names[~missing]), key=style.natural)
    colors = style.palette([*classes, *present])
    entries = [Entry(name, colors[name], np.flatnonzero((names == name) & ~missing)) for name in present]
    if missing.any():
        entries.append(Entry(UNLABELED, style.GREY, np.flatnonzero(missing)))
    return entries


def _cluster(number: int, rows: np.ndarray) -> Entry:
    shown = None if number == style.NOISE else number
    return Entry(style.cluster_name(number), style.cluster_color(number), rows, shown)


def draw_map(
    xy: np.ndarray,
    values: Sequence[Any] | np.ndarray | pd.Series,
    path: Path,
    title: str,
    kind: Kind = "classes",
    highlight: Sequence[int] | None = None,
    subtitle: str | None = None,
    classes: Sequence[str] = (),
    top: int = 10,
) -> Path:
    """Draw one map.

    Args:
        xy: (N, 2); rows that are not finite are left out.
        values: (N,) class names (nullable), cluster numbers (noise -1), or scores (higher = stranger).
        path: PNG to write.
        title: above the map.
        kind: what `values` are.
        highlight: row numbers in order of rank, ringed and numbered 1, 2, ...; default for scores the `top`
            highest, else none.
        subtitle: a fainter line below the title.
        classes: all classes of the run, for their colors.
        top: see `highlight`.

    Returns:
        `path`.
    """
    column = pd.Series(values).reset_index(drop=True)
    head = _MARGIN + style.heading_height(subtitle)
    width = 2 * _MARGIN + _MAP + 36 + _LEGEND
    with style.picture(path, width, head + _MAP + _MARGIN) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        axes = style.axes_at(figure, _MARGIN, head, _MAP, _MAP)
        right = _MARGIN + _MAP + 36
        if kind == "score":
            scores = column.to_numpy(dtype=float, na_value=np.nan)
            mappable = _draw_scores(axes, xy, scores, _MAP)
            _colorbar(figure, mappable, (right, head, 22, _MAP // 2), "vertical")
            highlight = top_rows(scores, top).tolist() if highlight is None else highlight
        else:
            entries = entries_of(column, kind, classes)
            _draw_entries(axes, xy, entries, _MAP)
            _legend(canvas, entries, right, head, _MOST_ENTRIES)
        _draw_ranks(axes, xy, highlight if highlight is not None else (), _MAP)
    return path


def draw_map_panel(
    umap: np.ndarray,
    tsne: np.ndarray | None,
    classes: Sequence[Any] | np.ndarray | pd.Series,
    clusters: np.ndarray | pd.Series,
    score: np.ndarray | pd.Series,
    path: Path,
    title: str,
    subtitle: str | None = None,
    names: tuple[str, str, str] = ("Class", "Cluster", "Outlier score"),
    all_classes: Sequence[str] = (),
    top: int = 10,
) -> Path:
    """Draw all maps of one latent: UMAP above, t-SNE below; by class, by cluster, by score.

    Args:
        umap: (N, 2).
        tsne: (N, 2); None where it was not computed: then there is no such row.
        classes: (N,) class names, known or predicted, nullable.
        clusters: (N,) cluster numbers, noise -1.
        score: (N,) higher = stranger.
        path: PNG to write.
        title: above the panel.
        subtitle: a fainter line below the title.
        names: headings of the three columns.
        all_classes: all classes of the run, for their colors.
        top: how many of the highest scores are ringed and numbered.

    Returns:
        `path`.
    """
    groups = [entries_of(classes, "classes", all_classes), entries_of(clusters, "clusters")]
    scores = pd.Series(score).to_numpy(dtype=float, na_value=np.nan)
    lines = min(8, max(-(-len(entries) // 2) for entries in groups))
    maps = {"UMAP": umap} if tsne is None else {"UMAP": umap, "t-SNE": tsne}
    head = _MARGIN + style.heading_height(subtitle) + 40
    left = _MARGIN + 40
    width = left + 3 * _PANEL + 2 * _PANEL_GAP + _MARGIN
    below = head + len(maps) * (_PANEL + _PANEL_GAP) - 12
    with style.picture(path, width, below + max(lines * 26, 80) + _MARGIN) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        for place, name in enumerate(names):
            x = left + place * (_PANEL + _PANEL_GAP)
            canvas.text(x, head - 14, name, fontsize=style.LARGE, fontweight="bold", va="bottom")
            if place < 2:
                _legend(canvas, groups[place], x, below, 2 * lines, columns=2, width=_PANEL)
        for number, (name, xy) in enumerate(maps.items()):
            y = head + number * (_PANEL + _PANEL_GAP)
            canvas.text(
                left - 16, y + _PANEL / 2, name, fontsize=style.LARGE, fontweight="bold", rotation=90,
                ha="right", va="center",
            )  # fmt: skip
            boxes = [style.axes_at(figure, left + i * (_PANEL + _PANEL_GAP), y, _PANEL, _PANEL) for i in range(3)]
            mappable = _draw_row(boxes, xy, groups, scores, top)
        bar = (left + 2 * (_PANEL + _PANEL_GAP) + 90, below + 8, _PANEL - 180, 18)
        _colorbar(figure, mappable, bar, "horizontal")
    return path


def _draw_row(
    boxes: list[Axes], xy: np.ndarray, groups: list[list[Entry]], scores: np.ndarray, top: int
) -> ScalarMappable:
    """One method's three maps."""
    if not np.isfinite(xy).all(axis=1).any():
        for axes in boxes:
            _frame(axes)
            middle: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
            axes.text(0.5, 0.5, "not computed", color=style.FAINT, fontsize=style.LARGE, **middle)
        return ScalarMappable(_norm(scores), style.score_colors())
    for axes, entries in zip(boxes, groups, strict=False):
        _draw_entries(axes, xy, entries, _PANEL)
    mappable = _draw_scores(boxes[2], xy, scores, _PANEL)
    _draw_ranks(boxes[2], xy, top_rows(scores, top), _PANEL)
    return mappable


def top_rows(scores: np.ndarray, n: int) -> np.ndarray:
    """Row numbers of the n highest scores, highest first; equal scores keep their order, NaN is left out."""
    order = np.argsort(-scores, kind="stable")
    return order[np.isfinite(scores[order])][:n]


# --- dots


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


def _draw_entries(axes: Axes, xy: np.ndarray, entries: list[Entry], side: int) -> None:
    """Grey rows first, below all others; the rest shuffled, so that no class lies on top of another."""
    _frame(axes, xy)
    keep, diameter, alpha = _dots(xy, side)
    colors = np.full(len(xy), style.GREY, dtype=object)
    grey = np.ones(len(xy), dtype=bool)
    for entry in entries:
        colors[entry.rows] = entry.color
        grey[entry.rows] = entry.color == style.GREY
    shuffled = np.random.default_rng(0).permutation(len(xy))
    for rows in (shuffled[(grey & keep)[shuffled]], shuffled[(~grey & keep)[shuffled]]):
        _scatter(axes, xy[rows], diameter, c=list(colors[rows]), alpha=alpha[rows])
    numbered = [entry for entry in entries if entry.number is not None and keep[entry.rows].any()]
    _draw_numbers(axes, xy, numbered, side)


def _draw_numbers(axes: Axes, xy: np.ndarray, entries: list[Entry], side: int) -> None:
    """Each cluster's number on its middle, or next to it where another's number stands."""
    if not entries:
        return
    middles = np.array([_middle(xy[entry.rows]) for entry in entries])
    corner, to_px = axes.transAxes.transform((0, 0)), axes.transData
    spots = place_labels(to_px.transform(middles) - corner, side, radii=(0, 14, 22, 30, 40), on_points=True)
    for entry, spot in zip(entries, spots, strict=True):
        x, y = to_px.inverted().transform(spot + corner)
        axes.text(x, y, f"{entry.number}", zorder=5, **_NUMBER)


def _middle(xy: np.ndarray) -> np.ndarray:
    """The member nearest to the median, which a curved cluster's median itself may miss: (n, 2) -> (2,)."""
    finite = xy[np.isfinite(xy).all(axis=1)]
    return np.asarray(finite[np.linalg.norm(finite - np.median(finite, axis=0), axis=1).argmin()])


def _draw_scores(axes: Axes, xy: np.ndarray, scores: np.ndarray, side: int) -> ScalarMappable:
    """The strange on top and solid, even within a crowd; rows without a score grey, below all others."""
    _frame(axes, xy)
    keep, diameter, alpha = _dots(xy, side)
    scored = np.isfinite(scores)
    norm = _norm(scores)
    mappable = ScalarMappable(norm, style.score_colors())
    without = keep & ~scored
    _scatter(axes, xy[without], diameter, c=style.GREY, alpha=alpha[without])
    order = np.argsort(scores, kind="stable")
    order = order[(keep & scored)[order]]
    solid = np.clip(np.maximum(alpha[order], np.asarray(norm(scores[order]))), 0.35, 1)
    _scatter(axes, xy[order], diameter, c=mappable.to_rgba(scores[order]), alpha=solid)
    return mappable


def _norm(scores: np.ndarray) -> Normalize:
    """From the lowest score to the 99.8th percentile: one far outlier does not flatten the rest."""
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return Normalize(0, 1)
    low, high = float(finite.min()), float(np.quantile(finite, 0.998))
    return Normalize(low, high if high > low else low + 1)


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


def _frame(axes: Axes, xy: np.ndarray | None = None) -> None:
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


# --- ranks


def _draw_ranks(axes: Axes, xy: np.ndarray, rows: Sequence[int] | np.ndarray, side: int) -> None:
    """A ring around each row, and its rank beside it where there is room."""
    ranked = [(rank, xy[row]) for rank, row in enumerate(rows, start=1) if np.isfinite(xy[row]).all()]
    if not ranked:
        return
    points = np.array([point for _, point in ranked])
    area = (15 * 72 / style.DPI) ** 2
    axes.scatter(points[:, 0], points[:, 1], area, facecolors="none", edgecolors=style.INK, linewidths=0.9, zorder=4)
    to_px, to_data = axes.transData, axes.transData.inverted()
    corner = axes.transAxes.transform((0, 0))
    spots = place_labels(to_px.transform(points) - corner, side)
    for (rank, point), spot in zip(ranked, spots, strict=True):
        x, y = to_data.transform(spot + corner)
        line = {"arrowstyle": "-", "lw": 0.7, "color": style.INK, "shrinkA": 5, "shrinkB": 3.6}
        axes.annotate(f"{rank}", (point[0], point[1]), (x, y), zorder=6, arrowprops=line, **_NUMBER)


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


# --- legends


def _legend(
    canvas: Axes, entries: list[Entry], left: float, top: float, most: int, columns: int = 1, width: float = 0
) -> None:
    """Color, name and count; where there are too many the largest are listed and the rest are summed up."""
    shown = entries
    if len(entries) > most:
        largest = sorted(entries, key=lambda entry: (entry.color != style.GREY, -len(entry.rows)))[: most - 1]
        shown = [entry for entry in entries if entry in largest]
    rows = -(-len(shown) // columns) if len(entries) <= most else most // columns
    for number, entry in enumerate(shown):
        x, y = left + number // rows * width / columns, top + 13 + number % rows * 26
        canvas.scatter([x + 8], [y], s=42, color=entry.color, linewidths=0)
        canvas.text(x + 26, y, entry.text, fontsize=style.NORMAL, va="center")
    if len(entries) > most:
        x, y = left + len(shown) // rows * width / columns, top + 13 + len(shown) % rows * 26
        rest = [entry for entry in entries if entry not in shown]
        text = f"and {len(rest)} more: {sum(len(entry.rows) for entry in rest):,}"
        canvas.text(x + 26, y, text, fontsize=style.NORMAL, va="center", color=style.FAINT)


def _colorbar(figure: Figure, mappable: ScalarMappable, box: tuple[float, float, float, float], direction: str) -> None:
    mappable.set_array([])
    axes = style.axes_at(figure, *box)
    bar = figure.colorbar(mappable, cax=axes, orientation=direction, label="score; darker = stranger")
    bar.outline.set(visible=False)
