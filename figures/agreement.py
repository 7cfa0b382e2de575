"""Heatmaps of how far the latents agree: `python figures/agreement.py --run runs/consensus/<id>`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from figures import paper, style
from figures.confusion import draw_cell
from figures.finished import Redraw, opened, parents_of
from figures.gallery import SHOWN
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json
from provenance.run import Run
from provenance.settings import entry

_CELL, _MARGIN, _GAP, _LINE = 96, 44, 56, 20  # px
_HEAD = 34 + 3 * _LINE + 30  # title, explanation and names of the columns above a heatmap
_PANELS = 3  # in a row
_COLUMN, _ROW = 34, 36  # px of the dots below
_DOT, _HOLLOW = "#0b4f86", "#d5d5d5"
_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Heatmap:
    """One square of numbers with what it says."""

    title: str
    told: str
    values: np.ndarray
    """(rows, columns), NaN where there is none."""
    columns: tuple[str, ...]
    below: np.ndarray | None = None
    """Shares that stand below the numbers."""


def main(settings: Redraw) -> None:
    """Draw how far the latents of a finished consensus agree: rankings, groups, neighborhoods, maps."""
    run = opened(settings.run, ["consensus"])
    if len(run.info["parents"]) < 2:
        raise UserError(f"--run {settings.run}: one latent has none to agree with; `clustering/run.py --latent all`")
    run = opened(settings.run, ["consensus"], needs="agreement.json")
    with settings.formats:
        print(draw_run(run, settings.folder(run)))


def draw_run(run: Run, folder: Path) -> Path:
    """Draw the agreement of a consensus' latents into `folder`/agreement.png.

    Raises:
        UserError: a run that the consensus stands on is gone.
    """
    compared = read_json(run.path / "agreement.json")
    ranked = read_parquet(run.path / "outliers.parquet").nsmallest(SHOWN, "rank")
    ranks = {
        name: read_parquet(parent.path / "outliers.parquet").set_index("particle_id")["rank"]
        for name, parent in zip(compared["latents"], parents_of(run), strict=True)
    }
    found = pd.DataFrame(ranks).reindex(ranked["particle_id"]) <= compared["found"]
    title = f"Do the latents agree? {run.info['data']['name']}"
    return draw_agreement(compared, found, ranked["found_in"].tolist(), folder / "agreement.png", title)


def draw_agreement(
    compared: dict[str, Any], found: pd.DataFrame, found_in: Sequence[int], path: Path, title: str
) -> Path:
    """Draw heatmaps with their numbers, and below them which latent finds which of the strangest particles.

    Args:
        compared: agreement.json of a consensus.
        found: (n, L) bool, whether each latent finds each of the strangest particles, in order of rank.
        found_in: (n,) how many latents do.
        path: PNG to write.
        title: above all.

    Returns:
        `path`.
    """
    names = compared["latents"]
    beside = int(max(style.text_width(name, style.NORMAL) for name in names)) + 14
    panel = max(beside + _CELL * len(names), 420)
    width = max(2 * _MARGIN + _PANELS * (panel + _GAP) - _GAP, 2 * _MARGIN + beside + _COLUMN * len(found))
    heatmaps = heatmaps_of(compared)
    subtitle = f"{len(names)} latents of {compared['n']:,} particles; 1 is full agreement, and colors run from 0 to 1"
    top, block = _MARGIN + style.heading_height(subtitle), _HEAD + _CELL * len(names) + 36
    dots = top + block * -(-len(heatmaps) // _PANELS)
    with paper.picture(path, width, dots + 104 + _ROW * (len(names) + 1) + _MARGIN) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        for number, heatmap in enumerate(heatmaps):
            row, column = divmod(number, _PANELS)
            left = _MARGIN + column * (panel + _GAP)
            _draw_heatmap(canvas, heatmap, names, left, top + row * block, beside, panel)
        _draw_found(canvas, compared, found, found_in, dots, _MARGIN + beside, width)
    return path


def heatmaps_of(compared: dict[str, Any]) -> list[Heatmap]:
    """The six heatmaps, each with what it would be by chance."""
    names, n, top = tuple(compared["latents"]), compared["n"], compared["top"]
    k, sample = compared["neighbors"], compared["sample"]
    maps = [name for name in ("umap", "tsne") if all(name in of for of in compared["trustworthiness"].values())]
    trust = [[compared["trustworthiness"][name][method] for method in maps] for name in names]
    written = tuple({"umap": "UMAP", "tsne": "t-SNE"}[name] for name in maps)
    among = f"{sample:,} drawn by lot" if sample < n else f"all {n:,}"
    return [
        Heatmap("Outlier ranks", f"Spearman correlation of all {n:,} outlier scores; by chance 0",
                _numbers(compared["rank_correlation"]), names),
        Heatmap(f"The {top} strangest", f"share of them that two latents have in common; by chance {top / n:.2g}",
                _numbers(compared["top_overlap"]), names),
        Heatmap("Neighborhoods", f"share of a particle's {k} nearest in common, among {among}; "
                f"by chance {k / (sample - 1):.1g}", _numbers(compared["neighbor_overlap"]), names),
        Heatmap("KMeans clusters", "adjusted Rand index; by chance 0", _numbers(compared["kmeans_ari"]), names),
        Heatmap("HDBSCAN clusters", "adjusted Rand index of the particles that neither calls noise, and their "
                "share; by chance 0", _numbers(compared["hdbscan_ari"]), names, _numbers(compared["hdbscan_compared"])),
        Heatmap("Maps", f"trustworthiness: are the {k} nearest on a map near in its latent? among {among}; "
                "by chance 0.5", _numbers(trust), written),
    ]  # fmt: skip


def _numbers(values: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array(values, dtype=float)


def _draw_heatmap(
    canvas: Axes, heatmap: Heatmap, names: Sequence[str], left: float, top: float, beside: float, width: float
) -> None:
    canvas.text(left, top, heatmap.title, fontsize=style.LARGE, fontweight="bold", va="top")
    for number, line in enumerate(style.wrapped(heatmap.told, width, style.SMALL, most=3)):
        canvas.text(left, top + 30 + number * _LINE, line, fontsize=style.SMALL, color=style.FAINT, va="top")
    first = top + _HEAD
    for number, name in enumerate(heatmap.columns):
        x = left + beside + (number + 0.5) * _CELL
        text = style.fitted(name, _CELL, style.SMALL)
        canvas.text(x, first - 8, text, fontsize=style.SMALL, ha="center", va="bottom")
    for number, name in enumerate(names):
        y = first + (number + 0.5) * _CELL
        canvas.text(left + beside - 12, y, name, fontsize=style.NORMAL, ha="right", va="center")
    for i, j in np.ndindex(*heatmap.values.shape):
        share = None if heatmap.below is None else float(heatmap.below[i, j])
        text = _written(float(heatmap.values[i, j]), share)
        draw_cell(canvas, left + beside + j * _CELL, first + i * _CELL, _CELL, text, float(heatmap.values[i, j]))


def _written(value: float, share: float | None) -> str:
    """`0.42`, and the share that it is of in a second line; never rounded up to 1; a dash for nothing."""
    whole = value > 1 - 1e-9
    text = _DASH if np.isnan(value) else "1" if whole else "> 0.99" if value > 0.995 else f"{value:.2f}"
    text = text.replace("-0.00", "0.00")
    return text if share is None else f"{text}\nof {100 * share:.0f} %"


def _draw_found(
    canvas: Axes, compared: dict[str, Any], found: pd.DataFrame, found_in: Sequence[int], top: float, left: float,
    width: float,
) -> None:  # fmt: skip
    """A column a particle, a row a latent, a dot where it finds it; how many do below."""
    names = compared["latents"]
    title = f"Which latents find the {len(found)} strangest of the consensus"
    canvas.text(_MARGIN, top, title, fontsize=style.LARGE, fontweight="bold", va="top")
    told = style.fitted(_found_told(compared), width - 2 * _MARGIN, style.SMALL)
    canvas.text(_MARGIN, top + 30, told, fontsize=style.SMALL, color=style.FAINT, va="top")
    for row, name in enumerate([*names, "found in"]):
        weight = "normal" if row < len(names) else "bold"
        place: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": style.NORMAL, "fontweight": weight}
        canvas.text(left - 12, top + 104 + (row + 0.5) * _ROW, name, **place)
    for column, (finds, number) in enumerate(zip(found.to_numpy(dtype=bool), found_in, strict=True)):
        x = left + (column + 0.5) * _COLUMN
        canvas.text(x, top + 94, f"{column + 1}", fontsize=style.SMALL, color=style.FAINT, ha="center", va="bottom")
        for row, finds_it in enumerate(finds):
            look: dict[str, Any] = {"fc": _DOT, "ec": _DOT} if finds_it else {"fc": style.PAPER, "ec": _HOLLOW}
            canvas.add_patch(Circle((x, top + 104 + (row + 0.5) * _ROW), 9, lw=1, **look))
        y = top + 104 + (len(names) + 0.5) * _ROW
        weight, ink = ("bold", style.INK) if number else ("normal", style.FAINT)
        canvas.text(x, y, f"{number}", fontsize=style.NORMAL, fontweight=weight, color=ink, ha="center", va="center")


def _found_told(compared: dict[str, Any]) -> str:
    counts = compared["found_in"]
    first, *others = (f"{counts[k]:,} in {k}" for k in range(len(counts) - 1, 0, -1))
    spread = ", ".join([first.replace(" in", " found in"), *others])
    return (
        f"a latent finds the {compared['found']:,} that it ranks strangest itself (1 %); in the whole core: "
        f"{spread}; what none finds stands out by the sum of its scores, or by its measured scalars"
    )


if __name__ == "__main__":
    entry(Redraw, main)
