"""A slice of rows -> squares and measures; what each worker process of a packing does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from particles.pixels import Fit, fit_square, mean_corrected
from particles.scalars import SCALARS, background_level, measure
from particles.sources.source import BadCrop, Masked, Source
from provenance.errors import UserError

GEOMETRY = ("width_px", "height_px", "scale", "background")
"""What is always measured on a crop; the scalars follow where the source does not bring them."""


_LEAST_SIZE = 8
"""Below it nothing is left to see."""


@dataclass(frozen=True)
class PackSettings:
    """How crops become squares."""

    size: int | None = None
    """Side S in px; default 64 for particles, 28 for MNIST, 32 for digits."""
    fit: Fit = "keep"
    """keep: aspect ratio kept, filled with the crop's own background; squash: as ICELEARNING; native: true scale."""
    mean_correction: bool = False
    """Subtract each crop's background level (put at mid-grey 128)."""
    min_size: int = 2
    """Leave out crops with a side under this many px; the Peruvian recipe takes 15."""
    scalars: bool = True
    """Measure the FlowCam scalars that the source does not bring."""
    instrument_scalars: bool = True
    """Keep the scalars that the source brings; --no-instrument-scalars measures all from the pixels, without masks and
    fringe, so that they compare with those of crops that came without."""

    def __post_init__(self) -> None:
        for name, least in (("size", _LEAST_SIZE), ("min_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} {value}: give at least {least} px")


@dataclass(frozen=True)
class Squares:
    """What a worker sends back for a slice of rows."""

    pixels: np.ndarray  # (n, S, S) uint8
    kept: np.ndarray  # (n,) places in the slice
    measured: dict[str, np.ndarray]  # (n,) float64 each
    rejected: list[tuple[str, str, str]]  # id, image, reason


def pack_slice(source: Source, rows: pd.DataFrame, settings: PackSettings) -> Squares:
    """Read, fit and measure a slice of rows; crops that cannot be used are listed with their reason."""
    size = settings.size or source.size
    if not settings.instrument_scalars:
        rows = rows.drop(columns=[name for name in SCALARS if name in rows.columns])
    missing = [name for name in SCALARS if name not in rows.columns] if settings.scalars else []
    kept, squares, measured, rejected = [], [], [], []
    for place, row in enumerate(rows.itertuples(index=False)):
        try:
            crop = _usable(source, row, settings.min_size)
        except BadCrop as reason:
            rejected.append((row.particle_id, row.image, str(reason)))
            continue
        square, geometry = _fitted(crop, size, settings)
        kept.append(place)
        squares.append(square)
        measured.append(geometry + _scalars(source, row, crop, missing, settings.instrument_scalars))
    values = np.array(measured, dtype=np.float64).reshape(len(kept), len(GEOMETRY) + len(missing))
    return Squares(
        pixels=np.stack(squares) if squares else np.empty((0, size, size), np.uint8),
        kept=np.array(kept, dtype=np.int64),
        measured=dict(zip([*GEOMETRY, *missing], values.T, strict=True)),
        rejected=rejected,
    )


def _usable(source: Source, row: Any, min_size: int) -> np.ndarray:
    if not pd.isna(getattr(row, "reject", None)):
        raise BadCrop(row.reject)
    crop = source.read(row)
    height, width = crop.shape
    if min(height, width) < min_size:
        raise BadCrop(f"{width} x {height} px, smaller than {min_size} px")
    return crop


def _fitted(crop: np.ndarray, size: int, settings: PackSettings) -> tuple[np.ndarray, list[float]]:
    background = background_level(crop)
    shown = mean_corrected(crop, background) if settings.mean_correction else crop
    fill = background_level(shown) if settings.mean_correction else background
    square, scale = fit_square(shown, size, settings.fit, fill)
    height, width = crop.shape
    return square, [width, height, scale, background]


def _scalars(source: Source, row: Any, crop: np.ndarray, names: list[str], with_mask: bool) -> list[float]:
    if not names:
        return []
    um_per_px = 1.0 if pd.isna(row.um_per_px) else float(row.um_per_px)  # without a scale, scalars are in px
    mask, fringe_px = None, 0.0
    if with_mask and isinstance(source, Masked):
        mask, fringe_px = source.mask(row), source.fringe_px(row)
    values = measure(crop, um_per_px, mask, fringe_px)
    return [values[name] for name in names]
