"""A class held out: does the consensus find it, and would what anybody could do without us find it as well?

    python -m benchmarks.baselines --cases ash flowcam --seeds 0 1 2
    python -m benchmarks.baselines --cases synthetic kinds --latents classifier vae

Beside the consensus, on the same particles: raw pixels through PCA to 64 dimensions and kNN, the 34 scalars with an
isolation forest, and with PyOD's ECOD and kNN (`pip install pyod`; without it their columns are empty).
"""

import importlib
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from autoencoders.chain import ChainSettings, train_models
from benchmarks.demo import machine
from clustering.metrics import Values, outlier_metrics
from clustering.outliers import isolation, knn_distance
from clustering.run import ClusteringSettings, run_clustering
from experiments.find_outliers import Settings as Demo
from particles.scalars import SCALARS
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import read_parquet
from provenance.run import LATENTS, PROJECT, RunSettings

ASH = ("blocky", "elongated", "rounded", "vesicular")
RARE = (("camp",), ("grim",), ("corylus",), ("qrob",), ("qsub",), ("cont",), ("qrob", "qsub"))
"""Classes of the synthetic core but for dust, which is nine tenths of it and cannot be its outlier; the two oaks, which
differ little, together too."""


@dataclass(frozen=True)
class Settings:
    """Hold classes out, rank, compare."""

    cases: tuple[str, ...] = ("ash", "flowcam")
    """ash (each of its shapes), flowcam (Protist), synthetic (each class but dust), kinds (the planted ones)."""
    seeds: tuple[int, ...] = (0,)
    """One training each."""
    latents: tuple[str, ...] = LATENTS
    """Those in the consensus."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "baselines"
    """Where the runs go."""
    chain: ChainSettings = field(default_factory=lambda: Demo().chain)
    """The models: those of find_outliers.py."""


def main(settings: Settings) -> None:
    """Print a row for each case and way as it comes, then the means over the seeds."""
    print(f"{machine()}\n\n| case | seed | way | AUROC | average precision | recall_at_n | minutes |\n|{'---|' * 7}")
    rows = []
    for name, data in _cases(settings.cases):
        for seed in settings.seeds:
            begun = time.perf_counter()
            for found in _judged(name, data, seed, settings):
                rows.append(found)
                minutes = (time.perf_counter() - begun) / 60
                print(_line([found["case"], seed, found["way"], *_three(found), minutes]), flush=True)
    frame = pd.DataFrame(rows)
    means = frame.groupby(["case", "way"], sort=False)[["auroc", "average_precision", "recall_at_n"]].agg(
        ["mean", "std"]
    )
    print("\nmean and standard deviation over the seeds\n")
    print(means.round(3).to_string())


def _cases(names: tuple[str, ...]) -> Iterator[tuple[str, DataSettings]]:
    plain = DataSettings()
    root = plain.root
    for name in names:
        if name == "ash":
            for shape in ASH:
                yield f"ash without {shape}", replace(plain, data=str(root / "volcanic_ash"), held_out=(shape,))
        elif name == "flowcam":
            yield (
                "FlowCam without Protist",
                replace(plain, data=str(root / "flowcam"), held_out=("Protist",), um_per_px=0.5544),
            )
        elif name == "synthetic":
            for kinds in RARE:
                yield f"synthetic without {' and '.join(kinds)}", replace(plain, n_per_kind=0, held_out=kinds)
        else:
            yield "planted", plain


def _judged(case: str, data: DataSettings, seed: int, settings: Settings) -> Iterator[dict[str, object]]:
    """Rows of the table: the consensus and every baseline, where kinds are planted also each kind alone."""
    common = RunSettings(seed, settings.work_dir)
    particles = open_set(data, common, say=lambda _: None)
    core = particles.table[particles.table["role"] == "core"].reset_index(drop=True)
    scores = {"consensus": _consensus(particles, core, settings, common), **baseline_scores(particles, seed)}
    for way, score in scores.items():
        yield {"case": case, "way": way, **outlier_metrics(core["is_outlier"], score)}
    if case != "planted":
        return
    strange = core["is_outlier"].fillna(False).to_numpy(dtype=bool)
    for kind in sorted(core.loc[strange, "truth"].unique()):
        among = (~strange | (core["truth"] == kind).to_numpy(dtype=bool)).nonzero()[0]
        for way, score in scores.items():
            found = outlier_metrics(core["is_outlier"].iloc[among], score[among])
            yield {"case": f"planted: {kind}", "way": way, **found}


def _consensus(particles: ParticleSet, core: pd.DataFrame, settings: Settings, common: RunSettings) -> np.ndarray:
    runs = train_models(settings.latents, particles, settings, replace(settings.chain, go_on=True), common)
    quick = replace(ClusteringSettings(), maps=replace(ClusteringSettings().maps, tsne=False))
    _, consensus = run_clustering(particles, runs, settings, quick, common)
    ranked = read_parquet(consensus.path / "outliers.parquet").set_index("particle_id")
    return ranked.loc[core["particle_id"], "score"].to_numpy()


def baseline_scores(particles: ParticleSet, seed: int) -> dict[str, np.ndarray]:
    """What one would do without us, each fitted on what our scores are fitted on.

    Args:
        particles: the set.
        seed: of PCA and forest.

    Returns:
        By name (N core particles,), higher = stranger.
    """
    rows = particles.table
    core, learned = (rows["role"] == "core").to_numpy(), (rows["split"] == "train").to_numpy(dtype=bool)
    own = np.where(learned, np.cumsum(learned) - 1, -1)[core]
    pixels = particles.pixels[rows["position"].to_numpy(dtype=np.int64)].reshape(len(rows), -1).astype(np.float32)
    pca = PCA(64, random_state=seed, svd_solver="randomized").fit(pixels[learned])
    flat = pca.transform(pixels)
    table = rows[list(SCALARS)].to_numpy(dtype=float, na_value=np.nan)
    table = np.where(np.isfinite(table), table, np.nanmedian(table[learned], axis=0))
    measured = StandardScaler().fit(table[learned]).transform(table)
    found = {
        "pixels, PCA-64 + kNN": knn_distance(flat[core], flat[learned], 20, own),
        "scalars, isolation forest": isolation(measured[core], measured[learned], 200, seed),
    }
    return found | _pyod(measured[core], measured[learned], own)


def _pyod(core: np.ndarray, learned: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    if importlib.util.find_spec("pyod") is None:
        return {}
    ways = {"scalars, PyOD ECOD": ("ecod", "ECOD"), "scalars, PyOD kNN": ("knn", "KNN")}
    scores = {}
    for way, (module, name) in ways.items():
        model = getattr(importlib.import_module(f"pyod.models.{module}"), name)().fit(learned)
        # asked anew about a particle it was fitted on, its kNN takes the particle for its own nearest neighbor
        scores[way] = np.where(own >= 0, model.decision_scores_[own], model.decision_function(core))
    return scores


def _three(found: dict[str, object] | Values) -> list[object]:
    return [found[name] for name in ("auroc", "average_precision", "recall_at_n")]


def _line(values: list[object]) -> str:
    return f"| {' | '.join(f'{v:.3f}' if isinstance(v, float) else str(v) for v in values)} |"


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.OmitArgPrefixes,)))
