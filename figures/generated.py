"""What a variational autoencoder makes up: `python figures/generated.py --run runs/vae/<id>`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from figures import paper, style
from figures.finished import Redraw, opened
from provenance.errors import UserError
from provenance.files import read_json
from provenance.run import Run
from provenance.settings import entry

SIDE = 128
"""Side of an image on the sheet, px."""
KINDS = ("vae", "planar-vae")
"""Kinds of run with a prior to draw from."""
_MARGIN, _GAP, _LEFT, _HEAD = 44, 8, 190, 34  # px
_FEWEST_PX = 900  # narrower sheets would cut their titles


def main(settings: Redraw) -> None:
    """Draw images that a finished variational autoencoder makes from its prior, and walks along its latent."""
    run = opened(settings.run, KINDS)
    with settings.formats:
        drawn = draw_run(run, settings.folder(run))
    if not drawn:
        raise UserError(f"--run {settings.run}: the run has no samples.npy; train again with this version")
    print("\n".join(map(str, drawn)))


def draw_run(run: Run, folder: Path) -> list[Path]:
    """Draw the arrays that a run has into `folder`/samples-<kind>.png and traversals-<kind>.png.

    Raises:
        UserError: a file is cut, or dimensions and images differ in number.
    """
    drawn = []
    if (run.path / "samples.npy").exists():
        images = _read(run.path / "samples.npy", 3)
        drawn.append(draw_samples(images, folder / f"samples-{run.kind}.png", f"Drawn from the prior: {run.kind}"))
    if (run.path / "traversals.npy").exists():
        images = _read(run.path / "traversals.npy", 4)
        said = read_json(run.path / "traversals.json")
        if images.shape[:2] != (len(said["dimensions"]), len(said["steps"])):
            raise UserError(f"{run.path / 'traversals.npy'}: does not fit traversals.json; train again")
        path, title = folder / f"traversals-{run.kind}.png", f"Walks along the latent: {run.kind}"
        drawn.append(draw_traversals(images, said["dimensions"], said["kl"], said["steps"], path, title))
    return drawn


def draw_samples(images: np.ndarray, path: Path, title: str) -> Path:
    """Draw images in a square.

    Args:
        images: (n, S, S) uint8, or floats in [0, 1].
        path: PNG to write.
        title: above the sheet.

    Returns:
        `path`.
    """
    columns = int(np.ceil(np.sqrt(max(len(images), 1))))
    subtitle = f"{len(images)} images decoded from z ~ N(0, 1)"
    places = [divmod(number, columns) for number in range(len(images))]
    rows = -(-len(images) // columns)
    head = _MARGIN + style.heading_height(subtitle)
    width, height = _size(_MARGIN, head, columns, rows)
    with paper.picture(path, width, height) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        _paste(canvas, style.grey_levels(images), places, _MARGIN, head)
    return path


def draw_traversals(
    images: np.ndarray, dimensions: Sequence[int], kl: Sequence[float], steps: Sequence[float], path: Path, title: str
) -> Path:
    """Draw a row for each latent dimension, from its low to its high end.

    Args:
        images: (D, K, S, S) uint8, or floats in [0, 1].
        dimensions: D numbers of dimensions.
        kl: D, what each carries in nats.
        steps: K values of z.
        path: PNG to write.
        title: above the sheet.

    Returns:
        `path`.
    """
    rows, columns = images.shape[:2]
    subtitle = f"one of the {rows} most active dimensions a row, all others at 0; most active first"
    head = _MARGIN + style.heading_height(subtitle) + _HEAD
    left = _MARGIN + _LEFT
    width, height = _size(left, head, columns, rows)
    with paper.picture(path, width, height) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        places = [divmod(number, columns) for number in range(rows * columns)]
        _paste(canvas, style.grey_levels(images.reshape(-1, *images.shape[2:])), places, left, head)
        for column, step in enumerate(steps):
            x = left + column * (SIDE + _GAP) + SIDE / 2
            canvas.text(x, head - 8, f"{step:g}", fontsize=style.NORMAL, ha="center", va="bottom")
        for row, (dimension, nats) in enumerate(zip(dimensions, kl, strict=True)):
            y = head + row * (SIDE + _GAP) + SIDE / 2
            canvas.text(left - 16, y - 4, f"z[{dimension}]", fontsize=style.NORMAL, ha="right", va="bottom")
            text = f"KL {nats:.2f} nats"
            canvas.text(left - 16, y + 4, text, fontsize=style.SMALL, color=style.FAINT, ha="right", va="top")
    return path


def _size(left: int, top: int, columns: int, rows: int) -> tuple[int, int]:
    """Width and height of a sheet in px."""
    width, height = left + columns * (SIDE + _GAP) - _GAP + _MARGIN, top + rows * (SIDE + _GAP) - _GAP + _MARGIN
    return max(width, _FEWEST_PX), height


def _paste(canvas: Axes, levels: np.ndarray, places: Sequence[tuple[int, int]], left: int, top: int) -> None:
    """Images as they are, without smoothing, each in its (row, column)."""
    if not places:
        return
    rows, columns = (1 + max(place[axis] for place in places) for axis in (0, 1))
    width, height = columns * (SIDE + _GAP) - _GAP, rows * (SIDE + _GAP) - _GAP
    sheet = np.full((height, width), 255, dtype=np.uint8)
    for image, (row, column) in zip(np.rint(levels).astype(np.uint8), places, strict=True):
        y, x = row * (SIDE + _GAP), column * (SIDE + _GAP)
        sheet[y : y + SIDE, x : x + SIDE] = np.asarray(
            Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        )
    rgb = np.repeat(sheet[..., None], 3, axis=2)
    limits = (canvas.get_xlim(), canvas.get_ylim())
    canvas.imshow(rgb, extent=(left, left + width, top + height, top), interpolation="none", aspect="auto")
    canvas.set(xlim=limits[0], ylim=limits[1])


def _read(path: Path, dimensions: int) -> np.ndarray:
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train again") from error
    if images.ndim != dimensions:
        raise UserError(f"{path}: {images.ndim} dimensions where {dimensions} are expected; train again")
    return np.asarray(images)


if __name__ == "__main__":
    entry(Redraw, main)
