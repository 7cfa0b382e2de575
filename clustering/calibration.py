"""How often would a known particle look this strange? Conformal p-values, and how far down a list to trust it."""

import numpy as np
import pandas as pd

FALSE_DISCOVERY_RATE = 0.10
"""Share of known particles that is tolerated among what is called a discovery."""


def conformal_p_values(
    score: np.ndarray, known: np.ndarray, weight: np.ndarray | None = None, own_weight: np.ndarray | None = None
) -> np.ndarray:
    """Weighted share of known particles that are as strange or stranger, the particle itself counted among them.

    If a particle is drawn as the known ones were, its p-value is at most alpha with probability at most alpha (Vovk et
    al. 2005; Bates et al. 2023, doi:10.1214/22-AOS2244; weights: Tibshirani et al. 2019, arXiv:1904.06019, eq. 6).

    Args:
        score: (N,) of the particles to judge, higher = stranger.
        known: (M,) scores of particles that no model and no reference has seen.
        weight: (M,) how much each known particle counts; default 1.
        own_weight: (N,) the weight that each judged particle would have; default 1. Infinite where the known ones
            have none of its class: its p-value is 1, because nothing says what its like score.

    Returns:
        (N,) in (0, 1].
    """
    weight = np.ones(len(known)) if weight is None else weight
    own = np.ones(len(score)) if own_weight is None else own_weight
    order = np.argsort(known, kind="stable")
    # heaviness[i]: weight of everything from the i-th smallest score up
    heaviness = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
    as_strange = heaviness[np.searchsorted(known[order], score, side="left")]
    counts = np.isfinite(own)
    return np.divide(as_strange + own, heaviness[0] + own, out=np.ones(len(score)), where=counts)


def known_as_strange(score: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How many known particles are as strange or stranger: what a p-value rests on, before any weights.

    Args:
        score: (N,), higher = stranger.
        known: (M,).

    Returns:
        (N,) int64 in [0, M].
    """
    return len(known) - np.searchsorted(np.sort(known), score, side="left").astype(np.int64)


def class_weights(core: pd.Series, known: pd.Series) -> pd.Series:
    """How much a known particle of each class counts, so that the known ones have the mixture of the core.

    A labeled set is balanced, a core is nearly all dust.

    Args:
        core: (N,) predicted classes of the core.
        known: (M,) predicted classes of the known particles.

    Returns:
        By class, the share of the core over the share of the known: 0 for a class that only the known have, infinite
        for one that only the core has.
    """
    shares = pd.DataFrame({"core": core.value_counts(normalize=True), "known": known.value_counts(normalize=True)})
    return shares["core"].fillna(0.0) / shares["known"].fillna(0.0)


def discoveries(p_values: np.ndarray, rate: float = FALSE_DISCOVERY_RATE) -> np.ndarray:
    """Which particles to call new so that at most `rate` of them are expected to be known after all.

    Benjamini & Hochberg (1995, doi:10.1111/j.2517-6161.1995.tb02031.x): all up to the largest p-value that is at most
    `rate` times its rank over N. For conformal p-values of one calibration set it holds exactly (Bates et al. 2023);
    for weighted ones nearly (Jin & Candès 2023, arXiv:2307.09291, prune the list to have a proof;
    `benchmarks/calibration.py` measures). No p-value is smaller than a particle's own share of the weight, about
    1 / (M + 1): with M known particles, a core of N needs some N / (M rate) equally strange ones before any of them is
    a discovery.

    Args:
        p_values: (N,).
        rate: tolerated share.

    Returns:
        (N,) bool.
    """
    n = len(p_values)
    ordered = np.sort(p_values)
    within = np.flatnonzero(ordered <= rate * np.arange(1, n + 1) / n)
    return p_values <= ordered[within[-1]] if len(within) else np.zeros(n, dtype=bool)
