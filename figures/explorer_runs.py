"""Runs -> what the explorer shows: the core with its scores, clusters, maps, scalars, neighbors and reconstructions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from figures.explorer_crops import SIDE, StoredCrops
from figures.explorer_data import Extras, Redrawn
from figures.explorer_missing import Missing, Opened
from figures.style import grey_levels
from particles.latents import read_latents
from particles.scalars import SCALARS
from particles.sets import ParticleSet
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json
from provenance.run import Run

MOST_EXPLORED = 150_000
"""Particles in one explorer; more would be more than a browser holds."""
NEIGHBORS = 10
"""Of each particle in each latent."""
_FEW = 20_000  # with more particles, neighbors are looked for among the leading components only
_COMPONENTS = 32
_OF_TABLE = (
    "image", "label", "truth", "core", "sample", "bag", "top_cm", "bottom_cm", "repeat", "volume_ml", *SCALARS,
)  # fmt: skip


def exploration(
    particles: ParticleSet, runs: Sequence[Run], clustered: Sequence[Run], ranked: pd.DataFrame, predicted: pd.Series,
    flags: str = "",
) -> tuple[pd.DataFrame, StoredCrops, Extras]:  # fmt: skip
    """What `write_explorer` wants, strangest first.

    Args:
        particles: the set.
        runs: training runs: neighbors and reconstructions.
        clustered: `clusters-<latent>` runs: maps and clusters.
        ranked: the consensus.
        predicted: class by id; empty where there is no classifier.
        flags: by which the set was opened, for the commands on the page.
    """
    shown = strangest_and_others(ranked).sort_values("rank", kind="stable", ignore_index=True)
    ids = shown["particle_id"]
    table = particles.table.set_index("particle_id").reindex(ids)
    columns = {name: table[name].to_numpy() for name in _OF_TABLE if name in table}
    if len(predicted):
        columns["predicted"] = predicted.reindex(ids).to_numpy()
    columns |= _sizes(table, particles.pixels.size) | _of_latents(clustered, ids)
    points = pd.concat([shown, pd.DataFrame(columns, index=shown.index)], axis=1)
    crops = StoredCrops(particles.pixels, table["position"].fillna(-1).to_numpy(dtype=np.int64))
    opened = Opened(flags, len(particles.classes))
    return points, crops, replace(_extras(particles, runs, ranked, ids, crops), opened=opened)


def strangest_and_others(ranked: pd.DataFrame, most: int = MOST_EXPLORED) -> pd.DataFrame:
    """All particles; of a large core the strangest half of what fits and a seeded sample of the others, by rank."""
    if len(ranked) <= most:
        return ranked
    strange = ranked["rank"] <= most // 2
    others = ranked[~strange].sample(most - int(strange.sum()), random_state=0)
    return ranked[strange | ranked.index.isin(others.index)].sort_values("rank", ignore_index=True)


def _sizes(table: pd.DataFrame, store_side: int) -> dict[str, np.ndarray]:
    """Size of each crop in µm, and µm a pixel of its thumbnail."""
    per_px = table["um_per_px"].to_numpy(dtype=float, na_value=np.nan)
    scale = table["scale"].to_numpy(dtype=float, na_value=np.nan) * min(SIDE, store_side) / store_side
    longest = table[["width_px", "height_px"]].max(axis=1).to_numpy(dtype=float, na_value=np.nan)
    return {"size_um": longest * per_px, "um_per_shown_px": per_px / scale}


def _of_latents(clustered: Sequence[Run], ids: pd.Series) -> dict[str, pd.Series | np.ndarray]:
    """Maps and clusters of each latent as `<latent>:<column>`; clusters stay whole numbers, missing where unknown."""
    found: dict[str, pd.Series | np.ndarray] = {}
    for run in clustered:
        latent = run.kind.removeprefix("clusters-")
        for name in ("maps", "clusters"):
            if not (run.path / f"{name}.parquet").exists():
                continue
            frame = read_parquet(run.path / f"{name}.parquet").set_index("particle_id").reindex(ids)
            frame = frame.drop(columns="fitted", errors="ignore")  # who was fitted is no group
            kind = "float64" if name == "maps" else "Int64"
            found |= {f"{latent}:{column}": frame[column].astype(kind).array for column in frame}
    return found


def _extras(
    particles: ParticleSet, runs: Sequence[Run], ranked: pd.DataFrame, ids: pd.Series, crops: StoredCrops
) -> Extras:
    missing = []
    neighbors = {}
    for run in runs:
        try:
            neighbors[run.kind] = nearest(read_latents(run.path).of(ids))
        except UserError as error:
            missing.append(Missing(f"neighbors ({run.kind})", str(error), ""))
    if crops.absent.any():
        why = f"{int(crops.absent.sum())} particles of the ranking are not in the store"
        missing.append(Missing("crops", why, "python clustering/run.py --latent all"))
    return Extras(
        neighbors=neighbors, redrawn={run.kind: redrawn for run in runs if (redrawn := _redrawn(run, ids))},
        absent=crops.absent, fingerprint=particles.fingerprint, total=len(ranked), missing=tuple(missing),
    )  # fmt: skip


def nearest(z: np.ndarray, k: int = NEIGHBORS, few: int = _FEW) -> np.ndarray:
    """The nearest others of each particle by Euclidean distance, nearest first.

    Args:
        z: (N, D), NaN where a particle has no vector.
        k: how many.
        few: more particles than this are compared in their 32 leading principal components, or it takes minutes.

    Returns:
        (N, k) rows, -1 where there are fewer.
    """
    found = np.full((len(z), k), -1, dtype=np.int64)
    known = np.flatnonzero(np.isfinite(z).all(axis=1))
    if len(known) < 2:
        return found
    vectors = z[known]
    if len(known) > few and z.shape[1] > _COMPONENTS:
        vectors = PCA(_COMPONENTS, svd_solver="covariance_eigh").fit_transform(vectors)
    most = min(k, len(known) - 1)
    # without an argument a point is not its own neighbor
    rows = NearestNeighbors(n_neighbors=most, algorithm="brute").fit(vectors).kneighbors(return_distance=False)
    found[known[:, None], np.arange(most)] = known[rows]
    return found


def _redrawn(run: Run, ids: pd.Series) -> Redrawn | None:
    """The reconstructions that a run kept, of those particles that are shown."""
    if not (run.path / "reconstructions.npy").exists():
        return None
    _, images = np.load(run.path / "reconstructions.npy", allow_pickle=False)
    rows = pd.Index(ids).get_indexer(read_json(run.path / "reconstructions.json"))
    if not (rows >= 0).any():
        return None
    return Redrawn(rows[rows >= 0], grey_levels(images[rows >= 0]).round().astype(np.uint8))
