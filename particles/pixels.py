"""Pixels: crop -> square uint8 image, and the memory-mapped store of packed images."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from provenance.errors import UserError
from provenance.files import replacing

Fit = Literal["keep", "squash", "native"]
FITS: tuple[str, ...] = get_args(Fit)

OPEN_SHARDS = 512
"""Shards that a store keeps open: each holds a file, of which a process may often have but 1024."""

MEAN_CORRECTED_BACKGROUND = 128
"""Grey level that mean correction puts every crop's background at: mid-grey leaves room on both sides."""


def fit_square(crop: np.ndarray, size: int, fit: Fit, background: float) -> tuple[np.ndarray, float]:
    """Put a crop into a square.

    Args:
        crop: (H, W) uint8.
        size: S in px.
        fit: `keep` scales the longer side to S and keeps the aspect ratio; `squash` stretches both sides to S, as
            ICELEARNING does; `native` keeps the true scale and shrinks only what is larger than S.
        background: grey level that fills what the crop leaves free.

    Returns:
        (S, S) uint8, and the scale in packed px per crop px (for `squash` across, as scale bars lie).
    """
    height, width = crop.shape
    scale = size / max(height, width)
    if fit == "squash":
        return _resized(crop, size, size), size / width
    if fit == "native":
        scale = min(1.0, scale)
    fitted = _resized(crop, max(1, round(height * scale)), max(1, round(width * scale)))
    square = np.full((size, size), round(background), dtype=np.uint8)
    top, left = (size - fitted.shape[0]) // 2, (size - fitted.shape[1]) // 2
    square[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return square, scale


def _resized(crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear; Pillow widens the kernel when it shrinks, so thin fibers do not alias away."""
    if crop.shape == (height, width):
        return crop
    return np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR))


def mean_corrected(crop: np.ndarray, background: float) -> np.ndarray:
    """Subtract the crop's background level and put it at mid-grey: (H, W) uint8 -> (H, W) uint8, clipped."""
    shifted = crop.astype(np.float32) - background + MEAN_CORRECTED_BACKGROUND
    return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


def write_shard(path: Path, pixels: np.ndarray) -> None:
    """Write (n, S, S) uint8 as one .npy file, whole or not at all."""
    with replacing(path) as beside:
        np.save(beside, pixels, allow_pickle=False)


def _opened(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        remedy = "delete the folder of its set and run again"
        raise UserError(f"{path}: packed pixels cannot be read ({error}); {remedy}") from error


class PixelStore:
    """Packed images in shards of (n, S, S) uint8, memory-mapped: only what is asked for is read."""

    def __init__(self, shards: Sequence[Path]) -> None:
        """Open shards in order.

        Args:
            shards: .npy files; row i of the store is row i of their concatenation.

        Raises:
            UserError: a file is missing or cut.
        """
        self.paths = tuple(shards)
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(_opened)
        self._starts = np.cumsum([0] + [len(self._shard(path)) for path in shards])

    def __reduce__(self) -> tuple[type["PixelStore"], tuple[tuple[Path, ...]]]:
        # another process maps the same files; numpy would send what is in them
        return PixelStore, (self.paths,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def size(self) -> int:
        """Side S in px."""
        return int(self._shard(self.paths[0]).shape[1])

    def __getitem__(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Gather rows in the order asked: (n,) int -> (n, S, S) uint8, a copy in memory."""
        wanted = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(wanted), self.size, self.size), dtype=np.uint8)
        shard_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            out[here] = self._shard(self.paths[shard])[wanted[here] - self._starts[shard]]
        return out
