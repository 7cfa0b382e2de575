"""Cluster, map and score the latents of a core: `python clustering/run.py --latent vae`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clustering.agreement import write_agreement
from clustering.consensus import consensus, ranks
from clustering.groups import GroupSettings, dbscan, hdbscan_groups, kmeans
from clustering.likeness import write_likeness
from clustering.maps import MapSettings, tsne_map, umap_map
from clustering.metrics import best_cluster, group_metrics, outlier_metrics
from clustering.outliers import OutlierSettings, latent_scores
from clustering.verdict import UNUSUAL, Kept, split_scores, write_consensus
from particles.latents import Latents, read_latents
from particles.marks import read_marks
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import write_json
from provenance.progress import progress, show_table
from provenance.run import LATENTS, TRAINED_BY, Run, RunSettings, classifier_beside, find, started
from provenance.settings import changed_flags, entry

SUSPICIOUS = 0.2
"""If more of the core than this is unusual, it is not the core that is new but the labels that do not fit it."""


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
    marks: Path | None = None
    """CSV of marks from the explorer: rank what else looks like the marked particles."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    clustering: ClusteringSettings = field(default_factory=ClusteringSettings)
    """How."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Cluster, map and score the latents of a core."""
    marks = read_marks(settings.marks) if settings.marks else None  # a wrong file is said before minutes of work
    particles = open_set(settings.data, settings.common)
    runs = find_latents(settings.latent, particles, settings.common)
    clustered, _ = run_clustering(particles, runs, settings, settings.clustering, settings.common)
    if marks is not None:
        core = read_parquet(clustered[0].path / "clusters.parquet")["particle_id"]  # without what was dropped
        write_likeness(marks, particles, core, runs, settings, settings.common)
    flags = shlex.join([*changed_flags(settings.data), *changed_flags(settings.common)])
    print(f"pictures: python figures/draw.py {flags}".rstrip())


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
    kept = _kept(particles, runs, how.drop_class, common)
    done = []
    with progress() as bars:
        bar = bars.add_task("clustering", total=len(runs))
        for latent in runs:
            bars.update(bar, description=f"clustering, {latent.kind}")
            with started(f"clusters-{latent.kind}", settings, common, particles.identity, [latent]) as run:
                run.record(device="cpu")
                cluster_latent(run, read_latents(latent.path), kept, len(particles.classes), how, common.seed)
            done.append(run)
            bars.advance(bar)
    with started("consensus", settings, common, particles.identity, done) as run:
        run.record(device="cpu")
        write_consensus(run, done, particles, kept, how.outliers, common.seed)
        write_agreement(run, done, runs, common.seed)
    _show([*done, run])
    return done, run


def _kept(particles: ParticleSet, runs: Sequence[Run], drop: Sequence[str], common: RunSettings) -> Kept:
    rows = particles.table
    unknown = [name for name in drop if name not in particles.classes]
    if unknown:
        has = ", ".join(particles.classes) or "no classes"
        raise UserError(f"--drop-class {unknown[0]}: the classifier knows no such class; this data has {has}")
    core = rows.loc[rows["role"] == "core", "particle_id"]
    known = rows.loc[rows["label"].notna() & (rows["split"] == "test"), "particle_id"]
    if known.empty:  # the test split plays the core; the validation split has at most chosen an epoch
        known = rows.loc[rows["label"].notna() & (rows["split"] == "val"), "particle_id"]
    predicted = _predicted(particles, runs, common, needed=bool(drop))
    if drop and predicted is not None:
        n = len(core)
        core, known = (ids[~predicted.loc[ids].isin(list(drop)).to_numpy()] for ids in (core, known))
        print(f"{n - len(core)} of {n} core particles left out: the classifier calls them {', '.join(drop)}")
    return Kept(core, known, predicted)


def _predicted(particles: ParticleSet, runs: Sequence[Run], common: RunSettings, needed: bool) -> pd.Series | None:
    """By id, what the classifier among `runs` says, else the one they started from, else the newest."""
    if not particles.classes:
        return None
    classifier = classifier_beside(runs, common.work, particles.fingerprint)
    if classifier is None and needed:
        raise UserError(f"--drop-class needs a classifier: run `{TRAINED_BY['classifier']}` with the same --data")
    if classifier is None:
        return None
    return read_parquet(classifier.path / "index.parquet").set_index("particle_id")["predicted"]


def cluster_latent(
    run: Run, latents: Latents, kept: Kept, n_classes: int, how: ClusteringSettings, seed: int
) -> dict[str, Any]:
    """Group, map and score one latent into `run`'s folder.

    Args:
        run: gets clusters.parquet, maps.parquet, outliers.parquet, known.parquet, metrics.json.
        latents: of the whole set.
        kept: whom to look at.
        n_classes: default number of KMeans clusters.
        how: methods.
        seed: of every method.

    Returns:
        The metrics.
    """
    core, known = (latents.where(latents.index["particle_id"].isin(ids)) for ids in (kept.core, kept.known))
    # val and test labels stay out: a reference must not depend on what judges the model
    reference = latents.where((latents.index["role"] == "labeled") & (latents.index["split"] == "train"))
    if len(core) == 0:
        raise UserError("no core particles are left to look at: drop fewer classes")
    xy = umap_map(core.z, how.maps, seed)
    groups, details = _groups(xy, n_classes, how.groups, seed)
    scores, of_known = split_scores(latent_scores(core, reference, how.outliers, seed, known), len(core))
    scores.insert(0, "hdbscan", groups.pop("glosh"))
    ids = core.index[["particle_id"]]
    write_parquet(known.index[["particle_id"]].assign(**of_known), run.path / "known.parquet")
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
    if (m["share_unusual"] or 0) > SUSPICIOUS:
        print(f"{m['share_unusual']:.0%} of the core have p <= {UNUSUAL}: the labeled set does not look like this "
              "core's bulk; read p-values and discoveries with care")  # fmt: skip
    header = ["latent", "KMeans ARI", "DBSCAN n", "HDBSCAN n", "noise", "outlier AUROC", "recall_at_n"]
    show_table("What does not fit", header, rows)


if __name__ == "__main__":
    entry(Settings, main)
