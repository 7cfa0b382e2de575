"""MNIST without any label: autoencoder from scratch -> UMAP -> KMeans on all 70,000 images.

`python benchmarks/mnist_unsupervised.py --seeds 0` prints a row of RESULTS.md. Labels are read at the very end, to
count how many images lie in the cluster matched to their digit.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from autoencoders.train import AutoencoderSettings, train_autoencoder
from benchmarks.demo import machine
from clustering.groups import GroupSettings, hdbscan_groups, kmeans
from clustering.maps import MapSettings, umap_map
from clustering.metrics import group_metrics
from encoders.fit import FitSettings
from particles.latents import read_latents
from particles.sets import DataSettings, open_set
from particles.squares import PackSettings
from provenance.run import PROJECT, RunSettings


@dataclass(frozen=True)
class Settings:
    """AE latent -> UMAP -> KMeans, no labels."""

    seeds: tuple[int, ...] = (0,)
    """One training each."""
    model: AutoencoderSettings = field(
        default_factory=lambda: AutoencoderSettings(
            latent_dim=16,
            likelihood="bernoulli",
            from_scratch=True,
            denoise=True,
            fit=FitSettings(epochs=8, batch_size=128),
        )
    )
    """The autoencoder; chosen on seed 100, which is not reported."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "mnist"
    """Where the runs go."""


def main(settings: Settings) -> None:
    """Train, map, cluster, compare with the digits."""
    print(f"{machine()}\n\n| seed | KMeans ACC | NMI | ARI | HDBSCAN n | noise | ACC | minutes |\n|{'---|' * 8}")
    for seed in settings.seeds:
        begun = time.perf_counter()
        common = RunSettings(seed, settings.work_dir)
        particles = open_set(DataSettings("mnist", use_labels=False, pack=PackSettings(scalars=False)), common)
        run = train_autoencoder("ae", 0, particles, settings, settings.model, common)
        latents = read_latents(run.path)
        xy = umap_map(latents.z, MapSettings(), seed)
        k = group_metrics(latents.index["truth"], kmeans(xy, 10, seed))
        h = group_metrics(latents.index["truth"], hdbscan_groups(xy, GroupSettings()).labels)
        minutes = (time.perf_counter() - begun) / 60
        values = [k["acc"], k["nmi"], k["ari"], h["n"], h["noise"], h["acc"], minutes]
        print(
            f"| {seed} | " + " | ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.OmitArgPrefixes,)))
