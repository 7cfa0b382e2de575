"""Train the published two-branch classifier: `python experiments/train_icelearning.py --data PATH --task 7-class`."""

from dataclasses import dataclass, field

import pandas as pd

from encoders.fit import FitSettings
from encoders.launch import led
from encoders.train_two_branch import TwoBranchSettings, train_two_branch
from figures.confusion import draw_confusion
from figures.finished import pictures_folder
from particles.sets import DataSettings, open_set
from particles.table import read_parquet
from provenance.progress import show_table
from provenance.run import Run, RunSettings
from provenance.settings import entry


@dataclass(frozen=True)
class Settings:
    """Train the ICELEARNING classifier: the image through a ResNet18, the 34 scalars beside it."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    classifier: TwoBranchSettings = field(default_factory=TwoBranchSettings)
    """What it is asked."""
    fit: FitSettings = field(default_factory=lambda: FitSettings(lr=1e-4))
    """Training."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> Run:
    """Train the two-branch ICELEARNING classifier (image and 34 scalars) on the labeled particles."""
    particles = open_set(settings.data, settings.common)
    run = train_two_branch(particles, settings, settings.classifier, settings.fit, settings.common)
    results = run.results
    classes = results["classes"]
    rows = [[name, *classes[name].values()] for name in classes]
    show_table(f"{run.kind}, on {results['n_test']} test particles", ["class", *next(iter(classes.values()))], rows)
    for name in ("accuracy", "merged_oak_accuracy"):
        if name in results:
            print(f"{name.replace('_', ' ')}: {results[name]:.4f}")
    print(draw(run, settings.common))
    print(run.path)
    return run


def draw(run: Run, common: RunSettings) -> str:
    """The confusion matrix as a picture; returns its path."""
    tested: pd.DataFrame = read_parquet(run.path / "tested.parquet")
    data = run.info["data"]
    path = pictures_folder(common.work, data["name"], data["fingerprint"]) / f"confusion-{run.kind}.png"
    title = f"{run.kind} on its test particles"
    return str(draw_confusion(tested["truth"], tested["predicted"], list(run.results["classes"]), path, title))


if __name__ == "__main__":
    entry(Settings, led(main))
