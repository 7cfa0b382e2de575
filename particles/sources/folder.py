"""Any folder of crops: class subfolders become labels, crops that lie loose are an unlabeled core."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from particles.names import parse_names, samples_of
from particles.sources.source import BadCrop
from particles.table import empty_rows
from provenance.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
LARGEST_SIDE = 8192
"""px; no flow-cell particle is larger, and a hostile file must not fill the memory."""


@dataclass(frozen=True)
class Folder:
    """Crops below `root`; the first folder below it names the class."""

    root: Path
    um_per_px: float | None = None
    size: int = 64
    oriented: bool = False

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.name

    def rows(self) -> pd.DataFrame:
        """One row for each image file, in the order of the paths."""
        files = self._files()
        relative = [path.relative_to(self.root) for path in files]
        rows = empty_rows(len(files))
        rows["particle_id"] = _ids(relative)
        rows["image"] = [path.as_posix() for path in relative]
        classes = pd.Series([path.parts[0] if len(path.parts) > 1 else None for path in relative], dtype="string")
        rows["label"] = rows["truth"] = classes
        rows["role"] = np.where(classes.isna(), "core", "labeled")
        if self.um_per_px is not None:
            rows["um_per_px"] = self.um_per_px
        return _placed(rows, pd.Series([path.stem for path in relative], dtype="string"))

    def read(self, row: Any) -> np.ndarray:
        """Decode one file to grey: (H, W) uint8."""
        return read_grey(self.root / row.image)

    def describe(self) -> dict[str, Any]:
        """Path, scale, and a digest of every file's name, size and time of change."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self._files():
            stat = path.stat()
            digest.update(f"{path.relative_to(self.root)}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
        return {
            "kind": "folder",
            "root": str(self.root),
            "um_per_px": self.um_per_px,
            "files": digest.hexdigest(),
        }

    def _files(self) -> list[Path]:
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder")
        inside = self.root.resolve()
        found = (p for p in self.root.rglob("*") if p.suffix.lower() in SUFFIXES and not self._hidden(p))
        return sorted(p for p in found if p.is_file() and p.resolve().is_relative_to(inside))

    def _hidden(self, path: Path) -> bool:
        """Thumbnails and the like of other programs are no particles."""
        return any(part.startswith(".") for part in path.relative_to(self.root).parts)


def _placed(rows: pd.DataFrame, stems: pd.Series) -> pd.DataFrame:
    """Rows whose file has the name of an ice-core particle know their sample and depth."""
    places = parse_names(stems)
    known = places["core"].notna()
    return rows.assign(sample=samples_of(stems).where(known), **places)


def _ids(relative: list[Path]) -> list[str]:
    """The file's stem where it is unique in the set, as with FlowCam names; else the path without its suffix."""
    stems = [path.stem for path in relative]
    return stems if len(set(stems)) == len(stems) else [path.with_suffix("").as_posix() for path in relative]


def read_grey(path: Path) -> np.ndarray:
    """Read one image file as grey.

    Color is turned into luma (ITU-R 601), transparency is laid on white, 16-bit is scaled to 8-bit.

    Args:
        path: PNG, JPEG, TIFF or BMP.

    Returns:
        (H, W) uint8.

    Raises:
        BadCrop: empty, broken, not an image, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if max(image.size) > LARGEST_SIDE:
                    raise BadCrop(f"{image.width} x {image.height} px, larger than {LARGEST_SIDE} px")
                return as_grey(image)
    except UnidentifiedImageError as error:
        reason = "empty file" if path.stat().st_size == 0 else "not an image that can be read"
        raise BadCrop(reason) from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise BadCrop(f"does not decode: {error}") from error


def as_grey(image: Image.Image) -> np.ndarray:
    """An opened image as grey, converted as `read_grey` says: (H, W) uint8.

    Raises:
        BadCrop: pixels that are no number, or outside 0 to 65535.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bit(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return np.asarray(image.convert("L"))


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """16-bit (or wider) grey to 8-bit by the range of the type, not of the image: crops must stay comparable.

    Values that all fit into 8 bits are taken as they are: some programs save 8-bit grey in a wider type.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise BadCrop("has pixels that are no number")
    top = values.max(initial=0.0)
    divisor = 1.0 if top <= 255 else 257.0
    if top > 65535 or values.min(initial=0.0) < 0:
        raise BadCrop("has pixels outside 0 to 65535")
    return np.rint(values / divisor).astype(np.uint8)
