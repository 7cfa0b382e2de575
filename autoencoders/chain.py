"""The models one after another, each starting from what the one before has learned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from autoencoders.models import KINDS, Kind
from autoencoders.train import AutoencoderSettings, refuse_lost_orientation, train_autoencoder
from encoders.fit import FitSettings, begun
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
    go_on: bool = False
    """After a kill: take the models that the same command has finished, and go on with the one it has not."""
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
        particles: the set; with fewer than two classes there is no classifier, and the autoencoders start from scratch.
        settings: the script's settings, kept as config.json of each run.
        chain: how.
        common: seed and work folder.

    Returns:
        The finished runs of the asked latents.

    Raises:
        UserError: `--resume`, which names one training, or `--denoise` without a jitter.
    """
    if chain.model.fit.resume:
        raise UserError(
            "--resume names one training of pretrain_classifier.py, train_ae.py or train_vae.py: to go on with this "
            "command, give it with --go-on instead"
        )
    if any(kind in latents for kind in KINDS):
        refuse_lost_orientation(chain.model, particles)  # before the classifier has taken its minutes
    runs: list[Run] = []
    if particles.classifiable:
        fit = replace(chain.model.fit, epochs=chain.pretrain_epochs)
        before = begun("classifier", settings, common, particles) if chain.go_on else None
        runs.append(_made(before, fit, lambda how: pretrain(particles, settings, chain.classifier, how, common)))
    else:
        why = f"one class alone ({particles.classes[0]})" if particles.classes else "no labels"
        print(f"{why}: no classifier; the autoencoders start from scratch")
    start = runs[0] if runs else None
    for kind in (kind for kind in KINDS if kind in latents):
        before = begun(kind, settings, common, particles, start) if chain.go_on else None
        train = partial(_autoencoder, kind, particles, settings, chain, common, start)
        runs.append(_made(before, chain.model.fit, train))
    return [run for run in runs if run.kind in latents]


def _made(before: Run | None, fit: FitSettings, train: Callable[[FitSettings], Run]) -> Run:
    """What was begun before as it is if it is finished, else trained on; without it, trained."""
    if before and before.info["status"] == "finished":
        print(f"{before.name}: finished before")
        return before
    return train(replace(fit, resume=before.path if before else None))


def _autoencoder(
    kind: Kind, particles: ParticleSet, settings: Any, chain: ChainSettings, common: RunSettings, start: Run | None,
    fit: FitSettings,
) -> Run:  # fmt: skip
    how = replace(chain.model, fit=fit)
    return train_autoencoder(kind, chain.flow_steps, particles, settings, how, common, classifier=start)
