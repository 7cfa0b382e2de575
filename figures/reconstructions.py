"""What goes into an autoencoder above what comes out of it: `python figures/reconstructions.py --run runs/vae/<id>`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from PIL import Image

from figures import paper, style
from figures.finished import Redraw, opened
from provenance.errors import UserError
from provenance.files import read_json
from provenance.run import Run
from provenance.settings import entry

SIDE = 150
"""Side of an image on the sheet, px."""
_MARGIN, _LEFT, _GAP, _BETWEEN, _LINE = 44, 138, 14, 40, 19  # px
_COLUMNS = 12
_ROWS = ("input", "reconstruction", "|difference|")
_MOST_CAPTION_LINES = 2
KINDS = ("ae", "vae", "planar-vae")
"""Kinds of run that redraw images."""
SHEETS = {
    "reconstructions": "drawn at random from the validation split, never trained on",
    "reconstructions-best": "the best redrawn of the validation split, best first",
    "reconstructions-worst": "the worst redrawn of the validation split, worst first",
}
"""Files of a run (`<name>.npy` and `<name>.json`), and what they show."""


def main(settings: Redraw) -> None:
    """Draw what a finished autoencoder makes of particles that it never trained on: at random, best, worst."""
    run = opened(settings.run, KINDS)
    with settings.formats:
        drawn = draw_run(run, settings.folder(run))
    if not drawn:
        raise UserError(f"--run {settings.run}: the run has no reconstructions.npy; train again with this version")
    print("\n".join(map(str, drawn)))


def draw_run(run: Run, folder: Path) -> list[Path]:
    """Draw the sheets that a run has arrays for into `folder`/<sheet>-<kind>.png.

    Raises:
        UserError: a file is cut, or ids and images differ in number.
    """
    drawn = []
    for name, what in SHEETS.items():
        if (run.path / f"{name}.npy").exists():
            images, shown, captions = read_pairs(run.path / f"{name}.npy")
            path, title = folder / f"{name}-{run.kind}.png", f"Reconstructions: {run.kind}"
            said = f"{what}; RMS: root mean square difference in grey levels"
            drawn.append(draw_reconstructions(images, shown, captions, path, title, said))
    return drawn


def read_pairs(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images, what a model made of them, and captions: id and root mean square difference (RMS) in grey levels.

    Args:
        path: (2, n, S, S) uint8, the ids beside it as JSON.

    Raises:
        UserError: a file is missing or cut, or they do not fit together.
    """
    try:
        images, shown = np.load(path, allow_pickle=False)
        ids = read_json(path.with_suffix(".json"))
        off = np.sqrt(((images.astype(float) - shown) ** 2).mean(axis=(1, 2)))
        return images, shown, [f"{name} RMS={rms:.1f}" for name, rms in zip(ids, off, strict=True)]
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: its reconstructions cannot be read ({error}); train again") from error


def draw_reconstructions(
    images: np.ndarray,
    reconstructed: np.ndarray,
    captions: Sequence[str],
    path: Path,
    title: str,
    subtitle: str | None = None,
) -> Path:
    """Draw pairs in columns: input, reconstruction, and the size of their difference.

    All differences share one color scale, so that columns can be compared.

    Args:
        images: (n, S, S) uint8, or floats in [0, 1].
        reconstructed: (n, S, S), the same.
        captions: n texts below the columns.
        path: PNG to write.
        title: above the sheet.
        subtitle: a fainter line below the title.

    Returns:
        `path`.

    Raises:
        ValueError: the three do not have the same length.
    """
    given, shown = style.grey_levels(images), style.grey_levels(reconstructed)
    if not len(given) == len(shown) == len(captions):
        raise ValueError(f"{len(given)} images, {len(shown)} reconstructions and {len(captions)} captions")
    difference = np.abs(given - shown)
    high = max(float(difference.max(initial=0)), 1.0)
    columns = max(min(_COLUMNS, len(given)), 4)
    block = 3 * (SIDE + _GAP) + _LINE * _MOST_CAPTION_LINES + _BETWEEN
    head = _MARGIN + style.heading_height(subtitle)
    width = _MARGIN + _LEFT + columns * (SIDE + _GAP) - _GAP + 116
    height = head + -(-max(len(given), 1) // columns) * block - _BETWEEN + _MARGIN
    strips = [given, shown, 255 * style.amount_colors()(difference / high)[..., :3]]
    with paper.picture(path, width, height) as figure:
        canvas = style.page(figure)
        _paste(canvas, strips, columns, head, block, (width, height))
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        _captions(canvas, captions, columns, head, block)
        right, top = _corner(min(len(given), columns), 2, columns + 1, head, block)
        bar = style.axes_at(figure, right, top, 14, SIDE)
        scale = ScalarMappable(Normalize(0, high), style.amount_colors())
        figure.colorbar(scale, cax=bar, label="grey levels").outline.set(visible=False)
    return path


def _corner(number: int, strip: int, columns: int, head: int, block: int) -> tuple[int, int]:
    """Left and top px of an image."""
    left = _MARGIN + _LEFT + number % columns * (SIDE + _GAP)
    return left, head + number // columns * block + strip * (SIDE + _GAP)


def _paste(canvas: Axes, strips: list[np.ndarray], columns: int, head: int, block: int, size: tuple[int, int]) -> None:
    """All images as one, px for px; enlarged without smoothing, which would flatter a reconstruction."""
    width, height = size
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    for strip, stack in enumerate(strips):
        for number, image in enumerate(np.rint(stack).astype(np.uint8)):
            left, top = _corner(number, strip, columns, head, block)
            large = Image.fromarray(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet[top : top + SIDE, left : left + SIDE] = np.asarray(large)
            canvas.add_patch(Rectangle((left, top), SIDE, SIDE, fill=False, lw=0.5, ec="#9a9a9a"))
    canvas.imshow(sheet, extent=(0, width, height, 0), interpolation="none", aspect="auto")


def _captions(canvas: Axes, captions: Sequence[str], columns: int, head: int, block: int) -> None:
    for first in range(0, len(captions), columns):
        for strip, name in enumerate(_ROWS):
            _, top = _corner(first, strip, columns, head, block)
            x, y = _MARGIN + _LEFT - 14, top + SIDE / 2
            canvas.text(x, y, name, fontsize=style.NORMAL, ha="right", va="center")
    for number, caption in enumerate(captions):
        left, top = _corner(number, 3, columns, head, block)
        lines = style.wrapped(caption, SIDE, style.SMALL, _MOST_CAPTION_LINES)
        for place, line in enumerate(lines):
            canvas.text(left, top + place * _LINE, line, fontsize=style.SMALL, color="#4a4a4a", va="top")


if __name__ == "__main__":
    entry(Redraw, main)
