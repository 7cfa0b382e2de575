"""The rows of a source, checked before hours of work begin, and kept in parts as they will be packed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from particles.sources.source import Source
from particles.table import read_parquet, refuse_duplicates, validated, write_parquet
from provenance.errors import UserError
from provenance.files import read_json, write_json
from provenance.progress import progress


def take_inventory(source: Source, folder: Path, part_rows: int) -> int:
    """Write the rows of a source as `00000.parquet` ... of `part_rows` rows each, unless that was done before.

    Rows are held a part at a time and 8 bytes of each id, so that memory hardly grows with their number.

    Args:
        source: where the rows come from.
        folder: gets the parts, and last `inventory.json`.
        part_rows: rows a part.

    Returns:
        How many rows there are.

    Raises:
        UserError: no rows, a row that is not valid, or two rows of one id.
    """
    done = folder / "inventory.json"
    if done.exists():
        return int(read_json(done)["rows"])
    hashes, total = [], 0
    with progress() as bars:
        bar = bars.add_task(f"listing {source.name}", total=None)
        for number, part in enumerate(_parts(source, part_rows)):
            hashes.append(_hashes(part))
            write_parquet(part, part_path(folder, number))
            total += len(part)
            bars.update(bar, completed=total)
        bars.update(bar, total=total)
    _refuse_duplicates(folder, hashes, source.name)
    write_json(done, {"rows": total})
    return total


def part_path(folder: Path, number: int) -> Path:
    """Where the rows of one part are."""
    return folder / f"{number:05d}.parquet"


def frames(source: Source) -> Iterator[pd.DataFrame]:
    """The validated rows of a source, frame by frame.

    Raises:
        UserError: there are none, or one is not valid.
    """
    rows = source.rows()
    given = [rows] if isinstance(rows, pd.DataFrame) else rows
    empty = True
    for frame in given:
        if len(frame):
            empty = False
            yield validated(frame, source.name)
    if empty:
        raise UserError(f"{source.name}: no particles found; give a folder with PNG, JPEG, TIFF or BMP crops")


def _parts(source: Source, part_rows: int) -> Iterator[pd.DataFrame]:
    """Frames of whatever length, regrouped."""
    rest: pd.DataFrame | None = None
    for frame in frames(source):
        rest = frame if rest is None else pd.concat([rest, frame], ignore_index=True)
        whole = len(rest) - len(rest) % part_rows
        for start in range(0, whole, part_rows):
            yield rest.iloc[start : start + part_rows]
        rest = rest.iloc[whole:]
    if rest is not None and len(rest):
        yield rest


def _refuse_duplicates(folder: Path, hashes: list[np.ndarray], where: str) -> None:
    every = np.sort(np.concatenate(hashes))
    twice = every[1:][every[1:] == every[:-1]]
    if not len(twice):
        return
    suspects = []  # equal hashes are not yet equal ids
    for number, of_part in enumerate(hashes):
        if np.isin(of_part, twice).any():
            part = _usable(read_parquet(part_path(folder, number)))
            suspects.append(part[np.isin(_hashes(part), twice)])
    refuse_duplicates(pd.concat(suspects, ignore_index=True), where)


def _usable(part: pd.DataFrame) -> pd.DataFrame:
    """Without the rows that are rejected already, which may share an id."""
    return part[part["reject"].isna()] if "reject" in part else part


def _hashes(part: pd.DataFrame) -> np.ndarray:
    """(n,) uint64 of the ids of the usable rows."""
    return pd.util.hash_array(_usable(part)["particle_id"].to_numpy(dtype=object))
