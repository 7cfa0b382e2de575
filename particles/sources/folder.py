"""Any folder of crops: class subfolders become labels; loose crops and folders of samples are an unlabeled core.

Tables of FlowCam beside the crops that do not say which images their rows are of are listed, and not read.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from particles.names import parse_names, samples_of
from particles.sources.icelearning_images import Tree
from particles.sources.icelearning_tables import rejected_tables, tables_without_paths
from particles.sources.source import SUFFIXES, BadCrop
from particles.table import empty_rows
from provenance.errors import UserError

LARGEST_SIDE = 8192
"""px; no flow-cell particle is larger, and a hostile file must not fill the memory."""
DEPTHS = (8, 10, 12, 14)
"""Bits of cameras whose values are saved in 16-bit files; with the last, a quarter of the range is used."""
LOOKED_AT = 256
"""Crops at most whose brightest pixel is looked at before packing, spread evenly over the set."""
UNLABELED = frozenset({"core", "unlabeled", "unlabelled"})
"""Folders, in any case, that name no class either: what lies in them is searched."""
SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""Folders, in any case, that sort a set by what its particles are for: no classes, the classes lie in them."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Folder:
    """Crops below `root`; the first folder below it names the class, unless it is one of `UNLABELED` or a sample's.

    Names of samples are those of an ice core (`GRIP_3046_0_20_1`).

    Folders of `SPLITS` are passed over: `train/dust/a.png` is dust. Where both train and test hold labeled crops, they
    are the splits of these.
    """

    root: Path
    um_per_px: float | None = None
    size: int = 64
    oriented: bool = False
    bit_depth: int = 0
    """Bits that 16-bit files really hold; 0 for all 16."""

    def __post_init__(self) -> None:
        if self.bit_depth != 0 and not 8 <= self.bit_depth <= 16:
            raise UserError(f"--bit-depth {self.bit_depth}: give 8 to 16, or 0 for the full range of the files")

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.name

    @cached_property
    def lost_tables(self) -> list[str]:
        """Tables of FlowCam below `root` whose rows are of nobody knows which image, by their names below it."""
        return tables_without_paths(Tree(self.root.resolve()))

    def rows(self) -> pd.DataFrame:
        """One row for each image file, in the order of the paths; then a rejected one for each of `lost_tables`."""
        files = self._files()
        relative = [path.relative_to(self.root) for path in files]
        classes, splits = _classes_and_splits(relative)
        rows = empty_rows(len(files))
        rows["particle_id"] = _ids(relative)
        rows["image"] = [path.as_posix() for path in relative]
        rows["label"] = rows["truth"] = classes
        rows["role"] = np.where(classes.isna(), "core", "labeled")
        rows["split"] = splits
        if self.um_per_px is not None:
            rows["um_per_px"] = self.um_per_px
        rows = _placed(rows, pd.Series([path.stem for path in relative], dtype="string"))
        if not files or not self.lost_tables:
            return rows
        return pd.concat([rows, rejected_tables(self.lost_tables)], ignore_index=True)

    def read(self, row: Any) -> np.ndarray:
        """Decode one file to grey: (H, W) uint8."""
        return read_grey(self.root / row.image, self.bit_depth)

    def advice(self) -> str | None:
        """Which --bit-depth fits, where 16-bit crops leave more than three quarters of their range empty."""
        files = [] if self.bit_depth else self._files()
        looked_at = files[:: max(1, -(-len(files) // LOOKED_AT))]
        tops = [top for top in map(_brightest, looked_at) if top is not None]
        fitting = [depth for depth in DEPTHS if tops and max(tops) < 2**depth]
        if not fitting:
            return None
        return (
            f"{self.name}: the brightest pixel of its 16-bit crops ({len(tops)} looked at) is {max(tops):.0f} of "
            f"65535, so they come out nearly black: give --bit-depth {fitting[0]} if that is what the camera has"
        )

    def describe(self) -> dict[str, Any]:
        """Path, scale, what is not read, and a digest of every image file's name, size and time of change."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self._files():
            stat = path.stat()
            digest.update(f"{path.relative_to(self.root)}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
        return {
            "kind": "folder",
            "rules": 3,  # of what names say; by other ones the same files have other labels and ids
            "root": str(self.root),
            "um_per_px": self.um_per_px,
            "bit_depth": self.bit_depth,
            "files": digest.hexdigest(),
            "lost_tables": self.lost_tables,
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


def _classes_and_splits(relative: list[Path]) -> tuple[pd.Series, pd.Series]:
    """What the folders of each crop say: (N,) class, (N,) prescribed split, missing where they say nothing."""
    folders = [path.parts[:-1] for path in relative]
    splits = pd.Series([SPLITS.get(parts[0].casefold()) if parts else None for parts in folders], dtype="string")
    within = (parts[1:] if split else parts for parts, split in zip(folders, splits.notna(), strict=True))
    classes = pd.Series([parts[0] if parts else None for parts in within], dtype="string")
    classes = classes.mask(classes.str.casefold().isin(UNLABELED))
    classes = classes.mask(parse_names(classes)["core"].notna())  # a core sorted by sample is no labeled set
    splits = splits.mask(classes.isna())  # a core has none: all of it is searched, and learned from
    whole = {"train", "test"} <= set(splits.dropna())  # one of them alone leaves nothing to learn from, or to judge by
    return classes, splits if whole else splits.mask(splits.notna())


def _placed(rows: pd.DataFrame, stems: pd.Series) -> pd.DataFrame:
    """Rows whose file has the name of an ice-core particle know their sample and depth."""
    places = parse_names(stems)
    known = places["core"].notna()
    return rows.assign(sample=samples_of(stems).where(known), **places)


def _ids(relative: list[Path]) -> list[str]:
    """The file's stem, as with FlowCam names; where others have it too, its path, and in a pair that with its suffix.

    Each crop gets the shortest that tells it apart, so that a crop added changes the ids of its namesakes alone: marks
    and tables name particles by them.
    """
    names = np.array([(p.stem, p.with_suffix("").as_posix(), p.as_posix()) for p in relative], dtype=object)
    used = np.zeros(len(relative), dtype=np.int64)
    while True:
        ids = names.reshape(-1, 3)[np.arange(len(used)), used]
        again = pd.Series(ids).duplicated(keep=False).to_numpy() & (used < 2)
        if not again.any():  # paths are unique, and who shares one of them had a longer name to go to
            return ids.tolist()
        used[again] += 1


def read_grey(path: Path, bit_depth: int = 0) -> np.ndarray:
    """Read one image file as grey.

    Color is turned into luma (ITU-R 601), transparency is laid on white, 16-bit is scaled to 8-bit.

    Args:
        path: PNG, JPEG, TIFF or BMP.
        bit_depth: bits that files of a type wider than 8 bits hold; 0 for 16.

    Returns:
        (H, W) uint8.

    Raises:
        BadCrop: empty, broken, not an image, too large, or with pixels outside the range.
    """
    return _read(path, lambda image: as_grey(image, bit_depth))


def _read(path: Path, convert: Callable[[Image.Image], _T]) -> _T:
    """What `convert` makes of an image file; BadCrop where there is nothing to make it of."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if max(image.size) > LARGEST_SIDE:
                    raise BadCrop(f"{image.width} x {image.height} px, larger than {LARGEST_SIDE} px")
                return convert(image)
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


def as_grey(image: Image.Image, bit_depth: int = 0) -> np.ndarray:
    """An opened image as grey, converted as `read_grey` says: (H, W) uint8.

    Raises:
        BadCrop: pixels that are no number, or outside the range.
    """
    if _is_wide(image):
        return _eight_bit(np.asarray(image), bit_depth or 16)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return np.asarray(image.convert("L"))


def _is_wide(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _eight_bit(values: np.ndarray, bits: int) -> np.ndarray:
    """Grey of a wider type to 8-bit by the range of the type, not of the image: crops must stay comparable.

    What an image holds says nothing of its range: of a 12-bit camera, one crop may have no value above 255.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise BadCrop("has pixels that are no number")
    most = 2**bits - 1
    if values.max(initial=0.0) > most or values.min(initial=0.0) < 0:
        raise BadCrop(f"has pixels outside 0 to {most}" + (f", the range of --bit-depth {bits}" if bits < 16 else ""))
    return np.rint(values / (most / 255)).astype(np.uint8)


def _brightest(path: Path) -> float | None:
    """The largest value in a file of a type wider than 8 bits; None of other files and of what will be left out."""
    try:
        top = _read(path, lambda image: float(np.asarray(image).max(initial=0)) if _is_wide(image) else None)
    except BadCrop:
        return None
    return top if top is not None and 0 <= top <= 65535 else None
