"""Particles that were not fitted, placed among those that were: on the maps and in the groups of their neighbors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from clustering.groups import NOISE
from clustering.parts import Arrays, Rows, Vectors, over_rows
from provenance.engine import EngineSettings

NEIGHBORS = 10
"""Fitted particles that decide where one is placed."""


@dataclass(frozen=True)
class Placing:
    """Fitted particles; called, it gives what places others among them.

    The nearest fitted particles in the latent vote, the nearer the more, on the group; those that have won say where on
    the map. Neighbors are exact: an approximate search loses its way where a latent falls into separate clusters, and
    costs no less against a sample (docs/architecture.md).
    """

    z: np.ndarray
    """(F, D)."""
    groups: Mapping[str, np.ndarray]
    """By name (F,) cluster numbers; the last one decides the places."""
    points: Mapping[str, np.ndarray]
    """By name (F, ...) numbers to be averaged, such as places on a map."""

    def __call__(self) -> Rows:
        """Index the fitted."""
        index = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(self.z))).fit(self.z)

        def place(z: np.ndarray, _: slice) -> Arrays:
            distances, near = index.kneighbors(z)
            weights, found = closeness(distances), Arrays()
            for name, labels in self.groups.items():
                found[name], won = elected(labels[near], weights)
            for name, values in self.points.items():
                found[name] = weighted_mean(values[near], weights * won)
            return found

        return place


def placed(
    vectors: Vectors,
    fitted: np.ndarray,
    groups: Mapping[str, np.ndarray],
    points: Mapping[str, np.ndarray],
    where: EngineSettings,
    tick: Callable[[int], object] = int,
) -> tuple[Arrays, Arrays]:
    """What was found for the fitted particles, carried to all.

    Args:
        vectors: of all, (N, D).
        fitted: (N,) bool, F of them true.
        groups: as in `Placing`.
        points: as in `Placing`.
        where: who places.
        tick: told how many were placed.

    Returns:
        groups and points of all N, what was fitted unchanged.
    """
    rest = np.flatnonzero(~fitted)
    found = over_rows(vectors.at(rest), Placing(vectors.at(fitted).copied(), groups, points), where, "placing", tick)

    def whole(name: str, own: np.ndarray) -> np.ndarray:
        every = np.empty((len(vectors), *own.shape[1:]), own.dtype)
        every[fitted], every[rest] = own, found[name]
        return every

    return {name: whole(name, own) for name, own in groups.items()}, {n: whole(n, own) for n, own in points.items()}


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
