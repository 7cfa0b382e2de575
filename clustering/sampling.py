"""Which particles are fitted when there are too many to fit all: a seeded sample with the mixture of the whole."""

import numpy as np
import pandas as pd


def stratified(strata: pd.Series, most: int, seed: int) -> np.ndarray:
    """A sample in which every stratum has its share of the whole.

    In proportion, not evenly: density is what clusters and outliers are made of, and an even sample would distort it.

    Args:
        strata: (N,) what each row is of; missing is a stratum too.
        most: size of the sample.
        seed: of the draw, which depends on it and on the order of the rows alone.

    Returns:
        (N,) bool with min(N, most) true.
    """
    n = len(strata)
    if n <= most:
        return np.ones(n, dtype=bool)
    numbers, _ = pd.factorize(strata, use_na_sentinel=False)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(n), numbers))  # stratum after stratum, each shuffled
    # every n/most-th of that row, from a random start: a stratum gets its share, rounded up or down by chance
    chosen = np.zeros(n, dtype=bool)
    chosen[order[((np.arange(most) + rng.random()) * (n / most)).astype(np.int64)]] = True
    return chosen
