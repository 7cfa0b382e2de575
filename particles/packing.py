"""Any source -> a packed set: table, square pixels, and the list of what was left out."""

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress, TaskID

from particles.pixels import Fit, fit_square, mean_corrected, write_shard
from particles.scalars import background_level, measure
from particles.sources.source import BadCrop, Source
from particles.table import MEASURED_COLUMNS, read_parquet, validated, write_parquet
from provenance.errors import UserError
from provenance.files import read_json, replacing, write_json
from provenance.progress import progress as progress_bar

SHARD_ROWS = 4096
"""Rows a shard: 16 MiB at 64 px, and at most this much work is lost when packing is killed."""
TASK_ROWS = 128
"""Rows a worker takes at a time; small enough that the progress bar moves."""


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
    """Measure the 34 FlowCam scalars on each crop."""


@dataclass(frozen=True)
class _Packed:
    """What a worker sends back for a slice of rows."""

    pixels: np.ndarray
    table: pd.DataFrame
    rejected: list[tuple[str, str, str]]


def pack_key(source: Source, settings: PackSettings) -> str:
    """Short digest of source and settings: the same data packed the same way has the same key."""
    text = json.dumps([source.describe(), asdict(settings)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def pack(source: Source, folder: Path, settings: PackSettings, say: Callable[[str], None] = print) -> None:
    """Pack `source` into `folder`; finished shards of an earlier, killed run are kept.

    Args:
        source: where rows and crops come from.
        folder: gets `table.parquet`, `pixels/`, `rejected.csv`, and last `set.json`.
        settings: size and fit.
        say: takes one-line messages.

    Raises:
        UserError: the source has no particles, or none that can be used.
    """
    key = pack_key(source, settings)
    _start_over_if_changed(folder, key)
    rows = validated(source.rows(), source.name)
    starts = range(0, len(rows), SHARD_ROWS)
    with progress_bar() as progress, _pool(len(rows)) as pool:
        bar = progress.add_task(f"packing {source.name}", total=len(rows))
        for number, start in enumerate(starts):
            part = rows.iloc[start : start + SHARD_ROWS]
            if not _shard_done(folder, number):
                _write_part(folder, number, _packed_parts(pool, source, part, settings, progress, bar))
            progress.update(bar, completed=start + len(part))
    _finish(folder, source, settings, key, len(starts), say)


def _packed_parts(
    pool: ProcessPoolExecutor | None,
    source: Source,
    part: pd.DataFrame,
    settings: PackSettings,
    progress: Progress,
    bar: TaskID,
) -> list[_Packed]:
    tasks = ((source, part.iloc[i : i + TASK_ROWS], settings) for i in range(0, len(part), TASK_ROWS))
    done = []
    for packed in _in_order(pool, tasks):
        done.append(packed)
        progress.advance(bar, len(packed.table) + len(packed.rejected))
    return done


def _in_order(pool: ProcessPoolExecutor | None, tasks: Iterator[tuple[Any, ...]]) -> Iterator[_Packed]:
    """Results in the order of the tasks, never more than a few tasks ahead, so that memory stays flat."""
    if pool is None:
        yield from (pack_slice(*task) for task in tasks)
        return
    ahead: deque[Future[_Packed]] = deque(pool.submit(pack_slice, *task) for task in islice(tasks, 8))
    while ahead:
        yield ahead.popleft().result()
        ahead.extend(pool.submit(pack_slice, *task) for task in islice(tasks, 1))


def pack_slice(source: Source, rows: pd.DataFrame, settings: PackSettings) -> _Packed:
    """Read, fit and measure a slice of rows; crops that cannot be used are listed with their reason."""
    size = settings.size or source.size
    kept, squares, measured, rejected = [], [], [], []
    for place, row in enumerate(rows.itertuples(index=False)):
        try:
            crop = _usable(source.read(row), settings.min_size)
        except BadCrop as reason:
            rejected.append((row.particle_id, row.image, str(reason)))
            continue
        square, values = _fitted(crop, row.um_per_px, size, settings)
        kept.append(place)
        squares.append(square)
        measured.append(values)
    pixels = np.stack(squares) if squares else np.empty((0, size, size), np.uint8)
    table = rows.iloc[kept].reset_index(drop=True)
    columns = pd.DataFrame(measured, columns=list(MEASURED_COLUMNS)).astype(MEASURED_COLUMNS)
    return _Packed(pixels, pd.concat([table, columns], axis=1), rejected)


def _usable(crop: np.ndarray, min_size: int) -> np.ndarray:
    height, width = crop.shape
    if min(height, width) < min_size:
        raise BadCrop(f"{width} x {height} px, smaller than {min_size} px")
    return crop


def _fitted(
    crop: np.ndarray, um_per_px: float | None, size: int, settings: PackSettings
) -> tuple[np.ndarray, dict[str, float]]:
    background = background_level(crop)
    scale_um = (
        1.0 if um_per_px is None or pd.isna(um_per_px) else float(um_per_px)
    )  # without a scale, scalars are in px
    values = measure(crop, scale_um) if settings.scalars else {}
    shown = mean_corrected(crop, background) if settings.mean_correction else crop
    square, scale = fit_square(shown, size, settings.fit, background_level(shown))
    height, width = crop.shape
    return square, {
        "width_px": width,
        "height_px": height,
        "scale": scale,
        "background": background,
        **values,
    }


def _write_part(folder: Path, number: int, parts: list[_Packed]) -> None:
    """Pixels first, table last: a part counts as done by its table."""
    write_shard(_shard_path(folder, number), np.concatenate([p.pixels for p in parts]))
    with replacing(folder / "parts" / f"{number:05d}.csv") as beside:
        _write_rejected(beside, [row for p in parts for row in p.rejected])
    write_parquet(pd.concat([p.table for p in parts], ignore_index=True), _part_path(folder, number))


def _finish(
    folder: Path, source: Source, settings: PackSettings, key: str, parts: int, say: Callable[[str], None]
) -> None:
    rejected = [row for n in range(parts) for row in _read_rejected(folder / "parts" / f"{n:05d}.csv")]
    with replacing(folder / "rejected.csv") as beside:
        _write_rejected(beside, rejected)
    table = pd.concat([read_parquet(_part_path(folder, n)) for n in range(parts)], ignore_index=True)
    if table.empty:
        raise UserError(
            f"{source.name}: none of its {len(rejected)} crops can be used; {folder / 'rejected.csv'} says why"
        )
    table = validated(table, source.name)
    write_parquet(table, folder / "table.parquet")
    write_json(
        folder / "set.json",
        {
            "name": source.name, "key": key, "source": source.describe(), "settings": asdict(settings),
            "size": settings.size or source.size, "oriented": source.oriented, "n": len(table),
            "rejected": len(rejected), "shards": parts, "fingerprint": _fingerprint(folder, table, parts),
        },
    )  # fmt: skip
    shutil.rmtree(folder / "parts")
    if rejected:
        say(f"{len(rejected)} of {len(table) + len(rejected)} crops left out, listed in {folder / 'rejected.csv'}")


def _fingerprint(folder: Path, table: pd.DataFrame, shards: int) -> str:
    """Digest of ids, labels and pixels: what a model can see of the set."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(table[["particle_id", "label", "role"]].to_csv(index=False).encode())
    for number in range(shards):
        with _shard_path(folder, number).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _start_over_if_changed(folder: Path, key: str) -> None:
    """Half a packing of other data or other settings is of no use to this one."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "packing.json"
    if mark.exists() and read_json(mark).get("key") == key:
        return
    for old in ("parts", "pixels"):
        shutil.rmtree(folder / old, ignore_errors=True)
    (folder / "set.json").unlink(missing_ok=True)
    write_json(mark, {"key": key})


def _shard_path(folder: Path, number: int) -> Path:
    return folder / "pixels" / f"{number:05d}.npy"


def _part_path(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:05d}.parquet"


def _shard_done(folder: Path, number: int) -> bool:
    return _part_path(folder, number).exists() and _shard_path(folder, number).exists()


def _write_rejected(path: Path, rows: list[tuple[str, str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("particle_id", "image", "reason"), *rows])


def _read_rejected(path: Path) -> list[tuple[str, str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row[0], row[1], row[2]) for row in list(csv.reader(file))[1:]]


class _pool:  # noqa: N801  (reads as a function where it is used)
    """A process pool, or None where starting processes would cost more than it brings."""

    def __init__(self, rows: int) -> None:
        workers = os.cpu_count() or 1
        # fork: workers start at once and share what is loaded; they run numpy and Pillow only, no torch threads
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        many = rows >= 4 * TASK_ROWS and workers > 1
        self._pool = ProcessPoolExecutor(workers, mp_context=context) if many else None

    def __enter__(self) -> ProcessPoolExecutor | None:
        return self._pool

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
