"""Latents: one vector a particle, with the index that says whose it is. numpy and pandas only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from particles.table import read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import replacing

INDEX_COLUMNS = ("particle_id", "label", "truth", "role", "split", "is_outlier")


@dataclass(frozen=True)
class Latents:
    """`z` (N, D) float32 and `index` (N rows, same order): ids, labels, splits and per-row losses."""

    z: np.ndarray
    index: pd.DataFrame
    path: Path | None = None
    """The file that z is mapped from, whole; None where it is in memory."""

    def __post_init__(self) -> None:
        if len(self.z) != len(self.index):
            raise ValueError(f"{len(self.z)} vectors but {len(self.index)} index rows")

    def __len__(self) -> int:
        return len(self.index)

    def where(self, mask: np.ndarray | pd.Series) -> "Latents":
        """The rows that a boolean mask keeps."""
        keep = np.asarray(mask, dtype=bool)
        return Latents(np.asarray(self.z[keep]), self.index[keep].reset_index(drop=True))

    def of(self, ids: pd.Series | pd.Index) -> np.ndarray:
        """Vectors in the order of some ids: (n, D) float32, NaN of one that has none."""
        rows = pd.Index(self.index["particle_id"]).get_indexer(ids)
        z = np.full((len(ids), self.z.shape[1]), np.nan, dtype=np.float32)
        z[rows >= 0] = self.z[rows[rows >= 0]]
        return z

    def write(self, folder: Path) -> None:
        """Write `z.npy` and `index.parquet`; z last, because its presence says that both are there."""
        write_parquet(self.index, folder / "index.parquet")
        with replacing(folder / "z.npy") as beside:
            np.save(beside, self.z.astype(np.float32, copy=False), allow_pickle=False)


def read_latents(folder: Path) -> Latents:
    """Open the latents of a run, memory-mapped.

    Raises:
        UserError: a file is missing or cut, or the two do not fit together.
    """
    try:
        z = np.load(folder / "z.npy", mmap_mode="r", allow_pickle=False)
        return Latents(z, read_parquet(folder / "index.parquet"), folder / "z.npy")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder}: its latents cannot be read ({error}); train or encode again") from error
