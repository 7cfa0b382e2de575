"""The ICELEARNING data set (doi:10.5281/zenodo.7591282): FlowCam tables, and an image folder for each class or section.

What a table is of. One-hot columns behind `imgpaths` are classes and its rows labeled. Without them, a table that is
named like a class or like a folder beside it, or lies in the folder of a class, is of that class. Other tables, and
all without one-hot columns below `test/` or with GRIP or QCY names, are of the core.

`train.csv` merges the tables of the classes: of its rows only those count whose image no other labeled table has.
A particle that is labeled and also lies in the core (some of the contamination does) stays with its label.

The image paths in the tables are the author's own. An image is looked for in the folder below the root whose path
agrees with the end of the author's path for the most names.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from particles.names import parse_names, samples_of
from particles.scalars import SCALARS
from particles.sources.folder import read_grey
from particles.sources.icelearning_csv import CALIBRATION, PATHS, Block, blocks
from particles.sources.icelearning_images import (
    ABSENT,
    ABSENT_AGAIN,
    OUTSIDE,
    Seen,
    Tree,
    entries,
    hashes_of,
    is_inside,
    walk,
)
from particles.sources.icelearning_tables import (
    Listed,
    is_icelearning,
    labels_of,
    listed_tables,
    rejected_tables,
    tables_without_paths,
)
from particles.sources.source import SUFFIXES, BadCrop
from particles.table import REJECT, ROW_COLUMNS, empty_rows, rejected_rows
from provenance.errors import UserError

__all__ = ["IceLearning", "is_icelearning"]

UM_PER_PX = 0.2752
"""Of the 20x objective, where a table does not say (FlowCam's Calibration Factor)."""


@dataclass(frozen=True)
class IceLearning:
    """The record's folder, its parent, or any part of it that has tables."""

    root: Path
    um_per_px: float = UM_PER_PX
    size: int = 64
    oriented: bool = False

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.name

    def rows(self) -> Iterator[pd.DataFrame]:
        """Tables of classes, then `train.csv`, then those of the core, then images without a row.

        Raises:
            UserError: there is no table or nothing in any, or a table cannot be read.
        """
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder")
        tree = Tree(self.root.resolve())
        tables = listed_tables(tree)
        columns = [name for name in SCALARS if any(name in listed.table.columns for listed in tables)]
        seen, empty = Seen(), True
        for frame in (frame for frame in self._frames(tree, tables) if len(frame)):
            _refuse_known(frame, seen)
            empty = False
            whole = frame.reindex(columns=[*ROW_COLUMNS, *REJECT, *columns])
            yield whole.astype(REJECT | dict.fromkeys(columns, "Float64")).reset_index(drop=True)
        if empty:
            names = ", ".join(listed.table.name for listed in tables)
            raise UserError(f"{self.root}: {names} has no rows below its header; copy the data set again")

    def read(self, row: Any) -> np.ndarray:
        """Decode one image to grey: (H, W) uint8."""
        path = self.root / row.image
        try:
            if not is_inside(self.root.resolve(), path):
                raise BadCrop("its path leads out of the data folder")
            if not path.is_file():
                raise BadCrop(f"no such image: {row.image}")
        except (OSError, ValueError) as error:  # a name that is too long, a zero byte in it, a closed folder
            raise BadCrop(f"no such image: {row.image!r} ({error})") from error
        return read_grey(path)

    def describe(self) -> dict[str, Any]:
        """Path, scale, and a digest of every table's and image's name, size and time of change."""
        digest = hashlib.blake2b(digest_size=16)
        root = self.root.resolve()
        for parts, _, _ in walk(root):
            digest.update(f"{'/'.join(parts)}\n".encode(errors="replace"))
            digest.update("\n".join(sorted(_stated(root.joinpath(*parts)))).encode(errors="replace"))
        return {
            "kind": "icelearning",
            "root": str(self.root),
            "um_per_px": self.um_per_px,
            "files": digest.hexdigest(),
        }

    def _frames(self, tree: Tree, tables: list[Listed]) -> Iterator[pd.DataFrame]:
        for listed in tables:
            for block in blocks(listed.table):
                yield self._of_block(tree, tables, listed, block)
                yield rejected_rows(
                    [f"{listed.table.name}:{line}" for line in block.broken],
                    [listed.table.name] * len(block.broken),
                    list(block.broken.values()),
                    listed.role,
                )
        yield rejected_tables(tables_without_paths(tree))
        for parts in tree.folders():
            for names in tree.listing(parts).unclaimed():
                images = ["/".join((*parts, name)) for name in names]
                stems = [os.path.splitext(name)[0] for name in names]
                yield rejected_rows(stems, images, ["no row in any CSV"] * len(names), "core")

    def _of_block(self, tree: Tree, tables: list[Listed], listed: Listed, block: Block) -> pd.DataFrame:
        folders, files = _split(block.frame[PATHS])
        images, reject, before = _located(tree, listed, folders, files)
        for empty in np.flatnonzero(files == ""):
            reject[empty] = f"{listed.table.name}:{block.lines[empty]}: no image path"
        for row, reason in block.reasons.items():
            reject[row] = reject[row] or reason
        labels = labels_of(listed, block, reject)
        again = before > 0
        own = before == listed.number
        reject[own & again] = f"its image stands twice in {listed.table.name}"
        for number in np.unique(before[again & ~own]).tolist():
            reject[before == number] = f"its image stands in {tables[number - 1].table.name} too"
        frame = self._described(block, images, files, labels, listed.role).assign(reject=reject)
        others = [other.number for other in tables if other.role == "labeled" and other is not listed]
        return frame[~np.isin(before, [ABSENT_AGAIN, *others])] if listed.merges else frame

    def _described(
        self, block: Block, images: np.ndarray, files: pd.Series, labels: np.ndarray, role: str
    ) -> pd.DataFrame:
        rows = empty_rows(len(files))
        stems = files.str.replace(r"(?s)^(.+)\.[^.]*$", r"\1", regex=True)
        rows["particle_id"], rows["image"] = stems, images
        rows["label"] = rows["truth"] = pd.array(labels, dtype="string")
        rows["role"] = role
        rows["sample"] = samples_of(stems)
        for name, column in parse_names(stems).items():
            rows[name] = column
        numbers = {name: block.frame[name].to_numpy(dtype=float) for name in block.frame if name in SCALARS}
        scale = block.frame.get(CALIBRATION, pd.Series(np.nan, rows.index)).to_numpy(dtype=float)
        rows["um_per_px"] = np.where(np.isfinite(scale) & (scale > 0), scale, self.um_per_px)
        scalars = {name: np.where(np.isfinite(values), values, np.nan) for name, values in numbers.items()}
        return pd.concat([rows, pd.DataFrame(scalars, index=rows.index)], axis=1)


def _split(paths: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The author's paths -> folders with slashes, file names."""
    texts = pa.array(paths, type=pa.string(), from_pandas=True).fill_null("")
    slashed = pc.replace_substring(pc.utf8_trim_whitespace(texts), "\\", "/")
    folders = pc.replace_substring_regex(slashed, "[^/]*$", "")
    files = pc.replace_substring_regex(slashed, "(?s)^.*/", "")
    return pd.Series(folders.to_pandas(), dtype="string"), pd.Series(files.to_pandas(), dtype="string")


def _located(
    tree: Tree, listed: Listed, folders: pd.Series, files: pd.Series
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the images of a block are.

    Returns:
        (n,) paths below the root, (n,) reasons not to read them or None, (n,) what `Listing.claim` says.
    """
    images, reject = np.full(len(files), "", dtype=object), np.full(len(files), None, dtype=object)
    before, names = np.zeros(len(files), np.int64), files.to_numpy(dtype=object)
    for claimed, rows in folders.groupby(folders).indices.items():
        parts, reason = tree.folder_for(str(claimed), listed.parts)
        images[rows] = ["/".join((*parts, name)) for name in names[rows]]
        if reason:
            reject[rows] = reason
            continue
        before[rows] = tree.listing(parts).claim(names[rows], listed.number)
        for code, words in _REASONS.items():
            wrong = rows[before[rows] == code]
            reject[wrong] = [words.format(image) for image in images[wrong]]
    return images, reject, before


_REASONS = {
    ABSENT: "no such image: {}",
    ABSENT_AGAIN: "no such image: {}",
    OUTSIDE: "{} is a link out of the data folder",
}


def _refuse_known(frame: pd.DataFrame, seen: Seen) -> None:
    """Ids are unique in a set: of rows with one id, those after the first that can be used are refused."""
    free = np.flatnonzero(frame["reject"].isna())
    ids = frame["particle_id"].to_numpy(dtype=object)[free]
    again = seen.add(hashes_of(ids))
    frame.iloc[free[again], frame.columns.get_loc("reject")] = "a particle of this name was listed before"


def _stated(folder: Path) -> Iterator[str]:
    """A line for each file that can matter."""
    for entry in entries(folder):
        if os.path.splitext(entry.name)[1].lower() in SUFFIXES or entry.name.lower().endswith(".csv"):
            stat = entry.stat(follow_symlinks=False)
            yield f"{entry.name}|{stat.st_size}|{stat.st_mtime_ns}"
