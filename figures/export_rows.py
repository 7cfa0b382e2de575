"""A finished search as one flat table: a row a particle, strangest first, for other tools to open."""

import numpy as np
import pandas as pd

from figures.explorer_runs import strangest_and_others
from figures.report_results import Results, latent_of
from particles.latents import read_latents
from particles.scalars import SCALARS
from particles.table import read_parquet
from provenance.errors import UserError

NOISE, NOISE_NAME = -1, "noise (-1)"
CLUSTER = "_cluster"
"""End of the names of columns with clusters: `vae:hdbscan_cluster`, beside the score `vae.hdbscan`."""
_OF_TABLE = (
    "image", "label", "truth", "is_outlier", "sample", "volume_ml", "core", "bag", "top_cm", "bottom_cm", "repeat",
    "um_per_px", "width_px", "height_px", *SCALARS,
)  # fmt: skip


def export_rows(results: Results, latent: str, most: int) -> pd.DataFrame:
    """Everything known of the core's particles, one plain value a cell.

    Args:
        results: a finished search.
        latent: whose map becomes `umap_x`, `umap_y` (and `tsne_x`, `tsne_y`); those of the others carry its name.
        most: of a larger core the strangest half of so many, and a seeded sample of the others.

    Returns:
        `particle_id`, `rank`, `score`, `p_value`, `known_as_strange`, `discovery`, `reasons`, `found_in` (where latents
        were compared), `predicted`, `confidence`, what the table says (`image`, the crop's file or key in
        the source; sizes, place, scalars; no empty columns),
        `<latent>:<method>_cluster` numbers (noise -1), `<view>.<score>` shares of the core that are less strange, maps.
    """
    ranked = strangest_and_others(results.ranked, most)
    ids = ranked["particle_id"]
    first = ["particle_id", "rank", "score", "p_value", "known_as_strange", "discovery", "reasons"]
    first += ["found_in"] if "found_in" in ranked else []
    table = results.table.reindex(ids).reset_index(drop=True)
    columns = {name: table[name] for name in _OF_TABLE if name in table and table[name].notna().any()}
    classified = results.predicted.reindex(ids).reset_index(drop=True)
    columns |= {name: classified[name] for name in ("predicted", "confidence") if classified.get(name) is not None}
    columns |= _clusters_and_maps(results, ids, latent)
    rarities = ranked.drop(columns=first)
    return pd.concat([ranked[first], pd.DataFrame(columns), rarities], axis=1)


def _clusters_and_maps(results: Results, ids: pd.Series, latent: str) -> dict[str, pd.Series]:
    columns: dict[str, pd.Series] = {}
    for run in results.clustered:
        name = latent_of(run)
        clusters = _of_ids(read_parquet(run.path / "clusters.parquet"), ids).drop(columns="fitted", errors="ignore")
        columns |= {f"{name}:{method}{CLUSTER}": clusters[method].astype("Int64") for method in clusters}
        maps = _of_ids(read_parquet(run.path / "maps.parquet"), ids)
        columns |= {column if name == latent else f"{name}:{column}": maps[column] for column in maps}
    return columns


def _of_ids(frame: pd.DataFrame, ids: pd.Series) -> pd.DataFrame:
    """Joined by id, never by position; missing where a particle was not clustered."""
    return frame.set_index("particle_id").reindex(ids).reset_index(drop=True)


def chosen_latent(results: Results, wanted: str | None) -> str:
    """The latent asked for; by default the classifier's, or without one the first there is.

    Raises:
        UserError: this search has no such latent.
    """
    there = [latent_of(run) for run in results.clustered]
    if wanted is None:
        return "classifier" if "classifier" in there else there[0]
    if wanted not in there:
        way_out = f"python clustering/run.py --latent {wanted}"
        raise UserError(f"--latent {wanted}: this ranking has {', '.join(there)}; cluster it with `{way_out}`")
    return wanted


def vectors(results: Results, latent: str, ids: pd.Series) -> np.ndarray:
    """Latents in the order of the ids: (N, D) float32.

    Raises:
        UserError: the latents of a particle are missing.
    """
    run = next(run for run in results.runs if run.kind == latent)
    z = read_latents(run.path).of(ids)
    lost = ids[np.isnan(z).any(axis=1)]
    if len(lost):
        raise UserError(
            f"{run.path / 'z.npy'}: has no vector of particle '{lost.iloc[0]}'; cluster with this run again"
        )
    return z


def named_clusters(rows: pd.DataFrame) -> pd.DataFrame:
    """Cluster numbers as names, because tools take numbers for amounts; noise is `noise (-1)`."""
    names = {
        name: rows[name]
        .map(lambda n: NOISE_NAME if n == NOISE else f"cluster {n}", na_action="ignore")
        .astype("string")
        for name in rows
        if str(name).endswith(CLUSTER)
    }
    return rows.assign(**names)
