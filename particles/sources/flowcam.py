"""A run folder as FlowCam's VisualSpreadsheet wrote it, or a folder of such runs: crops, masks, scalars, volumes."""

import hashlib
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from particles.names import parse_name
from particles.segment import particle_mask
from particles.sources.collage import Place, cut_box, flat_box, place_of
from particles.sources.folder import as_grey
from particles.sources.listing import instrument_scalars, looks_like_listing, read_listing
from particles.table import ROW_COLUMNS, empty_rows
from provenance.errors import UserError

DEEPEST = 2
"""Folders below the root in which runs are looked for."""
LONGEST_SUMMARY = 1 << 20  # characters
_BOX = ("image_x", "image_y", "image_w", "image_h", "src_x", "src_y", "cal_image")
_VOLUME = re.compile(r"Fluid Volume Imaged:\s*([0-9]+(?:[.,][0-9]+)?)\s*ml", re.IGNORECASE)


@dataclass(frozen=True)
class _Run:
    listing: Path
    name: str  # unique in the set


@dataclass(frozen=True)
class FlowCam:
    """Runs below `root`, cut from their collages.

    With `flat_field`, each grey crop is divided by the same box of the run's calibration image (the empty flow cell)
    and multiplied by that image's mean, rounded and clipped to 0-255.
    """

    root: Path
    flat_field: bool = False
    size: int = 64
    oriented: bool = False

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.name

    def rows(self) -> Iterator[pd.DataFrame]:
        """One row a particle with the instrument's own 34 scalars, run by run, some thousand rows a frame.

        Raises:
            UserError: no run here, or (while listing) a `.lst` that cannot be trusted.
        """
        runs = self._runs()
        return (frame for run in runs for frame in self._frames(run))

    def read(self, row: Any) -> np.ndarray:
        """One crop in grey, (H, W) uint8, the flat field taken out if asked; `row` needs only `image`.

        Raises:
            BadCrop: the collage or the calibration image is missing, broken, or smaller than the box.
        """
        grey = as_grey(Image.fromarray(self.cut(row)))
        return self._flattened(grey, place_of(row.image)) if self.flat_field else grey

    def cut(self, row: Any) -> np.ndarray:
        """The crop as stored in the collage, (H, W) or (H, W, 3), in the channel order of the exported crops."""
        place = place_of(row.image)
        return cut_box(self.root, place.file, place.box)

    def mask(self, row: Any) -> np.ndarray:
        """The instrument's own mask, (H, W) bool; `particle_mask` of the crop where the run has none."""
        place = place_of(row.image)
        stem, dot, suffix = place.file.rpartition(".")
        masks = f"{stem}_bin{dot}{suffix}"
        if not (self.root / masks).is_file():
            return particle_mask(self.read(row))
        return as_grey(Image.fromarray(cut_box(self.root, masks, place.box))) > 0

    def fringe_px(self, row: Any) -> float:
        """The run's fringe size in px: what the instrument took off lengths and diameters (`particles.scalars`)."""
        return place_of(row.image).fringe_px

    def describe(self) -> dict[str, Any]:
        """Path, flat field, and a digest of name, size and time of change of every file beside a listing."""
        digest = hashlib.blake2b(digest_size=16)
        for folder in sorted({run.listing.parent for run in self._runs()}):
            digest.update(f"{folder.relative_to(self.root).as_posix()}\n".encode())
            with os.scandir(folder) as entries:
                files = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
            for entry in files:
                if entry.is_file():
                    stat = entry.stat()
                    digest.update(f"{entry.name}|{stat.st_size}|{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return {
            "kind": "flowcam",
            "root": str(self.root),
            "flat_field": self.flat_field,
            "files": digest.hexdigest(),
        }

    def _runs(self) -> list[_Run]:
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder")
        listings = list(_listings(self.root))
        if not listings:
            raise UserError(f"{self.root}: no FlowCam run; give a folder with a .lst, at most {DEEPEST} folders deep")
        times = Counter(path.stem for path in listings)
        # Ids begin with the run: two runs of one name are told apart by their folders.
        where = [path.relative_to(self.root).with_suffix("").as_posix() for path in listings]
        for name in where:
            if not name.isprintable():  # a byte that is no UTF-8, a line end: it could stand in no table
                raise UserError(f"{self.root}: rename the listing {name!r}, whose path has characters that are no text")
        names = [path.stem if times[path.stem] == 1 else full for path, full in zip(listings, where, strict=True)]
        return [_Run(path, name) for path, name in zip(listings, names, strict=True)]

    def _frames(self, run: _Run) -> Iterator[pd.DataFrame]:
        known = {"role": "core", "sample": run.name, "volume_ml": _volume_ml(run.listing, self.root)}
        known |= parse_name(run.listing.stem)._asdict()
        shares = []
        for raw in read_listing(run.listing):
            rows = empty_rows(len(raw)).assign(**{name: value for name, value in known.items() if value is not None})
            rows["particle_id"] = _ids(run.name, raw)
            rows["image"] = _images(run.listing.relative_to(self.root), raw)
            rows["um_per_px"] = raw["cal_const"].where(raw["cal_const"] > 0)
            yield pd.concat([rows.astype(ROW_COLUMNS), instrument_scalars(raw), raw["reject"]], axis=1)
            shares.append(_share_of_pixels(raw[raw["reject"].isna()]))
        _warn_of_scale(run, shares)

    def _flattened(self, grey: np.ndarray, place: Place) -> np.ndarray:
        folder, slash, _ = place.file.rpartition("/")
        file = f"{folder}{slash}cal_image_{place.cal:06d}.tif"
        flat, mean = flat_box(self.root, file, (*place.src, *place.box[2:]))
        even = grey / np.maximum(flat, 1) * mean  # a dead pixel is 0
        return np.clip(np.rint(even), 0, 255).astype(np.uint8)


