"""Each digit held out once: how strange does it look among the nine that were learned?

    python -m benchmarks.mnist_digits --digits 0 1 2 3 4 5 6 7 8 9 --latents classifier vae

A row for each digit and latent, with the settings of experiments/mnist_held_out.py: AUROC of every score on the 10,000
test images, and precision and recall of the digit's best HDBSCAN cluster on the map. What is finished in the work
folder with the same settings is not done again.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import tyro

from autoencoders.chain import ChainSettings, train_models
from benchmarks.demo import machine
from clustering.maps import MapSettings
from clustering.run import ClusteringSettings, run_clustering
from experiments.mnist_held_out import Settings as HeldOut
from particles.sets import open_set
from provenance.files import read_json, write_json
from provenance.run import PROJECT, RunSettings
from provenance.settings import plain


@dataclass(frozen=True)
class Settings:
    """Hold each digit out."""

    digits: tuple[int, ...] = tuple(range(10))
    """Held out one after another."""
    seed: int = 0
    """Of all trainings."""
    latents: tuple[str, ...] = ("classifier", "vae")
    """Those judged."""
    chain: ChainSettings = field(default_factory=lambda: HeldOut().chain)
    """The models: those of mnist_held_out.py."""
    clustering: ClusteringSettings = field(default_factory=lambda: ClusteringSettings(maps=MapSettings(tsne=False)))
    """Groups, maps, scores."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "digits"
    """Where the runs go."""


def main(settings: Settings) -> None:
    """Print the table of each latent, and the means over the digits."""
    rows = [row for digit in settings.digits for row in _judged(digit, settings)]
    print(f"\n{machine()}, seed {settings.seed}")
    frame = pd.DataFrame(rows)
    for latent, table in frame.groupby("latent", sort=False):
        shown = table.drop(columns="latent").set_index("digit").dropna(axis=1, how="all")
        shown.loc["mean"] = shown.mean()
        shown.loc["lowest"] = shown.iloc[:-1].min()
        print(f"\n{latent}\n{shown.round(3).to_string()}")


def _judged(digit: int, settings: Settings) -> list[dict[str, object]]:
    work = settings.work_dir / f"without-{digit}-{settings.seed}"
    done, how = work / "rows.json", plain(replace(settings, digits=(), work_dir=Path()))
    if not done.exists() or read_json(done)["settings"] != how:
        begun = time.perf_counter()
        common = RunSettings(settings.seed, work)
        particles = open_set(replace(HeldOut().data, held_out=(str(digit),)), common)
        runs = train_models(settings.latents, particles, settings, replace(settings.chain, go_on=True), common)
        clustered, consensus = run_clustering(particles, runs, settings, settings.clustering, common)
        minutes = (time.perf_counter() - begun) / 60
        rows = []
        for run in clustered:
            cluster = run.results["clusters"][str(digit)]
            scores = {name: values["auroc"] for name, values in run.results["outliers"].items()}
            found = {"precision": cluster["precision"], "recall": cluster["recall"], "minutes": minutes}
            rows.append({"latent": run.kind.removeprefix("clusters-"), "digit": digit, **scores, **found})
        rows.append({"latent": "consensus", "digit": digit, "auroc": consensus.results["auroc"]})
        write_json(done, {"settings": how, "rows": rows})
    return list(read_json(done)["rows"])


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)))
