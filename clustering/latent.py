"""One latent -> groups, maps and scores of a core, in a `clusters-<latent>` run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clustering.consensus import consensus, ranks
from clustering.groups import NOISE, GroupSettings, dbscan, hdbscan_groups, kmeans
from clustering.kept import Kept, split_scores
from clustering.maps import MapSettings, tsne_map, umap_map
from clustering.metrics import best_cluster, group_metrics, outlier_metrics
from clustering.outliers import OutlierSettings, latent_scores
from clustering.parts import HERE, Arrays, Vectors
from clustering.placing import placed
from particles.latents import Latents
from particles.table import write_parquet
from provenance.engine import EngineSettings
from provenance.errors import UserError
from provenance.files import write_json
from provenance.run import Run

LEAST_FITTED = 100
"""Fewer say nothing about what is dense and what is not."""


@dataclass(frozen=True)
class ClusteringSettings:
    """How latents are grouped, mapped and scored."""

    drop_class: tuple[str, ...] = ()
    """Leave out what the classifier calls one of these (dust)."""
    fit_sample: int = 50_000
    """Of a larger core a sample of this size is mapped, grouped and compared with; the rest is placed among it."""
    groups: GroupSettings = field(default_factory=GroupSettings)
    """KMeans, DBSCAN, HDBSCAN."""
    maps: MapSettings = field(default_factory=MapSettings)
    """UMAP, t-SNE."""
    outliers: OutlierSettings = field(default_factory=OutlierSettings)
    """Outlier scores."""

    def __post_init__(self) -> None:
        if self.fit_sample < LEAST_FITTED:
            raise UserError(f"--fit-sample {self.fit_sample}: give at least {LEAST_FITTED}")


def cluster_latent(
    run: Run, latents: Latents, kept: Kept, n_classes: int, how: ClusteringSettings, seed: int,
    where: EngineSettings = HERE, parts: Path | None = None, tick: Callable[[int], object] = int,
) -> dict[str, Any]:  # fmt: skip
    """Group, map and score one latent into `run`'s folder.

    Args:
        run: gets clusters.parquet, maps.parquet, outliers.parquet, known.parquet, metrics.json.
        latents: of the whole set.
        kept: whom to look at.
        n_classes: default number of KMeans clusters.
        how: methods.
        seed: of every method.
        where: who places and scores a core that is not fitted whole.
        parts: folder where what was placed and scored of such a core is kept until all is written.
        tick: told how many particles were placed, and how many scored.

    Returns:
        The metrics.
    """
    is_core, is_known, is_reference = (
        latents.index["particle_id"].isin(ids).to_numpy() for ids in (kept.core, kept.known, kept.reference)
    )
    core, known, reference = (latents.where(rows) for rows in (is_core, is_known, is_reference))
    if len(core) == 0:
        raise UserError("no particle is in the core: give a larger set, a --core, or drop fewer classes")
    fitted = kept.is_fitted(core.index["particle_id"])
    vectors = Vectors(latents.z, np.flatnonzero(is_core), latents.path, None if fitted.all() else parts)
    groups, points, details = _on_the_map(vectors, fitted, n_classes, how, seed, where, tick)
    both = latent_scores(core, reference, how.outliers, seed, known, fitted, where, vectors, tick)
    scores, of_known = split_scores(both, len(core))
    scores.insert(0, "hdbscan", points.pop("glosh"))
    ids = core.index[["particle_id"]]
    axes = {f"{name}_{axis}": xy[:, i] for name, xy in points.items() for i, axis in enumerate("xy")}
    write_parquet(known.index[["particle_id"]].assign(**of_known), run.path / "known.parquet")
    write_parquet(ids.assign(**groups, fitted=fitted), run.path / "clusters.parquet")
    write_parquet(ids.assign(**axes), run.path / "maps.parquet")
    metrics = _metrics(core.index, groups, details, scores)
    metrics["fitted"], metrics["placed"] = int(fitted.sum()), int((~fitted).sum())
    latent = run.kind.removeprefix("clusters-")  # by its own name: what a score counts for depends on it
    combined = consensus({latent: pd.concat([ids, scores], axis=1)}, with_reasons=False)["score"].to_numpy()
    ranked = pd.concat([ids, scores], axis=1).assign(score=combined, rank=ranks(combined))
    metrics["outliers"]["combined"] = outlier_metrics(core.index["is_outlier"], combined)
    write_parquet(ranked, run.path / "outliers.parquet")
    write_json(run.path / "metrics.json", metrics)
    vectors.forget()
    return metrics


def _on_the_map(
    core: Vectors,
    fitted: np.ndarray,
    n_classes: int,
    how: ClusteringSettings,
    seed: int,
    where: EngineSettings,
    tick: Callable[[int], object],
) -> tuple[Arrays, Arrays, dict[str, dict[str, float]]]:
    """Labels by method; `umap`, `tsne` and `glosh`; and what was chosen on the way."""
    z = core.at(fitted).copied()
    xy = umap_map(z, how.maps, seed)
    groups, details = _groups(xy, n_classes, how.groups, seed)
    points = {"glosh": groups.pop("glosh"), "umap": xy}
    if how.maps.tsne:
        points["tsne"] = tsne_map(z, how.maps, seed)
    if not fitted.all():
        groups, points = placed(core, fitted, groups, points, where, tick)
    return groups, points, details


def _groups(
    xy: np.ndarray, n_classes: int, how: GroupSettings, seed: int
) -> tuple[Arrays, dict[str, dict[str, float]]]:
    """Labels of each method and `glosh`, all on the map that the user sees; and what was chosen on the way."""
    density, eps = dbscan(xy, how)
    tree = hdbscan_groups(xy, how)
    n = how.n_clusters or n_classes or max(2, len(np.unique(tree.labels[tree.labels != NOISE])))
    groups = {
        "kmeans": kmeans(xy, n, seed),
        "dbscan": density,
        "hdbscan": tree.labels,
        "glosh": tree.outlier_scores,
    }
    return groups, {"dbscan": {"eps": eps}}


def _metrics(
    index: pd.DataFrame, groups: Arrays, details: dict[str, dict[str, float]], scores: pd.DataFrame
) -> dict[str, Any]:
    by_method: dict[str, Any] = {
        name: group_metrics(index["truth"], labels) | details.get(name, {}) for name, labels in groups.items()
    }
    is_outlier = index["is_outlier"]
    by_method["outliers"] = {name: outlier_metrics(is_outlier, scores[name].to_numpy()) for name in scores}
    strange = sorted(index.loc[is_outlier.fillna(False).astype(bool), "truth"].dropna().unique())
    by_method["clusters"] = {name: best_cluster(index["truth"], groups["hdbscan"], name) for name in strange}
    return by_method
