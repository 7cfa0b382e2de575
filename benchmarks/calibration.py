"""Are the p-values what they claim? Synthetic cores without any outlier, then with planted ones.

    python benchmarks/calibration.py --seeds 20

No network is trained: the only view is the 34 scalars, and a random forest on them stands in for the classifier whose
classes weight the known particles. What is tested is the calibration, which is the same for every view.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy.stats import kstest
from sklearn.ensemble import RandomForestClassifier

from benchmarks.demo import machine
from clustering.consensus import consensus, consensus_of
from clustering.outliers import OutlierSettings
from clustering.verdict import Kept, calibrated, scalar_scores
from particles.measures import normalized_scalars
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
    alone, among = ([_p_values(seed, kind, settings) for seed in range(settings.seeds)] for kind in (0, 1))
    every = np.concatenate([ranked["p_value"] for ranked, _ in alone])
    ks = np.array([kstest(ranked["p_value"], "uniform").statistic for ranked, _ in alone])
    print(f"{machine()}\n\nwithout outliers, {settings.seeds} cores of {settings.n_core}:")
    for level in (0.01, 0.05, 0.1, 0.5):
        print(f"  share of p <= {level}: {np.mean(every <= level):.3f}")
    print(f"  Kolmogorov-Smirnov distance from uniform: median {np.median(ks):.3f}, largest {ks.max():.3f}")
    print(f"  cores with any discovery: {sum(bool(ranked['discovery'].any()) for ranked, _ in alone)}")
    false, found = zip(*(_discoveries(ranked, truth) for ranked, truth in among), strict=True)
    print(f"with {10 * settings.n_per_kind} planted in each:")
    print(
        f"  discoveries {np.mean([len(f) for f in found]):.1f}, of them false {np.mean(false):.3f} (promised <= 0.10)"
    )
    print(f"{(time.perf_counter() - begun) / 60:.1f} min")


def _p_values(seed: int, planted: int, settings: Settings) -> tuple[pd.DataFrame, pd.Series]:
    """Ranked core with p-values, and by id whether a particle was planted."""
    data = DataSettings(
        n_core=settings.n_core, n_per_class=settings.n_per_class, n_per_kind=planted * settings.n_per_kind
    )
    particles = open_set(data, RunSettings(FIRST_SEED + seed, settings.work_dir), say=lambda _: None)
    rows = particles.table
    kept = Kept(
        core=rows.loc[rows["role"] == "core", "particle_id"],
        known=rows.loc[rows["label"].notna() & (rows["split"] == "test"), "particle_id"],
        reference=rows.loc[rows["label"].notna() & (rows["split"] == "train"), "particle_id"],
        predicted=_predicted(particles),
    )
    core, known = scalar_scores(rows, kept, OutlierSettings(), seed)
    views = {"scalars": core}
    ranked = calibrated(consensus(views), consensus_of({"scalars": known}, views), kept)
    return ranked, rows.set_index("particle_id")["is_outlier"]


def _predicted(particles: ParticleSet) -> pd.Series:
    rows = particles.table
    learn = rows["label"].notna() & (rows["split"] == "train")
    vectors = normalized_scalars(rows, learn)
    forest = RandomForestClassifier(300, random_state=0, n_jobs=-1).fit(vectors[learn], rows.loc[learn, "label"])
    return pd.Series(forest.predict(vectors), rows["particle_id"])


def _discoveries(ranked: pd.DataFrame, truth: pd.Series) -> tuple[float, np.ndarray]:
    """Share of false ones among the discoveries, and which they are."""
    found = ranked.loc[ranked["discovery"], "particle_id"].to_numpy()
    planted = truth.loc[found].to_numpy(dtype=bool)
    return float(1 - planted.mean()) if len(found) else 0.0, found


if __name__ == "__main__":
    main(tyro.cli(Settings))
