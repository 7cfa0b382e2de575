"""Do the latents agree? How alike their rankings, groups and neighborhoods are, and how far each map can be trusted."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from clustering.groups import NOISE
from particles.latents import read_latents
from particles.table import read_parquet
from provenance.files import write_json
from provenance.run import Run

SAMPLE = 3_000
"""Core particles whose neighborhoods are compared, each with the others of the sample: the cost has a bound."""
NEIGHBORS = 15
TOP = 100
"""How many of the strangest are compared; of a core below 1,000 a tenth."""
FOUND_SHARE = 0.01
"""A latent finds a particle if it ranks it among this share of the core, by its own combined score."""
_MAPS = {"umap": ["umap_x", "umap_y"], "tsne": ["tsne_x", "tsne_y"]}


def n_found(n: int) -> int:
    """How many of a core of n particles each latent finds: the strangest 1 %, rounded up."""
    return ceil(FOUND_SHARE * n)


def found_in(ranks: pd.DataFrame) -> pd.Series:
    """In how many latents a particle is found, that is among the strangest 1 %.

    Args:
        ranks: (N, L) rank of each particle in each latent, 1 = strangest, indexed by particle_id.

    Returns:
        (N,) int, 0 to L, by particle_id.
    """
    return (ranks <= n_found(len(ranks))).sum(axis=1).rename("found_in")


def rank_correlation(scores: pd.DataFrame) -> np.ndarray:
    """Spearman's correlation between columns: (N, L) -> (L, L); NaN where a column does not vary."""
    return scores.corr(method="spearman").to_numpy()


def top_overlap(ranks: pd.DataFrame, top: int) -> np.ndarray:
    """Share of the first `top` that two latents have in common: (N, L) ranks -> (L, L). By chance it is top / N."""
    first = (ranks <= top).to_numpy(dtype=float)
    return first.T @ first / top


def group_agreement(groups: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted Rand index (Hubert & Arabie 1985) between clusterings, of the particles that neither calls noise.

    Noise is no group: as one it would make two latents agree in what they cannot tell. What is left out is told by
    the share that was compared.

    Args:
        groups: (N, L) cluster numbers, -1 for noise.

    Returns:
        The index (L, L), NaN where either has fewer than two groups among those compared; the shares (L, L).
    """
    numbers = groups.to_numpy()
    index = np.full((numbers.shape[1],) * 2, np.nan)
    shares = np.zeros_like(index)
    for i, j in np.ndindex(*index.shape):
        one, other = numbers[(numbers[:, [i, j]] != NOISE).all(axis=1)][:, [i, j]].T
        shares[i, j] = len(one) / len(numbers)
        if min(len(np.unique(one)), len(np.unique(other))) > 1:
            index[i, j] = adjusted_rand_score(one, other)
    return index, shares


def neighbor_overlap(vectors: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Mean share of a particle's k nearest that two latents have in common. By chance it is k / (N - 1).

    Args:
        vectors: L times (N, D), the same particles in the same order; D may differ.
        k: neighbors, below N.

    Returns:
        (L, L).
    """
    n = len(vectors[0])
    near = np.zeros((len(vectors), n, n), dtype=bool)
    for is_near, z in zip(near, vectors, strict=True):
        # without an argument a point is not its own neighbor
        rows = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(return_distance=False)
        np.put_along_axis(is_near, rows, True, axis=1)
    return np.array([[np.count_nonzero(one & other) for other in near] for one in near]) / (n * k)


def neighbors_for(n: int) -> int:
    """How many neighbors are compared among n particles: 15, and below half of the others where there are few.

    With more, neighborhoods would overlap by necessity, and trustworthiness is not defined.
    """
    return min(NEIGHBORS, (n - 1) // 2)


def sampled(ids: pd.Index, seed: int, most: int = SAMPLE) -> pd.Index:
    """At most `most` ids, sorted; the same ones whatever order the rows come in."""
    ordered = ids.sort_values()
    if len(ordered) <= most:
        return ordered
    return ordered[np.sort(np.random.default_rng(seed).choice(len(ordered), most, replace=False))]


def agreement(
    scored: Mapping[str, pd.DataFrame], grouped: Mapping[str, pd.DataFrame], mapped: Mapping[str, pd.DataFrame],
    vectors: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:  # fmt: skip
    """All that is compared between latents, as plain values; a square matrix in the order of `latents` each.

    Args:
        scored: by latent `score` and `rank` of its own, indexed by particle_id.
        grouped: by latent `kmeans` and `hdbscan`.
        mapped: by latent the coordinates of its maps.
        vectors: by latent the vectors of a sample of the core, in the same order of ids.
    """
    scores, ranks = (_side_by_side(scored, name) for name in ("score", "rank"))
    groups = {method: group_agreement(_side_by_side(grouped, method)) for method in ("kmeans", "hdbscan")}
    sample, n = next(iter(vectors.values())).index, len(scores)
    k, top = neighbors_for(len(sample)), min(TOP, ceil(n / 10))
    counts = found_in(ranks).value_counts()
    arrays = {name: frame.to_numpy() for name, frame in vectors.items()}
    return {
        "latents": list(scored), "n": n, "top": top, "found": n_found(n), "sample": len(sample), "neighbors": k,
        "found_in": [int(counts.get(number, 0)) for number in range(len(scored) + 1)],
        "rank_correlation": _plain(rank_correlation(scores)),
        "top_overlap": _plain(top_overlap(ranks, top)),
        "kmeans_ari": _plain(groups["kmeans"][0]),
        "hdbscan_ari": _plain(groups["hdbscan"][0]), "hdbscan_compared": _plain(groups["hdbscan"][1]),
        "neighbor_overlap": _plain(neighbor_overlap(list(arrays.values()), k)),
        "trustworthiness": {name: _trust(z, mapped[name].loc[sample], k) for name, z in arrays.items()},
    }  # fmt: skip


def write_agreement(run: Run, done: Sequence[Run], latents: Sequence[Run], seed: int) -> None:
    """Compare the latents of a consensus with each other; one alone has nothing to be compared with.

    Args:
        run: the `consensus` run; gets agreement.json.
        done: the `clusters-<latent>` runs.
        latents: the runs that hold their vectors, in the same order.
        seed: of the sample.
    """
    if len(done) < 2:
        return
    scored, grouped, mapped = (
        {latent.kind: read_parquet(of.path / f"{name}.parquet").set_index("particle_id")
         for latent, of in zip(latents, done, strict=True)}
        for name in ("outliers", "clusters", "maps")
    )  # fmt: skip
    ids = sampled(scored[latents[0].kind].index, seed)
    vectors = {latent.kind: pd.DataFrame(read_latents(latent.path).of(ids), index=ids) for latent in latents}
    write_json(run.path / "agreement.json", agreement(scored, grouped, mapped, vectors))


def _side_by_side(frames: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """One column of each latent, joined by id, never by position."""
    return pd.concat({name: frame[column] for name, frame in frames.items()}, axis=1, join="inner").sort_index()


def _trust(z: np.ndarray, maps: pd.DataFrame, k: int) -> dict[str, float | None]:
    """Trustworthiness of each map (Venna & Kaski 2001): are neighbors on it neighbors in the latent?"""
    there = {name: axes for name, axes in _MAPS.items() if axes[0] in maps}
    return {name: float(trustworthiness(z, maps[axes].to_numpy(), n_neighbors=k)) for name, axes in there.items()}


def _plain(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
