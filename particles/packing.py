"""Any source -> a packed set: table, square pixels, and the list of what was left out."""

import csv
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from particles.inventory import part_path, take_inventory
from particles.pixels import write_shard
from particles.scalars import SCALARS
from particles.sources.source import Advising, Source
from particles.squares import PackSettings, Squares, pack_slice
from particles.table import MEASURED_COLUMNS, ROW_COLUMNS, read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import read_json, replacing, write_json
from provenance.progress import listed
from provenance.progress import progress as progress_bar

_PARTICULAR = re.compile(r"'[^']*'|\S*[\d/]\S*")
"""What tells two reasons of one kind apart: a value, a line, the name of a crop."""
LAYOUT = 3
"""Version of what a packed set holds; a set of an older one is packed again."""
SHARD_ROWS = 4096
"""Rows a shard: 16 MiB at 64 px, and at most this much work is lost when packing is killed."""
TASK_ROWS = 256
"""Rows a worker takes at a time; small enough that the progress bar moves."""
_SCALARS_SAID = 10


class Task(NamedTuple):
    """Some rows of a part."""

    number: int  # of the part
    rows: pd.DataFrame
    last: bool  # whether they complete it


def pack_key(source: Source, settings: PackSettings) -> str:
    """Short digest of source and settings: the same data packed the same way has the same key."""
    text = json.dumps([LAYOUT, source.describe(), asdict(settings)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def pack(source: Source, folder: Path, settings: PackSettings, say: Callable[[str], None] = print) -> None:
    """Pack `source` into `folder`, unless that was done; finished shards of an earlier, killed run are kept.

    Args:
        source: where rows and crops come from.
        folder: gets `table.parquet`, `pixels/`, `rejected.csv`, and last `set.json`.
        settings: size and fit.
        say: takes one-line messages; the source's advice too.

    Raises:
        UserError: the source has no particles, or none that can be used.
    """
    key = pack_key(source, settings)
    done = folder / "set.json"
    if done.exists() and read_json(done).get("key") == key:
        say(f"{folder} holds this already: the source has not changed since it was packed")
        return
    _start_over_if_changed(folder, key)
    n = take_inventory(source, folder / "rows", SHARD_ROWS)
    if isinstance(source, Advising) and (advice := source.advice()):
        say(advice)  # before the work, which may take hours
    if settings.scalars and (absent := _not_brought(folder, settings)):
        say(f"not in the tables, measured from the pixels: {listed(absent, _SCALARS_SAID)}")
    shards = -(-n // SHARD_ROWS)
    missing = [number for number in range(shards) if not _shard_done(folder, number)]
    with progress_bar() as progress, ExitStack() as stack:
        bar = progress.add_task(f"packing {source.name}", total=n, completed=(shards - len(missing)) * SHARD_ROWS)
        pool = _workers(stack, min(n, len(missing) * SHARD_ROWS))
        results = _in_order(pool, source, settings, _tasks(folder, missing))
        slices = []
        for task, squares in results:
            slices.append((task.rows, squares))
            progress.advance(bar, len(task.rows))
            if task.last:  # written at once: what is packed is not to be lost to the next part's fault
                _write_part(folder, task.number, slices)
                slices = []
        progress.update(bar, completed=n)
    _finish(folder, source, settings, key, shards, say)


def _tasks(folder: Path, numbers: list[int]) -> Iterator[Task]:
    for number in numbers:
        part = read_parquet(part_path(folder / "rows", number))
        for start in range(0, len(part), TASK_ROWS):
            stop = start + TASK_ROWS
            yield Task(number, part.iloc[start:stop], last=stop >= len(part))


def _in_order(
    pool: ProcessPoolExecutor | None, source: Source, settings: PackSettings, tasks: Iterator[Task]
) -> Iterator[tuple[Task, Squares]]:
    """Results in the order of the tasks, never more than a few tasks ahead, so that memory stays flat."""
    if pool is None:
        yield from ((task, pack_slice(source, task.rows, settings)) for task in tasks)
        return
    ahead: deque[tuple[Task, Future[Squares]]] = deque()
    for task in tasks:
        ahead.append((task, pool.submit(pack_slice, source, task.rows, settings)))
        if len(ahead) >= 4 * (os.cpu_count() or 1):
            first, squares = ahead.popleft()
            yield first, squares.result()
    yield from ((task, squares.result()) for task, squares in ahead)


def _workers(stack: ExitStack, rows: int) -> ProcessPoolExecutor | None:
    """A process pool that ends with `stack`, or None where starting processes would cost more than it brings."""
    workers = os.cpu_count() or 1
    if workers == 1 or rows < 4 * TASK_ROWS:
        return None
    # fork: workers start at once and share what is loaded; they run numpy and Pillow only, no torch threads
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool


def _write_part(folder: Path, number: int, slices: list[tuple[pd.DataFrame, Squares]]) -> None:
    """Pixels first, table last: a part counts as done by its table."""
    write_shard(_shard_path(folder, number), np.concatenate([squares.pixels for _, squares in slices]))
    with replacing(folder / "parts" / f"{number:05d}.csv") as beside:
        _write_rejected(beside, [row for _, squares in slices for row in squares.rejected])
    write_parquet(_table_of(slices), _part_path(folder, number))


def _table_of(slices: list[tuple[pd.DataFrame, Squares]]) -> pd.DataFrame:
    """Rows that have pixels, with all columns of the schema in its order."""
    rows = pd.concat([rows.iloc[squares.kept] for rows, squares in slices], ignore_index=True)
    rows = rows.drop(columns=[name for name in slices[0][1].measured if name in rows])  # measured anew
    names = slices[0][1].measured
    measured = {name: np.concatenate([squares.measured[name] for _, squares in slices]) for name in names}
    whole = pd.concat([rows.drop(columns="reject", errors="ignore"), pd.DataFrame(measured)], axis=1)
    columns = ROW_COLUMNS | MEASURED_COLUMNS
    return whole.reindex(columns=list(columns)).astype(columns)


def _finish(
    folder: Path, source: Source, settings: PackSettings, key: str, parts: int, say: Callable[[str], None]
) -> None:
    rejected, why = _joined_rejected(folder, parts)
    n, in_um = _joined_table(folder, parts)
    if n == 0:
        raise UserError(
            f"{source.name}: none of its {rejected} crops can be used; {why}; each is in {folder / 'rejected.csv'}"
        )
    write_json(
        folder / "set.json",
        {
            "name": source.name, "key": key, "source": source.describe(), "settings": asdict(settings),
            "size": settings.size or source.size, "oriented": source.oriented, "n": n,
            "rejected": rejected, "shards": parts, "fingerprint": _fingerprint(folder, parts),
            "scalars_by": _measured_by(folder, settings), "in_um": in_um,
        },
    )  # fmt: skip
    for temporary in ("parts", "rows"):
        shutil.rmtree(folder / temporary)
    for place in (folder, folder / "pixels"):
        for stray in place.glob(".*.[0-9]*.*"):  # half a file, written beside its place when a packing was killed
            stray.unlink()
    if rejected:
        say(f"{rejected} of {n + rejected} crops left out, listed in {folder / 'rejected.csv'}; {why}")


def _measured_by(folder: Path, settings: PackSettings) -> str:
    """Who measured the scalars: `instrument` (they came with the rows), `pixels` (this program), or `nobody`."""
    if _brought(folder, settings):
        return "instrument"
    return "pixels" if settings.scalars else "nobody"


def _brought(folder: Path, settings: PackSettings) -> list[str]:
    """The scalars that came with the rows and are kept."""
    came = pq.read_schema(part_path(folder / "rows", 0)).names
    return [name for name in SCALARS if name in came] if settings.instrument_scalars else []


def _not_brought(folder: Path, settings: PackSettings) -> list[str]:
    """The scalars that did not come though others did: two ways of measuring stand side by side in such a set."""
    brought = _brought(folder, settings)
    return [name for name in SCALARS if name not in brought] if brought else []


def _joined_table(folder: Path, parts: int) -> tuple[int, bool]:
    """The parts' tables as one file, a row group a shard, so that it can be read shard by shard.

    Returns:
        Rows, and whether each of them has a scale.
    """
    rows, in_um = 0, True
    with replacing(folder / "table.parquet") as beside, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for number in range(parts):
            part: pa.Table = pq.read_table(_part_path(folder, number))
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(beside, part.schema))
            writer.write_table(part, row_group_size=SHARD_ROWS)
            rows += part.num_rows
            in_um &= part["um_per_px"].null_count == 0
    return rows, in_um


def _joined_rejected(folder: Path, parts: int) -> tuple[int, str]:
    """The parts' lists as one file.

    Returns:
        Rows, and the commonest reason in words.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    with replacing(folder / "rejected.csv") as beside:
        _write_rejected(beside, [])
        with beside.open("a", newline="", encoding="utf-8") as file:
            for number in range(parts):
                part = _read_rejected(folder / "parts" / f"{number:05d}.csv")
                csv.writer(file).writerows(part)
                kinds = [_PARTICULAR.sub("", reason) for _, _, reason in part]
                counts.update(kinds)
                for kind, (_, _, reason) in zip(kinds, part, strict=True):
                    first.setdefault(kind, reason)
    kind, times = counts.most_common(1)[0] if counts else ("", 0)
    return counts.total(), f"most often ({times}): {first.get(kind)}"


def _fingerprint(folder: Path, shards: int) -> str:
    """Digest of ids, labels, prescribed splits and pixels: what a model can see of the set, and which part of it."""
    digest = hashlib.blake2b(digest_size=8)
    for number in range(shards):
        part = pd.read_parquet(_part_path(folder, number), columns=["particle_id", "label", "role", "split"])
        if part["split"].isna().all():  # as before there were any, so that finished runs still know their data
            part = part.drop(columns="split")
        digest.update(part.to_csv(index=False, header=number == 0).encode())
    for number in range(shards):
        with _shard_path(folder, number).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _start_over_if_changed(folder: Path, key: str) -> None:
    """Half a packing of other data or other settings is of no use to this one."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "packing.json"
    if not mark.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds other files, which packing could overwrite; give a new or an empty folder")
    if mark.exists() and read_json(mark).get("key") == key:
        return
    for old in ("rows", "parts", "pixels"):
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
