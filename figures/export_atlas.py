"""A search -> `atlas.parquet`, which Embedding Atlas opens: map, neighbors, crops and all that is known."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from figures.export_rows import export_rows, named_clusters, vectors
from figures.report_results import Results
from provenance.errors import UserError
from provenance.files import replacing

NEIGHBORS = 15
BATCH = 2048  # crops encoded at a time: memory stays flat
_RENAMED = (":", "."), "_"
"""Column names become SQL names there: `vae:hdbscan_cluster` -> `vae_hdbscan_cluster`."""
SOURCE = "image_source"
"""What `image` of `export_rows` is called there, where `image` is the crop."""


def write_atlas(results: Results, latent: str, path: Path, most: int) -> Path:
    """Write `atlas.parquet`.

    Args:
        results: a finished search.
        latent: whose map is shown (`umap_x`, `umap_y`) and among whose vectors neighbors are looked for.
        path: the file.
        most: rows; of a larger core the strangest and a sample.

    Returns:
        `path`. Columns beside those of `export_rows`: `neighbors`, a struct of `ids` (row numbers of this file) and
        `distances` (Euclidean), nearest first, without the particle itself; `image`, a struct of `bytes` (PNG) and
        `path`, where the file in the source is `image_source`.

    Raises:
        UserError: the latent has no UMAP.
    """
    rows = export_rows(results, latent, most)
    if "umap_x" not in rows:
        raise UserError(f"{latent} has no map; run `python clustering/run.py --latent {latent}` and export again")
    ids = rows["particle_id"]
    near, far = nearest(vectors(results, latent, ids))
    flat = renamed(named_clusters(rows)).rename(columns={"image": SOURCE})
    positions = results.table["position"].reindex(ids).to_numpy(dtype=np.int64)
    with replacing(path) as beside:
        writer: pq.ParquetWriter | None = None
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            table = pa.Table.from_pandas(flat.iloc[part], preserve_index=False)
            table = table.append_column("neighbors", _neighbors(near[part], far[part]))
            # second, so that a card of the tool shows the crop before a hundred numbers
            table = table.add_column(1, "image", _images(results.particles.pixels[positions[part]], ids.iloc[part]))
            writer = writer or pq.ParquetWriter(beside, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return path


def nearest(z: np.ndarray, k: int = NEIGHBORS) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others of each vector, or as many as there are: (N, D) -> rows, distances, (N, k) each."""
    k = min(k, len(z) - 1)
    if k < 1:
        return np.zeros((len(z), 0), dtype=np.int64), np.zeros((len(z), 0))
    # without an argument a point is not its own neighbor
    distances, rows = NearestNeighbors(n_neighbors=k).fit(z).kneighbors()
    return rows, distances


def renamed(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns with names that need no quoting in SQL expressions."""
    marks, plain = _RENAMED
    return rows.rename(columns=lambda name: str(name).translate({ord(mark): plain for mark in marks}))


def _neighbors(rows: np.ndarray, distances: np.ndarray) -> pa.Array:
    kind = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float64()))])
    return pa.array(
        [{"ids": near.tolist(), "distances": far.tolist()} for near, far in zip(rows, distances, strict=True)], kind
    )


def _images(crops: np.ndarray, ids: pd.Series) -> pa.Array:
    """`path` is only a name: what comes after the last slash of an id cannot lead anywhere."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pairs = zip(crops, ids.astype(str), strict=True)
    return pa.array([{"bytes": png(crop), "path": f"{name.rpartition('/')[2]}.png"} for crop, name in pairs], kind)


def png(crop: np.ndarray) -> bytes:
    """(S, S) uint8 -> a PNG file."""
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "PNG", compress_level=6)
    return file.getvalue()
