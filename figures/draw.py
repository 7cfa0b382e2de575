"""Runs -> the pictures of a set: `python figures/draw.py --data synthetic` draws the newest runs on that data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from figures.confusion import draw_confusion
from figures.curves import draw_curves
from figures.explorer import write_explorer
from figures.gallery import draw_clusters, draw_outliers
from figures.maps import draw_map_panel
from figures.reconstructions import draw_reconstructions
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json
from provenance.progress import progress
from provenance.run import Run, RunSettings, find
from provenance.settings import entry

MOST_EXPLORED = 20_000
"""Particles in one explorer page; more would make a file that no browser opens quickly."""


@dataclass(frozen=True)
class Settings:
    """Draw the newest finished runs on a set."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Draw the newest finished runs on a set into figures/<data>/."""
    particles, common = open_set(settings.data, settings.common), settings.common
    consensus = find("consensus", common.work, "outliers.parquet", particles.fingerprint)
    clustered = [Run(common.work / "runs" / name) for name in consensus.info["parents"]]
    runs = [Run(common.work / "runs" / run.info["parents"][0]) for run in clustered]
    drawn = draw_all(particles, runs, clustered, consensus, common.work)
    print(f"{len(drawn)} pictures in {common.work / 'figures' / particles.name}")


def draw_all(
    particles: ParticleSet, runs: Sequence[Run], clustered: Sequence[Run], consensus: Run, work: Path
) -> list[Path]:
    """Draw everything there is to see of a set.

    Args:
        particles: the set.
        runs: training runs (curves, reconstructions, confusion matrix).
        clustered: `clusters-<latent>` runs (maps, cluster galleries).
        consensus: the ranking.
        work: pictures go to `<work>/figures/<data>/`.

    Returns:
        The files, the outlier sheet first.
    """
    folder = work / "figures" / particles.name
    ranked = read_parquet(consensus.path / "outliers.parquet")
    predicted = _predicted(runs, particles, work)
    with progress() as bars:
        bar = bars.add_task("drawing", total=len(runs) + len(clustered) + 2)
        drawn = [_outlier_sheet(particles, ranked, folder)]
        bars.advance(bar)
        for run in runs:
            drawn += _training_pictures(run, folder, particles)
            bars.advance(bar)
        for run in clustered:
            drawn += _cluster_pictures(run, particles, ranked, predicted, folder)
            bars.advance(bar)
        points, thumbnails = explorer_points(particles, clustered, ranked, predicted)
        drawn.append(write_explorer(folder / "explorer.html", points, thumbnails, f"Nunatak: {particles.name}"))
        bars.advance(bar)
    return drawn


def _predicted(runs: Sequence[Run], particles: ParticleSet, work: Path) -> pd.Series:
    """What the classifier calls each particle, by id; empty where there is none."""
    if not particles.classes:
        return pd.Series(dtype="string")
    own = [run for run in runs if run.kind == "classifier"]
    try:
        run = own[0] if own else find("classifier", work, "z.npy", particles.fingerprint)
    except UserError:  # autoencoders trained from scratch have no classifier beside them
        return pd.Series(dtype="string")
    return read_parquet(run.path / "index.parquet").set_index("particle_id")["predicted"]


def _outlier_sheet(particles: ParticleSet, ranked: pd.DataFrame, folder: Path) -> Path:
    judged = ranked.merge(particles.table[["particle_id", "is_outlier"]], on="particle_id")
    subtitle = f"{len(ranked)} particles ranked; all latents and scores together"
    if judged["is_outlier"].fillna(False).any():
        n = int(judged["is_outlier"].sum())
        found = int(judged.nsmallest(n, "rank")["is_outlier"].sum())
        subtitle += f"; {found} of the {n} true outliers are among the first {n}"
    if "p_value" in ranked and ranked["p_value"].notna().any():
        subtitle += f"; {int(ranked['discovery'].sum())} pass the false-discovery line at 10 %"
    title = f"The strangest particles: {particles.name}"
    return draw_outliers(ranked, particles.table, particles.pixels, folder / "outliers.png", title, subtitle)


