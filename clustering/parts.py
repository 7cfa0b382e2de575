"""What is found for each row by itself, slice by slice: in this process, or in parts on a Ray cluster.

Of a large core each slice is kept as a file until all is written, named by what it was found with: the same command
goes on where it was killed, and anything else starts anew.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from provenance.engine import EngineSettings, Work, each_part
from provenance.errors import UserError
from provenance.files import replacing
from provenance.run import code

Arrays = dict[str, np.ndarray]
Rows = Callable[[np.ndarray, slice], Arrays]
"""(n, D) vectors, and which slice of all rows they are -> arrays of n rows, by name."""

HERE = EngineSettings()
"""This process."""
SLICE = 50_000
"""Rows at once: memory has a bound, whatever the core's size. A part on a cluster is as long."""


@dataclass(frozen=True)
class Vectors:
    """The vectors of N rows of a latent, copied slice by slice only."""

    z: np.ndarray
    """(M, D), of more rows perhaps; may be memory-mapped."""
    rows: np.ndarray
    """(N,) which of them."""
    path: Path | None = None
    """The .npy file that z is, where another process is to find it; None where it is in no file."""
    folder: Path | None = None
    """Gets what is found until all is written; on a cluster all nodes see it. None keeps nothing."""
    kept: list[Path] = field(default_factory=list)
    """What is in it by now."""

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, chosen: np.ndarray | slice) -> "Vectors":
        """Some of the rows, by their places among the N."""
        return replace(self, rows=self.rows[chosen])

    def copied(self) -> np.ndarray:
        """(N, D) in memory."""
        return np.asarray(self.z[self.rows])

    def forget(self) -> None:
        """All is written: what was found for slices goes."""
        for folder in self.kept:
            shutil.rmtree(folder, ignore_errors=True)
        if self.folder is not None and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def in_memory(z: np.ndarray) -> Vectors:
    """All rows of an array."""
    return Vectors(z, np.arange(len(z)))


def over_rows(
    vectors: Vectors, make: Callable[[], Rows], where: EngineSettings, what: str, tick: Callable[[int], object] = int
) -> Arrays:
    """Find something for each row.

    Args:
        vectors: the rows.
        make: fits what finds it, once in each process; picklable.
        where: `local` is this process (its libraries use all cores); `ray` a cluster whose nodes share the work folder
            (rows of no file, or that keep nothing, are found here).
        what: stands beside the progress bar of a cluster.
        tick: told how many rows are done, in this process.

    Returns:
        By name (N, ...).

    Raises:
        UserError: see `each_part`.
    """
    slices = [slice(start, min(start + SLICE, len(vectors))) for start in range(0, len(vectors), SLICE)]
    if vectors.path is None or vectors.folder is None:
        find, found = make(), []
        for step in slices:
            found.append(find(vectors.at(step).copied(), step))
            tick(step.stop - step.start)
        return _joined(found)
    folder = (
        vectors.folder / f"{what.replace(' ', '-')}-{_digest((make, str(vectors.path), vectors.rows, SLICE, code()))}"
    )
    vectors.kept.append(folder)
    with replacing(folder / "rows.npy") as beside:
        np.save(beside, vectors.rows, allow_pickle=False)
    worker = _Worker(make, vectors.path, folder, tuple(slices))
    _find_missing(worker, where, what, tick)
    return _joined([_read(worker.part(part)) for part in range(len(slices))])


def _find_missing(worker: "_Worker", where: EngineSettings, what: str, tick: Callable[[int], object]) -> None:
    sizes = [step.stop - step.start for step in worker.slices]
    if where.engine == "ray":
        each_part(sizes, worker.done, worker, where, what)
        tick(sum(sizes))
        return
    missing = [part for part in range(len(sizes)) if not worker.done(part)]
    tick(sum(sizes) - sum(sizes[part] for part in missing))
    work = worker() if missing else int
    for part in missing:
        tick(work(part))


@dataclass(frozen=True)
class _Worker:
    """What a process of a cluster is told; called, it opens the vectors and fits what finds."""

    make: Callable[[], Rows]
    path: Path
    folder: Path
    slices: tuple[slice, ...]

    def part(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def done(self, number: int) -> bool:
        """Whether a part is there, whole; one that a full disk or a crash has cut is found again."""
        try:
            _read(self.part(number))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return False
        return True

    def __call__(self) -> Work:
        find, z = self.make(), _mapped(self.path)
        rows = np.load(self.folder / "rows.npy", mmap_mode="r", allow_pickle=False)

        def work(number: int) -> int:
            step = self.slices[number]
            found = find(np.asarray(z[rows[step]]), step)
            with replacing(self.part(number)) as beside:
                np.savez(beside, allow_pickle=False, **found)
            return step.stop - step.start

        return work


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: the latents cannot be read here ({error}); put them where all nodes see them under "
                        "the same path, and run it again") from error  # fmt: skip


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _digest(value: Any) -> str:
    """Of everything that decides what is found: equal values, equal text."""
    hashed = hashlib.sha256()
    _feed(value, hashed.update)
    return hashed.hexdigest()[:16]


def _feed(value: Any, update: Callable[[bytes], object]) -> None:
    if isinstance(value, np.ndarray):
        update(f"{value.dtype} {value.shape}".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, pd.Series):
        _feed(value.astype("string").fillna("").tolist(), update)
    elif is_dataclass(value) and not isinstance(value, type):
        update(type(value).__qualname__.encode())
        _feed({one.name: getattr(value, one.name) for one in fields(value)}, update)
    elif isinstance(value, Mapping):
        _feed([part for pair in value.items() for part in pair], update)
    elif isinstance(value, (list, tuple)):
        update(f"{len(value)} of".encode())
        for part in value:
            _feed(part, update)
    else:
        update(repr(value).encode() + b"\0")


def _joined(found: list[Arrays]) -> Arrays:
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]} if found else {}
