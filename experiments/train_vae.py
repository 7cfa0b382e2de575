"""Train the variational autoencoder: `python experiments/train_vae.py`, with a flow `--flow planar`."""

from dataclasses import dataclass, field
from typing import Literal

from autoencoders.models import Kind
from autoencoders.train import AutoencoderSettings, train_autoencoder
from encoders.launch import led
from particles.sets import DataSettings, open_set
from provenance.errors import UserError
from provenance.run import RunSettings
from provenance.settings import entry

KIND_OF_FLOW: dict[str, Kind] = {"none": "vae", "planar": "planar-vae"}


@dataclass(frozen=True)
class Settings:
    """Train the variational autoencoder, its trunk started from the classifier."""

    flow: Literal["none", "planar"] = "none"
    """planar: a planar normalizing flow on the posterior; the latent is then called planar-vae."""
    flow_steps: int = 4
    """K, steps of the flow."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    model: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    """Model and training."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""

    def __post_init__(self) -> None:
        if self.flow_steps < 1:
            raise UserError(f"--flow-steps {self.flow_steps}: give at least 1")


def main(settings: Settings) -> None:
    """Train the variational autoencoder, its trunk started from the classifier."""
    particles = open_set(settings.data, settings.common)
    kind = KIND_OF_FLOW[settings.flow]
    print(train_autoencoder(kind, settings.flow_steps, particles, settings, settings.model, settings.common).path)


if __name__ == "__main__":
    entry(Settings, led(main))
