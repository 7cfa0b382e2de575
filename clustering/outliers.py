"""How strange is each particle? One column a score, higher = stranger."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from clustering.parts import HERE, Arrays, Rows, Vectors, in_memory, over_rows
from particles.latents import Latents
from provenance.engine import EngineSettings
from provenance.errors import UserError

PER_ROW = ("neg_max_logit", "reconstruction", "kl", "neg_elbo")
"""Index columns of latents that are scores as they stand: the first of the classifier (Vaze et al. 2022,
arXiv:2110.06207), the others of autoencoders."""


@dataclass(frozen=True)
class OutlierSettings:
    """Outlier scores."""

    k: int = 20
    """Neighbors whose mean distance is the kNN score."""
    components: int = 32
    """Leading principal components that the whitened kNN score looks at; at most half the dimensions of a latent."""
    trees: int = 200
    """Trees of the isolation forest."""

    def __post_init__(self) -> None:
        for name in ("k", "components", "trees"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give at least 1")


Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Fitted on a bulk: (n, D) particles, and (n,) each one's own row of the bulk or -1 -> (n,) score."""


def latent_scores(
    core: Latents,
    reference: Latents,
    settings: OutlierSettings,
    seed: int,
    known: Latents | None = None,
    fitted: np.ndarray | None = None,
    where: EngineSettings = HERE,
    vectors: Vectors | None = None,
    tick: Callable[[int], object] = int,
) -> pd.DataFrame:
    """The scores that need only vectors and losses.

    Args:
        core: the particles to judge, (N, D).
        reference: labeled particles that may be learned from, (M, D); may be empty.
        settings: neighbors and trees.
        seed: of the forest.
        known: labeled particles that nothing was learned from, (C, D), to be scored beside the core.
        fitted: (N,) bool, those of the core that the bulk is made of; default all.
        where: who scores the core.
        vectors: those of the core, where other processes are to find them.
        tick: told how many were scored.

    Returns:
        N rows of the core, then C of the known: `knn`, `cosine`, `whitened`, `mahalanobis`, `isolation_forest`, and
        those of `PER_ROW` that the core has.

    Raises:
        UserError: fewer than two particles to compare with.
    """
    # The bulk is what the models learned from. A test split that plays the core is not part of it, or a novelty that
    # comes in hundreds would be its own nearest neighbor.
    learned = (core.index["split"] == "train").fillna(False).to_numpy(dtype=bool)
    if not learned.any() and len(reference) == 0:
        # nothing here was learned from: the core can only be compared with itself
        learned = np.ones(len(core.z), dtype=bool)
    learned = learned if fitted is None else learned & fitted
    bulk = np.concatenate([core.z[learned], reference.z])
    if len(bulk) < 2:
        raise UserError(f"{len(bulk)} particle(s) to compare with: no particle has a neighbor; give a larger set")
    labels = pd.concat([core.index["label"][learned], reference.index["label"]], ignore_index=True)
    own = np.where(learned, np.cumsum(learned) - 1, -1)
    scoring = Scoring(bulk, labels, own, settings, seed)
    parts = [_with_own_scores(core, over_rows(vectors or in_memory(core.z), scoring, where, "scoring", tick))]
    if known is not None and len(known):
        strangers = replace(scoring, own=np.full(len(known), -1))  # to the bulk
        parts.append(_with_own_scores(known, over_rows(in_memory(known.z), strangers, HERE, "scoring", tick)))
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Scoring:
    """What particles are compared with; called, it gives what scores them."""

    bulk: np.ndarray
    """(M, D)."""
    labels: pd.Series
    """(M,) class names, missing where unknown."""
    own: np.ndarray
    """(N,) each particle's own row of the bulk, -1 where it has none."""
    settings: OutlierSettings
    seed: int

    def __call__(self) -> Rows:
        """Fit every score on the bulk."""
        scorers = {
            "knn": knn_scorer(self.bulk, self.settings.k),
            "cosine": cosine_scorer(self.bulk, self.settings.k),
            "whitened": whitened_scorer(self.bulk, self.settings.k, self.settings.components),
            "mahalanobis": mahalanobis_scorer(self.bulk, self.labels),
            "isolation_forest": isolation_scorer(self.bulk, self.settings.trees, self.seed),
        }
        # single precision, because the last bits of a double depend on how many threads have added up
        return lambda z, step: {name: score(z, self.own[step]).astype(np.float32) for name, score in scorers.items()}


def _with_own_scores(judged: Latents, found: Arrays) -> pd.DataFrame:
    own = {name: judged.index[name].to_numpy(np.float32) for name in PER_ROW if name in judged.index}
    return pd.DataFrame(found | own)


def knn_distance(z: np.ndarray, bulk: np.ndarray, k: int, own: np.ndarray | None = None) -> np.ndarray:
    """Mean Euclidean distance to the k nearest others (Ramaswamy et al. 2000, doi:10.1145/342009.335437).

    Args:
        z: (N, D).
        bulk: (M, D).
        k: neighbors; fewer where there are not so many.
        own: (N,) each point's own row of `bulk`, which is not its neighbor, -1 where it has none; by default z is the
            first N rows of `bulk`.

    Returns:
        (N,).
    """
    return knn_scorer(bulk, k)(z, np.arange(len(z)) if own is None else own)


