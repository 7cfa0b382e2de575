"""Cores of 100,000 to 3,085,063 particles, mapped, grouped, scored and ranked by one command each.

    python -m benchmarks.clustering_at_size --sizes 100000 1000000 3085063

Generated latents (seven clusters of unequal size and shape, 300 planted outliers) stand beside a packed set of tiny
crops, as if a VAE had been trained on it; what is timed is `python clustering/run.py --latent vae` from start to end.
First the smallest core is searched twice, fitted whole and in part, and the two are compared.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from sklearn.metrics import adjusted_rand_score

from benchmarks.demo import machine
from particles.latents import INDEX_COLUMNS, Latents
from particles.pixels import write_shard
from particles.sets import DataSettings, open_set
from particles.table import MEASURED_COLUMNS, empty_rows, read_parquet, validated, write_parquet
from provenance.files import write_json
from provenance.run import PROJECT, Run, RunSettings, started

SHARES = (0.62, 0.15, 0.09, 0.06, 0.04, 0.03, 0.01)
"""Of the clusters: nearly everything is dust."""
N_LABELED = 7_000
SIDE, SHARD = 8, 100_000


@dataclass(frozen=True)
class Settings:
    """Generate, search, compare, time."""

    sizes: tuple[int, ...] = (100_000, 1_000_000, 3_085_063)
    """Particles of the core."""
    dims: int = 32
    """D of the latent."""
    planted: int = 300
    """Outliers in each core."""
    far: float = 1.7
    """How far a planted one lies from its cluster's center, in what its members do."""
    sample: int = 50_000
    """--fit-sample."""
    tsne: bool = True
    """Both maps."""
    seed: int = 0
    """Of all."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "clustering"
    """Where sets and runs go."""


def main(settings: Settings) -> None:
    """Print the comparison and a row for each size."""
    print(machine(), flush=True)
    _compare(min(settings.sizes), settings)
    print("\n| particles | fitted | minutes | GiB | HDBSCAN ARI | kNN recall_at_n | all scores | log-log slope |")
    print("|---|---|---|---|---|---|---|---|")
    before: tuple[int, float] | None = None
    for n in sorted(settings.sizes):
        run, minutes, memory = searched(n, settings.sample, settings)
        slope = np.log(minutes / before[1]) / np.log(n / before[0]) if before else float("nan")
        before = before or (n, minutes)
        found, scores = run.results, run.results["outliers"]
        print(f"| {n:,} | {found['fitted']:,} | {minutes:.1f} | {memory:.1f} | {found['hdbscan']['ari']:.4f} "
              f"| {scores['knn']['recall_at_n']:.3f} | {scores['combined']['recall_at_n']:.3f} | {slope:.2f} |",
              flush=True)  # fmt: skip


def _compare(n: int, settings: Settings) -> None:
    """The same core fitted whole and in part."""
    (whole, t_whole, _), (part, t_part, _) = (searched(n, sample, settings) for sample in (n, settings.sample))
    groups = [read_parquet(run.path / "clusters.parquet").set_index("particle_id") for run in (whole, part)]
    for method in ("kmeans", "dbscan", "hdbscan"):
        ari = adjusted_rand_score(groups[0][method], groups[1].loc[groups[0].index, method])
        print(f"{n:,} particles, {settings.sample:,} of them fitted or all, {method}: ARI of the two {ari:.4f}")
    for name in ("knn", "cosine", "whitened", "mahalanobis", "isolation_forest", "combined"):
        recalls = [run.results["outliers"][name]["recall_at_n"] for run in (whole, part)]
        print(f"recall_at_n by {name}: {recalls[0]:.3f} fitted whole, {recalls[1]:.3f} in part")
    print(f"minutes: {t_whole:.1f} and {t_part:.1f}", flush=True)


def searched(n: int, sample: int, settings: Settings) -> tuple[Run, float, float]:
    """Search a core by the command that a user would give: its run, minutes, and peak memory in GiB."""
    folder, common = generated(n, settings)
    command = [sys.executable, str(PROJECT / "clustering" / "run.py"), "--latent", "vae", "--data", str(folder),
               "--work-dir", str(common.work), "--seed", str(settings.seed), "--fit-sample", str(sample),
               *([] if settings.tsne else ["--no-tsne"])]  # fmt: skip
    begun = time.perf_counter()
    with (common.work / f"log-{n}-{sample}.txt").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
    minutes = (time.perf_counter() - begun) / 60
    if status:
        sys.exit(f"{' '.join(command)}: failed, see {log.name}")
    newest = max((common.work / "runs" / "clusters-vae").iterdir())
    return Run(newest), minutes, usage.ru_maxrss / 2**20


def generated(n: int, settings: Settings) -> tuple[Path, RunSettings]:
    """A packed set of n core particles and labeled ones, and the latents of a training that never was."""
    common = RunSettings(settings.seed, settings.work_dir / f"{n}-{settings.seed}")
    folder = common.work / "set"
    if not (common.work / "runs" / "vae").exists():
        z, truth = vectors(n, settings)
        _write_set(folder, truth)
        particles = open_set(DataSettings(str(folder)), common, say=lambda _: None)
        with started("vae", settings, common, particles.identity) as run:
            order = particles.table["position"].to_numpy(dtype=np.int64)
            Latents(z[order], particles.table[list(INDEX_COLUMNS)]).write(run.path)
    return folder, common


def vectors(n: int, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Labeled particles, then the core: (N, D) float32, and the cluster or `planted` of each."""
    rng = np.random.default_rng(settings.seed)
    d, k = settings.dims, len(SHARES)
    centers = rng.normal(size=(k, d)) * 4
    shapes = [np.diag(rng.uniform(0.5, 1.5, d)) @ np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in SHARES]
    of = np.concatenate([np.arange(N_LABELED) % k, rng.choice(k, n, p=SHARES)])
    noise = rng.normal(size=(len(of), d)).astype(np.float32)
    strange = N_LABELED + rng.choice(n, settings.planted, replace=False)
    noise[strange] *= settings.far
    z = np.empty_like(noise)
    for cluster, (center, shape) in enumerate(zip(centers, shapes, strict=True)):
        z[of == cluster] = noise[of == cluster] @ shape.astype(np.float32) + center
    truth = np.array([f"kind_{i}" for i in range(k)], dtype=object)[of]
    truth[strange] = "planted"
    return z, truth


