"""Clusters as labels: who gets which, whom nobody labels, and which clusters a classifier makes one."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.mnist_self_training import labeled
from benchmarks.mnist_unsupervised import called_alike
from particles.pixels import PixelStore
from particles.sets import ParticleSet


def unlabeled(tmp_path: Path) -> ParticleSet:
    np.save(tmp_path / "pixels.npy", np.zeros((5, 8, 8), dtype=np.uint8))
    nothing = pd.array([pd.NA] * 5, dtype="string")
    rows = {"particle_id": [f"p{i}" for i in range(5)], "label": nothing, "role": "core", "position": range(5)}
    return ParticleSet("plain", pd.DataFrame(rows), PixelStore([tmp_path / "pixels.npy"]), "print", tmp_path, True)


def test_clusters_become_labels_by_id_and_noise_none(tmp_path: Path) -> None:
    plain = unlabeled(tmp_path)
    backwards = pd.Series(["p4", "p3", "p2", "p1", "p0"])
    taught = labeled(plain, backwards, np.array([1, 0, -1, 1, 0]))
    assert taught.table["label"].fillna("none").tolist() == [
        "cluster 00",
        "cluster 01",
        "none",
        "cluster 00",
        "cluster 01",
    ]
    assert taught.table["role"].tolist() == ["labeled", "labeled", "core", "labeled", "labeled"]
    assert taught.classes == ["cluster 00", "cluster 01"]
    assert not plain.classes, "the set itself stays without labels"


def test_other_clusters_are_other_data(tmp_path: Path) -> None:
    plain, ids = unlabeled(tmp_path), pd.Series([f"p{i}" for i in range(5)])
    first, again, other = (labeled(plain, ids, np.array([0, 0, 1, 1, last])).fingerprint for last in (0, 0, 1))
    assert first == again
    assert len({first, other, plain.fingerprint}) == 3


def test_clusters_that_are_called_alike_are_one() -> None:
    clusters = np.array([0, 0, 1, 1, 2, 2, 2, -1])
    said = pd.Series(["seven", "seven", "two", "two", "seven", "two", "seven", "seven"])
    assert called_alike(clusters, said).tolist() == [0, 0, 1, 1, 0, 0, 0, -1]
    assert called_alike(clusters, pd.Series(list("aabbcccc"))).tolist() == [0, 0, 1, 1, 2, 2, 2, -1]
