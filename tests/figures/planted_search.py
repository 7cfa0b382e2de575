"""A finished search of planted particles, for the tests of the report and of the exports: run folders, no training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from particles.latents import Latents
from particles.pixels import PixelStore, write_shard
from particles.scalars import SCALARS
from particles.sets import DataSettings, ParticleSet
from particles.table import write_parquet
from provenance.files import write_json
from provenance.run import Run, RunSettings, started

EVIL = '</td><script>alert("1")</script>\u202e&=1+1'
SIZE, D = 8, 4
LATENTS = ("classifier", "vae")


@dataclass(frozen=True)
class Config:
    """Settings of a script."""

    data: DataSettings = field(default_factory=DataSettings)
    common: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class Planted:
    """A set, its consensus, and the training and clustering runs below it."""

    particles: ParticleSet
    consensus: Run
    runs: list[Run]
    clustered: list[Run]
    work: Path


def plant(
    work: Path, n: int = 24, labels: bool = True, truth: bool = True, latents: tuple[str, ...] = LATENTS,
    evil: str = EVIL, discoveries: int = 3, seed: int = 0,
) -> Planted:  # fmt: skip
    """A core of n particles of which every eighth is an outlier, and 20 labeled ones.

    Each latent lists its rows in another order: only ids may join them. The first particle of the core, and one class,
    are named `evil`.
    """
    table = _table(n, labels, truth, evil)
    folder = work / "packed" / "planted"
    pixels = np.random.default_rng(5).integers(0, 256, (len(table), SIZE, SIZE), dtype=np.uint8)
    write_shard(folder / "pixels" / "00000.npy", pixels)
    rejected = pd.DataFrame({"particle_id": [evil, "b"], "image": ["a.png", "b.png"], "reason": "too small"})
    rejected.to_csv(folder / "rejected.csv", index=False)
    write_json(folder / "set.json", {"name": "planted", "source": {"kind": evil}, "settings": {"fit": "keep"},
                                     "size": SIZE, "n": len(table), "rejected": 2, "fingerprint": "print"})  # fmt: skip
    particles = ParticleSet("planted", table, PixelStore([folder / "pixels" / "00000.npy"]), "print", folder, False)
    config = Config(common=RunSettings(seed=seed, work_dir=work))
    runs = [_trained(kind, particles, config) for kind in latents]
    clustered = [_clustered(run, particles, config, len(latents)) for run in runs]
    return Planted(particles, _consensus(particles, clustered, config, labels, discoveries), runs, clustered, work)


def _table(n: int, labels: bool, truth: bool, evil: str) -> pd.DataFrame:
    known = 20 if labels else 0
    names = np.array(["dust", evil] * 10)[:known].tolist()
    strange = np.arange(n) % 8 == 0
    core_truth = pd.array(np.where(strange, "stranger", "dust") if truth else [pd.NA] * n, dtype="string")
    ids = [*(f"k{i}" for i in range(known)), evil, *(f"c{i}" for i in range(1, n))]
    rows = pd.DataFrame(
        {
            "particle_id": pd.array(ids, dtype="string"),
            "image": pd.array([f"run/{name}.png" for name in ids], dtype="string"),
            "label": pd.array([*names, *[pd.NA] * n], dtype="string"),
            "truth": pd.array([*names, *core_truth], dtype="string"),
            "role": ["labeled"] * known + ["core"] * n,
            "split": (["train"] * 3 + ["test"]) * (known // 4) + ["train"] * n,
            "sample": pd.array([pd.NA] * known + [evil] * (n // 2) + ["s2"] * (n - n // 2), dtype="string"),
            "is_outlier": pd.array([pd.NA] * known + (strange.tolist() if truth else [pd.NA] * n), dtype="boolean"),
            "um_per_px": pd.array([0.5] * (known + n), dtype="Float64"), "scale": 0.5,
            "width_px": pd.array([16] * (known + n), dtype="Int64"), "height_px": pd.array([10] * (known + n), "Int64"),
        }
    )  # fmt: skip
    scalars = pd.DataFrame({name: pd.array(np.arange(len(rows)) / 7, dtype="Float64") for name in SCALARS})
    places = {"core": pd.NA, "bag": 3046, "top_cm": 0.0, "bottom_cm": 20.0, "repeat": 1, "volume_ml": 0.25}
    # the store is in another order than the table
    return pd.concat([rows.assign(**places, position=np.arange(len(rows))[::-1]), scalars], axis=1)


def _trained(kind: str, particles: ParticleSet, config: Config) -> Run:
    rows = particles.table
    rng = np.random.default_rng(len(kind))
    order = rng.permutation(len(rows))
    index = rows[["particle_id", "label", "truth", "role", "split", "is_outlier"]].copy()
    if kind == "classifier":
        # every other test particle of the second class is taken for dust
        index["predicted"] = rows["label"].fillna("dust").mask(rows.index == 3, "dust").astype("string")
        index["confidence"] = np.float32(0.75)
    with started(kind, config, config.common, particles.identity) as run:
        z = rng.normal(size=(len(rows), D)).astype(np.float32)
        Latents(z[order], index.iloc[order].reset_index(drop=True)).write(run.path)
        kl = {} if kind in ("classifier", "ae") else {"val_kl": [9.0, 8.0], "active_units": [4.0, 4.0]}
        frame = pd.DataFrame({"epoch": [0, 1], "train_loss": [2.0, 1.0], "val_loss": [1.0, 2.0], **kl})
        frame.to_csv(run.path / "metrics.csv", index=False)
    return run


def _clustered(trained: Run, particles: ParticleSet, config: Config, salt: int) -> Run:
    core = particles.table.loc[particles.table["role"] == "core", ["particle_id"]]
    core = core.sample(frac=1, random_state=len(trained.kind) + salt).reset_index(drop=True)
    rng, n = np.random.default_rng(len(trained.kind)), len(core)
    group = {"n": 2, "noise": 1, "ari": None, "nmi": None, "acc": None}
    metrics: dict[str, Any] = {name: dict(group) for name in ("kmeans", "dbscan", "hdbscan")}
    with started(f"clusters-{trained.kind}", config, config.common, particles.identity, [trained]) as run:
        numbers = (np.arange(n) % 3) - 1
        write_parquet(
            core.assign(kmeans=numbers + 1, dbscan=numbers, hdbscan=numbers, fitted=True), run.path / "clusters.parquet"
        )
        xy = rng.normal(size=(n, 2)).astype(np.float32)
        write_parquet(core.assign(umap_x=xy[:, 0], umap_y=xy[:, 1]), run.path / "maps.parquet")
        scored = core.assign(knn=rng.random(n), score=rng.random(n))
        rank = scored["score"].rank(ascending=False).astype("int64")
        write_parquet(scored.assign(rank=rank), run.path / "outliers.parquet")
        write_json(run.path / "metrics.json", metrics)
    return run


def _consensus(particles: ParticleSet, clustered: list[Run], config: Config, labels: bool, found: int) -> Run:
    core = particles.table[particles.table["role"] == "core"].reset_index(drop=True)
    n = len(core)
    rank = np.array([1, *np.random.default_rng(1).permutation(n - 1) + 2])  # the evil one first
    p_values = rank / n if labels else np.nan
    frame = core[["particle_id"]].assign(
        **{"vae.knn": 1 - rank / n}, score=-rank.astype(float), rank=rank, reasons=f"{EVIL}; improbable (vae, top 1 %)",
        p_value=p_values, known_as_strange=pd.array(rank - 1 if labels else [None] * n, dtype="Int64"),
        discovery=(rank <= found) & labels,
    )  # fmt: skip
    with started("consensus", config, config.common, particles.identity, clustered) as run:
        write_parquet(frame, run.path / "outliers.parquet")
        write_json(run.path / "metrics.json", {"auroc": None})
    return run
