"""Latents of a set of any size: part by part, on this machine or on a cluster, then all parts in one file.

A part is a slice of the set's rows and depends on them alone: a killed encoding goes on with the parts that are missing
and ends with the same bytes, whoever did which part.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from encoders.arithmetic import Precision, best_device
from encoders.encode import Encoder, encoded, index_of, one_thread
from particles.pixels import PixelStore
from particles.sets import ParticleSet
from particles.table import read_parquet, write_parquet
from provenance.engine import EngineSettings, Work, each_part
from provenance.files import replacing

PART_ROWS = 2048
"""Rows a part, some seconds of work on one core; batches are cut from the start of each part."""


@dataclass(frozen=True)
class Parts:
    """Where the parts of N rows lie. Plain values, because it travels to other processes and machines."""

    folder: Path
    n: int
    rows: int

    def __len__(self) -> int:
        return -(-self.n // self.rows)

    def slice(self, part: int) -> slice:
        """The rows of the set that a part is of."""
        return slice(part * self.rows, min((part + 1) * self.rows, self.n))

    def size(self, part: int) -> int:
        """How many they are."""
        rows = self.slice(part)
        return rows.stop - rows.start

    def done(self, part: int) -> bool:
        """Whether a part is there, whole; one that a full disk or a crash has cut is done again."""
        try:
            z, columns = self.z(part), pq.read_metadata(self._path(part, "parquet"))
        except (OSError, ValueError, EOFError, pa.ArrowException):
            return False
        return len(z) == columns.num_rows == self.size(part)

    def write(self, part: int, z: np.ndarray, columns: pd.DataFrame) -> None:
        """Both files whole or not at all; the vectors last."""
        write_parquet(columns, self._path(part, "parquet"))
        with replacing(self._path(part, "npy")) as beside:
            np.save(beside, z, allow_pickle=False)

    def z(self, part: int) -> np.ndarray:
        """The vectors of a part, memory-mapped: (n, D) float32."""
        return np.load(self._path(part, "npy"), mmap_mode="r", allow_pickle=False)

    def columns(self, part: int) -> pd.DataFrame:
        """What the model says of each row of a part beside its vector."""
        return read_parquet(self._path(part, "parquet"))

    @property
    def positions(self) -> Path:
        """File of (N,) int64: where each row's pixels lie in the store."""
        return self.folder / "positions.npy"

    def _path(self, part: int, suffix: str) -> Path:
        return self.folder / f"{part:05d}.{suffix}"


@dataclass(frozen=True)
class PartWorker:
    """What a worker is told: which files to open, and how to compute. Called, it opens them."""

    load: Callable[[], Encoder]
    shards: tuple[Path, ...]
    parts: Parts
    precision: Precision

    def __call__(self) -> Work:
        """Open model and pixels.

        Raises:
            UserError: one of the files is missing or cut.
        """
        encoder, pixels = self.load(), PixelStore(self.shards)
        encoder.model.to(best_device())
        positions = np.load(self.parts.positions, mmap_mode="r", allow_pickle=False)
        torch.backends.cudnn.deterministic = True  # the same bytes from every run on the same kind of device

        def work(part: int) -> int:
            rows = np.asarray(positions[self.parts.slice(part)])
            with one_thread():
                self.parts.write(part, *encoded(encoder, pixels, rows, self.precision))
            return len(rows)

        return work


def encode_in_parts(
    load: Callable[[], Encoder],
    particles: ParticleSet,
    folder: Path,
    part_rows: int,
    precision: Precision,
    where: EngineSettings,
    what: str,
) -> None:
    """Encode a set into `z.npy` and `index.parquet`, going on where an earlier call with the same arguments was killed.

    Args:
        load: opens the trained model; picklable.
        particles: whom to encode.
        folder: gets the latents.
        part_rows: rows a part.
        precision: `32` or `bf16`; `auto` would let each node decide for itself.
        where: who does the parts; decides no bit of the result, as long as the processors are alike.
        what: stands beside the progress bar.

    Raises:
        UserError: see `each_part`.
    """
    for left in (*folder.glob(".z.*"), *folder.glob(".index.*")):  # half a result of a killed call
        left.unlink()
    if not (folder / "z.npy").exists():
        parts = Parts(folder / "parts", len(particles.table), part_rows)
        with replacing(parts.positions) as beside:
            np.save(beside, particles.table["position"].to_numpy(dtype=np.int64), allow_pickle=False)
        worker = PartWorker(load, particles.pixels.paths, parts, precision)
        each_part([parts.size(part) for part in range(len(parts))], parts.done, worker, where, what, gpu=True)
        _join(parts, particles, folder)
    shutil.rmtree(folder / "parts", ignore_errors=True)


def _join(parts: Parts, particles: ParticleSet, folder: Path) -> None:
    """All parts as two files, a part at a time; z comes last, because its presence says that all is done."""
    index = index_of(particles)
    schema = _rows_of(index, parts, 0).schema
    with replacing(folder / "index.parquet") as beside, pq.ParquetWriter(beside, schema) as writer:
        for part in range(len(parts)):
            writer.write_table(_rows_of(index, parts, part))
    with replacing(folder / "z.npy") as beside:
        shape = (parts.n, parts.z(0).shape[1])
        z = np.lib.format.open_memmap(beside, mode="w+", dtype=np.float32, shape=shape)
        for part in range(len(parts)):
            z[parts.slice(part)] = parts.z(part)
        z.flush()


def _rows_of(index: pd.DataFrame, parts: Parts, part: int) -> pa.Table:
    rows = index.iloc[parts.slice(part)].reset_index(drop=True)
    return pa.Table.from_pandas(pd.concat([rows, parts.columns(part)], axis=1), preserve_index=False)
