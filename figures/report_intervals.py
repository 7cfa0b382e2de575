"""How sure a quality of a ranking is: AUROC, average precision and recall_at_n with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

COVERAGE = 0.95
REPLICATES = 1000
_FEWEST = 200  # replicates of a very large core: a percentile of fewer says nothing
_MOST_DRAWN = 200_000_000  # particles drawn in all replicates together: about half a minute


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that holds 95 % of its bootstrap replicates."""

    value: float
    low: float
    high: float


class Ranking:
    """A ranking sorted once, so that each replicate of the bootstrap takes one pass and no sorting."""

    def __init__(self, strange: np.ndarray, score: np.ndarray) -> None:
        """Sort.

        Args:
            strange: (N,) bool, who is an outlier.
            score: (N,), higher is stranger.
        """
        # among equal scores the others come first, so that a constant score earns nothing in recall_at_n
        self._order = np.lexsort((strange, -score))
        self._strange, ordered = strange[self._order], score[self._order]
        self._starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))

    def measures(self, weight: np.ndarray) -> tuple[float, float, float]:
        """AUROC, average precision and recall_at_n where particle i stands `weight[i]` times; NaN where undefined."""
        w = weight[self._order].astype(float)
        outliers = w * self._strange
        n_outliers, n_others = outliers.sum(), w.sum() - outliers.sum()
        if n_outliers == 0 or n_others == 0:
            return np.nan, np.nan, np.nan
        # by groups of equal score, strangest first
        up, down = (np.add.reduceat(v, self._starts) for v in (outliers, w - outliers))
        below = n_others - np.cumsum(down) + down / 2  # ties count half
        seen = np.maximum(np.cumsum(up + down), 1e-300)  # the first groups may have been drawn no time
        taken = np.clip(n_outliers - (np.cumsum(w) - w), 0, w)  # of the first n
        return (
            float((up * below).sum() / (n_outliers * n_others)),
            float((up * np.cumsum(up) / seen).sum() / n_outliers),
            float((taken * self._strange).sum() / n_outliers),
        )


def estimates(is_outlier: pd.Series, score: np.ndarray, seed: int) -> dict[str, Estimate] | None:
    """Quality of a ranking where it is known who is an outlier, with percentile bootstrap intervals over particles.

    Particles are drawn with replacement (Efron & Tibshirani 1993, chapter 13); draws without an outlier, or of
    outliers alone, are left out. The intervals hold what another core of the same kind would change, not what
    another training would.

    Args:
        is_outlier: (N,) nullable bool.
        score: (N,), higher is stranger.
        seed: of the draws.

    Returns:
        `auroc`, `average_precision`, `recall_at_n`; None where there is no truth.
    """
    known = is_outlier.notna().to_numpy() & np.isfinite(score)
    strange = is_outlier[known].to_numpy(dtype=bool)
    if not strange.any() or strange.all():
        return None
    ranking, n, rng = Ranking(strange, score[known]), len(strange), np.random.default_rng(seed)
    drawn = np.array([ranking.measures(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(replicates(n))])
    tail = 50 * (1 - COVERAGE)
    low, high = np.nanpercentile(drawn, [tail, 100 - tail], axis=0)
    names = ("auroc", "average_precision", "recall_at_n")
    values = ranking.measures(np.ones(n))
    return {name: Estimate(*map(float, found)) for name, *found in zip(names, values, low, high, strict=True)}


def replicates(n: int) -> int:
    """How many replicates of n particles are affordable."""
    return int(np.clip(_MOST_DRAWN // n, _FEWEST, REPLICATES))
