"""The whole method in one go: `python experiments/find_outliers.py`, or `--data PATH` for anything else."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoencoders.chain import ChainSettings, train_models
from autoencoders.train import AutoencoderSettings
from clustering.run import ClusteringSettings, refuse_small_core, refuse_unknown_classes, run_clustering
from encoders.fit import FitSettings
from encoders.launch import led
from figures.draw import draw_all
from particles.sets import DataSettings, ParticleSet, open_set
from provenance.files import write_json
from provenance.run import LATENTS, Run, RunSettings, started
from provenance.settings import entry, flags_of, plain

_CHAIN = ChainSettings(model=AutoencoderSettings(kl_warmup=1.0, fit=FitSettings(epochs=2)))


@dataclass(frozen=True)
class Settings:
    """Train all models, cluster and score every latent, draw everything."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    chain: ChainSettings = _CHAIN
    """The models."""
    clustering: ClusteringSettings = field(default_factory=ClusteringSettings)
    """Groups, maps, scores."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> Path:
    """Find the particles that do not fit: train, cluster, score, draw."""
    begun = time.perf_counter()
    particles = open_set(settings.data, settings.common)
    print(describe(particles))
    refuse_small_core(particles)  # before the models take their time
    refuse_unknown_classes(settings.clustering.drop_class, particles.classes)
    runs = train_models(LATENTS, particles, settings, settings.chain, settings.common)
    clustered, consensus = run_clustering(particles, runs, settings, settings.clustering, settings.common)
    defaults, flags = plain(Settings()), flags_of(settings.data, settings.common)
    pictures = draw_all(particles, runs, clustered, consensus, settings.common.work, defaults, flags)
    with started("summary", settings, settings.common, particles.identity, [*clustered, consensus]) as run:
        path = run.path / "summary.json"
        seconds = time.perf_counter() - begun
        write_json(path, summary(particles, clustered, consensus, pictures, settings.common.work, seconds))
    print(f"the strangest as a list: {pictures[0].with_name('outliers.csv')}")
    print(f"all of them, ranked: {consensus.path / 'outliers.parquet'}")
    print(f"pictures: {pictures[0].parent}")
    print(path)
    return path


def describe(particles: ParticleSet) -> str:
    """One line on who is in the set."""
    role = particles.table["role"]
    known = ", ".join(particles.classes) or "none"
    return f"{particles.name}: {(role == 'labeled').sum()} labeled ({known}), {(role == 'core').sum()} in the core"


def summary(
    particles: ParticleSet,
    clustered: Sequence[Run],
    consensus: Run,
    pictures: Sequence[Path],
    work: Path,
    seconds: float,
) -> dict[str, Any]:
    """What was found, as plain values; None where there is no truth to compare with."""
    latents = {}
    for run in clustered:
        results = run.results
        groups = {name: results[name] for name in ("kmeans", "dbscan", "hdbscan")}
        latents[run.kind.removeprefix("clusters-")] = groups | {"outliers": results["outliers"]["combined"]}
    return {
        "data": particles.name,
        "n_particles": len(particles.table),
        "seconds": seconds,
        "latents": latents,
        "consensus": consensus.results,
        "ranking": str((consensus.path / "outliers.parquet").relative_to(work)),
        "figures": [str(p.relative_to(work)) for p in pictures],
    }


if __name__ == "__main__":
    entry(Settings, led(main))
