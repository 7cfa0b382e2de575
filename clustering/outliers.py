"""How strange is each particle? One column a score, higher = stranger."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from particles.latents import Latents

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


def latent_scores(
    core: Latents, reference: Latents, settings: OutlierSettings, seed: int, known: Latents | None = None
) -> pd.DataFrame:
    """The scores that need only vectors and losses.

    Args:
        core: the particles to judge, (N, D).
        reference: labeled particles that may be learned from, (M, D); may be empty.
        settings: neighbors and trees.
        seed: of the forest.
        known: labeled particles that nothing was learned from, (C, D), to be scored beside the core.

    Returns:
        N rows of the core, then C of the known: `knn`, `whitened`, `mahalanobis`, `isolation_forest`, and those of
        `PER_ROW` that the core has.
    """
    # The bulk is what the models learned from. A test split that plays the core is not part of it, or a novelty that
    # comes in hundreds would be its own nearest neighbor.
    learned = (core.index["split"] == "train").fillna(False).to_numpy(dtype=bool)
    if not learned.any() and len(reference) == 0:
        learned[:] = True  # nothing here was learned from: the core can only be compared with itself
    bulk = np.concatenate([core.z[learned], reference.z])
    labels = pd.concat([core.index["label"][learned], reference.index["label"]], ignore_index=True)
    judged = core if known is None else core.and_then(known)
    own = np.full(len(judged), -1)
    own[: len(core)][learned] = np.arange(learned.sum())
    scores = {
        "knn": knn_distance(judged.z, bulk, settings.k, own),
        "whitened": whitened_knn_distance(judged.z, bulk, settings.k, settings.components, own),
        "mahalanobis": mahalanobis(judged.z, bulk, labels),
        "isolation_forest": isolation(judged.z, bulk, settings.trees, seed),
    }
    own_scores = {name: judged.index[name].to_numpy() for name in PER_ROW if name in judged.index}
    # single precision, because the last bits of a double depend on how many threads have added up
    return pd.DataFrame(scores | own_scores).astype(np.float32)


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
    k = min(k, len(bulk) - 1)
    distances, rows = NearestNeighbors(n_neighbors=k + 1).fit(bulk).kneighbors(z)
    itself = rows == (np.arange(len(z)) if own is None else own)[:, None]
    # a point that is not in the bulk, or not found among its exact duplicates, drops its farthest neighbor instead
    itself[~itself.any(axis=1), -1] = True
    return distances[~itself].reshape(len(z), k).mean(axis=1)


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
    if not np.ptp(bulk, axis=0).any():
        return np.zeros(len(z))
    most = min(components, max(1, bulk.shape[1] // 2), len(bulk))
    pca = PCA(most, whiten=True, svd_solver="covariance_eigh").fit(bulk.astype(np.float64))
    varies = pca.explained_variance_ > 1e-9 * pca.explained_variance_[0]  # or whitening would blow up rounding
    white, white_bulk = (pca.transform(of.astype(np.float64))[:, varies].astype(np.float32) for of in (z, bulk))
    return knn_distance(white, white_bulk, k, own)


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
    z, bulk = z.astype(np.float64), bulk.astype(np.float64)
    known = labels.notna().to_numpy()
    if known.any():
        members, names = bulk[known], labels[known].to_numpy(dtype=str)
    else:
        members, names = bulk, np.full(len(bulk), "all")
    means = np.stack([members[names == name].mean(axis=0) for name in np.unique(names)])
    centered = members - means[np.searchsorted(np.unique(names), names)]
    if not centered.any():  # a collapsed latent: everybody is at the mean
        return np.zeros(len(z))
    precision = LedoitWolf(assume_centered=True).fit(centered).precision_
    root = np.linalg.cholesky((precision + precision.T) / 2)  # distances become Euclidean: |root.T (z - mean)|
    white, white_means = z @ root, means @ root
    return np.min([np.linalg.norm(white - mean, axis=1) for mean in white_means], axis=0)


def isolation(z: np.ndarray, bulk: np.ndarray, trees: int, seed: int) -> np.ndarray:
    """Isolation forest (Liu et al. 2008, doi:10.1109/ICDM.2008.17): (N, D) -> (N,), higher = stranger."""
    forest = IsolationForest(n_estimators=trees, random_state=seed).fit(bulk)
    return -forest.score_samples(z)
