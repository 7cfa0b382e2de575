"""The same particles on the maps of all latents, joined: `python figures/linked.py --run runs/consensus/<id>`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from figures import paper, style
from figures.finished import (
    Redraw,
    View,
    classes_of,
    opened,
    parents_of,
    particles_of,
    predicted_classes,
    view_of,
    work_of,
)
from figures.map_colors import LEGEND_LINE, draw_legend, entries_of
from figures.map_dots import draw_entries
from figures.map_marks import draw_ranks
from figures.maps import said_of
from particles.sets import ParticleSet
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.run import Run
from provenance.settings import entry

TOP = 20
"""Outliers that are numbered and joined."""
LOUD = 5
"""The first of them, whose lines are drawn heavily: twenty heavy ones could not be followed."""
_PANEL, _GAP, _MARGIN, _TITLE = 600, 54, 44, 40  # px
_DASHES = ("-", (0, (7, 3)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 3)))  # colors are the classes'


def main(settings: Redraw) -> None:
    """Draw the maps of all latents of a finished consensus side by side, the strangest particles joined by lines."""
    run = opened(settings.run, ["consensus"], needs="outliers.parquet")
    with settings.formats:
        print(draw_run(run, settings.folder(run)))


def draw_run(run: Run, folder: Path) -> Path:
    """Draw the linked maps of a consensus into `folder`/linked.png.

    Raises:
        UserError: a run that the consensus stands on is gone.
    """
    particles, ranked = particles_of(run), read_parquet(run.path / "outliers.parquet")
    clustered = parents_of(run)
    latents = [latent for parent in clustered for latent in parents_of(parent)]
    predicted = predicted_classes(particles, latents, work_of(run))
    views = [view_of(parent, particles, ranked, predicted) for parent in clustered]
    return draw_views(views, ranked, classes_of(ranked["particle_id"], predicted, particles), particles, folder)


def draw_views(
    views: Sequence[View], ranked: pd.DataFrame, classes: tuple[pd.Series, str], particles: ParticleSet, folder: Path
) -> Path:
    """Draw several latents side by side into `folder`/linked.png.

    Args:
        views: the latents.
        ranked: the consensus.
        classes: of `classes_of`, in the order of `ranked`.
        particles: the set, for its name and classes.
        folder: where the picture goes.
    """
    maps = {view.latent: pd.DataFrame(view.umap, index=view.ids) for view in views}
    path, title = folder / "linked.png", f"The same outliers in every latent: {particles.name}"
    names, heading = classes
    return draw_linked(maps, ranked, names, path, title, all_classes=particles.classes, heading=heading)


def draw_linked(
    maps: Mapping[str, pd.DataFrame],
    ranked: pd.DataFrame,
    classes: pd.Series,
    path: Path,
    title: str,
    top: int = TOP,
    all_classes: Sequence[str] = (),
    heading: str = "Class",
) -> Path:
    """Draw maps side by side, the strangest particles ringed and numbered in each and joined from map to map.

    Args:
        maps: by latent the two coordinates, indexed by particle_id.
        ranked: N rows: `particle_id`, `rank`.
        classes: (N,) class names in the order of `ranked`, nullable.
        path: PNG to write.
        title: above the maps.
        top: how many are numbered.
        all_classes: all classes of the run, for their colors.
        heading: what the classes are, above the legend.

    Returns:
        `path`.

    Raises:
        UserError: there is no map.
    """
    if not maps:
        raise UserError("there is no map of any latent; run `python clustering/run.py --latent all`")
    places = {name: frame.reindex(ranked["particle_id"]).to_numpy(dtype=float) for name, frame in maps.items()}
    strangest = np.argsort(ranked["rank"].to_numpy(), kind="stable")[:top]
    entries = [replace(kind, color=_pale(kind.color)) for kind in entries_of(classes, "classes", all_classes)]
    told = f"UMAP; the {len(strangest)} strangest of the consensus are numbered, a line joins the same particle"
    subtitle = said_of(next(iter(places.values())), told)
    head = _MARGIN + style.heading_height(subtitle) + _TITLE
    columns = min(4, len(entries))
    lines = -(-len(entries) // columns) + 1
    width = max(2 * _MARGIN + len(places) * (_PANEL + _GAP) - _GAP, 1300)
    with paper.picture(path, width, head + _PANEL + 30 + lines * LEGEND_LINE + _MARGIN) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        wide = min(width - 2 * _MARGIN, 1600)
        draw_legend(canvas, entries, _MARGIN, head + _PANEL + 24, len(entries), columns, wide, heading)
        panels = []
        for number, (name, xy) in enumerate(places.items()):
            left = _MARGIN + number * (_PANEL + _GAP)
            canvas.text(left, head - 12, name, fontsize=style.LARGE, fontweight="bold", va="bottom")
            axes = style.axes_at(figure, left, head, _PANEL, _PANEL)
            draw_entries(axes, xy, entries, _PANEL)
            panels.append((axes, xy))
        _join(figure, panels, strangest)
        for axes, xy in panels:
            draw_ranks(axes, xy, strangest, _PANEL)
    return path


def _pale(color: str) -> str:
    """Half as strong, so that lines and numbers stand out; grey stays what it is."""
    red, green, blue = (0.5 + channel / 2 for channel in to_rgb(color))
    return color if color == style.GREY else to_hex((red, green, blue))


def _join(figure: Figure, panels: Sequence[tuple[Axes, np.ndarray]], rows: np.ndarray) -> None:
    """A line from each particle to itself on the next map, the first ranks drawn last."""
    for (one, here), (other, there) in pairwise(panels):
        for place in reversed(range(len(rows))):
            row = rows[place]
            if not (np.isfinite(here[row]).all() and np.isfinite(there[row]).all()):
                continue
            loud = place < LOUD
            line = ConnectionPatch(
                tuple(here[row]), tuple(there[row]), "data", "data", axesA=one, axesB=other, zorder=3,
                color=style.INK, linestyle=_DASHES[place] if loud else "-",
                linewidth=1.3 if loud else 0.5, alpha=0.9 if loud else 0.3,
            )  # fmt: skip
            figure.add_artist(line)


if __name__ == "__main__":
    entry(Redraw, main)
