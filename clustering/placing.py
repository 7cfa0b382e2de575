"""Particles that were not fitted, placed among those that were: on the maps and in the groups of their neighbors."""

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.neighbors import NearestNeighbors

from clustering.groups import NOISE

NEIGHBORS = 10
"""Fitted particles that decide where one is placed."""
CHUNK = 50_000
"""Particles placed at once: memory has a bound, whatever the core's size."""


def placed(
    z: np.ndarray,
    fitted: np.ndarray,
    groups: Mapping[str, np.ndarray],
    points: Mapping[str, np.ndarray],
    tick: Callable[[int], object] = int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What was found for the fitted particles, carried to all.

    The nearest fitted particles in the latent vote, the nearer the more, on the group; those that have won say where on
    the map. Neighbors are exact: an approximate search loses its way where a latent falls into separate clusters, and
    costs no less against a sample (docs/scale.md).

    Args:
        z: (N, D) of all, may be memory-mapped.
        fitted: (N,) bool, F of them true.
        groups: by name (F,) cluster numbers; the last one decides the places.
        points: by name (F, ...) numbers to be averaged, such as places on a map.
        tick: told how many were placed.

    Returns:
        groups and points of all N, what was fitted unchanged.
    """
    everywhere = {name: np.empty(len(z), labels.dtype) for name, labels in groups.items()}
    means = {name: np.empty((len(z), *values.shape[1:]), values.dtype) for name, values in points.items()}
    for whole, part in [*((everywhere[n], groups[n]) for n in groups), *((means[n], points[n]) for n in points)]:
        whole[fitted] = part
    index = NearestNeighbors(n_neighbors=min(NEIGHBORS, int(fitted.sum()))).fit(np.asarray(z[fitted]))
    rest = np.flatnonzero(~fitted)
    for start in range(0, len(rest), CHUNK):
        rows = rest[start : start + CHUNK]
        distances, near = index.kneighbors(np.asarray(z[rows]))
        weights = closeness(distances)
        for name, labels in groups.items():
            everywhere[name][rows], won = elected(labels[near], weights)
        for name, values in points.items():
            means[name][rows] = weighted_mean(values[near], weights * won)
        tick(len(rows))
    return everywhere, means


def closeness(distances: np.ndarray) -> np.ndarray:
    """Weights of neighbors that fall with the distance, in units of their own mean distance: (n, k) -> (n, k)."""
    scale = distances.mean(axis=1, keepdims=True)
    return np.exp(-np.square(distances / np.where(scale > 0, scale, 1.0)))


def elected(labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The label with the most weight; of equals a cluster before noise, then the nearest neighbor's.

    Args:
        labels: (n, k) of neighbors, the nearest first.
        weights: (n, k).

    Returns:
        The labels (n,), and who has voted for them (n, k) bool.
    """
    votes = np.stack([(weights * (labels == one[:, None])).sum(axis=1) for one in labels.T], axis=1)
    votes = votes * np.where(labels == NOISE, 1 - 1e-9, 1.0)
    label = np.take_along_axis(labels, votes.argmax(axis=1)[:, None], axis=1)
    return label[:, 0], labels == label


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k, ...) values and (n, k) weights -> (n, ...)."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    return np.einsum("nk...,nk->n...", values, shares).astype(values.dtype)
