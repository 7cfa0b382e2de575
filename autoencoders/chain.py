"""The models one after another, each starting from what the one before has learned."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoencoders.models import KINDS
from autoencoders.train import AutoencoderSettings, refuse_lost_orientation, train_autoencoder
from encoders.pretrain import ClassifierSettings, pretrain
from particles.sets import ParticleSet
from provenance.errors import UserError
from provenance.run import Run, RunSettings


@dataclass(frozen=True)
class ChainSettings:
    """How the models are trained."""

    pretrain_epochs: int = 12
    """Epochs of the classifier; those of the autoencoders are --epochs."""
    flow_steps: int = 4
    """K, steps of the planar flow."""
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    """What the classifier learns."""
    model: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    """Autoencoders and training."""

    def __post_init__(self) -> None:
        for name in ("pretrain_epochs", "flow_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least 1")


def train_models(
    latents: Sequence[str], particles: ParticleSet, settings: Any, chain: ChainSettings, common: RunSettings
) -> list[Run]:
    """Train what the asked latents need.

    Args:
        latents: of `classifier`, `ae`, `vae`, `planar-vae`.
        particles: the set; where it has no labels there is no classifier, and the autoencoders start from scratch.
        settings: the script's settings, kept as config.json of each run.
        chain: how.
        common: seed and work folder.

    Returns:
        The finished runs of the asked latents.

    Raises:
        UserError: `--resume`, which names one training, or `--denoise` without `--augment affine`.
    """
    if chain.model.fit.resume:
        raise UserError("--resume names one training: it goes with pretrain_classifier.py, train_ae.py, train_vae.py")
    refuse_lost_orientation(chain.model, particles)  # before the classifier has taken its minutes
    runs = []
    if particles.classes:
        fit = replace(chain.model.fit, epochs=chain.pretrain_epochs)
        runs.append(pretrain(particles, settings, chain.classifier, fit, common))
    else:
        print("no labels: no classifier; the autoencoders start from scratch")
    for kind in KINDS:
        if kind in latents:
            runs.append(train_autoencoder(kind, chain.flow_steps, particles, settings, chain.model, common))
    return [run for run in runs if run.kind in latents]
