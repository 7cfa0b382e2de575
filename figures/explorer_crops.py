"""Crops for the explorer: many thumbnails on few sheets, which a browser decodes one at a time as they are needed."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from particles.pixels import PixelStore

SIDE = 64
"""Thumbnails larger than this are made this small, px."""
ACROSS = 16
"""Thumbnails in a row of a sheet, and rows of a sheet: 1,024 px squares, decoded in a few milliseconds."""
MOST_LOSSLESS = 4_000
"""More thumbnails than this are kept as JPEG: lossless they would take three times the room."""
QUALITY = 90
"""Of the JPEG sheets; crops then differ from the store by less than one grey level on average."""
_BLOCK = 8  # px: JPEG's own grid; a thumbnail that fills whole blocks does not bleed into its neighbor


class Crops(Protocol):
    """Square crops by row: an array (N, S, S) uint8 is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int -> (n, S, S) uint8."""


@dataclass(frozen=True)
class StoredCrops:
    """Crops that stay in a pixel store until a sheet wants them; where `positions` is negative there is none."""

    store: PixelStore
    positions: np.ndarray
    """(N,) int64, places in the store."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def absent(self) -> np.ndarray:
        """(N,) bool: particles without a crop."""
        return np.asarray((self.positions < 0) | (self.positions >= len(self.store)))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int -> (n, S, S) uint8; black where there is no crop."""
        absent, found = self.absent[rows], self.positions[rows]
        out = np.zeros((len(found), self.store.size, self.store.size), dtype=np.uint8)
        out[~absent] = self.store[found[~absent]]
        return out


@dataclass(frozen=True)
class Layout:
    """How thumbnails lie on their sheets."""

    count: int
    side: int
    """Of a thumbnail, px."""
    lossless: bool

    @property
    def cell(self) -> int:
        """Px from one thumbnail to the next."""
        return self.side if self.lossless else -(-self.side // _BLOCK) * _BLOCK

    @property
    def suffix(self) -> str:
        """`png` or `jpg`."""
        return "png" if self.lossless else "jpg"

    @property
    def sheets(self) -> int:
        """How many there are."""
        return -(-self.count // ACROSS**2)

    def described(self) -> dict[str, Any]:
        """What the page needs to find a thumbnail."""
        kind = "lossless PNG" if self.lossless else f"JPEG, quality {QUALITY}"
        return {"side": self.side, "cell": self.cell, "across": ACROSS, "sheets": self.sheets, "kind": kind,
                "suffix": self.suffix, "type": "image/png" if self.lossless else "image/jpeg"}  # fmt: skip


def layout_of(crops: Crops) -> Layout:
    """The layout for so many crops of that size."""
    side = min(SIDE, crops[np.arange(1)].shape[1]) if len(crops) else SIDE
    return Layout(len(crops), side, len(crops) <= MOST_LOSSLESS)


def sheets_of(crops: Crops, layout: Layout) -> Iterator[bytes]:
    """Thumbnails in reading order on sheets of 16 x 16, the last shorter; one sheet at a time is in memory.

    Yields:
        PNG files, or above 4,000 crops JPEG files.
    """
    for start in range(0, layout.count, ACROSS**2):
        rows = np.arange(start, min(start + ACROSS**2, layout.count))
        small = shrunk(crops[rows], layout.side)
        gap = layout.cell - layout.side
        yield _encoded(tiled(np.pad(small, ((0, 0), (0, gap), (0, gap)), mode="edge")), layout.lossless)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """(n, S, S) uint8 -> (n, side, side) uint8, each pixel the mean of those it covers."""
    if images.shape[1] == side:
        return images
    resized = [Image.fromarray(image).resize((side, side), Image.Resampling.BOX) for image in images]
    return np.array([np.asarray(image) for image in resized], dtype=np.uint8).reshape(-1, side, side)


def tiled(images: np.ndarray) -> np.ndarray:
    """(n, S, S) -> one sheet of 16 across, black where there are no more."""
    rows, side = -(-len(images) // ACROSS), images.shape[1]
    full = np.zeros((rows * ACROSS, side, side), dtype=np.uint8)
    full[: len(images)] = images
    return full.reshape(rows, ACROSS, side, side).swapaxes(1, 2).reshape(rows * side, ACROSS * side)


def _encoded(sheet: np.ndarray, lossless: bool) -> bytes:
    file = io.BytesIO()
    if lossless:
        Image.fromarray(sheet).save(file, "PNG", compress_level=3)
    else:
        Image.fromarray(sheet).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
