"""MNIST without any label, further: the clusters are taught to a classifier, and its latent is mapped and clustered.

    python -m benchmarks.mnist_self_training --seeds 0 1 2 --ways ae vae planar-vae

prints the rows of `mnist_unsupervised` (round 0, whose finished trainings it takes if they are in its work folder), and
one more for each round: HDBSCAN's clusters are the labels, noise has none, and a classifier learns them under the same
jitter. What most images of a cluster share is learned before its errors are, and the next map puts them right
(pseudo-labels: Lee 2013; clusters as labels: Caron et al. 2018, arXiv:1807.05520). The digits are read at the very end.
"""

import hashlib
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import tyro

from autoencoders.chain import ChainSettings, train_models
from benchmarks.mnist_unsupervised import Settings as Start
from benchmarks.mnist_unsupervised import Way, latents_of, print_header, print_row, without_labels
from clustering.groups import GroupSettings, hdbscan_groups
from clustering.maps import MapSettings, umap_map
from encoders.pretrain import ClassifierSettings
from particles.latents import Latents, read_latents
from particles.sets import ParticleSet
from provenance.run import RunSettings


@dataclass(frozen=True)
class Settings:
    """Latent -> UMAP -> clusters -> classifier -> UMAP -> clusters, no labels."""

    start: Start = field(default_factory=Start)
    """Round 0."""
    rounds: int = 1
    """Classifiers, each taught the clusters before it; a second gained nothing on seed 100, which is not reported."""
    taught_epochs: int = 3
    """Of each classifier."""


def main(settings: Settings) -> None:
    """Train, map, cluster, teach; compare with the digits."""
    print_header(settings.start.smallest)
    for seed in settings.start.seeds:
        common = RunSettings(seed, settings.start.work_dir)
        particles = without_labels(common)
        for way in settings.start.ways:
            _rounds(way, particles, settings, common)


def _rounds(way: Way, particles: ParticleSet, settings: Settings, common: RunSettings) -> None:
    begun, smallest = time.perf_counter(), settings.start.smallest
    latents = latents_of(way, particles, settings.start, common)
    for number in range(settings.rounds + 1):
        xy = umap_map(latents.z, MapSettings(), common.seed)
        print_row(f"{way}, round {number}", common.seed, latents, xy, smallest, begun)
        if number < settings.rounds:
            begun = time.perf_counter()
            clusters = hdbscan_groups(xy, GroupSettings(min_cluster_size=smallest)).labels
            taught = labeled(particles, latents.index["particle_id"], clusters)
            latents = _taught(taught, settings, common)


def labeled(particles: ParticleSet, ids: pd.Series, clusters: np.ndarray) -> ParticleSet:
    """The set with clusters as its labels.

    Args:
        particles: without labels.
        ids: particle_id of each cluster number.
        clusters: (N,) from 0; -1 has no label.
    """
    numbers = pd.Series(clusters, index=ids.to_numpy()).reindex(particles.table["particle_id"]).to_numpy()
    names = pd.Series(numbers, index=particles.table.index).map("cluster {:02.0f}".format).where(numbers >= 0)
    table = particles.table.assign(label=names.astype("string"), role=np.where(names.notna(), "labeled", "core"))
    taught = hashlib.sha256(np.ascontiguousarray(numbers, dtype=np.int64).tobytes()).hexdigest()[:8]
    return replace(particles, table=table, fingerprint=f"{particles.fingerprint}/clusters:{taught}")


def _taught(particles: ParticleSet, settings: Settings, common: RunSettings) -> Latents:
    upright = ClassifierSettings(learn_turns=False)  # turned classes are for what was never seen; here all has been
    model, epochs = settings.start.model, settings.taught_epochs
    chain = ChainSettings(pretrain_epochs=epochs, classifier=upright, model=model, go_on=True)
    alone = replace(settings, start=replace(settings.start, seeds=(common.seed,), ways=()))
    (run,) = train_models(["classifier"], particles, alone, chain, common)
    return read_latents(run.path)


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)))
