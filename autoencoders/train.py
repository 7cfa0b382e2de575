"""Train an autoencoder on a particle set and write its run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from autoencoders.encode import encode_autoencoder, reconstruct
from autoencoders.losses import Likelihood
from autoencoders.models import Kind
from autoencoders.training import AutoencoderTraining
from encoders.fit import FitSettings, fit, loaders, open_run
from encoders.warm_start import warm_start
from particles.loader import as_input
from particles.sets import ParticleSet
from provenance.files import replacing, write_json
from provenance.run import Run, RunSettings, find

SHOWN_RECONSTRUCTIONS = 24


@dataclass(frozen=True)
class AutoencoderSettings:
    """What the autoencoder is and what it learns from."""

    latent_dim: int = 32
    """D, dimensions of the latent."""
    likelihood: Likelihood = "gaussian"
    """Of a pixel: gaussian with a learned sigma, or bernoulli (binary images)."""
    kl_warmup: float = 3.0
    """Epochs over which the KL's weight grows to 1."""
    from_scratch: bool = False
    """Do not start the trunk from the classifier."""
    data_labeled: bool = True
    """Train on the labeled set too; --no-data-labeled trains on the core alone."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Training."""


def train_autoencoder(
    kind: Kind,
    flow_steps: int,
    particles: ParticleSet,
    settings: Any,
    how: AutoencoderSettings,
    common: RunSettings,
    say: Callable[[str], None] = print,
) -> Run:
    """Warm-start, train, encode.

    Args:
        kind: `ae`, `vae` or `planar-vae`.
        flow_steps: K, for `planar-vae`.
        particles: the set.
        settings: the script's settings, kept as config.json.
        how: model and training.
        common: seed and work folder.
        say: takes one-line messages.

    Returns:
        The finished run, with latents of every row and a few reconstructions.

    Raises:
        UserError: no classifier to start from, or too little to train on.
    """
    # without labels there is nothing a classifier could have learned from
    warm = not how.from_scratch and bool(particles.classes)
    parents = [find("classifier", common.work, "best.ckpt", particles.fingerprint)] if warm else []
    with open_run(kind, settings, how.fit, common, particles, parents) as run:
        torch.manual_seed(common.seed)
        train, val = (particles.training_positions(split, how.data_labeled) for split in ("train", "val"))
        data = loaders(particles, train, val, how.fit, common.seed)
        size = particles.pixels.size
        model = AutoencoderTraining(kind, how.latent_dim, size, how.likelihood, flow_steps, how.fit.lr, how.kl_warmup)
        if parents:
            report = warm_start(model.net.trunk, parents[0].path / "best.ckpt", size)
            run.record(warm_start=str(report))
            say(str(report))
        fit(model, data, run, how.fit, common.seed, monitor="val_loss")
        encode_autoencoder(model.net, particles, common.seed).write(run.path)
        _write_reconstructions(run, model, particles, val)
        write_json(run.path / "metrics.json", {"n_train": len(train), "n_val": len(val)})
    return run


def _write_reconstructions(run: Run, model: AutoencoderTraining, particles: ParticleSet, val: np.ndarray) -> None:
    """`reconstructions.npy` (2, n, S, S) uint8: validation images and the model's pictures of them, and their ids."""
    shown = np.sort(np.random.default_rng(0).permutation(val)[:SHOWN_RECONSTRUCTIONS])
    images = particles.pixels[shown]
    pairs = np.stack([images, reconstruct(model.net, as_input(images))])
    ids = particles.table.set_index("position").loc[shown, "particle_id"].tolist()
    write_json(run.path / "reconstructions.json", ids)
    with replacing(run.path / "reconstructions.npy") as beside:
        np.save(beside, pairs, allow_pickle=False)
