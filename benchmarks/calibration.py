"""Are the p-values what they claim? Synthetic cores without any outlier, then with planted ones.

    python benchmarks/calibration.py --seeds 20

No network is trained: the only view is the 34 scalars, and a random forest on them stands in for the classifier whose
classes weight the known particles. What is tested is the calibration of one view; networks, which train on the core and
not on the known, are not in it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy.stats import kstest, kstwobign
from sklearn.ensemble import RandomForestClassifier

from benchmarks.demo import machine
from clustering.calibration import class_weights
from clustering.consensus import consensus, consensus_of, score_weights
from clustering.kept import Kept
from clustering.outliers import OutlierSettings
from clustering.verdict import calibrated
from clustering.views import scalar_scores
from particles.measures import COMPARED, normalized_scalars
from particles.sets import DataSettings, ParticleSet, open_set
from provenance.run import PROJECT, RunSettings

FIRST_SEED = 1000


@dataclass(frozen=True)
class Settings:
    """Calibrate many synthetic cores."""

    seeds: int = 20
    """Cores of each sort."""
    n_core: int = 1000
    """Particles a core."""
    n_per_class: int = 1000
    """Labeled particles of each class; the test split, a fifth, is held back as in a search."""
    n_per_kind: int = 8
    """Planted in the cores with outliers, of each of ten kinds."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "calibration"
    """Where packed sets go."""


def main(settings: Settings) -> None:
    """Print the uniformity without outliers, and the false discoveries with them."""
    begun = time.perf_counter()
    alone, among = ([_ranked(seed, kind, settings) for seed in range(settings.seeds)] for kind in (0, 1))
    every = np.concatenate([core.ranked["p_value"].dropna() for core in alone])
    ks = np.array([kstest(core.ranked["p_value"].dropna(), "uniform").statistic for core in alone])
    chance = np.array([by_chance(len(core.ranked), core.known) for core in alone])
    print(f"{machine()}\n\nwithout outliers, {settings.seeds} cores of {settings.n_core}:")
    for level in (0.01, 0.05, 0.1, 0.5):
        print(f"  share of p <= {level}: {np.mean(every <= level):.3f}")
    print(f"  Kolmogorov-Smirnov distance from uniform: median {np.median(ks):.3f}, largest {ks.max():.3f}")
    print(f"  beyond what one core in twenty has by chance ({np.median(chance):.3f}): {int((ks > chance).sum())}")
    print(f"  known particles of equal weight: {np.median([core.known for core in alone]):.0f}")
    print(f"  the same distance of all together: {kstest(every, 'uniform').statistic:.3f}")
    print(f"  cores with any discovery: {sum(bool(core.ranked['discovery'].any()) for core in alone)}")
    found, false = np.transpose([_discoveries(core.ranked, core.truth) for core in among])
    shares = false / np.maximum(found, 1)  # none found, none false (Benjamini & Hochberg)
    print(f"with {10 * settings.n_per_kind} planted in each:")
    print(f"  cores with any discovery: {(found > 0).sum()}; discoveries a core: {', '.join(map(str, found))}")
    print(f"  share of false ones, mean over cores: {shares.mean():.3f} +- "
          f"{shares.std(ddof=1) / np.sqrt(len(shares)):.3f} (promised <= 0.10)")  # fmt: skip
    print(f"  of all {found.sum()} discoveries {false.sum()} are false")
    print(f"{(time.perf_counter() - begun) / 60:.1f} min")


@dataclass(frozen=True)
class Core:
    """A ranked core."""

    ranked: pd.DataFrame
    """With p-values."""
    truth: pd.Series
    """By id, whether a particle was planted."""
    known: float
    """How many known particles of equal weight would be as sure as those held back are with theirs (Kish)."""


def by_chance(n: int, known: float) -> float:
    """Kolmogorov-Smirnov distance from uniform that one core in twenty exceeds though all is well.

    A core's p-values are ranks among the known particles held back: it is the distance between two samples.
    """
    return float(kstwobign.isf(0.05) * np.sqrt(1 / n + 1 / known))


def _ranked(seed: int, planted: int, settings: Settings) -> Core:
    data = DataSettings(
        n_core=settings.n_core, n_per_class=settings.n_per_class, n_per_kind=planted * settings.n_per_kind
    )
    particles = open_set(data, RunSettings(FIRST_SEED + seed, settings.work_dir), say=lambda _: None)
    rows = particles.table
    predicted = _predicted(particles)
    kept = Kept(
        core=rows.loc[rows["role"] == "core", "particle_id"],
        known=rows.loc[rows["label"].notna() & (rows["split"] == "test"), "particle_id"],
        reference=rows.loc[rows["label"].notna() & (rows["split"] == "train"), "particle_id"],
        predicted=predicted,
        label=rows.set_index("particle_id")["label"],
    )
    core, known, _ = scalar_scores(rows, COMPARED, kept, OutlierSettings(), seed)
    views = {"scalars": core}
    ranked = consensus(views)
    ranked = calibrated(ranked, consensus_of({"scalars": known}, views, score_weights(ranked)), kept)
    of_core, of_known = (predicted.loc[ids].reset_index(drop=True) for ids in (kept.core, kept.known))
    weights = of_known.map(class_weights(of_core, of_known))
    return Core(ranked, rows.set_index("particle_id")["is_outlier"], weights.sum() ** 2 / (weights**2).sum())


def _predicted(particles: ParticleSet) -> pd.Series:
    rows = particles.table
    learn = rows["label"].notna() & (rows["split"] == "train")
    vectors = normalized_scalars(rows, learn)
    forest = RandomForestClassifier(300, random_state=0, n_jobs=-1).fit(vectors[learn], rows.loc[learn, "label"])
    return pd.Series(forest.predict(vectors), rows["particle_id"])


def _discoveries(ranked: pd.DataFrame, truth: pd.Series) -> tuple[int, int]:
    """How many discoveries there are, and how many of them are false."""
    planted = truth.loc[ranked.loc[ranked["discovery"], "particle_id"]].to_numpy(dtype=bool)
    return len(planted), int((~planted).sum())


if __name__ == "__main__":
    main(tyro.cli(Settings))
