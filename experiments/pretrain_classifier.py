"""Train the ResNet18 classifier on the labeled particles: `python experiments/pretrain_classifier.py`."""

from dataclasses import dataclass, field

from encoders.fit import FitSettings
from encoders.launch import led
from encoders.pretrain import ClassifierSettings, pretrain
from particles.sets import DataSettings, open_set
from provenance.progress import show_table
from provenance.run import RunSettings
from provenance.settings import entry


@dataclass(frozen=True)
class Settings:
    """Train the classifier; its penultimate layer is the `classifier` latent."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    """What it learns."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Training."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Train the ResNet18 classifier on the labeled particles."""
    particles = open_set(settings.data, settings.common)
    run = pretrain(particles, settings, settings.classifier, settings.fit, settings.common)
    results = run.results
    show_table("Classifier", ["run", "test accuracy", "test particles"], [[run.name, *results.values()]])
    print(run.path)


if __name__ == "__main__":
    entry(Settings, led(main))
