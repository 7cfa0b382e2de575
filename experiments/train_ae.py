"""Train the plain autoencoder: `python experiments/train_ae.py`."""

from dataclasses import dataclass, field

from autoencoders.train import AutoencoderSettings, train_autoencoder
from encoders.launch import led
from particles.sets import DataSettings, open_set
from provenance.run import RunSettings
from provenance.settings import entry


@dataclass(frozen=True)
class Settings:
    """Train the plain autoencoder, its trunk started from the classifier."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    model: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    """Model and training."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Train the plain autoencoder, its trunk started from the classifier."""
    particles = open_set(settings.data, settings.common)
    print(train_autoencoder("ae", 0, particles, settings, settings.model, settings.common).path)


if __name__ == "__main__":
    entry(Settings, led(main))
