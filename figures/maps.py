"""Maps of a latent by class, by cluster and by score: `python figures/maps.py --run runs/clusters-vae/<id>`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from figures import density, paper, style
from figures.finished import Redraw, View, redrawn
from figures.map_colors import LEGEND_LINE, Entry, draw_legend, entries_of
from figures.map_dots import draw_entries, draw_scores, frame, score_norm, top_rows
from figures.map_marks import draw_ranks
from provenance.settings import entry

_MARGIN, _PANEL, _PANEL_GAP = 44, 560, 36  # px: the sheet's margin, a map's side, between maps


def main(settings: Redraw) -> None:
    """Draw the maps of a finished `clusters-<latent>` run again: by class, by cluster, by outlier score."""
    run, particles, view = redrawn(settings)
    with settings.formats:
        print(draw_view(view, settings.folder(run), particles.classes))


def draw_view(view: View, folder: Path, classes: Sequence[str]) -> Path:
    """Draw the maps of one latent into `folder`/maps-<latent>.png.

    Args:
        view: who lies where.
        folder: where the picture goes.
        classes: all classes of the run, for their colors.
    """
    path, title = folder / f"maps-{view.latent}.png", f"Maps of the latent: {view.latent}"
    return draw_map_panel(
        view.umap, view.tsne, view.classes, view.clusters, view.score, path, title, names=view.names,
        all_classes=classes,
    )  # fmt: skip


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
        subtitle: a fainter line below the title; of many particles it says how they are drawn.
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
    subtitle = said_of(umap, subtitle, f"scores: mean of a cell, and the {density.STRANGEST} highest")
    head = _MARGIN + style.heading_height(subtitle) + 40
    left = _MARGIN + 40
    width = left + 3 * _PANEL + 2 * _PANEL_GAP + _MARGIN
    below = head + len(maps) * (_PANEL + _PANEL_GAP) - 12
    with paper.picture(path, width, below + max(lines * LEGEND_LINE, 80) + _MARGIN) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        _panel_words(canvas, names, list(maps), left, head)
        for place, entries in enumerate(groups):
            x = left + place * (_PANEL + _PANEL_GAP)
            draw_legend(canvas, entries, x, below, 2 * lines, columns=2, width=_PANEL)
        for number, xy in enumerate(maps.values()):
            y = head + number * (_PANEL + _PANEL_GAP)
            boxes = [style.axes_at(figure, left + i * (_PANEL + _PANEL_GAP), y, _PANEL, _PANEL) for i in range(3)]
            mappable = _draw_row(boxes, xy, groups, scores, top)
        bar = (left + 2 * (_PANEL + _PANEL_GAP) + 90, below + 8, _PANEL - 180, 18)
        _colorbar(figure, mappable, bar)
    return path


def said_of(xy: np.ndarray, subtitle: str | None, more: str = "") -> str | None:
    """The subtitle, and where cells stand for dots what they mean; `more` is said only then."""
    n = int(np.isfinite(xy).all(axis=1).sum())
    if n <= density.MOST_DOTS:
        return subtitle
    return "; ".join(filter(None, (subtitle, f"{n:,} particles", density.NOTE, more)))


def _panel_words(canvas: Axes, names: Sequence[str], maps: Sequence[str], left: int, head: int) -> None:
    """Headings of columns and rows."""
    for place, name in enumerate(names):
        x = left + place * (_PANEL + _PANEL_GAP)
        canvas.text(x, head - 14, name, fontsize=style.LARGE, fontweight="bold", va="bottom")
    for number, name in enumerate(maps):
        y = head + number * (_PANEL + _PANEL_GAP) + _PANEL / 2
        upright: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center"}
        canvas.text(left - 16, y, name, fontsize=style.LARGE, fontweight="bold", **upright)


def _draw_row(
    boxes: list[Axes], xy: np.ndarray, groups: list[list[Entry]], scores: np.ndarray, top: int
) -> ScalarMappable:
    """One method's three maps."""
    if not np.isfinite(xy).all(axis=1).any():
        for axes in boxes:
            frame(axes)
            middle: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
            axes.text(0.5, 0.5, "not computed", color=style.FAINT, fontsize=style.LARGE, **middle)
        return ScalarMappable(score_norm(scores), style.score_colors())
    for axes, entries in zip(boxes, groups, strict=False):
        draw_entries(axes, xy, entries, _PANEL)
    mappable = draw_scores(boxes[2], xy, scores, _PANEL)
    draw_ranks(boxes[2], xy, top_rows(scores, top), _PANEL)
    return mappable


def _colorbar(figure: Figure, mappable: ScalarMappable, box: tuple[float, float, float, float]) -> None:
    mappable.set_array([])
    axes = style.axes_at(figure, *box)
    bar = figure.colorbar(mappable, cax=axes, orientation="horizontal", label="score; darker = stranger")
    bar.outline.set(visible=False)


if __name__ == "__main__":
    entry(Redraw, main)