def _training_pictures(run: Run, folder: Path, particles: ParticleSet) -> list[Path]:
    drawn = []
    if (run.path / "metrics.csv").exists():  # latents of another set's model come without curves
        drawn.append(
            draw_curves(run.path / "metrics.csv", folder / f"curves-{run.kind}.png", f"Training: {run.kind}", run.name)
        )
    if (run.path / "reconstructions.npy").exists():
        images, shown = np.load(run.path / "reconstructions.npy", allow_pickle=False)
        ids = read_json(run.path / "reconstructions.json")
        path, title = folder / f"reconstructions-{run.kind}.png", f"Reconstructions: {run.kind}"
        drawn.append(draw_reconstructions(images, shown, ids, path, title, "validation particles, never trained on"))
    if run.kind == "classifier":
        drawn += _confusion(run, folder, particles.classes)
    return drawn


def _confusion(run: Run, folder: Path, classes: list[str]) -> list[Path]:
    index = read_parquet(run.path / "index.parquet")
    judged = index[(index["split"] == "test") & index["truth"].isin(classes)]
    if judged.empty:
        return []
    path = folder / "confusion.png"
    return [draw_confusion(judged["truth"], judged["predicted"], classes, path, "Classifier on the test split")]


def _cluster_pictures(
    run: Run, particles: ParticleSet, ranked: pd.DataFrame, predicted: pd.Series, folder: Path
) -> list[Path]:
    latent = run.kind.removeprefix("clusters-")
    maps = read_parquet(run.path / "maps.parquet")
    clusters = read_parquet(run.path / "clusters.parquet").set_index("particle_id").loc[maps["particle_id"]]
    score = ranked.set_index("particle_id").loc[maps["particle_id"], "score"]
    classes, heading = _classes(maps["particle_id"], predicted, particles)
    umap = maps[["umap_x", "umap_y"]].to_numpy()
    tsne = maps[["tsne_x", "tsne_y"]].to_numpy() if "tsne_x" in maps else None
    panel = draw_map_panel(
        umap, tsne, classes, clusters["hdbscan"], score, folder / f"maps-{latent}.png", f"Maps of the latent: {latent}",
        names=(heading, "HDBSCAN cluster", "Outlier score (consensus)"), all_classes=particles.classes,
    )  # fmt: skip
    galleries = draw_clusters(
        clusters["hdbscan"], umap, particles.table, particles.pixels, folder / f"clusters-{latent}", "hdbscan",
        classes=classes,
    )  # fmt: skip
    return [panel, *galleries]


def _classes(ids: pd.Series, predicted: pd.Series, particles: ParticleSet) -> tuple[pd.Series, str]:
    """What to color a map by: the classifier's word, or without one what is known."""
    if len(predicted):
        return predicted.loc[ids], "Class (predicted)"
    return particles.table.set_index("particle_id").loc[ids, "truth"], "Class"


def explorer_points(
    particles: ParticleSet, clustered: Sequence[Run], ranked: pd.DataFrame, predicted: pd.Series
) -> tuple[pd.DataFrame, np.ndarray]:
    """One row a particle as `write_explorer` wants it, and the packed images in the same order.

    Args:
        particles: the set.
        clustered: `clusters-<latent>` runs.
        ranked: the consensus.
        predicted: class by id.
    """
    ranked = _for_explorer(ranked)
    table = particles.table.set_index("particle_id").loc[ranked["particle_id"]]
    points = ranked[["particle_id", "rank", "score", "reasons"]].copy()
    points["class"] = _classes(points["particle_id"], predicted, particles)[0].to_numpy()
    longest = table[["width_px", "height_px"]].max(axis=1).to_numpy(dtype=float)
    points["size_um"] = longest * table["um_per_px"].to_numpy(dtype=float, na_value=np.nan)
    for run in clustered:
        latent = run.kind.removeprefix("clusters-")
        for name in ("maps", "clusters"):
            columns = read_parquet(run.path / f"{name}.parquet").set_index("particle_id").loc[points["particle_id"]]
            for column in columns:
                points[f"{latent}:{column}"] = columns[column].to_numpy()
    return points, particles.pixels[table["position"].to_numpy(dtype=np.int64)]


def _for_explorer(ranked: pd.DataFrame) -> pd.DataFrame:
    """All particles, or of a large core the strangest half of what fits and a seeded sample of the others."""
    if len(ranked) <= MOST_EXPLORED:
        return ranked
    strange = ranked["rank"] <= MOST_EXPLORED // 2
    others = ranked[~strange].sample(MOST_EXPLORED - int(strange.sum()), random_state=0)
    return ranked[strange | ranked.index.isin(others.index)].reset_index(drop=True)


if __name__ == "__main__":
    entry(Settings, main)
