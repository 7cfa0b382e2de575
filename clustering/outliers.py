"""How strange is each particle? One column a score, higher = stranger, and one consensus over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from particles.latents import Latents

PER_ROW_LOSSES = ("reconstruction", "kl", "neg_elbo")
"""Index columns of an autoencoder's latents that are scores as they stand."""

WORDS = {
    "knn": "far from its nearest neighbors",
    "whitened": "unlike its neighbors in what seldom varies",
    "mahalanobis": "far from every known class",
    "hdbscan": "at the edge of its cluster",
    "isolation_forest": "easily isolated",
    "reconstruction": "badly reconstructed",
    "kl": "costly to encode",
    "neg_elbo": "improbable",
}
"""What a score says, in a reader's words."""

LATENT_WEIGHT = {"classifier": 1.0, "scalars": 1.0, "ae": 0.02, "vae": 0.02, "planar-vae": 0.02}
SCORE_WEIGHT = {
    "knn": 1.0,
    "whitened": 1.0,
    "mahalanobis": 0.5,
    "isolation_forest": 0.25,
    "hdbscan": 0.05,
    "reconstruction": 0.25,
    "kl": 0.1,
    "neg_elbo": 0.1,
}
"""How much a view and a score count in the consensus, by what they found on synthetic cores of seeds that no result is
reported on (docs/architecture.md, "The consensus")."""


@dataclass(frozen=True)
class OutlierSettings:
    """Outlier scores."""

    k: int = 20
    """Neighbors whose mean distance is the kNN score."""
    components: int = 32
    """Leading principal components that the whitened kNN score looks at; at most half the dimensions of a latent."""
    trees: int = 200
    """Trees of the isolation forest."""


def latent_scores(core: Latents, reference: Latents, settings: OutlierSettings, seed: int) -> pd.DataFrame:
    """The scores that need only vectors and losses.

    Args:
        core: the particles to judge, (N, D).
        reference: labeled particles that may be learned from, (M, D); may be empty.
        settings: neighbors and trees.
        seed: of the forest.

    Returns:
        N rows: `knn`, `whitened`, `mahalanobis`, `isolation_forest`, and those of `PER_ROW_LOSSES` that the core has.
    """
    # The bulk is what the models learned from. A test split that plays the core is not part of it, or a novelty that
    # comes in hundreds would be its own nearest neighbor.
    learned = (core.index["split"] == "train").fillna(False).to_numpy(dtype=bool)
    if not learned.any() and len(reference) == 0:
        learned[:] = True  # nothing here was learned from: the core can only be compared with itself
    bulk = np.concatenate([core.z[learned], reference.z])
    labels = pd.concat([core.index["label"][learned], reference.index["label"]], ignore_index=True)
    own = np.where(learned, np.cumsum(learned) - 1, -1)
    scores = {
        "knn": knn_distance(core.z, bulk, settings.k, own),
        "whitened": whitened_knn_distance(core.z, bulk, settings.k, settings.components, own),
        "mahalanobis": mahalanobis(core.z, bulk, labels),
        "isolation_forest": isolation(core.z, bulk, settings.trees, seed),
    }
    losses = {name: core.index[name].to_numpy() for name in PER_ROW_LOSSES if name in core.index}
    return pd.DataFrame(scores | losses)


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
    pca = PCA(most, whiten=True, svd_solver="covariance_eigh").fit(bulk)
    varies = pca.explained_variance_ > 1e-9 * pca.explained_variance_[0]  # or whitening would blow up rounding
    return knn_distance(pca.transform(z)[:, varies], pca.transform(bulk)[:, varies], k, own)


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


def rarity(score: np.ndarray) -> np.ndarray:
    """A score's rank as a share: (N,) -> (N,) in (0, 1); 0.99 means stranger than 99 % of the core."""
    return (rankdata(score) - 0.5) / len(score)


def consensus(scores: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One rank over all scores of all latents.

    Each score's rarity r becomes a surprise, -log10(1 - r), so that a particle in the top thousandth of one score
    counts more than one in the top third of many (Fisher's way to combine p-values); the consensus is the weighted
    mean of the surprises.

    Args:
        scores: for each latent a frame with `particle_id` and one column per score.

    Returns:
        A frame in the order of the first latent's rows: `particle_id`, `<latent>.<score>` rarities, `score` (mean
        surprise), `rank` (1 = strangest), `reasons`.
    """
    ids = next(iter(scores.values()))["particle_id"].reset_index(drop=True)
    rarities = pd.concat([_rarities(latent, frame, ids) for latent, frame in scores.items()], axis=1)
    weights = np.array([_weight(name) for name in rarities])
    shares = -np.log10(1 - rarities.to_numpy()) * weights / weights.sum()  # (N, scores), in what each contributes
    result = pd.concat([ids, rarities], axis=1)
    result["score"] = shares.sum(axis=1)
    result["rank"] = ranks(result["score"].to_numpy())
    columns = list(rarities)
    result["reasons"] = [reasons(columns, r, s) for r, s in zip(rarities.to_numpy(), shares, strict=True)]
    return result


def _weight(column: str) -> float:
    latent, score = column.split(".")
    return LATENT_WEIGHT.get(latent, 1.0) * SCORE_WEIGHT[score]


def _rarities(latent: str, frame: pd.DataFrame, ids: pd.Series) -> pd.DataFrame:
    ordered = frame.set_index("particle_id").loc[ids]  # joined by id, never by position
    return pd.DataFrame({f"{latent}.{name}": rarity(ordered[name].to_numpy()) for name in ordered})


def ranks(score: np.ndarray) -> np.ndarray:
    """1 = strangest; equal scores keep the order of the rows: (N,) -> (N,) int64."""
    order = np.argsort(-score, kind="stable")
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    return rank


def reasons(columns: Sequence[str], rarities: np.ndarray, shares: np.ndarray, most: int = 3) -> str:
    """The scores that put a particle where it is, the largest contribution first, in plain words.

    Args:
        columns: `<latent>.<score>` names, one a score.
        rarities: (scores,) share of the core that is less strange.
        shares: (scores,) what each score contributes to the consensus.
        most: how many reasons.
    """
    strongest = np.argsort(-shares, kind="stable")[:most]
    named = ((*columns[i].split("."), rarities[i]) for i in strongest)
    return "; ".join(f"{WORDS[score]} ({latent}, {_top(value)})" for latent, score, value in named)


def _top(value: float) -> str:
    share = 100 * (1 - value)
    return f"top {share:.2g} %" if share < 10 else f"top {share:.0f} %"
