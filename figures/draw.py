"""Runs -> the pictures of a set: `python figures/draw.py --data synthetic` draws the newest runs on that data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from figures import agreement, area, curves, gallery, generated, linked, maps, paper, reconstructions, scalar_maps
from figures.confusion import draw_confusion
from figures.explorer import write_explorer
from figures.explorer_runs import exploration
from figures.finished import classes_of, parents_of, pictures_folder, predicted_classes, view_of
from figures.report import write_report
from figures.spreadsheet import write_list
from particles.measures import has_scalars
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import read_parquet
from provenance.files import read_json, write_json
from provenance.progress import progress
from provenance.run import Run, RunSettings, find
from provenance.settings import entry, flags_of


@dataclass(frozen=True)
class Settings:
    """Draw the newest finished runs on a set."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    pdf: bool = False
    """Write each picture as PDF too."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Draw the newest finished runs on a set into figures/<data>/."""
    particles, common = open_set(settings.data, settings.common), settings.common
    consensus = find("consensus", common.work, "outliers.parquet", particles.identity)
    clustered = parents_of(consensus)
    runs = [parents_of(run)[0] for run in clustered]
    with paper.with_pdf(settings.pdf):
        flags = flags_of(settings.data, common)
        drawn = draw_all(particles, runs, clustered, consensus, common.work, flags=flags)
    print(f"{len(drawn)} pictures in {drawn[0].parent}")


def draw_all(
    particles: ParticleSet,
    runs: Sequence[Run],
    clustered: Sequence[Run],
    consensus: Run,
    work: Path,
    defaults: Mapping[str, Any] | None = None,
    flags: str = "",
) -> list[Path]:
    """Draw what there is to see of a set; the scalars on the map of the first latent alone, for there are 34 of them.

    Args:
        particles: the set.
        runs: training runs (curves, reconstructions, what is generated, confusion matrix).
        clustered: `clusters-<latent>` runs (maps, area sheets, scalar maps, cluster galleries).
        consensus: the ranking.
        work: pictures go to `<work>/figures/<data>/`, or beside it where that is another set's.
        defaults: the script's default settings as plain values, for the report to say what differs.
        flags: by which the set was opened, for the explorer's commands that make what it lacks.

    Returns:
        The files, the outlier sheet first.
    """
    folder = pictures_folder(work, particles.name, particles.fingerprint)
    ranked = read_parquet(consensus.path / "outliers.parquet")
    predicted = predicted_classes(particles, runs, work)
    with progress() as bars:
        bar = bars.add_task("drawing", total=len(runs) + len(clustered) + 3)
        drawn = [gallery.outlier_sheet(particles, ranked, folder, len(clustered), predicted)]
        drawn.append(write_list(particles, ranked, predicted, folder))
        bars.advance(bar)
        for run in runs:
            drawn += _training_pictures(run, folder, particles)
            bars.advance(bar)
        for run in clustered:
            drawn += _cluster_pictures(run, particles, ranked, predicted, folder)
            bars.advance(bar)
        if has_scalars(particles.table):
            view = view_of(clustered[0], particles, ranked, predicted)
            drawn.append(scalar_maps.draw_view(view, particles, folder))
        drawn.append(_linked_maps(clustered, particles, ranked, predicted, folder))
        if (consensus.path / "agreement.json").exists():  # one latent has none to agree with
            drawn.append(agreement.draw_run(consensus, folder))
        drawn.append(_explorer(particles, runs, clustered, ranked, predicted, folder, flags))
        bars.advance(bar)
        report = folder / "report.html"
        drawn.append(write_report(particles, consensus, report, runs, clustered, drawn, defaults=defaults))
        bars.advance(bar)
    _forget_earlier(folder, drawn)
    return drawn


def _forget_earlier(folder: Path, drawn: Sequence[Path]) -> None:
    """Remove what an earlier search of this set has drawn and this one has not: it would be taken for this one's."""
    listed, names = folder / "drawn.json", {path.relative_to(folder).as_posix() for path in drawn}
    earlier = set(read_json(listed)) if listed.exists() else set()
    for name in earlier - names:
        for path in (folder / name, (folder / name).with_suffix(".pdf")):
            if path.is_relative_to(folder) and ".." not in path.parts:
                path.unlink(missing_ok=True)
    write_json(listed, sorted(names))


def _training_pictures(run: Run, folder: Path, particles: ParticleSet) -> list[Path]:
    """Latents of another set's model come without curves and arrays: then there is nothing to draw of them."""
    drawn = [curves.draw_run(run, folder)] if (run.path / "metrics.csv").exists() else []
    drawn += reconstructions.draw_run(run, folder) + generated.draw_run(run, folder)
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
    view = view_of(run, particles, ranked, predicted, "Outlier score (consensus)")
    drawn = [maps.draw_view(view, folder, particles.classes), area.draw_view(view, particles, folder)]
    return [*drawn, *gallery.cluster_sheets(view, particles, folder)]


def _linked_maps(
    clustered: Sequence[Run], particles: ParticleSet, ranked: pd.DataFrame, predicted: pd.Series, folder: Path
) -> Path:
    views = [view_of(run, particles, ranked, predicted) for run in clustered]
    classes = classes_of(ranked["particle_id"], predicted, particles)
    return linked.draw_views(views, ranked, classes, particles, folder)


def _explorer(
    particles: ParticleSet, runs: Sequence[Run], clustered: Sequence[Run], ranked: pd.DataFrame, predicted: pd.Series,
    folder: Path, flags: str,
) -> Path:  # fmt: skip
    points, crops, extras = exploration(particles, runs, clustered, ranked, predicted, flags)
    return write_explorer(folder / "explorer.html", points, crops, f"Nunatak: {particles.name}", extras)


if __name__ == "__main__":
    entry(Settings, main)