def knn_scorer(bulk: np.ndarray, k: int) -> Scorer:
    """`knn_distance` fitted on a bulk (M, D)."""
    k = min(k, len(bulk) - 1)
    index = NearestNeighbors(n_neighbors=k + 1).fit(bulk)

    def score(z: np.ndarray, own: np.ndarray) -> np.ndarray:
        distances, rows = index.kneighbors(z)
        itself = rows == own[:, None]
        # a point that is not in the bulk, or not found among its exact duplicates, drops its farthest neighbor instead
        itself[~itself.any(axis=1), -1] = True
        return distances[~itself].reshape(len(z), k).mean(axis=1)

    return score


def cosine_knn_distance(z: np.ndarray, bulk: np.ndarray, k: int, own: np.ndarray | None = None) -> np.ndarray:
    """`knn_distance` of directions, each vector scaled to length one (Sun et al. 2022, arXiv:2204.06507, section 3).

    How far a vector goes out is much of what tells the bold from the faint of one kind, and long vectors lie far from
    each other whatever they show; which way they point tells the kinds apart.

    Args:
        z: (N, D).
        bulk: (M, D).
        k: neighbors.
        own: as in `knn_distance`.

    Returns:
        (N,) in [0, 2]; a zero vector has no direction and stays zero, 1 from all others.
    """
    return cosine_scorer(bulk, k)(z, np.arange(len(z)) if own is None else own)


def cosine_scorer(bulk: np.ndarray, k: int) -> Scorer:
    """`cosine_knn_distance` fitted on a bulk (M, D)."""
    near = knn_scorer(normalize(bulk), k)
    return lambda z, own: near(normalize(z), own)


def whitened_knn_distance(
    z: np.ndarray, bulk: np.ndarray, k: int, components: int, own: np.ndarray | None = None
) -> np.ndarray:
    """`knn_distance` where all leading principal components of the bulk weigh alike.

    What tells the classes apart makes up most of a classifier's variance, and of its plain distances. What is new
    often differs in a direction that varies little among the known.

    Args:
        z: (N, D).
        bulk: (M, D); its principal components are taken.
        k: neighbors.
        components: how many; at most D / 2, because the last ones are noise.
        own: as in `knn_distance`.

    Returns:
        (N,); zero if the bulk does not vary.
    """
    return whitened_scorer(bulk, k, components)(z, np.arange(len(z)) if own is None else own)


def whitened_scorer(bulk: np.ndarray, k: int, components: int) -> Scorer:
    """`whitened_knn_distance` fitted on a bulk (M, D)."""
    if not np.ptp(bulk, axis=0).any():
        return lambda z, own: np.zeros(len(z))
    most = min(components, max(1, bulk.shape[1] // 2), len(bulk))
    pca = PCA(most, whiten=True, svd_solver="covariance_eigh").fit(bulk.astype(np.float64))
    varies = pca.explained_variance_ > 1e-9 * pca.explained_variance_[0]  # or whitening would blow up rounding

    def white(z: np.ndarray) -> np.ndarray:
        return np.asarray(pca.transform(z.astype(np.float64))[:, varies], dtype=np.float32)

    near = knn_scorer(white(bulk), k)
    return lambda z, own: near(white(z), own)


def mahalanobis(z: np.ndarray, bulk: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Distance to the nearest class, all classes sharing one covariance (Lee et al. 2018, arXiv:1807.03888, eq. 2).

    The covariance is shrunk (Ledoit & Wolf 2004), because a latent may have unused dimensions. Without labels the
    whole bulk is one class.

    Args:
        z: (N, D).
        bulk: (M, D).
        labels: (M,) class names, missing where unknown.

    Returns:
        (N,).
    """
    return mahalanobis_scorer(bulk, labels)(z, np.full(len(z), -1))


def mahalanobis_scorer(bulk: np.ndarray, labels: pd.Series) -> Scorer:
    """`mahalanobis` fitted on a bulk (M, D) with labels (M,)."""
    bulk = bulk.astype(np.float64)
    known = labels.notna().to_numpy()
    if known.any():
        members, names = bulk[known], labels[known].to_numpy(dtype=str)
    else:
        members, names = bulk, np.full(len(bulk), "all")
    means = np.stack([members[names == name].mean(axis=0) for name in np.unique(names)])
    centered = members - means[np.searchsorted(np.unique(names), names)]
    if not centered.any():  # a collapsed latent: everybody is at the mean
        return lambda z, own: np.zeros(len(z))
    precision = LedoitWolf(assume_centered=True).fit(centered).precision_
    root = np.linalg.cholesky((precision + precision.T) / 2)  # distances become Euclidean: |root.T (z - mean)|
    white_means = means @ root

    def score(z: np.ndarray, own: np.ndarray) -> np.ndarray:
        white = z.astype(np.float64) @ root
        return np.asarray(np.min([np.linalg.norm(white - mean, axis=1) for mean in white_means], axis=0))

    return score


def isolation(z: np.ndarray, bulk: np.ndarray, trees: int, seed: int) -> np.ndarray:
    """Isolation forest (Liu et al. 2008, doi:10.1109/ICDM.2008.17): (N, D) -> (N,), higher = stranger."""
    return isolation_scorer(bulk, trees, seed)(z, np.full(len(z), -1))


def isolation_scorer(bulk: np.ndarray, trees: int, seed: int) -> Scorer:
    """`isolation` fitted on a bulk (M, D)."""
    forest = IsolationForest(n_estimators=trees, random_state=seed).fit(bulk)
    return lambda z, own: -forest.score_samples(z)
