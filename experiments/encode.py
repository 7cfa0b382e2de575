"""Embed a particle set with a trained model: `python experiments/encode.py --latent vae --data PATH`."""

from dataclasses import dataclass, field

from autoencoders.encode import encode_autoencoder
from autoencoders.models import Kind
from autoencoders.training import load_autoencoder
from encoders.arithmetic import Precision, best_device
from encoders.classifier import load_classifier
from encoders.encode import encode_classifier
from particles.sets import DataSettings, ParticleSet, open_set, refuse_other_squares
from provenance.errors import UserError
from provenance.run import LATENTS, Run, RunSettings, find, started
from provenance.settings import entry


@dataclass(frozen=True)
class Settings:
    """Embed a particle set with a model trained on this or another set."""

    latent: str = "vae"
    """classifier, ae, vae or planar-vae: the newest finished training run; <latent>/<id> pins one."""
    precision: Precision = "32"
    """32: float32; auto: bf16 where the processor has instructions for it, which is faster and agrees to two or three
    digits."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Embed a particle set with a trained model; `clustering/run.py --latent` then finds the latents."""
    kind = settings.latent.partition("/")[0]
    if kind not in LATENTS:
        raise UserError(f"--latent {settings.latent}: no such latent; there are {', '.join(LATENTS)}")
    model = find(settings.latent, settings.common.work, "best.ckpt", fingerprint=None)
    particles = open_set(settings.data, settings.common)
    refuse_other_squares(model.name, model.info["data"].get("squares", {}), particles.squares)
    with started(kind, settings, settings.common, particles.identity, [model]) as run:
        run.record(device=str(best_device()))
        _encode(kind, model, particles, settings, run)
    print(run.path)


def _encode(kind: str, model: Run, particles: ParticleSet, settings: Settings, run: Run) -> None:
    checkpoint = model.path / "best.ckpt"
    if kind == "classifier":
        classifier = load_classifier(checkpoint)
        _refuse_size(classifier.hparams["size"], particles, model)
        encode_classifier(classifier, particles, settings.precision).write(run.path)
        return
    trained = load_autoencoder(checkpoint, _KINDS[kind])
    _refuse_size(trained.hparams["size"], particles, model)
    encode_autoencoder(trained.net, particles, settings.common.seed, settings.precision).write(run.path)


_KINDS: dict[str, Kind] = {"ae": "ae", "vae": "vae", "planar-vae": "planar-vae"}


def _refuse_size(size: int, particles: ParticleSet, model: Run) -> None:
    if size != particles.pixels.size:
        raise UserError(f"{model.name} was trained on {size} px images, this data has {particles.pixels.size} px: "
                        f"give --size {size}")  # fmt: skip


if __name__ == "__main__":
    entry(Settings, main)
