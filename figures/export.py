"""A finished search for other tools: `python figures/export.py --data ... --to atlas`, `fiftyone` or `csv`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from figures.export_atlas import write_atlas
from figures.export_fiftyone import write_fiftyone
from figures.export_rows import chosen_latent, export_rows
from figures.finished import pictures_folder
from figures.report_results import Results, results_of
from figures.spreadsheet import write_spreadsheet
from particles.sets import DataSettings, open_set
from provenance.errors import UserError
from provenance.run import RunSettings, find
from provenance.settings import entry


@dataclass(frozen=True)
class Settings:
    """Export the newest finished search on a set."""

    to: Literal["atlas", "fiftyone", "csv"] = "atlas"
    """atlas: atlas.parquet for Embedding Atlas; fiftyone: a folder for FiftyOne; csv: one flat table."""
    latent: str | None = None
    """Whose map and neighbors: default classifier, or without one the first latent there is."""
    out: Path | None = None
    """File or folder to write: default figures/<data>/{atlas.parquet, fiftyone, particles.csv} in the work folder."""
    most: int = 200_000
    """Particles; of a larger core the strangest half of so many, and a sample of the others. csv: all."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    consensus: str = "consensus"
    """Which ranking: the newest on this data, or consensus/<id>."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Export a finished search: atlas.parquet (Embedding Atlas), a FiftyOne folder, or CSV."""
    if settings.most < 1:
        raise UserError(f"--most {settings.most}: must be at least 1")
    particles, common = open_set(settings.data, settings.common), settings.common
    run = find(settings.consensus, common.work, "outliers.parquet", particles.identity)
    results = results_of(particles, run)
    latent = chosen_latent(results, settings.latent)
    write, name, opened = EXPORTS[settings.to]
    out = settings.out or pictures_folder(common.work, particles.name, particles.fingerprint) / name
    path = write(results, latent, out, settings.most)
    n, whole = min(settings.most, len(results.ranked)), len(results.ranked)
    if n < whole and settings.to != "csv":
        print(f"{n:,} of {whole:,} particles: the strangest, and a sample of the others; --most takes more")
    print(f"written: {path}")
    if opened:
        print(f"open it: {opened.format(path=path)}")


def write_csv(results: Results, latent: str, path: Path, most: int) -> Path:
    """All particles of the ranking as CSV, strangest first."""
    return write_spreadsheet(export_rows(results, latent, len(results.ranked)), path)


Write = Callable[[Results, str, Path, int], Path]
EXPORTS: dict[str, tuple[Write, str, str]] = {
    "atlas": (
        write_atlas, "atlas.parquet",
        "embedding-atlas {path} --x umap_x --y umap_y --neighbors neighbors",
    ),
    "fiftyone": (
        write_fiftyone, "fiftyone",
        'python -c "import fiftyone as fo; d = fo.Dataset.from_dir(dataset_dir=\'{path}\', '
        'dataset_type=fo.types.FiftyOneDataset); fo.launch_app(d).wait()"',
    ),
    "csv": (write_csv, "particles.csv", ""),
}  # fmt: skip
"""Format -> who writes it, the default name, and the command that opens it."""


if __name__ == "__main__":
    entry(Settings, main)
