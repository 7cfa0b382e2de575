"""The whole method in one go: `python experiments/find_outliers.py`, or `--data PATH` for anything else."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoencoders.train import AutoencoderSettings, train_autoencoder
from clustering.run import ClusteringSettings, run_clustering
from encoders.fit import FitSettings
from encoders.pretrain import ClassifierSettings, pretrain
from figures.draw import draw_all
from particles.sets import DataSettings, ParticleSet, open_set
from provenance.errors import UserError
from provenance.files import write_json
from provenance.run import Run, RunSettings, started
from provenance.settings import entry

_MODEL = AutoencoderSettings(kl_warmup=1.0, fit=FitSettings(epochs=2))


@dataclass(frozen=True)
class Settings:
    """Train all models, cluster and score every latent, draw everything."""

    pretrain_epochs: int = 12
    """Epochs of the classifier; those of the autoencoders are --epochs."""
    flow_steps: int = 4
    """K, steps of the planar flow."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    """What the classifier learns."""
    model: AutoencoderSettings = _MODEL
    """Autoencoders and training."""
    clustering: ClusteringSettings = field(default_factory=ClusteringSettings)
    """Groups, maps, scores."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> Path:
    """Find the particles that do not fit: train, cluster, score, draw."""
    begun = time.perf_counter()
    if settings.model.fit.resume:
        raise UserError("--resume names one training: it goes with pretrain_classifier.py, train_ae.py, train_vae.py")
    particles = open_set(settings.data, settings.common)
    print(describe(particles))
    runs = train_all(particles, settings)
    clustered, consensus = run_clustering(particles, runs, settings, settings.clustering, settings.common)
    pictures = draw_all(particles, runs, clustered, consensus, settings.common.work)
    with started("summary", settings, settings.common, particles.identity, [*clustered, consensus]) as run:
        path = run.path / "summary.json"
        seconds = time.perf_counter() - begun
        write_json(path, summary(particles, clustered, consensus, pictures, settings.common.work, seconds))
    print(f"pictures: {pictures[0].parent}")
    print(path)
    return path


def describe(particles: ParticleSet) -> str:
    """One line on who is in the set."""
    role = particles.table["role"]
    known = ", ".join(particles.classes) or "none"
    return f"{particles.name}: {(role == 'labeled').sum()} labeled ({known}), {(role == 'core').sum()} in the core"


def train_all(particles: ParticleSet, settings: Settings) -> list[Run]:
    """The classifier where there are labels, then the three autoencoders."""
    how, common = settings.model, settings.common
    runs = []
    if particles.classes:
        fit = replace(how.fit, epochs=settings.pretrain_epochs)
        runs.append(pretrain(particles, settings, settings.classifier, fit, common))
    else:
        print("no labels: no classifier; the autoencoders start from scratch")
    for kind in ("ae", "vae", "planar-vae"):
        runs.append(train_autoencoder(kind, settings.flow_steps, particles, settings, how, common))
    return runs


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
        "figures": [str(p.relative_to(work)) for p in pictures],
    }


if __name__ == "__main__":
    entry(Settings, main)
