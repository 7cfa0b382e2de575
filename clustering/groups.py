"""Vectors -> groups. Noise is -1 and stays -1."""

from dataclasses import dataclass

import hdbscan
import numpy as np
from sklearn.cluster import DBSCAN, KMeans
from sklearn.neighbors import NearestNeighbors

from provenance.errors import UserError

NOISE = -1


@dataclass(frozen=True)
class GroupSettings:
    """KMeans, DBSCAN and HDBSCAN."""

    n_clusters: int | None = None
    """KMeans: number of clusters; default the number of known classes."""
    eps: float | None = None
    """DBSCAN: radius on the map; default the knee of the k-distance curve."""
    min_samples: int = 10
    """DBSCAN and HDBSCAN: neighbors that make a point dense."""
    min_cluster_size: int | None = None
    """HDBSCAN: smallest group; default 1 % of the points, at least 10."""

    def __post_init__(self) -> None:
        least = {"n_clusters": 1, "min_samples": 1, "min_cluster_size": 2}
        for name, bound in least.items():
            if getattr(self, name) is not None and getattr(self, name) < bound:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least {bound}")
        if self.eps is not None and not 0 < self.eps < float("inf"):
            raise UserError(f"--eps {self.eps}: give a radius above 0, or none for the knee of the curve")


@dataclass(frozen=True)
class HdbscanGroups:
    """`labels` (N,) with -1 for noise, and GLOSH outlier scores (N,) in [0, 1]."""

    labels: np.ndarray
    outlier_scores: np.ndarray


def kmeans(xy: np.ndarray, n: int, seed: int) -> np.ndarray:
    """KMeans with 10 starts: (N, D) -> (N,) labels from 0.

    Raises:
        UserError: fewer points than clusters.
    """
    if len(xy) < n:
        raise UserError(f"KMeans: {n} clusters need at least {n} particles, there are {len(xy)}: give --n-clusters")
    return KMeans(n, n_init=10, random_state=seed).fit_predict(xy)


def knee_eps(xy: np.ndarray, k: int) -> float:
    """DBSCAN's radius from the k-distance curve (Ester et al. 1996, section 4.2).

    The curve is sorted upward; its knee is the point farthest below the chord between its ends
    (Satopaa et al. 2011, "Kneedle", doi:10.1109/ICDCSW.2011.20). The last percent is left out of the chord, because
    one far outlier would stretch it.

    Args:
        xy: (N, D).
        k: neighbor whose distance is taken.

    Returns:
        The distance at the knee.
    """
    distance = np.sort(NearestNeighbors(n_neighbors=k + 1).fit(xy).kneighbors(xy)[0][:, k])
    curve = distance[: max(2, int(len(distance) * 0.99))]
    along = np.linspace(0, 1, len(curve))
    height = (curve - curve[0]) / max(curve[-1] - curve[0], np.finfo(float).tiny)
    knee = float(curve[np.argmax(along - height)])
    return knee if knee > 0 else float(np.finfo(np.float32).eps)


def dbscan(xy: np.ndarray, settings: GroupSettings) -> tuple[np.ndarray, float]:
    """DBSCAN: (N, D) -> (N,) labels with -1 for noise, and the radius used.

    Raises:
        UserError: fewer points than neighbors asked for.
    """
    _refuse_few(len(xy), settings.min_samples + 1, "DBSCAN")
    eps = settings.eps or knee_eps(xy, settings.min_samples)
    return DBSCAN(eps=eps, min_samples=settings.min_samples).fit_predict(xy), eps


def hdbscan_groups(xy: np.ndarray, settings: GroupSettings) -> HdbscanGroups:
    """HDBSCAN* with GLOSH outlier scores (Campello et al. 2015, doi:10.1145/2733381).

    Args:
        xy: (N, D), D small.
        settings: sizes.

    Raises:
        UserError: too few points.
    """
    _refuse_few(len(xy), settings.min_samples + 1, "HDBSCAN")
    smallest = settings.min_cluster_size or max(10, len(xy) // 100)
    # approx_min_span_tree=False: the approximate tree is not repeatable
    model = hdbscan.HDBSCAN(
        min_cluster_size=smallest,
        min_samples=settings.min_samples,
        approx_min_span_tree=False,
        core_dist_n_jobs=1,
    )
    labels = model.fit_predict(np.asarray(xy, dtype=np.float64))
    return HdbscanGroups(labels, np.nan_to_num(model.outlier_scores_, nan=0.0))


def _refuse_few(n: int, needed: int, method: str) -> None:
    if n < needed:
        raise UserError(f"{n} particle(s) are too few for {method}, {needed} are needed: lower --min-samples")
