"""Cluster, map and score the latents of a core: `python clustering/run.py --latent vae`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from clustering.groups import GroupSettings, dbscan, hdbscan_groups, kmeans
from clustering.maps import MapSettings, tsne_map, umap_map
from clustering.metrics import best_cluster, group_metrics, outlier_metrics
from clustering.outliers import OutlierSettings, consensus, latent_scores, ranks
from particles.latents import Latents, read_latents
from particles.measures import has_scalars, normalized_scalars
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import write_json
from provenance.progress import progress, show_table
from provenance.run import LATENTS, Run, RunSettings, find, started
from provenance.settings import entry


@dataclass(frozen=True)
class ClusteringSettings:
    """How latents are grouped, mapped and scored."""

    drop_class: tuple[str, ...] = ()
    """Leave out what the classifier calls one of these (dust)."""
    groups: GroupSettings = field(default_factory=GroupSettings)
    """KMeans, DBSCAN, HDBSCAN."""
    maps: MapSettings = field(default_factory=MapSettings)
    """UMAP, t-SNE."""
    outliers: OutlierSettings = field(default_factory=OutlierSettings)
    """Outlier scores."""


@dataclass(frozen=True)
class Settings:
    """Cluster, map and score the latents of a core."""

    latent: str = "vae"
    """classifier, ae, vae, planar-vae or all: the newest finished run on this data; <latent>/<id> pins one."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    clustering: ClusteringSettings = field(default_factory=ClusteringSettings)
    """How."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Cluster, map and score the latents of a core."""
    particles = open_set(settings.data, settings.common)
    runs = find_latents(settings.latent, particles, settings.common)
    run_clustering(particles, runs, settings, settings.clustering, settings.common)
    print(f"pictures: python figures/draw.py --data {settings.data.data}")


def find_latents(latent: str, particles: ParticleSet, common: RunSettings) -> list[Run]:
    """The runs that hold the latents asked for.

    Raises:
        UserError: an unknown latent, or one that has not been trained on this data.
    """
    kind = latent.partition("/")[0]
    if kind != "all" and kind not in LATENTS:
        raise UserError(f"--latent {latent}: no such latent; there are {', '.join(LATENTS)} and all")
    # without labels there is no classifier, and `all` means the autoencoders
    every = [name for name in LATENTS if particles.classes or name != "classifier"]
    specs = every if kind == "all" else [latent]
    return [find(spec, common.work, "z.npy", particles.fingerprint) for spec in specs]


def run_clustering(
    particles: ParticleSet, runs: Sequence[Run], settings: Any, how: ClusteringSettings, common: RunSettings
) -> tuple[list[Run], Run]:
    """Cluster every latent, then rank over all of them.

    Args:
        particles: the set, for identity and number of classes.
        runs: runs with latents.
        settings: kept as config.json.
        how: methods.
        common: seed and work folder.

    Returns:
        One `clusters-<latent>` run each, and the `consensus` run.
    """
    kept = _kept_ids(particles, how.drop_class, common)
    done = []
    with progress() as bars:
        bar = bars.add_task("clustering", total=len(runs))
        for latent in runs:
            bars.update(bar, description=f"clustering, {latent.kind}")
            with started(f"clusters-{latent.kind}", settings, common, particles.identity, [latent]) as run:
                cluster_latent(run, read_latents(latent.path), kept, len(particles.classes), how, common.seed)
            done.append(run)
            bars.advance(bar)
    with started("consensus", settings, common, particles.identity, done) as run:
        _write_consensus(run, done, particles, kept, how.outliers, common.seed)
    _show([*done, run])
    return done, run


def _kept_ids(particles: ParticleSet, drop: Sequence[str], common: RunSettings) -> pd.Series:
    """Ids of the core particles to look at."""
    core = particles.table.loc[particles.table["role"] == "core", "particle_id"]
    if not drop:
        return core
    unknown = [name for name in drop if name not in particles.classes]
    if unknown:
        has = ", ".join(particles.classes) or "no classes"
        raise UserError(f"--drop-class {unknown[0]}: the classifier knows no such class; this data has {has}")
    classifier = find("classifier", common.work, "z.npy", particles.fingerprint)
    predicted = read_parquet(classifier.path / "index.parquet").set_index("particle_id")["predicted"]
    kept = core[~predicted.loc[core].isin(list(drop)).to_numpy()]
    print(
        f"{len(core) - len(kept)} of {len(core)} core particles left out: the classifier calls them {', '.join(drop)}"
    )
    return kept


