"""Latent -> two dimensions that a person can look at."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from provenance.errors import UserError

FEWEST_POINTS = 10
"""Below this neither map means anything, and UMAP's spectral start fails."""
_PCA_DIMS = 40
"""HDBSCAN's and UMAP's authors advise to reduce wide data first; 40 keeps what a trained latent uses."""


@dataclass(frozen=True)
class MapSettings:
    """UMAP and t-SNE."""

    neighbors: int = 30
    """UMAP's neighborhood: more shows the large structure, fewer the fine."""
    min_dist: float = 0.0
    """UMAP: how close points may lie; 0 makes clusters tight, as clustering on the map wants."""
    perplexity: float = 30.0
    """t-SNE's neighborhood."""
    tsne: bool = True
    """--no-tsne saves its time."""
    map_seed: bool = True
    """--no-map-seed lets UMAP use all cores; the map then differs from run to run."""

    def __post_init__(self) -> None:
        if self.neighbors < 2:
            raise UserError(f"--neighbors {self.neighbors}: give at least 2")
        if not 0 <= self.min_dist <= 1:
            raise UserError(f"--min-dist {self.min_dist}: give a number from 0 to 1")
        if not 1 <= self.perplexity < float("inf"):
            raise UserError(f"--perplexity {self.perplexity}: give at least 1")


def reduced(z: np.ndarray) -> np.ndarray:
    """Wide latents to at most 40 principal components: (N, D) -> (N, min(D, 40)) float32."""
    dims = min(_PCA_DIMS, len(z) - 1)
    return np.asarray(z, dtype=np.float32) if z.shape[1] <= dims else _components(z, dims)


def _components(z: np.ndarray, n: int) -> np.ndarray:
    """Leading principal components: (N, D) -> (N, n) float32.

    Taken in float64 and rounded: the last bits of a matrix product depend on the number of threads, and UMAP and t-SNE
    make another map of another last bit.
    """
    return PCA(n, svd_solver="covariance_eigh").fit_transform(z.astype(np.float64)).astype(np.float32)


def umap_map(z: np.ndarray, settings: MapSettings, seed: int) -> np.ndarray:
    """UMAP (McInnes et al. 2018, arXiv:1802.03426).

    Args:
        z: (N, D).
        settings: neighborhood and spread.
        seed: used unless `settings.map_seed` is off; a seeded UMAP runs on one thread.

    Returns:
        (N, 2) float32.

    Raises:
        UserError: too few points.
    """
    _refuse_few(len(z), "UMAP")
    from umap import UMAP  # late: it compiles for seconds

    with warnings.catch_warnings(), _global_seed(seed):
        warnings.filterwarnings("ignore", message=".*n_jobs value.*")  # said in the docstring instead
        warnings.filterwarnings("ignore", message=".*spectral.*")
        reducer = UMAP(
            n_neighbors=min(settings.neighbors, len(z) - 1),
            min_dist=settings.min_dist,
            random_state=seed if settings.map_seed else None,
        )
        return np.asarray(reducer.fit_transform(reduced(z)), dtype=np.float32)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global state and put it back.

    Where the neighbor graph falls into pieces, umap-learn places them by the global state, whatever its own
    random_state is: without this, two maps of one seed differ.
    """
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def tsne_map(z: np.ndarray, settings: MapSettings, seed: int) -> np.ndarray:
    """t-SNE by openTSNE (Poličar et al. 2024, doi:10.18637/jss.v109.i03), started from PCA.

    Args:
        z: (N, D).
        settings: perplexity.
        seed: of the neighbor search.

    Returns:
        (N, 2) float32.

    Raises:
        UserError: too few points.
    """
    _refuse_few(len(z), "t-SNE")
    from openTSNE import TSNE, initialization

    perplexity = min(settings.perplexity, (len(z) - 1) / 3)
    wide = np.asarray(z, dtype=np.float64)
    start = initialization.rescale(_components(wide, 2).astype(np.float64)) if np.ptp(wide, axis=0).any() else "random"
    tsne = TSNE(perplexity=perplexity, initialization=start, random_state=seed, n_jobs=-1)
    return np.asarray(tsne.fit(reduced(z)), dtype=np.float32)


def _refuse_few(n: int, method: str) -> None:
    if n < FEWEST_POINTS:
        raise UserError(f"{n} particle(s) are too few for {method}, {FEWEST_POINTS} are needed: give a larger core")
