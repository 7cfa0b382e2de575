"""Pictures within the report: PNG as base64, made smaller until the whole file can be mailed."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from provenance.errors import UserError

BUDGET = 10_500_000
"""Bytes of all pictures together: 14 MB as base64, so that with its text the report stays below 15 MB."""
_WIDTHS = (1600, 1200, 900, 700)
_PALETTE = 64  # colors of the last resort

CAPTIONS = {
    "maps-": (
        "Maps of the latent {}",
        "UMAP and t-SNE of the core, by class, by cluster, by outlier score.",
    ),
    "agreement": (
        "Do the latents agree?",
        "Rankings, groups and neighborhoods of the latents compared, and which latents find the strangest particles.",
    ),
    "curves-": ("Training of {}", "Learning curves by epoch, of training and validation particles."),
    "reconstructions-best-": (
        "Best reconstructions by {}",
        "Crops that the model redraws best, and what it redraws of them.",
    ),
    "reconstructions-worst-": (
        "Worst reconstructions by {}",
        "Crops that the model redraws worst, and what it redraws of them.",
    ),
    "reconstructions-": ("Reconstructions by {}", "Crops of validation particles, and what the model redraws of them."),
    "confusion": ("Confusion of the classifier", "Counts of true against predicted classes, on the test split."),
    "profile": ("Down the core", "Classes, concentrations and outliers in each sample, with counting errors."),
}
"""Start of a file name -> heading and what there is to see. Other pictures (galleries) are not embedded."""


@dataclass(frozen=True)
class Picture:
    """A picture within the page."""

    name: str
    """Of its file."""
    of: str
    """The latent or model that it is of; empty where it is of none."""
    title: str
    alt: str
    uri: str
    width: int
    height: int

    @property
    def kind(self) -> str:
        """The start of its file name, a key of `CAPTIONS`."""
        return next(start for start in CAPTIONS if self.name.startswith(start))


def embedded(paths: Sequence[Path], budget: int = BUDGET) -> list[Picture]:
    """Pictures of the kinds that belong into a report, as large as the budget allows.

    Args:
        paths: PNG files; those of other kinds are left out.
        budget: bytes that all of them together may take, before base64.

    Raises:
        UserError: a file cannot be read as an image.
    """
    wanted = [path for path in paths if path.suffix == ".png" and any(map(path.name.startswith, CAPTIONS))]
    coded: list[bytes] = []
    for width, colors in [*((width, 0) for width in _WIDTHS), (_WIDTHS[-1], _PALETTE)]:
        coded = [_coded(path, width, colors) for path in wanted]
        if sum(map(len, coded)) <= budget:
            break
    kept, used = [], 0
    for path, data in zip(wanted, coded, strict=True):
        used += len(data)
        if used <= budget:  # what does not even fit at its smallest stays a file
            kept.append(_picture(path, data))
    return kept


def _picture(path: Path, data: bytes) -> Picture:
    start, (title, alt) = next(one for one in CAPTIONS.items() if path.name.startswith(one[0]))
    of = path.stem.removeprefix(start)
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return Picture(path.name, of, title.format(of), alt, png_uri(data), width, height)


def _coded(path: Path, most: int, colors: int) -> bytes:
    """A file as it is, or resized to at most `most` px width, or with so many colors."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.width <= most and not colors:
                return data
            shown = image.convert("RGB")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); draw it again") from error
    if shown.width > most:
        height = max(1, round(shown.height * most / shown.width))
        shown = shown.resize((most, height), Image.Resampling.LANCZOS)
    if colors:
        shown = shown.quantize(colors)
    return _png(shown)


def crop_uri(image: np.ndarray) -> str:
    """A packed crop, (S, S) uint8, px for px."""
    return png_uri(_png(Image.fromarray(image)))


def png_uri(data: bytes) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