def is_flowcam(root: Path) -> bool:
    """Whether `root` or a folder up to two below it holds a listing that VisualSpreadsheet wrote."""
    return root.is_dir() and any(looks_like_listing(path) for path in _listings(root))


def _listings(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The `.lst` files in order of their paths; links are not followed, for they may lead elsewhere."""
    try:
        with os.scandir(folder) as entries:  # of millions of crops, only these are kept
            found = [e for e in entries if e.name.lower().endswith(".lst") or e.is_dir(follow_symlinks=False)]
    except PermissionError:
        warnings.warn(f"{folder}: may not be read, left out", stacklevel=2)
        return
    for entry in sorted(found, key=lambda e: e.name):
        if entry.name.startswith("."):
            continue
        if entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False) and depth < DEEPEST:
            yield from _listings(Path(entry.path), depth + 1)


def _volume_ml(listing: Path, root: Path) -> float | None:
    """`Fluid Volume Imaged` of the run's summary in mL; none without a summary, nor where it says 0."""
    summary = listing.with_name(f"{listing.stem}_run_summary.txt")
    if not summary.is_file() or not summary.resolve().is_relative_to(root.resolve()):
        return None
    with summary.open(encoding="latin-1") as file:
        found = _VOLUME.search(file.read(LONGEST_SUMMARY))
    return float(found[1].replace(",", ".")) or None if found else None


def _ids(run: str, raw: pd.DataFrame) -> list[str]:
    """As the instrument names exported crops; by the running number in listings older than the GUIDs."""
    given = zip(raw["image_id"], raw["id"], raw["line"], raw["reject"].isna(), strict=True)
    return [f"{run}_{guid or int(number)}" if usable else f"{run}_line_{line}" for guid, number, line, usable in given]


def _images(listing: Path, raw: pd.DataFrame) -> list[str]:
    """Keys of places in collages; for a row that is rejected, where it stands."""
    whole = raw[list(_BOX)].where(raw["reject"].isna(), 0).to_numpy(dtype=np.int64).tolist()
    fringe = raw["fringe_size"].clip(lower=0).fillna(0).tolist()
    rows = zip(raw["collage_file"], whole, fringe, raw["line"], raw["reject"].isna(), strict=True)
    return [
        Place((listing.parent / file).as_posix(), (x, y, w, h), (src_x, src_y), cal, fringe_px).key()
        if usable
        else f"{listing.as_posix()}#line{line}"
        for file, (x, y, w, h, src_x, src_y, cal), fringe_px, line, usable in rows
    ]


def _share_of_pixels(raw: pd.DataFrame) -> np.ndarray:
    """Area (ABD) over what pixel count, scale and fringe imply, (n,); NaN where undefined."""
    pixels = 2 * np.sqrt(raw["raw_area"].clip(lower=0).to_numpy() / math.pi)
    diameter = np.maximum(pixels - raw["fringe_size"].to_numpy(), pixels / 2) * raw["cal_const"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return raw["abd_area"].to_numpy() / (math.pi / 4 * diameter**2)


def _warn_of_scale(run: _Run, shares: list[np.ndarray]) -> None:
    share = np.concatenate([*shares, np.empty(0)])
    share = share[np.isfinite(share)]
    if share.size and np.mean(np.abs(share - 1) < 0.05) < 0.5:
        warnings.warn(
            f"{run.name}: Area (ABD) is {np.median(share):.2f} times what pixel count, scale and fringe size say; "
            f"check the calibration of {run.listing.name}",
            stacklevel=2,
        )
