"""Train an autoencoder on a particle set and write its run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoencoders.encode import encode_autoencoder
from autoencoders.losses import Likelihood
from autoencoders.models import Kind
from autoencoders.pictures import write_pictures
from autoencoders.training import AutoencoderTraining
from autoencoders.watch import Watch
from encoders.fit import FitSettings, fit, loaders, open_run
from encoders.warm_start import warm_start
from particles.loader import JITTER, resolve_augment
from particles.sets import ParticleSet
from provenance.errors import UserError
from provenance.files import write_json
from provenance.run import Run, RunSettings, find


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
    denoise: bool = False
    """Reconstruct each crop as it was before its augmentation: the latent then forgets what augmentation changes
    (Vincent et al. 2008, doi:10.1145/1390156.1390294; for a VAE, Im et al. 2017, arXiv:1511.06406)."""
    data_labeled: bool = True
    """Train on the labeled set too; --no-data-labeled trains on the core alone."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Training."""

    def __post_init__(self) -> None:
        if self.latent_dim < 2:
            raise UserError(f"--latent-dim {self.latent_dim}: give at least 2, or there is nothing to map")


def train_autoencoder(
    kind: Kind,
    flow_steps: int,
    particles: ParticleSet,
    settings: Any,
    how: AutoencoderSettings,
    common: RunSettings,
    say: Callable[[str], None] = print,
    classifier: Run | None = None,
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
        classifier: to start from; None for the newest on this data.

    Returns:
        The finished run, with latents of every row, a few reconstructions, samples and traversals.

    Raises:
        UserError: no classifier to start from, too little to train on, `--denoise` without an augmentation that can be
            undone, or a training that diverged.
    """
    refuse_lost_orientation(how, particles)
    # with fewer than two classes there is nothing a classifier could have learned
    warm = not how.from_scratch and particles.classifiable
    parents = _parents(how.fit.resume, classifier, particles, common) if warm else []
    with open_run(kind, settings, how.fit, common, particles, parents) as run:
        torch.manual_seed(common.seed)
        train, val = (particles.training_positions(split, how.data_labeled) for split in ("train", "val"))
        data = loaders(particles, train, val, how.fit, common.seed)
        size = particles.pixels.size
        model = AutoencoderTraining(
            kind, how.latent_dim, size, how.likelihood, flow_steps, how.fit.lr, how.kl_warmup, how.denoise
        )
        if parents:
            report = warm_start(model.net.trunk, parents[0].path / "best.ckpt", size)
            run.record(warm_start=str(report))
            say(str(report))
        watch = Watch(run, particles, train, val, warm=bool(parents), seed=common.seed, say=say)
        fit(model, data, run, how.fit, common.seed, monitor="val_loss", watching=[watch])
        watch.judge(model.net)
        latents = encode_autoencoder(model.net, particles, common.seed)
        if not np.isfinite(latents.z).all():
            raise UserError(f"{kind}: training diverged, there are no latents; give a lower --lr than {how.fit.lr:g}")
        latents.write(run.path)
        write_pictures(run.path, model.net, particles, val if len(val) else train, latents.index)
        write_json(run.path / "metrics.json", {"n_train": len(train), "n_val": len(val)})
    return run


def refuse_lost_orientation(how: AutoencoderSettings, particles: ParticleSet) -> None:
    """Denoising asks for what can be seen; a crop does not tell by which of the square's symmetries it was turned.

    Raises:
        UserError: `--denoise` with another augmentation than a jitter.
    """
    augment = resolve_augment(how.fit.augment, particles.oriented)
    if how.denoise and augment not in JITTER:
        raise UserError(f"--denoise cannot undo the augmentation '{augment}': give --augment affine, or --no-denoise")


def _parents(resume: Path | None, classifier: Run | None, particles: ParticleSet, common: RunSettings) -> list[Run]:
    """The classifier to start from: the given or newest one, or the one that a run to go on with has started from."""
    if resume is None:
        return [classifier or find("classifier", common.work, "best.ckpt", particles.identity)]
    return [Run(common.work / "runs" / name) for name in Run(resume.resolve()).info["parents"]]