def cluster_latent(
    run: Run, latents: Latents, kept: pd.Series, n_classes: int, how: ClusteringSettings, seed: int
) -> dict[str, Any]:
    """Group, map and score one latent into `run`'s folder.

    Args:
        run: gets clusters.parquet, maps.parquet, outliers.parquet, metrics.json.
        latents: of the whole set.
        kept: ids of the core particles to look at.
        n_classes: default number of KMeans clusters.
        how: methods.
        seed: of every method.

    Returns:
        The metrics.
    """
    core = latents.where(latents.index["particle_id"].isin(kept))
    # val and test labels stay out: a reference must not depend on what judges the model
    reference = latents.where((latents.index["role"] == "labeled") & (latents.index["split"] == "train"))
    if len(core) == 0:
        raise UserError("no core particles are left to look at: drop fewer classes")
    xy = umap_map(core.z, how.maps, seed)
    groups, details = _groups(xy, n_classes, how.groups, seed)
    scores = latent_scores(core, reference, how.outliers, seed)
    scores.insert(0, "hdbscan", groups.pop("glosh"))
    ids = core.index[["particle_id"]]
    write_parquet(ids.assign(**groups), run.path / "clusters.parquet")
    write_parquet(ids.assign(**_map_columns(core.z, xy, how.maps, seed)), run.path / "maps.parquet")
    metrics = _metrics(core.index, groups, details, scores)
    combined = consensus({run.kind: pd.concat([ids, scores], axis=1)})["score"].to_numpy()
    ranked = pd.concat([ids, scores], axis=1).assign(score=combined, rank=ranks(combined))
    metrics["outliers"]["combined"] = outlier_metrics(core.index["is_outlier"], combined)
    write_parquet(ranked, run.path / "outliers.parquet")
    write_json(run.path / "metrics.json", metrics)
    return metrics


def _groups(
    xy: np.ndarray, n_classes: int, how: GroupSettings, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """Labels of each method and `glosh`, all on the map that the user sees; and what was chosen on the way."""
    density, eps = dbscan(xy, how)
    tree = hdbscan_groups(xy, how)
    n = how.n_clusters or n_classes or max(2, len(np.unique(tree.labels)) - 1)
    groups = {
        "kmeans": kmeans(xy, n, seed),
        "dbscan": density,
        "hdbscan": tree.labels,
        "glosh": tree.outlier_scores,
    }
    return groups, {"dbscan": {"eps": eps}}


def _map_columns(z: np.ndarray, xy: np.ndarray, how: MapSettings, seed: int) -> dict[str, np.ndarray]:
    columns = {"umap_x": xy[:, 0], "umap_y": xy[:, 1]}
    if how.tsne:
        tsne = tsne_map(z, how, seed)
        columns |= {"tsne_x": tsne[:, 0], "tsne_y": tsne[:, 1]}
    return columns


def _metrics(
    index: pd.DataFrame,
    groups: dict[str, np.ndarray],
    details: dict[str, dict[str, float]],
    scores: pd.DataFrame,
) -> dict[str, Any]:
    by_method: dict[str, Any] = {
        name: group_metrics(index["truth"], labels) | details.get(name, {}) for name, labels in groups.items()
    }
    is_outlier = index["is_outlier"]
    by_method["outliers"] = {name: outlier_metrics(is_outlier, scores[name].to_numpy()) for name in scores}
    strange = sorted(index.loc[is_outlier.fillna(False).astype(bool), "truth"].dropna().unique())
    by_method["clusters"] = {name: best_cluster(index["truth"], groups["hdbscan"], name) for name in strange}
    return by_method


def _write_consensus(
    run: Run, done: Sequence[Run], particles: ParticleSet, kept: pd.Series, how: OutlierSettings, seed: int
) -> None:
    frames = {r.kind.removeprefix("clusters-"): read_parquet(r.path / "outliers.parquet") for r in done}
    views = {name: frame.drop(columns=["score", "rank"]) for name, frame in frames.items()}
    if has_scalars(particles.table):
        views["scalars"] = _scalar_scores(particles.table, kept, how, seed)
    ranked = consensus(views)
    truth = particles.table.set_index("particle_id").loc[ranked["particle_id"], "is_outlier"].reset_index(drop=True)
    write_parquet(ranked, run.path / "outliers.parquet")
    write_json(run.path / "metrics.json", outlier_metrics(truth, ranked["score"].to_numpy()))


def _scalar_scores(table: pd.DataFrame, kept: pd.Series, how: OutlierSettings, seed: int) -> pd.DataFrame:
    """The measured scalars as one more view of the core: no network, nothing learned."""
    is_core = table["particle_id"].isin(kept)
    is_reference = (table["role"] == "labeled") & (table["split"] == "train")
    vectors = Latents(normalized_scalars(table, is_core | is_reference), table)
    core, reference = vectors.where(is_core), vectors.where(is_reference)
    return pd.concat([core.index[["particle_id"]], latent_scores(core, reference, how, seed)], axis=1)


def _show(runs: Sequence[Run]) -> None:
    """The table in the terminal: groups found and how well outliers are ranked."""
    rows = []
    for run in runs[:-1]:
        m = run.results
        best = m["outliers"]["combined"]
        noise = f"{m['hdbscan']['noise']}"
        rows.append([run.kind.removeprefix("clusters-"), m["kmeans"]["ari"], m["dbscan"]["n"], m["hdbscan"]["n"], noise,
                     best["auroc"], best["recall_at_n"]])  # fmt: skip
    m = runs[-1].results
    rows.append(["consensus", None, None, None, None, m["auroc"], m["recall_at_n"]])
    header = ["latent", "KMeans ARI", "DBSCAN n", "HDBSCAN n", "noise", "outlier AUROC", "recall_at_n"]
    show_table("What does not fit", header, rows)


if __name__ == "__main__":
    entry(Settings, main)