def _write_set(folder: Path, truth: np.ndarray) -> None:
    n = len(truth)
    rows = empty_rows(n)
    rows["particle_id"] = pd.array([f"GRIP_{3000 + i // 60_000}_0_{i % 40}_1_{i}" for i in range(n)], dtype="string")
    rows["image"], rows["truth"] = rows["particle_id"], pd.array(truth, dtype="string")
    rows["role"] = pd.array(["labeled"] * N_LABELED + ["core"] * (n - N_LABELED), dtype="string")
    rows["label"] = rows["truth"].where(rows["role"] == "labeled")
    rows["bag"] = pd.array(3000 + np.arange(n) // 60_000, dtype="Int64")
    missing = {name: pd.array([pd.NA] * n, dtype=kind) for name, kind in MEASURED_COLUMNS.items()}
    write_parquet(validated(rows, str(folder)).assign(**missing), folder / "table.parquet")
    shards = range(0, n, SHARD)
    for number, start in enumerate(shards):
        write_shard(folder / "pixels" / f"{number:05d}.npy", np.zeros((min(SHARD, n - start), SIDE, SIDE), np.uint8))
    info = {"name": f"generated-{n}", "fingerprint": f"generated-{n}", "shards": len(shards), "oriented": False,
            "settings": {"fit": "keep", "mean_correction": False}}  # fmt: skip
    write_json(folder / "set.json", info)


if __name__ == "__main__":
    main(tyro.cli(Settings))
