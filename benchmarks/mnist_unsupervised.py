"""MNIST without any label: autoencoder from scratch -> UMAP -> KMeans and HDBSCAN on all 70,000 images.

    python -m benchmarks.mnist_unsupervised --seeds 0 1 2 --ways pixels ae vae planar-vae

prints a row of RESULTS.md for each way and seed; `pixels` maps the images as they are, the baseline. HDBSCAN is asked
twice: with the smallest group that everybody gets (1 % of the images), and with `--smallest`. Labels are read at the
very end, to count how many images lie in the cluster matched to their digit; noise counts as wrong. A training that was
cut is resumed, a finished one taken as it is.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro

from autoencoders.chain import ChainSettings, train_models
from autoencoders.train import AutoencoderSettings
from benchmarks.demo import machine
from clustering.groups import GroupSettings, hdbscan_groups, kmeans
from clustering.maps import MapSettings, umap_map
from clustering.metrics import group_metrics
from encoders.fit import FitSettings
from particles.latents import Latents, read_latents
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.run import PROJECT, RunSettings

Way = Literal["pixels", "ae", "vae", "planar-vae"]
MEASURES = ("clusters", "noise", "ACC", "NMI", "ARI")
TAUGHT = ("called alike: clusters", "called alike: noise", "called alike: ACC", "without a map: ACC")
"""Of a classifier that was taught clusters: HDBSCAN's, as one where it mostly calls them the same; its own classes."""


@dataclass(frozen=True)
class Settings:
    """Latent -> UMAP -> groups, no labels."""

    seeds: tuple[int, ...] = (0,)
    """One training of each."""
    ways: tuple[Way, ...] = ("ae",)
    """What is mapped."""
    flow_steps: int = 4
    """K, of planar-vae."""
    model: AutoencoderSettings = field(
        default_factory=lambda: AutoencoderSettings(
            latent_dim=16,
            likelihood="bernoulli",
            from_scratch=True,
            denoise=True,
            fit=FitSettings(epochs=8, batch_size=128, augment="wide-affine"),
        )
    )
    """The autoencoder; chosen on seed 100, which is not reported."""
    smallest: int = 1400
    """HDBSCAN's smallest group the second time, in images; smaller ones are ways to write a digit (a seven's bar)."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "mnist"
    """Where the runs go."""


def main(settings: Settings) -> None:
    """Train, map, cluster, compare with the digits."""
    print_header(settings.smallest)
    for seed in settings.seeds:
        common = RunSettings(seed, settings.work_dir)
        particles = without_labels(common)
        for way in settings.ways:
            begun = time.perf_counter()
            latents = latents_of(way, particles, settings, common)
            print_row(way, seed, latents, umap_map(latents.z, MapSettings(), seed), settings.smallest, begun)


def print_header(smallest: int) -> None:
    """The machine, and the first two lines of the table."""
    asked = {"KMeans": MEASURES[2:], "HDBSCAN": MEASURES, f"HDBSCAN, {smallest:,} at least": MEASURES}
    columns = [f"{name}: {of}" for name, measures in asked.items() for of in measures]
    print(f"{machine()}\n\n| way | seed | {' | '.join(columns)} | {' | '.join(TAUGHT)} | minutes |")
    print(f"|{'---|' * (len(columns) + len(TAUGHT) + 3)}", flush=True)


def print_row(way: str, seed: int, latents: Latents, xy: np.ndarray, smallest: int, begun: float) -> None:
    """A line of the table: what KMeans and HDBSCAN find on a map, (N, 2), and what a classifier says of it.

    `begun` is of `time.perf_counter`.
    """
    values = [*_measured(latents.index["truth"], xy, smallest, seed), *_taught(latents.index, xy)]
    told = " | ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values)
    print(f"| {way} | {seed} | {told} | {(time.perf_counter() - begun) / 60:.1f} |", flush=True)


def without_labels(common: RunSettings) -> ParticleSet:
    """The 70,000 images."""
    return open_set(DataSettings("mnist", use_labels=False, pack=PackSettings(scalars=False)), common)


def _measured(truth: pd.Series, xy: np.ndarray, smallest: int, seed: int) -> list[float | int | None]:
    by_kmeans = group_metrics(truth, kmeans(xy, 10, seed))
    values: list[float | int | None] = [by_kmeans[name] for name in ("acc", "nmi", "ari")]
    for asked in (GroupSettings(), GroupSettings(min_cluster_size=smallest)):
        found = group_metrics(truth, hdbscan_groups(xy, asked).labels)
        values += [found["n"], found["noise"], found["acc"], found["nmi"], found["ari"]]
    return values


def _taught(index: pd.DataFrame, xy: np.ndarray) -> list[float | int | str | None]:
    if "predicted" not in index:
        return [""] * len(TAUGHT)
    merged = called_alike(hdbscan_groups(xy, GroupSettings()).labels, index["predicted"])
    found, alone = (group_metrics(index["truth"], g) for g in (merged, pd.factorize(index["predicted"])[0]))
    return [found["n"], found["noise"], found["acc"], alone["acc"]]


def called_alike(clusters: np.ndarray, said: pd.Series) -> np.ndarray:
    """Clusters of which a classifier mostly says the same are one: (N,) from 0, noise -1.

    Args:
        clusters: (N,) from 0, noise -1.
        said: (N,) class names.
    """
    names = said[clusters >= 0].groupby(clusters[clusters >= 0]).agg(lambda words: words.mode().iloc[0])
    return np.asarray(pd.factorize(pd.Series(clusters).map(names))[0])


def latents_of(way: Way, particles: ParticleSet, settings: Settings, common: RunSettings) -> Latents:
    """Of the images as they are, or of a model; what else was asked for does not matter to it."""
    if way == "pixels":
        images = particles.pixels[particles.table["position"].to_numpy(dtype=np.int64)]
        return Latents(images.reshape(len(images), -1).astype(np.float32), particles.table)
    chain = ChainSettings(model=settings.model, flow_steps=settings.flow_steps, go_on=True)
    (run,) = train_models([way], particles, replace(settings, seeds=(common.seed,), ways=(way,)), chain, common)
    return read_latents(run.path)


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)))
